#!/bin/bash
# oxipng 9.1 and Pillow 13.0.0: a lossless optimiser renumbers grey label maps, each file in its own way.
#
# Guess: a grey PNG whose pixel values are the labels holds the same numbers after a lossless optimisation; palettes
# and their permutations are a matter of colour-coded maps only.
# Behaviour: where a picture has few grey values oxipng (level 2, its default) often writes a palette PNG whose colours
# are the old greys, in an order that packs best. The picture looks the same, but `numpy.asarray(Image.open(...))` now
# gives palette indices, numbered for this file alone; background need not be 0. A map with nearly all labels stays
# grey, so one folder mixes both kinds. OpenCV and scikit-image give the right values for the same file, but as three
# channels where the original has one. `Image.open(...).convert("L")` is right for both kinds.
#
# Why it matters here: label maps of parsers are grey PNGs, and faces lack parts all the time. No number is out of
# range and nothing raises: an audit just gives a low score, by how many parts the faces show.
#
# Output seen (Python 3.11, pyoxipng 9.1.1, Pillow 13.0.0, opencv-python-headless 5.0.0.93, scikit-image 0.26.0):
#   labels in the file    mode  Pillow reads             right   OpenCV         scikit-image
#   all of 0 to 18        L     all of 0 to 18         100.0 %   (512, 512)     (512, 512)
#   all but 6 (glasses)   L     all but 6 (glasses)    100.0 %   (512, 512)     (512, 512)
#   0 1 2 4 10 11 13 17   P     0 1 2 3 4 5 6 7         12.5 %   (512, 512, 3)  (512, 512, 3)
#   0 10 13 17            P     0 1 2 3                  0.0 %   (512, 512, 3)  (512, 512, 3)
#   convert("L") first: 100.0 % right in every file
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "pyoxipng==9.1.1" "Pillow==13.0.0" "numpy==2.4.6" \
    "opencv-python-headless==5.0.0.93" "scikit-image==0.26.0"
venv/bin/python - <<'PY'
import cv2
import numpy as np
import oxipng
import skimage.io
from PIL import Image

FILES = {
    "all of 0 to 18": list(range(19)),
    "all but 6 (glasses)": [label for label in range(19) if label != 6],
    "0 1 2 4 10 11 13 17": [0, 1, 2, 4, 10, 11, 13, 17],
    "0 10 13 17": [0, 10, 13, 17],
}


def squares(labels, count=16, side=32):
    """A 512 x 512 label map of squares, each with one of these labels."""
    drawn = np.random.default_rng(0).choice(labels, size=(count, count))
    return np.kron(drawn, np.ones((side, side))).astype(np.uint8)


print(f"{'labels in the file':22}{'mode':6}{'Pillow reads':22}{'right':>8}   {'OpenCV':15}scikit-image")
seen = {}
for name, present in FILES.items():
    labels = squares(present)
    Image.fromarray(labels).save("labels.png")
    oxipng.optimize("labels.png")
    picture = Image.open("labels.png")
    read = np.asarray(picture)
    right = round(100 * float((read == labels).mean()), 1)
    by_opencv = cv2.imread("labels.png", cv2.IMREAD_UNCHANGED)
    by_skimage = skimage.io.imread("labels.png")
    for other in (by_opencv, by_skimage):
        assert (other.reshape(512, 512, -1) == labels[..., None]).all()
    assert (np.asarray(picture.convert("L")) == labels).all()
    numbers = " ".join(map(str, np.unique(read))) if len(present) < 18 else name
    print(f"{name:22}{picture.mode:6}{numbers:22}{right:6.1f} %   {by_opencv.shape!s:15}{by_skimage.shape}")
    seen[name] = (picture.mode, right, by_opencv.shape, by_skimage.shape)
print('convert("L") first: 100.0 % right in every file')
one, three = (512, 512), (512, 512, 3)
assert seen["all of 0 to 18"] == ("L", 100.0, one, one)
assert seen["all but 6 (glasses)"] == ("L", 100.0, one, one)
for name in ("0 1 2 4 10 11 13 17", "0 10 13 17"):
    mode, right, *shapes = seen[name]
    assert mode == "P" and right < 50 and shapes == [three, three], seen[name]
PY
