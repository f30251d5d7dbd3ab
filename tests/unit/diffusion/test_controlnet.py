"Loading bases and ControlNets from folders, single files and the hub; palettes, saving, prompts"

import json
import shutil
from pathlib import Path

import diffusers
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
from diffusion_helpers import (
    index_of,
    micro_base,
    micro_controlnet,
    original_name,
    purpose_of,
    random_maps,
    same_weights,
    single_file,
    small_faces,
    write_micro,
    write_sd15,
    write_seg,
)
from safetensors.torch import load_file, save_file

from fairparse.core.runs import InputError
from fairparse.data.labels import CLASSES, NUM_CLASSES
from fairparse.diffusion.cache import cache_latents, cache_prompts
from fairparse.diffusion.controlnet import (
    PALETTES,
    check_fits,
    colour_condition,
    encode_prompts,
    load_base,
    load_controlnet,
    load_saved,
    pick_palette,
    read_purpose,
    save_controlnet,
)
from fairparse.diffusion.prompts import (
    AFTER,
    BEFORE,
    FIXED,
    SUBJECTS,
    compose_prompt,
    face_prompts,
    prompt_words,
)
from fairparse.diffusion.sample import SamplingConfig
from fairparse.diffusion.train import ControlNetConfig, ControlNetTrainer, Pairs
from fairparse.quality.painters import controlnet_painter, paint_faces

PARTS = ("vae", "unet", "text_encoder")


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    "A folder in the layout of Stable Diffusion 1.5, and its weights"
    folder = tmp_path_factory.mktemp("models") / "sd15"
    return folder, write_sd15(folder)


