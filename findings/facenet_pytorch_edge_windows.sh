#!/bin/bash
# facenet-pytorch 2.6.0, MTCNN: windows that reach beyond the picture are squeezed into it, not filled up.
#
# Good guess: a candidate window that is partly outside of the picture keeps its place and its proportions, and what is
# missing is filled (with zeros in the authors' Matlab code and in the ports that follow it), so that a face at the edge
# is seen as a face of which a part is covered.
# Behaviour: the window is cut off at the picture's edge and the rest, a rectangle, is stretched to the network's square.
# The second and third network see a distorted face; the boxes and landmarks that they answer are then scaled by the
# full window. So the points of a face at the edge lie beside it, without a lower probability as a sign, and many such
# faces are not found at all. A grey border around the picture, taken off again from the coordinates, mends it.
#
# Why here: faces of photographs are cut by the edge; their landmarks decide how a face is aligned for the parser.
#
# Output seen (Python 3.11, facenet-pytorch 2.6.0, torch 2.15.0; how far the eyes are from where they are in the whole
# picture, in distances of the eyes, as columns of the portrait are cut away from its left):
#   cut   0   as it is:  0.00 (p 1.000)   with a border:  0.03 (p 1.000)
#   cut 150   as it is:  0.03 (p 1.000)   with a border:  0.03 (p 1.000)
#   cut 180   as it is:  0.34 (p 1.000)   with a border:  0.01 (p 1.000)
#   cut 190   as it is:  0.53 (p 1.000)   with a border:  0.02 (p 1.000)
#   cut 200   as it is:  0.73 (p 1.000)   with a border:  0.04 (p 1.000)
#   cut 205   as it is:  0.92 (p 0.999)   with a border:  0.07 (p 0.999)
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check \
  "torch==2.15.0" "torchvision==0.29.2" "numpy==2.4.6" "pillow==13.0.0" "scikit-image==0.26.0" "requests==2.34.2" "tqdm==4.70.1"
venv/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps "facenet-pytorch==2.6.0"
venv/bin/python - <<'PY'
from importlib.metadata import version

import numpy as np
import skimage.data
from facenet_pytorch import MTCNN
from PIL import Image, ImageOps

print("versions:", *(f"{name} {version(name)}" for name in ("facenet-pytorch", "torch")))
portrait = Image.fromarray(skimage.data.astronaut())
finder = MTCNN(keep_all=True)


def eyes(picture, border=0):
    "Both eyes of the most probable face, in pixels of the picture, and its probability"
    seen = ImageOps.expand(picture, border, fill=(127, 127, 127))
    _, probabilities, points = finder.detect(seen, landmarks=True)
    if points is None:
        return None, 0.0
    best = int(np.argmax(probabilities.astype(float)))
    return points[best].astype(float)[:2] - border, float(probabilities[best])


truth, _ = eyes(portrait)
across = np.hypot(*(truth[1] - truth[0]))
worst = {}
for cut in (0, 150, 180, 190, 200, 205):
    piece = portrait.crop((cut, 0, *portrait.size))
    line = f"cut {cut:3}"
    for name, border in (("as it is", 0), ("with a border", 100)):
        found, probability = eyes(piece, border)
        away = np.inf if found is None else np.hypot(*(found + (cut, 0) - truth).T).max() / across
        worst.setdefault(name, []).append(away)
        line += f"   {name}: {away:5.2f} (p {probability:.3f})"
    print(line)

squeezed = worst["as it is"][-1] > 0.5 > 0.15 > max(worst["with a border"])
raise SystemExit(0 if squeezed else 1)
PY
