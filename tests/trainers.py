"Small trainers of every kind, and ways to stop them: what the tests of training share"

import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import accelerate
import numpy as np
import pandas as pd
import torch
from diffusion_helpers import micro_base, micro_controlnet, micro_pairs
from helpers import make_parser, run_python
from torch import nn

from fairparse.balancing.classifier import ClassifierConfig
from fairparse.balancing.classifier_train import ClassifierTrainer
from fairparse.balancing.stylegan_train import StyleGANTrainer, StyleGANTraining
from fairparse.core.records import open_face_set
from fairparse.data.labelled import LabelledFaces, deal_splits
from fairparse.data.labels import CLASSES
from fairparse.diffusion.controlnet import pick_palette
from fairparse.diffusion.tiny import CosineTrainer
from fairparse.diffusion.train import ControlNetConfig, ControlNetTrainer, Pairs
from fairparse.gan.pix2pixhd import Generator, GeneratorSpec
from fairparse.gan.train import GanConfig, GanTrainer
from fairparse.parsing.train import TrainConfig, Trainer


def forget():
    "Accelerate keeps its state for the life of a process: forget it between trainers"
    accelerate.state.AcceleratorState._reset_state(True)
    accelerate.state.GradientState._reset_state()


# ---- one of each


def make_parser_trainer(faces, folder, seed=0, parser=None, valid=None, **options):
    "Three epochs of three steps"
    forget()
    own = ("tensorboard", "measure_gradients", "resident")
    more = {name: options.pop(name) for name in own if name in options}
    config = {"epochs": 3, "batch_size": 4, "lr": 3e-3, "seed": seed, **options}
    valid = faces.rows("valid") if valid is None else valid
    return Trainer(
        parser or make_parser(seed),
        faces,
        faces.rows("train"),
        valid,
        TrainConfig(**config),
        folder,
        progress=False,
        **more,
    )


def make_gan_trainer(faces, folder, seed=0, maps=None, rows=None, channels=4, **options):
    "Three epochs of three steps"
    forget()
    torch.manual_seed(seed)
    spec = GeneratorSpec(channels=channels, downsamplings=1, blocks=1, size=faces.size)
    own = ("images", "sample_every", "shown", "data_hash")
    more = {name: options.pop(name) for name in own if name in options}
    config = {"epochs": 3, "batch_size": 4, "lr": 1e-3, "seed": seed}
    config |= {"discriminator_channels": 4, "discriminator_layers": 1, **options}
    rows = faces.rows("train") if rows is None else rows
    return GanTrainer(
        Generator(spec),
        np.array(faces.masks[rows]) if maps is None else maps,
        more.pop("images", faces.images),
        rows,
        GanConfig(**config),
        folder,
        progress=False,
        **more,
    )


@functools.cache
def _pairs(folder, prediction):
    faces, base = open_face_set(folder), micro_base(prediction)
    return micro_pairs(base, faces, faces.rows("train"), folder.parent / f"{folder.name}_cache")


def make_pairs(faces, prediction="epsilon", **changed):
    return Pairs(**{**vars(_pairs(faces.folder, prediction)), **changed})


def make_controlnet_trainer(
    faces, folder, seed=0, prediction="epsilon", awake=True, base=None, palette="face", **options
):
    "Two epochs of three steps, with checkpoints after steps 2, 4 and 6"
    forget()
    own = ("data_hash", "validate", "validate_every")
    more = {name: options.pop(name) for name in own if name in options}
    pairs = options.pop("pairs", None) or make_pairs(faces, prediction)
    config = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "checkpoint_every": 2, "seed": seed}
    base = base or micro_base(prediction)
    return ControlNetTrainer(
        base,
        micro_controlnet(base, awake, seed),
        pairs,
        pick_palette(palette),
        CLASSES,
        ControlNetConfig(**{**config, **options}),
        folder,
        progress=False,
        **more,
    )