@pytest.fixture(scope="module")
def seg(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "seg"
    return folder, write_seg(folder)


@pytest.fixture(scope="module")
def base(sd15):
    return load_base(str(sd15[0]))


@pytest.fixture
def broken(sd15, tmp_path):
    "A copy of the base that may be damaged"
    return shutil.copytree(sd15[0], tmp_path / "broken")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


# ---- the layout of the real models


def test_a_folder_of_stable_diffusion_loads_to_the_bit(sd15, base):
    "Names of weights as on the hub: the autoencoder's attention, the text encoder's prefix"
    for part in PARTS:
        assert same_weights(getattr(base, part).state_dict(), sd15[1][part]), part
        assert not any(p.requires_grad for p in getattr(base, part).parameters())
        assert not getattr(base, part).training
    assert base.factor == 8
    assert base.vae.config.scaling_factor == 0.18215
    assert base.tokenizer.model_max_length == 77
    config = base.scheduler.config
    assert (
        type(base.scheduler).__name__,
        config.beta_schedule,
        config.beta_start,
        config.beta_end,
        config.num_train_timesteps,
        config.prediction_type,
    ) == ("DDPMScheduler", "scaled_linear", 0.00085, 0.012, 1000, "epsilon")
    assert base.scheduler.alphas_cumprod[[0, -1]].tolist() == pytest.approx(
        [0.99915, 0.004660], rel=1e-3
    )


def test_the_original_single_file_is_the_same_base(sd15, base, tmp_path):
    file = tmp_path / "v1-5-pruned-emaonly.safetensors"
    save_file(single_file(sd15[1]), file)
    loaded = load_base(str(file), config=str(sd15[0]))
    for part in PARTS:
        assert same_weights(getattr(loaded, part).state_dict(), sd15[1][part]) and not any(
            p.requires_grad for p in getattr(loaded, part).parameters()
        ), part
    assert loaded.fingerprint() == base.fingerprint()
    assert loaded.factor == 8
    assert torch.equal(loaded.scheduler.alphas_cumprod, base.scheduler.alphas_cumprod)
    torch.testing.assert_close(
        encode_prompts(loaded, [FIXED, ""]), encode_prompts(base, [FIXED, ""])
    )


def test_a_half_precision_folder_is_read_in_float32(broken, sd15):
    for path in broken.glob("*/*.safetensors"):
        if path.parent.name != "safety_checker":
            save_file(
                {k: v.half() if v.is_floating_point() else v for k, v in load_file(path).items()},
                path,
                {"format": "pt"},
            )
    loaded = load_base(str(broken))
    for part in PARTS:
        assert all(
            v.dtype == torch.float32 and torch.equal(v, sd15[1][part][k].half().float())
            for k, v in getattr(loaded, part).state_dict().items()
        ), part


def test_a_controlnet_loads_to_the_bit_from_folder_and_files(seg, base, tmp_path):
    folder, weights = seg
    files = {
        "named as by diffusers": weights,
        "the original": {original_name(k): v for k, v in weights.items()},
        "within a whole model": {
            f"control_model.{original_name(k)}": v for k, v in weights.items()
        },
    }
    loaded = {"folder": load_controlnet(str(folder), base)}
    for name, content in files.items():
        save_file(content, tmp_path / "control.safetensors")
        loaded[name] = load_controlnet(
            str(tmp_path / "control.safetensors"), base, config=str(folder)
        )
    for name, net in loaded.items():
        assert same_weights(net.state_dict(), weights) and all(
            p.requires_grad and p.dtype == torch.float32 for p in net.parameters()
        ), name


def test_the_real_layout_trains_is_saved_and_paints(sd15, seg, tmp_path):
    "Everything from folders to a painted face, as with the real models"
    faces, rows = small_faces(tmp_path / "faces"), np.arange(6)
    large = np.kron(faces.images, np.ones((1, 4, 4, 1), np.uint8))  # 64 pixels
    for start in ("fresh", str(seg[0])):
        base = load_base(str(sd15[0]))
        net = load_controlnet(start, base)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        purpose = purpose_of(base, sd15[0], size=64)
        latents = cache_latents(base, large, faces.meta["sha256"], 64, tmp_path / "cache")
        assert latents.shape == (2, 18, 8, 8, 8)
        pairs = Pairs(
            latents,
            *cache_prompts(base, [FIXED] * 6, tmp_path / "cache"),
            np.kron(faces.masks[rows], np.ones((4, 4), np.uint8)),
            rows,
        )
        out = tmp_path / start[:5].strip("/")
        history = ControlNetTrainer(
            base,
            net,
            pairs,
            pick_palette("ade20k"),
            CLASSES,
            ControlNetConfig(batch_size=2, max_steps=2, lr=1e-3, checkpoint_every=1),
            out,
            progress=False,
        ).fit()
        assert len(history) == 2
        assert np.isfinite(history.loss).all()
        assert not same_weights(before, net.state_dict())
        assert all(same_weights(getattr(base, part).state_dict(), sd15[1][part]) for part in PARTS)
        save_controlnet(net, out, purpose)
        painter = controlnet_painter(out, sampling=SamplingConfig(steps=2))
        painted = paint_faces(painter, pairs.maps[:2], index_of(2))
        assert painted.shape == (2, 64, 64, 3)
        assert painted.std() > 1
        assert (painted[0] != painted[1]).any()
        assert same_weights(
            diffusers.ControlNetModel.from_pretrained(out).state_dict(), net.state_dict()
        )


# ---- the hub


def test_hub_names_are_asked_for_by_name(monkeypatch):
    asked = []

    def ask(cls, source, **options):
        asked.append((cls.__name__, source, options))
        raise OSError("no such model here")

    for cls in (
        diffusers.AutoencoderKL,
        diffusers.UNet2DConditionModel,
        diffusers.DDPMScheduler,
        diffusers.ControlNetModel,
    ):
        monkeypatch.setattr(cls, "from_pretrained", classmethod(ask))
    import transformers

    local = micro_base()
    for cls, part in (
        (transformers.CLIPTokenizer, local.tokenizer),
        (transformers.CLIPTextModel, local.text_encoder),
    ):
        monkeypatch.setattr(
            cls,
            "from_pretrained",
            classmethod(
                lambda cls, source, part=part, **options: (
                    asked.append((cls.__name__, source, options))
                    or (
                        (part, {"missing_keys": []}) if options.get("output_loading_info") else part
                    )
                )
            ),
        )
    with pytest.raises(
        InputError,
        match=(
            r"base model stable-diffusion-v1-5/stable-diffusion-v1-5 cannot be loaded \(no such "
            r"model here\): check the name and the connection, or give a local folder"
        ),
    ):
        load_base("stable-diffusion-v1-5/stable-diffusion-v1-5")
    with pytest.raises(
        InputError, match="ControlNet lllyasviel/control_v11p_sd15_seg cannot be loaded"
    ):
        load_controlnet("lllyasviel/control_v11p_sd15_seg", local)
    assert [(name, source, options.get("subfolder")) for name, source, options in asked] == [
        *(
            (name, "stable-diffusion-v1-5/stable-diffusion-v1-5", part)
            for name, part in (
                ("CLIPTokenizer", "tokenizer"),
                ("CLIPTextModel", "text_encoder"),
                ("AutoencoderKL", "vae"),
            )
        ),
        ("ControlNetModel", "lllyasviel/control_v11p_sd15_seg", None),
    ]
    assert all(
        options["use_safetensors"] is True for name, _, options in asked if name != "CLIPTokenizer"
    ), "pickles can run code"


def test_a_name_that_cannot_be_reached_is_an_input_error(offline):
    with pytest.raises(
        InputError,
        match=(
            "base model nobody/nothing cannot be loaded .*check the name and the connection, "
            "or give a local folder or .safetensors file"
        ),
    ):
        load_base("nobody/nothing")
    with pytest.raises(
        InputError,
        match="ControlNet nobody/nothing cannot be loaded .*check the name and the connection",
    ):
        load_controlnet("nobody/nothing", micro_base())


def test_a_single_file_without_connection_asks_for_its_configuration(
    sd15, seg, base, tmp_path, offline
):
    "The file itself is whole: what is missing is the configuration, which diffusers would fetch"
    save_file(single_file(sd15[1]), tmp_path / "sd15.safetensors")
    save_file(seg[1], tmp_path / "seg.safetensors")
    with pytest.raises(InputError, match="sd15.safetensors cannot be loaded .*config"):
        load_base(str(tmp_path / "sd15.safetensors"))
    with pytest.raises(InputError, match="seg.safetensors cannot be loaded .*config"):
        load_controlnet(str(tmp_path / "seg.safetensors"), base)


# ---- what is no base


def test_a_folder_that_is_no_diffusers_model(broken, tmp_path):
    with pytest.raises(
        InputError,
        match=(
            r"is not a diffusers model: it has no model_index.json; "
            r"give the folder that holds it beside unet/"
        ),
    ):
        load_base(str(tmp_path))
    shutil.rmtree(broken / "unet")
    shutil.rmtree(broken / "tokenizer")
    with pytest.raises(InputError, match=r"broken lacks tokenizer, unet: a latent diffusion model"):
        load_base(str(broken))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["cut", "text", "gone", "weight gone"])
