"Faces from ControlNets, and the one interface for all painters"

import inspect
import re

import diffusers
import numpy as np
import pandas as pd
import pytest
import torch
from diffusion_helpers import (
    index_of,
    micro_base,
    micro_controlnet,
    purpose_of,
    random_maps,
    write_micro,
)
from PIL import Image
from torch.nn import functional as F

from fairparse.core.runs import InputError
from fairparse.data.labels import CLASSES, colour_labels
from fairparse.data.worlds import render_faces
from fairparse.diffusion.cache import resize_images
from fairparse.diffusion.controlnet import (
    encode_prompts,
    load_base,
    load_controlnet,
    pick_palette,
    save_controlnet,
)
from fairparse.diffusion.sample import (
    SAMPLERS,
    ControlNetPainter,
    SamplingConfig,
    copy_network,
    draw_sheet,
    load_painter,
    make_scheduler,
    noise_seed,
)
from fairparse.gan.pix2pixhd import Generator, GeneratorSpec, load_generator, save_generator
from fairparse.gan.train import paint
from fairparse.quality.painters import (
    CONTROLNET_FILES,
    GENERATOR_FILES,
    Painter,
    controlnet_painter,
    gan_painter,
    paint_faces,
)

FEW = {"steps": 3}
MAPS, INDEX = random_maps(5), index_of(5, Male=pd.array([1, 0, 1, pd.NA, 0], "Int8"))


@pytest.fixture(scope="module")
def base():
    return micro_base()


@pytest.fixture(scope="module")
def controlnet(base):
    return micro_controlnet(base).eval()