def make_bars(counts=(60, 40, 20), size=16, task="group", seed=0, noise=40.0):
    "Labelled pictures: noise with a bright bar whose height says the class"
    rng, labels = np.random.default_rng(seed), np.repeat(np.arange(len(counts)), counts)
    images = rng.normal(100, noise, (len(labels), size, size, 3))
    for i, k in enumerate(labels):
        images[i, 3 + 4 * k : 6 + 4 * k] += 90
    ids = [f"f{i}" for i in range(len(labels))]
    glasses, age = rng.integers(0, 2, len(labels)), rng.integers(0, 100, len(labels))
    return LabelledFaces(
        images.clip(0, 255).astype(np.uint8),
        labels,
        list("abcde")[: len(counts)],
        deal_splits(labels, ids, 0),
        pd.DataFrame({"glasses": glasses, "age": age}),
        ids,
        "bars",
        task,
    )


BARS = {"size": 16, "epochs": 4, "batch_size": 16, "lr": 3e-3, "precision": "no"}


def make_classifier_trainer(faces, folder, bars=None, say=print, **options):
    "At most four epochs of six steps"
    bars = make_bars() if bars is None else bars
    return ClassifierTrainer(bars, ClassifierConfig(**{**BARS, **options}), folder, say=say)


SMALL_STYLEGAN = {
    "generator": {"z_dim": 6, "w_dim": 6, "channels": [6, 6], "mapping_layers": 1},
    "discriminator_channels": [6, 6],
    "steps": 7,
    "batch_size": 4,
    "every": 3,
    "r1_every": 3,
}


def random_pictures(count=20, size=8):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)


def make_stylegan_trainer(faces, folder, seed=1, images=None, say=print, **options):
    "Seven steps, with checkpoints after steps 3, 6 and 7"
    config = StyleGANTraining(**{**SMALL_STYLEGAN, **options})
    return StyleGANTrainer(
        config, random_pictures() if images is None else images, seed, folder, say=say
    )


