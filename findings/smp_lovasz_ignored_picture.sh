#!/bin/bash
# segmentation_models_pytorch 0.6.0: one picture without a label breaks LovaszLoss, or empties the loss of the whole batch.
#
# Guess: with `ignore_index` a picture of which every pixel is ignored adds nothing: the loss of a batch of such
# pictures is 0 with a gradient of 0, as in DiceLoss and JaccardLoss of the same package.
# Behaviour (mode "multiclass"): for such a picture the loss is a tensor of shape (0, C), not a number.
#   The whole batch is ignored: the loss is empty. Added to another loss the sum is empty too, and its mean is NaN.
#   per_image=True, the picture comes first: the mean over the pictures is empty; what the others cost is gone.
#   per_image=True, the picture comes later: RuntimeError, in the middle of a training. The order of a batch decides.
#
# Why it matters here: partly labelled faces and crops of them are trained on with an ignore label, and a shuffled
# batch meets a picture without labels sooner or later.
#
# Output seen (Python 3.11, torch 2.13.0, segmentation_models_pytorch 0.6.0):
#   DiceLoss, all ignored: 0.0
#   LovaszLoss, all ignored: shape (0, 3); added to a loss of 1: shape (0, 3), its mean nan
#   LovaszLoss per image, ignored picture first: shape (0, 3)
#   LovaszLoss per image, ignored picture second: RuntimeError: output with shape [] doesn't match the broadcast shape [0, 3]
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
# Any build of torch will do; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu finds the small ones.
venv/bin/pip install --quiet --no-compile --disable-pip-version-check "torch==2.13.0" "numpy==2.4.6"
venv/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps "segmentation_models_pytorch==0.6.0"
venv/bin/python - <<'PY'
import sys
import sysconfig

import torch

# The losses need torch alone; the package around them would load torchvision and timm.
sys.path.insert(0, sysconfig.get_path("purelib") + "/segmentation_models_pytorch")
from losses import DiceLoss, LovaszLoss  # noqa: E402

IGNORE = 255
random = torch.Generator().manual_seed(0)
logits = torch.randn(2, 3, 8, 8, generator=random, requires_grad=True)
labels = torch.randint(0, 3, (2, 8, 8), generator=random)
nothing = torch.full_like(labels, IGNORE)

dice = DiceLoss("multiclass", ignore_index=IGNORE)(logits, nothing)
print("DiceLoss, all ignored:", dice.item())
assert dice.shape == () and dice == 0

lovasz = LovaszLoss("multiclass", ignore_index=IGNORE)(logits, nothing)
total = torch.tensor(1.0) + lovasz
print(f"LovaszLoss, all ignored: shape {tuple(lovasz.shape)}; added to a loss of 1: "
      f"shape {tuple(total.shape)}, its mean {total.mean().item()}")
assert lovasz.shape == total.shape == (0, 3) and total.mean().isnan()

per_image = LovaszLoss("multiclass", per_image=True, ignore_index=IGNORE)
first = per_image(logits, torch.stack([nothing[0], labels[1]]))
print("LovaszLoss per image, ignored picture first: shape", tuple(first.shape))
assert first.shape == (0, 3)
try:
    per_image(logits, torch.stack([labels[0], nothing[1]]))
    sys.exit("LovaszLoss per image, ignored picture second: no error")
except RuntimeError as error:
    print("LovaszLoss per image, ignored picture second: RuntimeError:", error)
PY