@pytest.fixture
def painter(base, controlnet):
    return lambda prompt="a photo of a face", size=None, **sampling: ControlNetPainter(
        base, controlnet, pick_palette("face"), prompt, size, SamplingConfig(**{**FEW, **sampling})
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    "A base and a ControlNet in folders"
    source, out = (
        write_micro(tmp_path_factory.mktemp("base")),
        tmp_path_factory.mktemp("controlnet"),
    )
    base = load_base(str(source))
    save_controlnet(micro_controlnet(base), out, purpose_of(base, source, prompt="attributes"))
    return out


def faces_of(painter, maps=MAPS, index=INDEX):
    return painter(torch.from_numpy(maps).long(), index).permute(0, 2, 3, 1).numpy().astype(int)


def apart(first, second):
    return np.abs(first.astype(int) - second).max()


# ---- noise


def test_a_face_is_the_same_whatever_the_batch(painter):
    paint, together = painter(), faces_of(painter())
    assert together.shape == (5, 16, 16, 3)
    assert together.std() > 3
    assert (together[0] != together[1]).any()
    for rows in ([3], [4, 1], [2, 0, 1, 4, 3]):
        assert apart(faces_of(paint, MAPS[rows], INDEX.iloc[rows]), together[rows]) <= 1
    assert (faces_of(paint) == together).all() and (faces_of(painter()) == together).all()


def test_noise_belongs_to_id_and_seed(painter):
    together = faces_of(painter())
    assert (
        faces_of(painter(), np.repeat(MAPS[:1], 2, 0), pd.DataFrame({"id": ["a", "a"]}))[0]
        == faces_of(painter(), MAPS[:1], pd.DataFrame({"id": ["a"]}))[0]
    ).all()
    two = faces_of(painter(), np.repeat(MAPS[:1], 2, 0), pd.DataFrame({"id": ["a", "b"]}))
    assert apart(two[0], two[1]) > 5 and apart(faces_of(painter(seed=1)), together) > 5
    assert len({noise_seed(id, seed) for id in range(50) for seed in range(3)}) == 150
    assert noise_seed("7", 0) == noise_seed(7, 0)
    assert all(0 <= noise_seed(i, 0) < 2**63 for i in "abc")


def test_ancestral_samplers_take_later_noise_from_the_face_too(painter):
    for sampler in ("euler_a", "ddpm"):
        together = faces_of(painter(sampler=sampler))
        assert (
            apart(faces_of(painter(sampler=sampler), MAPS[3:], INDEX.iloc[3:]), together[3:]) <= 1
        )
        assert apart(faces_of(painter(sampler=sampler, seed=1)), together) > 5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_sampler_paints(sampler, prediction):
    base = micro_base(prediction)
    painter = ControlNetPainter(
        base,
        micro_controlnet(base),
        pick_palette("face"),
        sampling=SamplingConfig(sampler=sampler, steps=4),
    )
    assert type(painter.pipeline.scheduler).__name__ == SAMPLERS[sampler]
    assert painter.pipeline.scheduler.config.prediction_type == prediction
    assert painter.pipeline.scheduler.config.beta_end == 0.012
    faces = faces_of(painter, MAPS[:2], INDEX[:2])
    assert faces.std() > 1 and apart(faces, faces_of(painter, MAPS[:2], INDEX[:2])) == 0, (
        "a painter keeps no state"
    )


# ---- the times at which the network is asked


def told_by_an_oracle(scheduler, steps):
    "A picture drawn from noise by a network that knows it, and the picture"
    scheduler.set_timesteps(steps)
    random = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=random)
    kept, x = scheduler.alphas_cumprod, noise * scheduler.init_noise_sigma
    takes_noise = "generator" in inspect.signature(scheduler.step).parameters
    later = {"generator": random} if takes_noise else {}
    for time in scheduler.timesteps:
        seen, share = scheduler.scale_model_input(x, time), kept[round(float(time))]
        told = (seen - share.sqrt() * clean) / (1 - share).sqrt()
        x = scheduler.step(told, time, x, **later).prev_sample
    return x, clean


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9, 10, 20, 50, 250, 999, 1000])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_drawing_begins_in_noise_and_ends_at_the_picture(base, sampler, steps):
    scheduler = make_scheduler(base.scheduler, SamplingConfig(sampler=sampler, steps=steps))
    drawn, clean = told_by_an_oracle(scheduler, steps)
    times = scheduler.timesteps.tolist()
    assert 900 <= times[0] < 1000 and times == sorted(times, reverse=True)
    assert len(set(times)) == steps
    assert min(times) > 0 or steps >= 10
    assert (drawn - clean).abs().mean() < 0.05


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_times_of_many_steps_are_as_they_were(base, sampler):
    "Published faces were drawn with twenty"
    ours = make_scheduler(base.scheduler, SamplingConfig(sampler=sampler))
    usual = getattr(diffusers, SAMPLERS[sampler]).from_config(base.scheduler.config)
    assert ours.config == usual.config


@pytest.mark.parametrize("sampler", ["ddim", "pndm", "ddpm"])
@pytest.mark.parametrize("steps, better", [(600, 500), (350, 333), (150, 142)])
def test_numbers_of_steps_that_begin_too_early_are_refused(painter, sampler, steps, better):
    said = rf"{steps} steps of sampler '{re.escape(sampler)}'.*use {better} steps"
    with pytest.raises(InputError, match=said):
        painter(sampler=sampler, steps=steps)


def test_no_more_steps_than_the_base_was_trained_with(base):
    short = diffusers.DDPMScheduler.from_config(base.scheduler.config, num_train_timesteps=100)
    with pytest.raises(InputError, match="steps 101 are more than the 100"):
        make_scheduler(short, SamplingConfig(steps=101))
    assert make_scheduler(short, SamplingConfig(steps=100)).config.timestep_spacing == "trailing"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_few_steps_on_a_base_that_says_nothing_of_samplers(sampler):
    plain = diffusers.DDPMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    for steps in (1, 2, 3):
        scheduler = make_scheduler(plain, SamplingConfig(sampler=sampler, steps=steps))
        drawn, clean = told_by_an_oracle(scheduler, steps)
        assert (drawn - clean).abs().mean() < 0.05


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_paints_no_grey_faces(sampler):
    "The stand-in, a trained network: one step is blurred, and has light and shade"
    base, masks = load_base("standin"), render_faces(2, 64)[1]
    controlnet, inks = load_controlnet("standin", base), pick_palette("face")
    drawn = {}
    for steps in (1, 20):
        config = SamplingConfig(sampler=sampler, steps=steps)
        paint = ControlNetPainter(base, controlnet, inks, sampling=config)
        drawn[steps] = faces_of(paint, masks, index_of(2))
    assert drawn[1].std() > 0.5 * drawn[20].std()
    alike = np.corrcoef(drawn[1].ravel(), drawn[20].ravel())[0, 1]
    assert alike > 0.4