def test_damaged_weights_are_an_input_error(broken, part, damage):
    "Above all a weight that is not in the file must not be made up"
    path = next((broken / part).glob("*.safetensors"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    if damage == "text":
        path.write_text("<html>not found</html>")
    if damage == "gone":
        path.unlink()
    if damage == "weight gone":
        weights = load_file(path)
        weights.pop(
            next(k for k in weights if weights[k].ndim == 2 and weights[k].is_floating_point())
        )
        save_file(weights, path, {"format": "pt"})
    with pytest.raises(
        InputError,
        match=(
            "base model .*broken.* cannot be loaded .*check that all its files are there and whole"
        ),
    ):
        load_base(str(broken))


def test_a_broken_configuration_is_an_input_error(broken):
    (broken / "unet" / "config.json").write_text('{"block_out_channels": [32,')
    with pytest.raises(InputError, match="broken cannot be loaded .*config.json"):
        load_base(str(broken))


def test_pickles_are_refused(tmp_path, base):
    for name in ("v1-5-pruned-emaonly.ckpt", "control.pth", "diffusion_pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"\x80\x04")
        for load in (load_base, lambda source: load_controlnet(source, base)):
            with pytest.raises(
                InputError,
                match=(
                    f"{name} is not a .safetensors file: "
                    "other formats can run code when they are opened; convert it"
                ),
            ):
                load(str(tmp_path / name))


@pytest.mark.parametrize(
    "name", ["nothing_like_that", "no/such/folder", "/no/such/folder", "a model"]
)
def test_a_name_that_is_neither_folder_nor_file_nor_hub_name(name, base):
    with pytest.raises(
        InputError,
        match=(
            f"base model '{name}' is neither a folder, nor a .safetensors file, "
            "nor the name of a model on the hub"
        ),
    ):
        load_base(name)
    with pytest.raises(InputError, match=f"ControlNet '{name}' is neither"):
        load_controlnet(name, base)


def test_the_home_folder_may_be_written_as_a_tilde(sd15, seg, monkeypatch):
    monkeypatch.setenv("HOME", str(sd15[0].parent))
    assert load_base("~/sd15").factor == 8
    monkeypatch.setenv("HOME", str(seg[0].parent))
    assert same_weights(load_controlnet("~/seg", load_base(str(sd15[0]))).state_dict(), seg[1])


def test_a_file_that_holds_no_stable_diffusion(sd15, seg, base, tmp_path):
    file = tmp_path / "other.safetensors"
    for content in (
        {"a": torch.ones(2)},
        {k: v for k, v in single_file(sd15[1]).items() if not k.startswith("model.")},
    ):
        save_file(content, file)
        with pytest.raises(InputError, match="base model .*other.safetensors cannot be loaded"):
            load_base(str(file), config=str(sd15[0]))
        with pytest.raises(InputError, match="ControlNet .*other.safetensors cannot be loaded"):
            load_controlnet(str(file), base, config=str(seg[0]))
    file.write_bytes(b"12345678")
    with pytest.raises(InputError, match="other.safetensors cannot be loaded"):
        load_base(str(file), config=str(sd15[0]))


@pytest.mark.parametrize(
    "part",
    [
        "model.diffusion_model.input_blocks.1.0.in_layers.2",
        "first_stage_model.encoder.conv_in",
        "cond_stage_model.transformer.text_model.final_layer_norm",
    ],
)
def test_a_single_file_that_lacks_weights(sd15, tmp_path, part):
    content = single_file(sd15[1])
    content.pop(f"{part}.weight")
    save_file(content, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match="less.safetensors cannot be loaded"):
        load_base(str(tmp_path / "less.safetensors"), config=str(sd15[0]))


def test_parts_of_different_models_are_refused(tmp_path):
    write_sd15(tmp_path / "inpainting", in_channels=9)
    with pytest.raises(
        InputError,
        match=(
            "its U-Net expects 9 latent channels, the other part has 4; "
            "take all parts from one text-to-image model"
        ),
    ):
        load_base(str(tmp_path / "inpainting"))
    write_sd15(tmp_path / "text", cross_attention_dim=64)
    with pytest.raises(
        InputError, match="its U-Net expects 64 text features, the other part has 32"
    ):
        load_base(str(tmp_path / "text"))


@pytest.mark.parametrize("size, better", [(65, 64), (4, 8), (0, 8), (500, 496), (63, 64)])
def test_sizes_that_do_not_fit_the_latents(base, size, better):
    with pytest.raises(
        InputError,
        match=(
            f"pictures of {size} pixels cannot be painted with .*"
            f"the side must be a multiple of 8; use {better}"
        ),
    ):
        base.check_size(size)
    base.check_size(better)


# ---- what is no ControlNet of this base


def test_a_fresh_controlnet_is_the_unet_and_adds_nothing(base):
    net, again, other = (
        load_controlnet("fresh", base),
        load_controlnet("fresh", base),
        load_controlnet("fresh", base, seed=1),
    )
    assert same_weights(net.state_dict(), again.state_dict())
    assert not same_weights(net.state_dict(), other.state_dict())
    assert all(
        torch.equal(v, base.unet.state_dict()[k])
        for k, v in net.state_dict().items()
        if k.startswith(("down_blocks", "mid_block", "time_embedding", "conv_in"))
    )
    assert tuple(net.config.conditioning_embedding_out_channels) == (16, 32, 96, 256)
    assert all(p.requires_grad for p in net.parameters())
    assert not any(p.requires_grad for p in base.unet.parameters())
    with torch.no_grad():
        added, middle = net(
            torch.randn(1, 4, 8, 8),
            3,
            torch.randn(1, 77, 32),
            torch.rand(1, 3, 64, 64),
            return_dict=False,
        )
    assert not middle.any() and len(added) == 12 and not any(a.any() for a in added)
    before = torch.random.get_rng_state()
    load_controlnet("fresh", base)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("cross_attention_dim", 64, "its cross_attention_dim is 64, the base's 32"),
        (
            "block_out_channels",
            [32, 64, 64, 128],
            r"its block_out_channels is \(32, 64, 64, 128\), the base's \(32, 64, 64, 64\)",
        ),
        ("attention_head_dim", 4, "its attention_head_dim is 4"),
        ("layers_per_block", 1, "its layers_per_block is 1"),
        ("in_channels", 8, "its in_channels is 8"),
    ],
)
def test_a_controlnet_of_another_base(base, tmp_path, key, value, said):
    write_seg(tmp_path / "other", **{key: value})
    with pytest.raises(
        InputError,
        match=(
            f"ControlNet .*other is for another base than .*: {said}.*; "
            'load the base that it was trained for, or start from "fresh"'
        ),
    ):
        load_controlnet(str(tmp_path / "other"), base)


def test_a_controlnet_for_other_latents(base, tmp_path):
    write_seg(tmp_path / "small", conditioning_embedding_out_channels=[16, 32, 96])
    with pytest.raises(
        InputError, match="small shrinks its condition 4 times, latents of .* are 8 times smaller"
    ):
        load_controlnet(str(tmp_path / "small"), base)


def test_a_folder_without_a_controlnet(base, sd15, tmp_path):
    with pytest.raises(InputError, match="is not a folder of a ControlNet: it has no config.json"):
        load_controlnet(str(sd15[0]), base)
    with pytest.raises(InputError, match="unet.* is (not|for)|unet.* cannot be loaded"):
        load_controlnet(str(sd15[0] / "unet"), base)


@pytest.mark.parametrize("damage", ["cut", "weight gone"])
def test_a_damaged_controlnet(base, tmp_path, damage):
    weights = write_seg(tmp_path / "damaged")
    path = tmp_path / "damaged" / "diffusion_pytorch_model.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        save_file(
            {k: v for k, v in weights.items() if k != "controlnet_mid_block.weight"},
            path,
            {"format": "pt"},
        )
    with pytest.raises(
        InputError,
        match="damaged.* cannot be loaded .*check that all its files are there and whole",
    ):
        load_controlnet(str(tmp_path / "damaged"), base)