def make_cosine_trainer(faces, folder, data=None, every=3, start=0.0, **options):
    "A line through noisy points: seven steps, with checkpoints after steps 3, 6 and 7"
    line, data = nn.Linear(3, 1), torch.eye(3) if data is None else data
    nn.init.constant_(line.weight, start)
    nn.init.zeros_(line.bias)

    def compute_loss():
        inputs = data[torch.randint(len(data), (4,))] + torch.randn(4, 3)
        return (line(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    config = {"steps": 7, "rate": 0.1, "seed": 0, **options}
    trainer = CosineTrainer(compute_loss, {"line": line}, config, folder, [data], decay=0.9)
    trainer.every = every
    return trainer


# ---- stopping and comparing


class Killed(BaseException):
    "Stands for the end of the process"


def raise_killed():
    raise Killed


def stop_at(monkeypatch, kind, done, step, how=raise_killed):
    """
    Call `how` before a step of a trainer of the class `kind`, once

    `done` epochs or steps are done when the stretch begins, whose step it is, from 1.
    """
    real, seen = kind.train_step, []

    def counting(trainer, *arguments):
        if trainer.begun == done:
            seen.append(0)
            if len(seen) == step:
                how()
        return real(trainer, *arguments)

    monkeypatch.setattr(kind, "train_step", counting)


def assert_equal(first, second, where="state"):
    "Equal to the bit, NaN to NaN, but for seconds"
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for name in first.keys() - {"seconds"}:
            assert_equal(first[name], second[name], f"{where}: {name}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second)):
            assert_equal(*pair, f"{where}: {number}")
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), where
    else:
        both_nan = isinstance(first, float) and math.isnan(first) and math.isnan(second)
        assert both_nan or first == second, where


def state_on_disk(folder) -> dict:
    return torch.load(Path(folder) / "checkpoint" / "state.pt", weights_only=True)


def assert_same_training(first, second):
    "Checkpoints and tables of two folders equal to the bit, but for the seconds"
    assert_equal(state_on_disk(first), state_on_disk(second))
    for path in Path(first).glob("*.parquet"):
        tables = [pd.read_parquet(Path(folder) / path.name) for folder in (first, second)]
        kept = [table.drop(columns="seconds", errors="ignore") for table in tables]
        pd.testing.assert_frame_equal(*kept, check_exact=True)


# ---- other processes

_killed = """
import os, signal, sys
from pathlib import Path
import pytest
from fairparse.core.records import open_face_set
from trainers import KINDS, stop_at
kind, faces, folder = KINDS[sys.argv[1]], open_face_set(sys.argv[2]), Path(sys.argv[3])
trainer, after = kind.make(faces, folder), int(sys.argv[4])
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
stop_at(pytest.MonkeyPatch(), type(trainer), after, 2, kill)
trainer.fit()
"""


def train_until_killed(name, faces, folder, after):
    "Train in a process of its own that kills itself in the second step after `after`; the process"
    script = folder.with_suffix(".py")
    script.write_text(_killed)
    return run_python(script, name, faces.folder, folder, after, check=False)


_parallel = """
import json, sys
from pathlib import Path
from fairparse.core.records import open_face_set
from trainers import KINDS
kind, faces = KINDS[sys.argv[1]], open_face_set(sys.argv[2])
trainer = kind.make(faces, Path(sys.argv[3]), **json.loads(sys.argv[4]))
assert trainer.world == 2
trainer.fit()
"""


def train_on_two_processes(name, faces, folder, config):
    import torch.distributed.run

    script = folder.with_suffix(".py")
    script.write_text(_parallel)
    launcher = (torch.distributed.run.__file__, "--standalone", "--nproc_per_node", "2")
    run_python(*launcher, script, name, faces.folder, folder, json.dumps(config))


# ---- all of them


@dataclass
class Kind:
    "A kind of trainer: how to make one, and what the tests of the protocol need to know of it"

    make: object  # (faces, folder, **changes) -> trainer
    networks: tuple  # names of what must stay finite
    stretches: tuple  # counter after each stretch of the whole training
    results: tuple = ()  # files that are there only when the training is finished
    configs: dict = field(default_factory=dict)  # name -> changes, of other ways to train
    others: dict = field(default_factory=dict)  # name -> (faces) -> changes that make it another


def _other_maps(faces):
    maps = np.array(faces.masks[faces.rows("train")])
    maps[3, 2, 1] = (maps[3, 2, 1] + 1) % 19
    return maps


def _other_bars():
    bars = make_bars()
    bars.images[bars.rows("train")[0], 0, 0, 0] ^= 1
    return bars


def _with_hats(faces):
    from dataclasses import replace

    return replace(faces, index=faces.index.assign(Hat=1))


EVERYTHING = {  # of the parser
    "accumulate": 2,
    "ema": 0.9,
    "lr_schedule": "one_cycle",
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "encoder_lr": 0.5,
    "repeat_rare": 0.9,
    "balance_groups": 0.5,
    "class_balance": 0.5,
    "loss": {"history": 0.5, "cross_entropy": 0.5},
    "augment": {"rotate": 10, "brightness": 0.2},
}
FAIR = {  # methods for the worst-off group
    "equal_shares": True,
    "guided": True,
    "select": "worst_group",
    "augment": {"worse": 0.2},
    "harden": {"families": ["cover", "noise"], "damage": 0.5, "paint": 0.3, "spectra": 0.3},
    "loss": {"face_weights": "group_dro", "logit_adjustment": 0.5},
}
DROP = {"loss": {"perturb": "drop", "history": 0.9}, "objective": "sigmoid_alt"}
FROZEN = {
    "balance": "loss",
    "frozen_epochs": 2,
    "backbone_lr": 0.3,
    "lr_schedule": "cosine",
    "weight_decay": 0.01,
    "label_smoothing": 0.1,
}
KINDS = {
    "parser": Kind(
        make_parser_trainer,
        ("model",),
        (1, 2, 3),
        ("model.safetensors", "history.parquet"),
        {"everything": EVERYTHING, "fair": FAIR, "drop": DROP, "bf16": {"precision": "bf16"}},
        {
            "configuration": lambda faces: {"epochs": 2},
            "network": lambda faces: {"parser": make_parser(coordinates=True)},
            "first weights": lambda faces: {"parser": make_parser(seed=9)},
            "validation faces": lambda faces: {"valid": faces.rows("test")},
            "attributes": lambda faces: {"faces": _with_hats(faces)},
        },
    ),
    "gan": Kind(
        make_gan_trainer,
        ("generator", "discriminator"),
        (1, 2, 3),
        ("generator.safetensors", "history.parquet"),
        {
            "everything": {
                **{"ema": 0.9, "accumulate": 2, "batch_size": 3},
                **{"decay_from": 0.0, "scales": 3},
            },
            "bf16": {"precision": "bf16", "features": 0.0},
        },
        {
            "configuration": lambda faces: {"l1": 3.0},
            "epochs": lambda faces: {"epochs": 2},
            "maps": lambda faces: {"maps": _other_maps(faces)},
            "images": lambda faces: {"data_hash": "other"},
            "faces": lambda faces: {
                "rows": faces.rows("train")[::-1],
                "maps": np.array(faces.masks[faces.rows("train")]),
            },
            "network": lambda faces: {"channels": 8},
            "first weights": lambda faces: {"seed": 1},
        },
    ),
    "controlnet": Kind(
        make_controlnet_trainer,
        ("controlnet",),
        (2, 4, 6),
        ("history.parquet",),
        {
            "everything": {
                **{"ema": 0.9, "accumulate": 2, "batch_size": 3, "warmup": 2},
                **{"decay": True, "drop_prompt": 0.5},
            },
            "bf16": {"precision": "bf16", "checkpointing": True},
            "limit": {"max_steps": 5},
        },
        {
            "configuration": lambda faces: {"lr": 2e-3},
            "maps": lambda faces: {"pairs": make_pairs(faces, maps=_other_maps(faces))},
            "prompts": lambda faces: {
                "pairs": make_pairs(faces, prompt=1 - make_pairs(faces).prompt)
            },
            "faces": lambda faces: {"pairs": make_pairs(faces, rows=make_pairs(faces).rows[::-1])},
            "images": lambda faces: {"data_hash": "other"},
            "palette": lambda faces: {"palette": "ade20k"},
            "base": lambda faces: {"base": micro_base(seed=1)},
            "first weights": lambda faces: {"awake": False},
            "seed": lambda faces: {"seed": 1},
        },
    ),
    "classifier": Kind(
        make_classifier_trainer,
        ("network",),
        (1, 2, 3, 4),
        ("history.parquet",),
        {"sampling": {"balance": "sampling"}, "frozen": FROZEN, "bf16": {"precision": "bf16"}},
        {
            "configuration": lambda faces: {"epochs": 5},
            "seed": lambda faces: {"seed": 1},
            "pictures": lambda faces: {"bars": _other_bars()},
        },
    ),
    "stylegan": Kind(
        make_stylegan_trainer,
        ("g", "d"),
        (3, 6, 7),
        (),
        {"often": {"every": 1}},
        {
            "seed": lambda faces: {"seed": 2},
            "rate": lambda faces: {"lr": 0.001},
            "penalty": lambda faces: {"r1": 0.2},
            "fewer images": lambda faces: {"images": random_pictures()[:10]},
            "other images": lambda faces: {"images": random_pictures().flip(0)},
            "batch": lambda faces: {"batch_size": 5},
        },
    ),
    "cosine": Kind(
        make_cosine_trainer,
        ("line",),
        (3, 6, 7),
        (),
        {},
        {
            "rate": lambda faces: {"rate": 0.2},
            "data": lambda faces: {"data": torch.eye(3) + 1},
            "first weights": lambda faces: {"start": 0.5},
        },
    ),
}