# ---- what an image depends on


@pytest.mark.parametrize(
    "times",
    [[999, 749, 499, 249], list(range(901, 0, -100))],  # trailing; leading, with an offset of one
    ids=["few steps", "more"],
)
def test_the_ddim_sampler_follows_its_formula(base, controlnet, painter, times):
    "Song, Meng and Ermon (2021), written out: steps without noise"
    paint, palette = painter(sampler="ddim", steps=len(times)), pick_palette("face")
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    noise = torch.stack(
        [
            torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(noise_seed(id, 0)))
            for id in INDEX["id"]
        ]
    )
    words, colours = (
        encode_prompts(base, ["a photo of a face"]).expand(5, -1, -1),
        torch.from_numpy(palette[MAPS].transpose(0, 3, 1, 2) / np.float32(255)),
    )
    x = noise
    with torch.no_grad():
        for t, before in zip(times, [*times[1:], None]):
            added = controlnet(x, t, words, colours)
            told = base.unet(
                x,
                t,
                words,
                down_block_additional_residuals=added.down_block_res_samples,
                mid_block_additional_residual=added.mid_block_res_sample,
            ).sample
            clean = (x - (1 - abar[t]).sqrt() * told) / abar[t].sqrt()
            last = abar[0] if before is None else abar[before]
            x = last.sqrt() * clean + (1 - last).sqrt() * told
        expected = (
            ((base.vae.decode(x / 0.6).sample.clamp(-1, 1) + 1) * 127.5)
            .round()
            .permute(0, 2, 3, 1)
            .numpy()
        )
    assert apart(faces_of(paint), expected) <= 1