# ---- saving


@pytest.fixture
def saved(tmp_path):
    folder = write_micro(tmp_path / "base")
    base = load_base(str(folder))
    net = micro_controlnet(base)
    save_controlnet(net, tmp_path / "out", purpose_of(base, folder))
    return folder, net, tmp_path / "out"


def test_what_is_saved_comes_back(saved):
    folder, net, out = saved
    base, loaded, purpose = load_saved(out)
    assert same_weights(loaded.state_dict(), net.state_dict())
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert purpose == purpose_of(base, folder)
    assert purpose == read_purpose(out)
    assert base.fingerprint() == micro_base().fingerprint()
    assert sorted(p.name for p in out.iterdir()) == [
        "config.json",
        "controlnet.json",
        "diffusion_pytorch_model.safetensors",
    ]


def test_a_base_whose_weights_have_changed_is_refused(saved):
    folder, _, out = saved
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.bias"][0] += 1e-6
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(
        InputError,
        match=(
            "was trained for other weights than those of .*base: "
            "load the base that it was trained for"
        ),
    ):
        load_saved(out)


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_base_with_another_part_is_refused(saved, part):
    folder, _, out = saved
    path = next((folder / part).glob("*.safetensors"))
    save_file(
        {name: value * 1.3 for name, value in load_file(path).items()}, path, {"format": "pt"}
    )
    with pytest.raises(InputError, match="was trained for other weights"):
        load_saved(out)


