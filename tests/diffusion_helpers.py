"""Latent diffusion models that are small enough for a test

One in the layout of the real Stable Diffusion 1.5, and one that is as small as it gets."""

import copy
import functools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from helpers import make_faces
from safetensors.torch import save_file

from fairparse.data.labels import CLASSES
from fairparse.diffusion.cache import cache_latents, cache_prompts
from fairparse.diffusion.controlnet import Base, Purpose, load_controlnet, pick_palette
from fairparse.diffusion.tiny import NOISE, build_tokenizer
from fairparse.diffusion.train import Pairs

# ---- Stable Diffusion 1.5: the published configurations, with smaller numbers

WIDTHS, TEXT, TOKENS, VAE_WIDTHS = (32, 64, 64, 64), 32, 77, (32, 32, 32, 32)
DOWN = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
SD15 = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
    "scheduler/scheduler_config.json": {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.6.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    },
    "text_encoder/config.json": {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": TEXT,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": TOKENS,
        "model_type": "clip_text_model",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "pad_token_id": 1,
        "projection_dim": TEXT,
        "torch_dtype": "float32",
        "transformers_version": "4.22.0.dev0",
    },  # and vocab_size
    "tokenizer/tokenizer_config.json": {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": TOKENS,
        "name_or_path": "openai/clip-vit-large-patch14",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "CLIPTokenizer",
        **{
            f"{name}_token": {
                "__type": "AddedToken",
                "content": content,
                "lstrip": False,
                "normalized": True,
                "rstrip": False,
                "single_word": False,
            }
            for name, content in (
                ("bos", "<|startoftext|>"),
                ("eos", "<|endoftext|>"),
                ("unk", "<|endoftext|>"),
            )
        },
    },
    "tokenizer/special_tokens_map.json": {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    },
    "unet/config.json": {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": WIDTHS,
        "center_input_sample": False,
        "cross_attention_dim": TEXT,
        "down_block_types": DOWN,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "block_out_channels": VAE_WIDTHS,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "feature_extractor/preprocessor_config.json": {
        "crop_size": 224,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": 224,
    },
}
SEG = {
    "_class_name": "ControlNetModel",
    "_diffusers_version": "0.16.0.dev0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": WIDTHS,
    "class_embed_type": None,
    "conditioning_embedding_out_channels": [16, 32, 96, 256],
    "controlnet_conditioning_channel_order": "rgb",
    "cross_attention_dim": TEXT,
    "down_block_types": DOWN,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_time_scale_shift": "default",
    "upcast_attention": False,
    "use_linear_projection": False,
}


def write(path, content):
    "A text, or a JSON file"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def waken(network, scale=0.1, seed=0):
    """Random weights where there are none

    The convolutions through which a ControlNet speaks start at zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, scale, generator=draw)
    return network


def write_sd15(folder, seed=0, **unet):
    """Stable Diffusion 1.5 as it lies on the hub, shrunk and with random weights, its odd names of
    weights included; returns what the parts hold, by diffusers' names"""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    tokenizer, configs = build_tokenizer(), json.loads(json.dumps(SD15))
    configs["unet/config.json"].update(unet)
    configs["text_encoder/config.json"]["vocab_size"] = len(tokenizer)
    for path, content in configs.items():
        write(folder / path, content)
    tokenizer.save_pretrained(folder / "other")
    learnt = json.loads((folder / "other" / "tokenizer.json").read_text())["model"]
    for file in (folder / "other").iterdir():
        file.unlink()
    (folder / "other").rmdir()
    write(folder / "tokenizer" / "vocab.json", learnt["vocab"])
    write(
        folder / "tokenizer" / "merges.txt",
        "#version: 0.2\n"
        + "\n".join(m if isinstance(m, str) else " ".join(m) for m in learnt["merges"]),
    )
    for name in ("config.json", "model.safetensors"):
        write(folder / "safety_checker" / name, "nobody should read this")
    parts = {
        "vae": AutoencoderKL.from_config(configs["vae/config.json"]),
        "unet": UNet2DConditionModel.from_config(configs["unet/config.json"]),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder/config.json"])),
    }
    weights = {
        name: {k: v.detach().clone() for k, v in part.state_dict().items()}
        for name, part in parts.items()
    }
    old = {
        "to_q": "query",
        "to_k": "key",
        "to_v": "value",
        "to_out.0": "proj_attn",
    }  # as the hub's file of the autoencoder calls them

    def rename(key):
        return next((key.replace(new, name) for new, name in old.items() if f".{new}." in key), key)

    save_file(
        {rename(k): v for k, v in weights["vae"].items()},
        folder / "vae" / "diffusion_pytorch_model.safetensors",
        {"format": "pt"},
    )
    save_file(
        weights["unet"], folder / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"}
    )
    text = {
        f"text_model.{k.removeprefix('text_model.')}": v for k, v in weights["text_encoder"].items()
    } | {"text_model.embeddings.position_ids": torch.arange(TOKENS)[None]}
    save_file(text, folder / "text_encoder" / "model.safetensors", {"format": "pt"})
    return weights


def write_seg(folder, seed=1, **changed):
    """A ControlNet as control_v11p_sd15_seg lies on the hub, shrunk, with random weights
    everywhere; returns them"""
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    config = {**SEG, **changed}
    write(folder / "config.json", config)
    weights = waken(ControlNetModel.from_config(config)).state_dict()
    save_file(weights, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return weights


# ---- the names of weights in single files

_resnet = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ends = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}