def test_without_strength_it_is_the_base_alone(base, painter):
    pipeline = diffusers.StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=diffusers.UniPCMultistepScheduler.from_config(base.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    alone = (
        pipeline(
            ["a photo of a face"] * 5,
            height=16,
            width=16,
            num_inference_steps=3,
            guidance_scale=2.0,
            generator=[torch.Generator().manual_seed(noise_seed(id, 0)) for id in INDEX["id"]],
            output_type="np",
        ).images
        * 255
    )
    assert apart(faces_of(painter(strength=0.0, guidance=2.0)), alone) <= 1
    followed, half = faces_of(painter(guidance=2.0)), faces_of(painter(strength=0.5, guidance=2.0))
    assert apart(followed, alone) > 5 and apart(half, followed) > 1 and apart(half, alone) > 1


def test_the_map_its_palette_and_the_prompt_matter(base, controlnet, painter):
    plain = faces_of(painter())
    assert apart(faces_of(painter(), MAPS[::-1].copy()), plain) > 1
    assert (
        apart(
            faces_of(
                ControlNetPainter(
                    base, controlnet, pick_palette("ade20k"), sampling=SamplingConfig(**FEW)
                )
            ),
            plain,
        )
        > 1
    )

    def moved(first, second, **options):
        return np.abs(
            faces_of(painter(first, **options)) - faces_of(painter(second, **options))
        ).mean()

    near, far = (
        moved("a photo of a man", "a photo of a woman with eyeglasses", guidance=g)
        for g in (1.0, 6.0)
    )
    assert 0 < near < far, "guidance exaggerates what the prompt changes"
    assert (faces_of(painter(negative="a hat")) == plain).all()
    assert (
        faces_of(painter(negative="a hat", guidance=3.0)) != faces_of(painter(guidance=3.0))
    ).any()


def test_prompts_are_composed_of_attributes(painter):
    composed = faces_of(painter("attributes", guidance=5.0))
    for row, prompt in (
        (0, "a photo of a man"),
        (1, "a photo of a woman"),
        (3, "a photo of a person"),
    ):
        assert (
            apart(
                composed[row],
                faces_of(painter(prompt, guidance=5.0), MAPS[[row]], INDEX.iloc[[row]])[0],
            )
            <= 1
        ), prompt
    assert (composed[0] != faces_of(painter("a photo of a woman", guidance=5.0))[0]).any()
    with pytest.raises(InputError, match="prompts cannot be composed"):
        faces_of(painter("attributes"), MAPS[:2], index_of(2))


def test_another_size_than_that_of_the_maps(painter):
    "Painted at the size that the ControlNet was trained at, and brought to that of the maps"
    large = random_maps(3, 32)
    at_16 = painter(size=16)(torch.from_numpy(large).long(), INDEX[:3])
    assert at_16.shape == (3, 3, 32, 32)
    shrunk = F.interpolate(
        torch.from_numpy(large)[:, None].float(), (16, 16), mode="nearest-exact"
    )[:, 0].long()
    expected = resize_images(painter()(shrunk, INDEX[:3]).float(), 32).clamp(0, 255)
    assert (at_16.float() - expected).abs().max() <= 2.5
    assert painter()(torch.from_numpy(large).long(), INDEX[:3]).shape == (3, 3, 32, 32)
    assert painter(size=32)(torch.from_numpy(MAPS).long(), INDEX).shape == (5, 3, 16, 16)


def test_sizes_that_do_not_fit_are_refused(painter):
    with pytest.raises(
        InputError,
        match=(
            "pictures of 17 pixels cannot be painted with micro: "
            "the side must be a multiple of 2; use 16"
        ),
    ):
        painter(size=17)
    with pytest.raises(InputError, match="pictures of 15 pixels"):
        faces_of(painter(), MAPS[:, :15, :15])


# ---- precision


def test_a_painter_in_half_precision_leaves_the_network_as_it_is(controlnet, painter):
    base, before = micro_base(), {k: v.clone() for k, v in controlnet.state_dict().items()}
    base.unet.to(torch.bfloat16)
    half = ControlNetPainter(base, controlnet, pick_palette("face"), sampling=SamplingConfig(**FEW))
    assert half.pipeline.controlnet is not controlnet
    assert half.pipeline.controlnet.dtype == torch.bfloat16
    assert base.vae.dtype == torch.float32
    assert all(
        v.dtype == torch.float32 and torch.equal(v, before[k])
        for k, v in controlnet.state_dict().items()
    )
    assert painter().pipeline.controlnet is controlnet and faces_of(half).std() > 3


def test_a_copy_is_one_of_its_own(base):
    net = micro_controlnet(base)
    net.forward = None  # as if accelerate had put something else there
    twin = copy_network(net)
    assert twin.forward is not None
    assert not twin.training
    assert net.training
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in twin.state_dict().items())
    next(twin.parameters()).data += 1
    assert not torch.equal(next(twin.parameters()), next(net.parameters()))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_saved_controlnet_paints(saved, precision):
    painter = load_painter(saved, SamplingConfig(precision=precision, **FEW))
    dtype = {"no": torch.float32, "bf16": torch.bfloat16}[precision]
    assert painter.base.unet.dtype == painter.pipeline.controlnet.dtype == dtype
    assert painter.base.vae.dtype == torch.float32
    assert (painter.prompt, painter.size) == ("attributes", 16)
    exact = faces_of(load_painter(saved, SamplingConfig(**FEW)))
    assert apart(faces_of(painter), exact) <= (0 if precision == "no" else 40)
    assert np.abs(faces_of(painter) - exact).mean() < 4


def test_fp16_needs_a_gpu(saved):
    with pytest.raises(InputError, match="precision fp16 needs a CUDA device, not cpu"):
        load_painter(saved, SamplingConfig(precision="fp16"))