def test_a_saved_controlnet_is_not_trained_further_on_another_base(tmp_path):
    base = micro_base()
    save_controlnet(load_controlnet("fresh", base), tmp_path / "net", purpose_of(base, "micro"))
    load_controlnet(tmp_path / "net", base)
    with pytest.raises(
        InputError,
        match=(
            "ControlNet .*net was trained for other weights than those of .*: "
            "load the base that it was trained for .micro., or start from"
        ),
    ):
        load_controlnet(tmp_path / "net", micro_base(seed=1))


def test_an_unfinished_or_foreign_folder_is_refused(saved, tmp_path):
    _, _, out = saved
    with pytest.raises(InputError, match="controlnet.json is missing: train the ControlNet first"):
        load_saved(tmp_path)
    record = json.loads((out / "controlnet.json").read_text())
    for content, said in (
        (
            json.dumps({k: v for k, v in record.items() if k != "palette"}),
            "does not describe a ControlNet",
        ),
        ('{"base":', "is not valid JSON"),
        ("[]", "does not describe a ControlNet"),
    ):
        (out / "controlnet.json").write_text(content)
        with pytest.raises(InputError, match=said):
            read_purpose(out)


def test_a_save_that_fails_leaves_no_finished_folder(saved, monkeypatch):
    folder, net, out = saved
    before = (out / "diffusion_pytorch_model.safetensors").read_bytes()

    def full(self, folder, **options):
        (Path(folder) / "config.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(net), "save_pretrained", full)
    with pytest.raises(InputError, match="cannot write .*out: no space left"):
        save_controlnet(net, out, read_purpose(out))
    assert not (out / "controlnet.json").exists()
    assert (out / "diffusion_pytorch_model.safetensors").read_bytes() == before
    assert len(list(out.iterdir())) == 2


def test_the_fingerprint_tells_weights_apart_and_not_precisions():
    base, other = micro_base(), micro_base(seed=1)
    assert base.fingerprint() == micro_base().fingerprint() != other.fingerprint()
    assert len(base.fingerprint()) == 64


# ---- colours


@pytest.mark.parametrize("name", PALETTES)
def test_no_two_classes_share_a_colour(name):
    colours = pick_palette(name)
    assert colours.shape == (NUM_CLASSES, 3)
    assert colours.dtype == np.uint8
    assert len({tuple(c) for c in colours.tolist()}) == NUM_CLASSES
    apart = np.linalg.norm(colours[:, None].astype(float) - colours, axis=-1)[
        ~np.eye(NUM_CLASSES, dtype=bool)
    ]
    assert apart.min() > 50  # not nearly the same either


def test_the_ade20k_colours_are_those_of_the_pretrained_controlnet():
    "Colours from the list published with ADE20K's 150 classes; the first two are wall and person"
    published = {
        (120, 120, 120),
        (150, 5, 61),
        (7, 255, 255),
        (0, 0, 255),
        (235, 255, 7),
        (4, 250, 7),
        (235, 12, 255),
        (230, 230, 230),
        (255, 102, 0),
        (143, 255, 140),
        (0, 255, 133),
        (0, 102, 200),
        (112, 9, 255),
        (255, 9, 92),
        (160, 150, 20),
        (255, 0, 0),
        (80, 50, 50),
        (153, 255, 0),
        (0, 173, 255),
        (180, 120, 120),
        (6, 230, 230),
        (4, 200, 3),
        (120, 120, 80),
        (140, 140, 140),
        (204, 5, 255),
    }
    assert {tuple(c) for c in pick_palette("ade20k").tolist()} <= published
    assert pick_palette("ade20k")[:2].tolist() == [[120, 120, 120], [150, 5, 61]]


@pytest.mark.parametrize(
    "palette, said",
    [
        (
            "ade",
            r"there is no palette 'ade': choose one of \['face', 'ade20k'\], or give 19 colours",
        ),
        ([[i, i, i] for i in range(18)], r"needs 19 colours .* this one has the shape \(18, 3\)"),
        ([[i, 0] for i in range(19)], r"shape \(19, 2\)"),
        ([[i, i, 256] for i in range(19)], "whole, from 0 to 255"),
        ([[i, i, -1] for i in range(19)], "whole, from 0 to 255"),
        ([[i, i, 0.5] for i in range(19)], "whole, from 0 to 255"),
        (
            [[i % 18, 7, 9] for i in range(19)],
            rf"the classes '{CLASSES[0]}' and '{CLASSES[18]}' share the colour \[0, 7, 9\]",
        ),
        ([[i, 0, 0] for i in range(18)] + [[1, 2]], "needs 19 colours"),
        ([], "needs 19 colours"),
    ],
)
def test_palettes_that_do_not_work(palette, said):
    with pytest.raises(InputError, match=said):
        pick_palette(palette)


def test_a_condition_is_the_colour_of_each_label():
    maps, colours = random_maps(3), pick_palette([[i, 255 - i, 2 * i] for i in range(19)])
    condition = colour_condition(torch.from_numpy(maps).long(), torch.from_numpy(colours))
    assert condition.shape == (3, 3, 16, 16) and condition.dtype == torch.float32
    for b, y, x in ((0, 0, 0), (1, 5, 9), (2, 15, 3)):
        assert (condition[b, :, y, x] * 255).round().tolist() == colours[maps[b, y, x]].tolist()
    assert (condition.permute(0, 2, 3, 1).numpy() == colours[maps].astype(np.float32) / 255).all()


# ---- words


def test_embeddings_are_those_of_diffusers_own_pipeline(base):
    pipeline = diffusers.StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=base.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    prompts = ["a photo of a face", "", "a man " * 60]
    ours = encode_prompts(base, prompts)
    assert ours.shape == (3, 77, 32) and torch.isfinite(ours).all()
    for prompt, row in zip(prompts, ours):
        torch.testing.assert_close(row, pipeline.encode_prompt(prompt, "cpu", 1, False)[0][0])


@pytest.mark.parametrize(
    "attributes, subject, sentence",
    [
        ({}, True, "a photo of a person"),
        ({"Male": 1}, True, "a photo of a man"),
        ({"Male": 0}, True, "a photo of a woman"),
        ({"Male": pd.NA}, True, "a photo of a person"),
        ({"Male": None, "Young": float("nan")}, True, "a photo of a person"),
        ({"Male": 1}, False, "a photo of a person"),
        (
            {"Male": 0, "Young": 1, "Smiling": 1, "Bald": 0},
            True,
            "a photo of a young smiling woman",
        ),
        ({"Bald": 1, "Attractive": 1, "Big_Nose": 1}, True, "a photo of a bald person"),
        ({"Male": 0, "Bangs": 1}, True, "a photo of a woman with bangs"),
        (
            {"Eyeglasses": 1, "Black_Hair": 1, "Wearing_Hat": 1},
            True,
            "a photo of a person with black hair, eyeglasses and a hat",
        ),
        ({"Goatee": 1, "Mustache": 1}, True, "a photo of a person with a mustache and a goatee"),
    ],
)
def test_composed_prompts(attributes, subject, sentence):
    assert compose_prompt(attributes, subject) == sentence


def test_the_article_follows_the_next_word(monkeypatch):
    monkeypatch.setitem(BEFORE, "Old", "old")
    assert compose_prompt({"Old": 1, "Male": 1}) == "a photo of an old man"
    assert compose_prompt({"Old": 1, "Young": 1}) == "a photo of a young old person"


def test_no_gender_and_no_judgement_in_prompts_without_gender():
    index = pd.DataFrame(
        {
            name: pd.array([1, 0], "Int8")
            for name in ("Male", *BEFORE, *AFTER, "Attractive", "Chubby", "Pale_Skin")
        }
    )
    plain, full = face_prompts(index, "attributes_no_gender"), face_prompts(index, "attributes")
    assert not any(word in sentence.split() for sentence in plain for word in SUBJECTS.values())
    assert [" man " in full[0], full[1].endswith("woman")] == [True, True]
    assert plain == [s.replace("bald man", "bald person").replace("woman", "person") for s in full]
    assert not any(
        word in sentence.lower() for sentence in full for word in ("attractive", "chubby", "pale")
    )
    assert {word.strip(",") for sentence in [*full, *plain] for word in sentence.split()} <= set(
        prompt_words()
    )


def test_a_sentence_for_each_face():
    index = index_of(3, Male=pd.array([1, 0, pd.NA], "Int8"), Hat=[1, 1, 1])
    assert face_prompts(index) == [FIXED] * 3
    assert face_prompts(index, "a face, oil on canvas") == ["a face, oil on canvas"] * 3
    assert face_prompts(index, "attributes") == [
        "a photo of a man",
        "a photo of a woman",
        "a photo of a person",
    ]
    with pytest.raises(
        InputError,
        match=(
            "prompts cannot be composed: the faces have none of the attributes .*"
            "use a fixed prompt, such as 'a photo of a face'"
        ),
    ):
        face_prompts(index_of(2, Hat=1), "attributes")


def test_the_shipped_stand_in_loads():
    base = load_base("standin")
    assert base.factor == 4
    assert base.name == "standin"
    assert base.unet.dtype == base.vae.dtype == base.text_encoder.dtype == torch.float32
    check_fits(load_controlnet("fresh", base), base, "fresh")
    with pytest.raises(InputError, match="pictures of 66 pixels cannot be painted with standin"):
        base.check_size(66)
