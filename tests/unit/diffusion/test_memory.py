"Memory counted without a GPU: published numbers of weights, tensors that autograd really saves"

import pytest
import torch

from fairparse.core.runs import InputError
from fairparse.diffusion.memory import (
    CARDS,
    IDLE,
    build_meta,
    memory_recipes,
    saved_bytes,
    training_memory,
)

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
}
TEXT = (5, 16)


def test_the_published_numbers_of_weights():
    unet, controlnet = build_meta()
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in controlnet.parameters()) == 361_279_120
    assert all(p.is_meta for net in (unet, controlnet) for p in net.parameters())
    assert not any(p.requires_grad for p in unet.parameters())
    assert all(p.requires_grad for p in controlnet.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_is_counted_is_what_autograd_saves(batch_size, checkpointing):
    "A real step on the CPU, its tensors told apart by the address of their memory"
    from diffusers import ControlNetModel, UNet2DConditionModel

    meta = build_meta(UNET)
    unet = UNet2DConditionModel(**UNET).requires_grad_(False)
    nets = unet, ControlNetModel.from_unet(unet)
    for net in (*meta, *nets):
        net.train()
        if checkpointing:
            net.enable_gradient_checkpointing()
    weights, kept = {p.data_ptr() for net in nets for p in net.parameters()}, {}

    def keep(tensor):
        start = tensor.untyped_storage().data_ptr()
        if start not in weights:
            kept[start] = tensor.untyped_storage()  # held, so that the address stays taken
        return tensor

    side, inputs = (
        8,
        (
            torch.randn(batch_size, 4, 8, 8),
            torch.arange(batch_size),
            torch.randn(batch_size, *TEXT),
        ),
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        added, middle = nets[1](*inputs, torch.rand(batch_size, 3, 64, 64), return_dict=False)
        unet(
            *inputs, down_block_additional_residuals=added, mid_block_additional_residual=middle
        ).sample.sum()
    assert (
        saved_bytes(*meta, batch_size, side, TEXT)
        == sum(storage.nbytes() for storage in kept.values())
        > 0
    )


def test_activations_are_linear_in_the_batch_and_fewer_with_checkpointing():
    def activations(batch_size, **options):
        return training_memory(batch_size, 64, unet=UNET, text=TEXT, **options)["activations"]

    one, two, four = (activations(n) for n in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)
    assert two == pytest.approx(2 * one, rel=0.02)
    assert 0 < activations(1, checkpointing=True) < one
    assert activations(4, checkpointing=True) < four
    assert training_memory(1, 128, unet=UNET, text=TEXT)["activations"] > 3 * one


def test_weights_gradients_and_moments_by_hand():
    unet, controlnet = (sum(p.numel() for p in net.parameters()) for net in build_meta(UNET))
    for bits, moments in ((32, 8), (8, 2)):
        memory = training_memory(1, 64, adam_bits=bits, unet=UNET, text=TEXT)
        assert {
            k: round(v * 1e9)
            for k, v in memory.items()
            if k not in ("activations", "total", "idle")
        } == {
            "unet": 2 * unet,
            "controlnet": 6 * controlnet,
            "gradients": 4 * controlnet,
            "optimiser": moments * controlnet,
        }
        assert memory["total"] == pytest.approx(sum(v for k, v in memory.items() if k != "total"))


def test_recipes_name_a_card_with_a_fifth_to_spare():
    recipes = memory_recipes((1, 4))
    assert len(recipes) == 8 and set(recipes.optimizer) == {"adamw", "adamw8bit"}
    for row in recipes.itertuples():
        cards = [card for card in CARDS if row.total <= 0.8 * card]
        assert row.fits == (f"{cards[0]} GB" if cards else f"more than {CARDS[-1]} GB")
    rows = recipes.set_index(["batch_size", "checkpointing", "optimizer"]).total
    assert (
        rows[1, True, "adamw8bit"]
        < rows[1, True, "adamw"]
        < rows[4, True, "adamw"]
        < rows[4, False, "adamw"]
    )
    kept = recipes.set_index(["batch_size", "checkpointing", "optimizer"]).activations
    assert kept[4, True, "adamw"] < 0.4 * kept[4, False, "adamw"]
    assert kept[4, False, "adamw"] == pytest.approx(4 * kept[1, False, "adamw"], rel=0.01)
    assert rows[1, True, "adamw"] == pytest.approx(
        (2 * 859520964 + (6 + 4 + 8) * 361279120) / 1e9 + recipes.idle[0], rel=0.1
    )  # nearly all of it are weights


def test_the_idle_parts_are_those_of_stable_diffusion():
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                max_position_embeddings=77,
            )
        )
    assert sum(p.numel() for net in (vae, text) for p in net.parameters()) == IDLE
    assert training_memory(1, 64, unet=UNET, text=TEXT)["idle"] == 4 * IDLE / 1e9


@pytest.mark.parametrize("size", [100, 8, 500])
def test_sizes_that_do_not_halve_evenly(size):
    with pytest.raises(InputError, match=f"pictures of {size} pixels: use a multiple of 64"):
        training_memory(1, size, unet=UNET, text=TEXT)


def test_other_moments_than_those_there_are():
    with pytest.raises(InputError, match="adam_bits must be 8 or 32, not 16"):
        training_memory(1, 64, adam_bits=16, unet=UNET, text=TEXT)