@pytest.mark.parametrize(
    "config, said",
    [
        ({"sampler": "heun"}, "there is no sampler 'heun': choose one of"),
        ({"steps": 0}, r"steps must lie in 1..1000"),
        ({"steps": 1001}, r"steps must lie in 1..1000"),
        ({"guidance": 0.5}, r"guidance must be 1 \(none\) or more"),
        ({"guidance": float("nan")}, "guidance must be"),
        ({"strength": float("nan")}, "strength"),
        ({"strength": -1.0}, "strength and seed must not be negative"),
        ({"seed": -1}, "strength and seed must not be negative"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"steps": 2.5}, "steps must be of type int"),
        ({"negative": None}, "negative must be of type str"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_at_once(config, said):
    with pytest.raises(InputError, match=said):
        SamplingConfig(**config)


def test_a_sheet_shows_map_painting_and_face(painter, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    draw_sheet(painter(), MAPS[:2], images, INDEX[:2], tmp_path / "sheets" / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "a.png"))
    assert sheet.shape == (32, 48, 3)
    assert (sheet[16:, :16] == colour_labels(MAPS[1:2])[0]).all()
    assert (sheet[16:, 32:] == images[1]).all()
    assert apart(sheet[:16, 16:32], faces_of(painter(), MAPS[:2], INDEX[:2])[0]) == 0


# ---- one interface


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gan")
    save_generator(Generator(GeneratorSpec(channels=4, downsamplings=1, blocks=1, size=16)), folder)
    return folder


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_gan_paints_as_in_its_training(gan, batch_size):
    painted = paint_faces(gan_painter(gan), MAPS, INDEX, batch_size)
    assert painted.dtype == np.uint8
    assert painted.shape == (5, 16, 16, 3)
    assert apart(painted, paint(load_generator(gan), MAPS)) <= (0 if batch_size == 32 else 1)
    assert painted.std() > 1


def test_a_controlnet_paints_through_the_same_call(saved):
    painter = controlnet_painter(saved, sampling=SamplingConfig(**FEW))
    painted = paint_faces(painter, MAPS, INDEX, batch_size=2)
    assert painter.classes == list(CLASSES)
    assert painted.dtype == np.uint8
    assert painted.shape == (5, 16, 16, 3)
    assert apart(painted, paint_faces(painter, MAPS, INDEX)) <= 1
    assert apart(painted, faces_of(load_painter(saved, SamplingConfig(**FEW)))) <= 1


def test_the_files_that_decide_the_faces_are_there(gan, saved):
    assert sorted(p.name for p in gan.iterdir()) == sorted(GENERATOR_FILES)
    assert sorted(p.name for p in saved.iterdir()) == sorted(CONTROLNET_FILES)


def test_each_face_goes_with_its_row():
    "Batches hand on maps and rows of the index side by side"
    seen = []

    def echo(maps, index):
        seen.append(list(index["id"]))
        return maps[:, None].expand(-1, 3, -1, -1).to(torch.uint8)

    painted = paint_faces(Painter(echo, list(CLASSES), "cpu"), MAPS, INDEX, batch_size=2)
    assert seen == [["00000", "00001"], ["00002", "00003"], ["00004"]]
    assert (painted == MAPS[..., None]).all()


def test_maps_that_cannot_be_painted(gan, saved):
    wrong = MAPS.copy()
    wrong[1, 2, 3] = 19
    for painter in (gan_painter(gan), controlnet_painter(saved, sampling=SamplingConfig(**FEW))):
        with pytest.raises(InputError, match="label 19"):
            paint_faces(painter, wrong, INDEX)
        with pytest.raises(InputError, match="5 label maps for 3 faces: give one map for each"):
            paint_faces(painter, MAPS, INDEX[:3])


def test_folders_without_a_painter(tmp_path):
    with pytest.raises(InputError, match="controlnet.json is missing: train the ControlNet first"):
        controlnet_painter(tmp_path)
    with pytest.raises(InputError, match="generator"):
        gan_painter(tmp_path)
