#!/bin/bash
# Pillow 13.0.0: whether a part mask is white or black outside the part depends on whether its size had to change.
#
# Guess: `resize` changes the size and nothing else, so "to grey, then resize" and "resize, then to grey" give the same
# mask but for soft edges; and a folder of masks of mixed sizes is treated alike.
# Behaviour: for RGBA and LA every filter but NEAREST works on premultiplied colours, so what lies under full
# transparency becomes black; at NEAREST, or when the size is already right (the picture is copied), its colour stays.
# The manual of `resize` says nothing of it. A white part on transparent white, as drawing programs export it, is
# therefore a mask of the part after a real resize, and a mask of the whole picture when the size fitted.
#
# Why it matters here: CelebAMask-HQ keeps one mask for each part; masks from other tools carry alpha. One class then
# fills just those pictures that had the right size. Read the alpha channel itself before anything else.
#
# Output seen (Python 3.11, Pillow 13.0.0, numpy 2.4.6), the part covers 25 % of the picture:
#                            256 to 512   512 to 512  1024 to 512
#   resize, then to grey         25.4 %      100.0 %       25.4 %
#   to grey, then resize        100.0 %      100.0 %      100.0 %
#   nearest, then to grey       100.0 %      100.0 %      100.0 %
#   alpha, then resize           25.0 %       25.0 %       25.0 %
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "Pillow==13.0.0" "numpy==2.4.6"
venv/bin/python - <<'PY'
import numpy as np
from PIL import Image

SIZE = (512, 512)
WAYS = {
    "resize, then to grey": lambda mask: mask.resize(SIZE).convert("L"),
    "to grey, then resize": lambda mask: mask.convert("L").resize(SIZE),
    "nearest, then to grey": lambda mask: mask.resize(SIZE, Image.Resampling.NEAREST).convert("L"),
    "alpha, then resize": lambda mask: mask.getchannel("A").resize(SIZE),
}


def part_mask(side, mode):
    """A white opaque square, a quarter of the picture, on transparent white; read back from a PNG file."""
    white = (255,) * (len(mode) - 1)
    mask = Image.new(mode, (side, side), (*white, 0))
    mask.paste((*white, 255), (side // 4, side // 4, side * 3 // 4, side * 3 // 4))
    mask.save("mask.png")
    return Image.open("mask.png")


def share(way, side, mode):
    """The share of the 512 x 512 mask that is brighter than half."""
    return float((np.asarray(way(part_mask(side, mode))) > 127).mean())


sides = (256, 512, 1024)
print(" " * 22 + "".join(f"{f'{side} to 512':>13}" for side in sides))
table = {}
for name, way in WAYS.items():
    table[name] = [share(way, side, "RGBA") for side in sides]
    assert table[name] == [share(way, side, "LA") for side in sides]
    print(f"{name:22}" + "".join(f"{100 * value:>11.1f} %" for value in table[name]))
wanted = {
    "resize, then to grey": [0.25, 1, 0.25],
    "to grey, then resize": [1, 1, 1],
    "nearest, then to grey": [1, 1, 1],
    "alpha, then resize": [0.25, 0.25, 0.25],
}
assert all(np.allclose(table[name], wanted[name], atol=0.005) for name in WAYS), table
PY