def original_name(key):
    """The name in the original code of a weight of diffusers' U-Net or ControlNet of the shape of
    Stable Diffusion 1.5"""
    stem, _, kind = key.rpartition(".")
    if stem in _ends:
        return f"{_ends[stem]}.{kind}"
    if found := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d)", stem):
        return f"input_hint_block.{2 * int(found[1]) + 2}.{kind}"
    if found := re.fullmatch(r"controlnet_down_blocks\.(\d+)", stem):
        return f"zero_convs.{found[1]}.0.{kind}"
    if found := re.fullmatch(r"down_blocks\.(\d)\.downsamplers\.0\.conv", stem):
        return f"input_blocks.{3 * int(found[1]) + 3}.0.op.{kind}"
    if found := re.fullmatch(r"up_blocks\.(\d)\.upsamplers\.0\.conv", stem):
        return f"output_blocks.{3 * int(found[1]) + 2}.{1 if found[1] == '0' else 2}.conv.{kind}"
    side, block, what, layer, rest = re.fullmatch(
        r"(down|up|mid)_blocks?(?:\.(\d))?\.(resnets|attentions)\.(\d)\.(.+)", key
    ).groups()
    if what == "resnets":
        rest = f"{_resnet[rest.rpartition('.')[0]]}.{kind}"
    if side == "mid":
        return f"middle_block.{2 * int(layer) if what == 'resnets' else 1}.{rest}"
    number = 3 * int(block) + int(layer) + (side == "down")
    blocks = "input_blocks" if side == "down" else "output_blocks"
    return f"{blocks}.{number}.{0 if what == 'resnets' else 1}.{rest}"


def original_vae_name(key, levels=4):
    "The same for the autoencoder"
    key = re.sub(
        r"up_blocks\.(\d)",
        lambda m: f"up.{levels - 1 - int(m[1])}",
        key.replace("down_blocks.", "down."),
    )
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key).replace(
        "mid_block.attentions.0", "mid.attn_1"
    )
    for new, old in {
        ".resnets.": ".block.",
        "downsamplers.0": "downsample",
        "upsamplers.0": "upsample",
        "conv_shortcut": "nin_shortcut",
        "conv_norm_out": "norm_out",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }.items():
        key = key.replace(new, old)
    return key


def single_file(weights):
    "The content of a file such as v1-5-pruned-emaonly.safetensors"
    vae = {
        original_vae_name(k): v[..., None, None].clone() if "attentions" in k and v.ndim == 2 else v
        for k, v in weights["vae"].items()
    }
    return {
        **{f"model.diffusion_model.{original_name(k)}": v for k, v in weights["unet"].items()},
        **{f"first_stage_model.{k}": v for k, v in vae.items()},
        **{
            f"cond_stage_model.transformer.text_model.{k.removeprefix('text_model.')}": v
            for k, v in weights["text_encoder"].items()
        },
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(TOKENS)[
            None
        ],
        "betas": torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2,
        "alphas_cumprod": torch.rand(1000),
    }


# ---- the smallest


@functools.cache
def _micro(prediction, seed):
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.6,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=16,
    )
    parts = {"text_encoder": CLIPTextModel(text), "vae": vae, "unet": unet}
    return Base(
        "micro",
        tokenizer,
        **{name: part.requires_grad_(False).eval() for name, part in parts.items()},
        scheduler=DDPMScheduler.from_config(NOISE | {"prediction_type": prediction}),
    )


def micro_base(prediction="epsilon", seed=0):
    """A base of a few thousand random weights for pictures of 16 pixels, whose latents are half as
    large; always the same, and your own"""
    return copy.deepcopy(_micro(prediction, seed))


def write_micro(folder, prediction="epsilon", seed=0):
    "The same as a folder"
    base = micro_base(prediction, seed)
    for part in ("tokenizer", "text_encoder", "vae", "unet", "scheduler"):
        getattr(base, part).save_pretrained(folder / part)
    write(
        folder / "model_index.json",
        {**SD15["model_index.json"], "scheduler": ["diffusers", "DDPMScheduler"]},
    )
    return folder


def micro_controlnet(base, awake=True, seed=0):
    "A ControlNet for it, on request one that already says something and listens to its map"
    net = load_controlnet("fresh", base, seed)
    if not awake:
        return net
    waken(net, 0.3, seed)
    with torch.no_grad():
        for parameter in net.controlnet_cond_embedding.parameters():
            parameter.mul_(2.5)
    return net


def micro_pairs(base, faces, rows, folder, prompts=None):
    "What a trainer needs of a face set"
    prompts = (
        [("a photo of a man", "a photo of a woman")[i % 2] for i in range(len(rows))]
        if prompts is None
        else prompts
    )
    latents, (embeddings, which) = (
        cache_latents(base, faces.images, faces.meta["sha256"], faces.size, folder),
        cache_prompts(base, prompts, folder),
    )
    return Pairs(latents, embeddings, which, np.array(faces.masks[rows]), np.array(rows))


def purpose_of(base, source, prompt="a photo of a face", size=16):
    "What `save_controlnet` writes beside the weights"
    return Purpose(
        str(source), base.fingerprint(), pick_palette("face").tolist(), list(CLASSES), prompt, size
    )


def small_faces(folder):
    return make_faces(Path(folder), 18, size=16, train=12)


def index_of(count, **columns):
    return pd.DataFrame({"id": [f"{i:05d}" for i in range(count)], **columns})


def random_maps(count, size=16, seed=0):
    "Label maps of blocks of 4 pixels"
    return np.kron(
        np.random.default_rng(seed).integers(0, len(CLASSES), (count, size // 4, size // 4)),
        np.ones((4, 4), int),
    ).astype(np.uint8)


def same_weights(first, second):
    "Whether two state dicts are equal to the bit"
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
