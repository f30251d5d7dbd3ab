#!/bin/bash
# Hugging Face datasets 5.2.0: a `map` that only looks at a picture compresses it again, at JPEG quality 75.
#
# Good guess: `ds.map(lambda row: {"width": row["image"].width})` adds a column and leaves the pictures alone.
# Behaviour: a row decodes its picture when the function touches it; what was decoded counts as changed and is encoded
# again in its own format by Pillow's `save` with default options. So for JPEG, reading the width costs a generation of
# compression (quality 75, half the colour resolution), each further map one more, without a word. A function that really
# changes the picture (crop, resize, even a plain copy) is lossless instead: the result has no format and becomes PNG.
# Neither the documentation of `map` nor that of `Image` says so. It takes pictures stored as bytes, as in Parquet files
# and on the Hub; pictures stored as paths stay what they are. `input_columns=["image"]` or `Image(decode=False)` avoid it.
#
# Why here: robustness to JPEG compression and the distance of synthetic from real faces are both measured on pixels; a
# data set that went through one harmless-looking `map` has another compression than its source.
#
# Output seen (Python 3.11, datasets 5.2.0, Pillow 13.0.0; mean change in grey levels of 255):
#   a map that adds a number            0.00   same bytes: True
#   a map that reads the width          4.50   same bytes: False
#   ... five of these                   7.97   same bytes: False
#   the width by input_columns          0.00   same bytes: True
#   a map that copies the picture       0.00   same bytes: False
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  "datasets==5.2.0" "pillow==13.0.0" "numpy==2.4.6" "pyarrow==26.0.1" "pandas==3.1.1"
HF_HOME="$folder/hf" HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import io
from importlib.metadata import version

import datasets
import numpy as np
from datasets import Dataset, Features
from datasets import Image as Picture
from PIL import Image

print("versions:", *(f"{name} {version(name)}" for name in ("datasets", "pillow")))
datasets.disable_progress_bars()

# a soft picture with colour, as a JPEG file of good quality
blocks = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
file = io.BytesIO()
Image.fromarray(blocks).resize((64, 64), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
jpeg = file.getvalue()
original = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)

# through a Parquet file, as data sets on the Hub are stored
row = {"image": [{"bytes": jpeg, "path": None}]}
Dataset.from_dict(row, features=Features({"image": Picture()})).to_parquet("faces.parquet")
faces = Dataset.from_parquet("faces.parquet")


def change(name, ds):
    bytes_ = ds.cast_column("image", Picture(decode=False))[0]["image"]["bytes"]
    mean = np.abs(np.asarray(ds[0]["image"]).astype(int) - original).mean()
    print(f"{name:34}{mean:6.2f}   same bytes: {bytes_ == jpeg}")
    return mean


five = faces
for step in range(5):
    five = five.map(lambda row, name=f"width{step}": {name: row["image"].width})

assert change("a map that adds a number", faces.map(lambda row: {"one": 1})) == 0
once = change("a map that reads the width", faces.map(lambda row: {"width": row["image"].width}))
often = change("... five of these", five)
by_column = faces.map(lambda image: {"width": image.width}, input_columns=["image"])
assert change("the width by input_columns", by_column) == 0
copied = faces.map(lambda row: {"image": row["image"].copy()})
assert change("a map that copies the picture", copied) == 0
assert 1 < once < often
PY
