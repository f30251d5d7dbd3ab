"Small faces, networks and counts that several test files use"

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fairparse.core.records import write_face_set
from fairparse.data.labels import CLASSES, NUM_CLASSES, PALETTE
from fairparse.parsing.unet import build_parser
from fairparse.workflow.notebooks import read_cells

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)  # small tensors: more threads only wait for each other
ENCODER, DECODER = "tu-mobilenetv3_small_050", [16, 16, 8, 8, 8]


def make_index(count, train=None, valid=None, attributes=("Hat", "Smiling"), seed=0):
    "An index of `count` faces: first `train` for training, then `valid`, the rest for testing"
    train = count * 2 // 3 if train is None else train
    valid = (count - train) // 2 if valid is None else valid
    split = np.array(["train"] * train + ["valid"] * valid + ["test"] * (count - train - valid))
    index = pd.DataFrame(
        {
            "id": [f"{i:05d}" for i in range(count)],
            "split": split,
            "fold": None,
            "source": "made up",
        }
    )
    values = np.random.default_rng(seed).integers(0, 2, (count, len(attributes)))
    for column, name in enumerate(attributes):
        index[name] = values[:, column]
    return index


def make_faces(folder, count=12, size=32, index=None, seed=0, **options):
    "A face set of coloured blocks: the colour tells the class, so that a network can learn it"
    rng = np.random.default_rng(seed)
    masks = np.kron(
        rng.integers(0, NUM_CLASSES, (count, 4, 4)), np.ones((size // 4, size // 4))
    ).astype(np.uint8)
    images = np.clip(
        PALETTE[masks].astype(int) + rng.normal(0, 10, (*masks.shape, 3)), 0, 255
    ).astype(np.uint8)
    return write_face_set(
        folder,
        images,
        masks,
        make_index(count, **options) if index is None else index,
        CLASSES,
        ["made up"],
    )


def make_parser(seed=0, size=32, decoder=DECODER, **options):
    "A tiny parser, always the same for the same seed"
    torch.manual_seed(seed)
    return build_parser(ENCODER, "none", decoder, size=size, **options)


def random_counts(*shape, seed=0, pixels=100):
    "Counts (*shape, 3) as a parser might have: tp, fp, fn"
    tp = np.random.default_rng(seed).integers(0, pixels, shape)
    return np.stack([tp, (pixels - tp) // 2, (pixels - tp + 1) // 2], -1)


def run_notebook(name, **parameters):
    "Run the code of a paper notebook here with other parameters; its variables afterwards"
    space = {}
    for source, tags in read_cells(ROOT / "nbs" / "paper" / f"{name}.ipynb"):
        exec(compile(source, name, "exec"), space)
        if "parameters" in tags:
            assert set(parameters) <= set(space), set(parameters) - set(space)
            space.update(parameters)
    return space


def run_python(path, *arguments, check=True, timeout=300, **environment):
    "Run the file `path` in a process of its own; the finished process, with its output as text"
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, str(path), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
    )
    if check and done.returncode:
        raise AssertionError(f"{path} failed:\n{done.stdout}\n{done.stderr}")
    return done
