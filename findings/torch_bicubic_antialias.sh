#!/bin/bash
# PyTorch 2.13.0: `antialias=True` changes a bicubic picture that is made larger, where there is nothing to antialias.
#
# Good guess: antialiasing widens the filter when a picture is made smaller; when it is made larger the flag does nothing.
# That is so for `mode="bilinear"`.
# Behaviour: for `mode="bicubic"` the flag also changes the cubic curve itself, from a = -0.75 to a = -0.5, in both
# directions. A picture made twice as large differs by 17 grey levels here, and one side made larger is enough. With the flag
# the result is Pillow's, without it nobody's but OpenCV's. The documentation of `interpolate` promises Pillow's result
# for downsampling and does not mention the curve.
#
# Why here: parsers and feature extractors resize faces in either direction by one line with a fixed flag. torchvision's
# `resize` has the flag on by default and `interpolate` off, and ONNX's Resize has a = -0.75 whether `antialias` is set or not:
# two pipelines that both say "bicubic" agree neither for small faces nor for large ones.
#
# Output seen (Python 3.11, torch 2.13.0, Pillow 13.0.0; largest difference in grey levels, 32 px to 64 px):
#   bilinear, flag on and off        0.00
#   bicubic, flag on and off        17.14
#   bicubic, only the width larger  10.19
#   bicubic, flag on, and Pillow     0.00
#   bicubic, flag off, and Pillow   17.14
# Exit code 1 if that changes. (PyTorch's wheel is large; nothing runs on a GPU. With torch 2.15.0 the same was seen.)
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "torch==2.13.0" "pillow==13.0.0" "numpy==2.4.6"
venv/bin/python - <<'PY'
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

print("versions:", *(f"{name} {version(name)}" for name in ("torch", "pillow")))
values = np.random.default_rng(0).uniform(0, 255, (32, 32)).astype(np.float32)
picture = torch.from_numpy(values)[None, None]


def resized(mode, size, antialias):
    return interpolate(picture, size=size, mode=mode, antialias=antialias)[0, 0].numpy()


def apart(name, one, other):
    difference = float(np.abs(one - other).max())
    print(f"{name:30} {difference:6.2f}")
    return difference


large = (64, 64)
off, on = (resized("bicubic", large, flag) for flag in (False, True))
pillow = np.asarray(Image.fromarray(values).resize(large, Image.Resampling.BICUBIC))
linear = [resized("bilinear", large, flag) for flag in (False, True)]
wide = [resized("bicubic", (32, 64), flag) for flag in (False, True)]
assert apart("bilinear, flag on and off", *linear) < 0.01
assert apart("bicubic, flag on and off", off, on) > 10
assert apart("bicubic, only the width larger", *wide) > 5
assert apart("bicubic, flag on, and Pillow", on, pillow) < 0.01
assert apart("bicubic, flag off, and Pillow", off, pillow) > 10
PY
