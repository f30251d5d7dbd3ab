#!/bin/bash
# segmentation_models_pytorch 0.6.0: SoftCrossEntropyLoss counts the ignored pixels in its mean.
#
# Guess: its manual calls it a "Drop-in replacement for torch.nn.CrossEntropyLoss with label_smoothing", so with the
# same `ignore_index` its loss and gradient are torch's.
# Behaviour: ignored pixels add nothing, but the sum is divided by all pixels, where torch divides by those that count.
# Loss and gradient are torch's times the share of pixels that are not ignored: with 90 % ignored a tenth. FocalLoss of
# the same package leaves ignored pixels out first. (Without smoothing say 0.0: the default None is a TypeError.)
#
# Why it matters here: crops and partly labelled faces have many ignored pixels. The fewer labels a batch has the
# smaller its step, and in a sum with a Dice loss the balance of the two follows the share of ignored pixels.
#
# Output seen (Python 3.11, torch 2.13.0, segmentation_models_pytorch 0.6.0):
#   ignored  smoothing   torch    smp  ratio  ratio of gradients
#       0 %        0.0   3.442  3.442   1.00     1.00
#       0 %        0.1   3.439  3.439   1.00     1.00
#      50 %        0.0   3.436  1.718   0.50     0.50
#      50 %        0.1   3.433  1.716   0.50     0.50
#      90 %        0.0   3.456  0.346   0.10     0.10
#      90 %        0.1   3.450  0.345   0.10     0.10
#   FocalLoss with 50 % ignored: 0.341, of the other half alone: 0.341
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
from torch.nn import CrossEntropyLoss

# The losses need torch alone; the package around them would load torchvision and timm.
sys.path.insert(0, sysconfig.get_path("purelib") + "/segmentation_models_pytorch")
from losses import FocalLoss, SoftCrossEntropyLoss  # noqa: E402

IGNORE = 255
random = torch.Generator().manual_seed(0)
logits = torch.randn(2, 19, 20, 20, generator=random, requires_grad=True)
labels = torch.randint(0, 19, (2, 20, 20), generator=random)


def loss_and_gradient(loss, target):
    """The value of a loss and the size of its gradient."""
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.item(), gradient.norm().item()


print("ignored  smoothing   torch    smp  ratio  ratio of gradients")
for ignored in (0, 50, 90):
    target = labels.clone()
    target.view(2, -1)[:, : 4 * ignored] = IGNORE
    for smoothing in (0.0, 0.1):
        torchs = CrossEntropyLoss(ignore_index=IGNORE, label_smoothing=smoothing)
        by_torch = loss_and_gradient(torchs, target)
        smps = SoftCrossEntropyLoss(ignore_index=IGNORE, smooth_factor=smoothing)
        by_smp = loss_and_gradient(smps, target)
        ratio, of_gradients = (b / a for a, b in zip(by_torch, by_smp, strict=True))
        print(f"{ignored:5} % {smoothing:10} {by_torch[0]:7.3f} {by_smp[0]:6.3f} {ratio:6.2f} {of_gradients:8.2f}")
        assert abs(ratio - (1 - ignored / 100)) < 1e-4 and abs(of_gradients - ratio) < 1e-4
half = labels.clone()
half.view(2, -1)[:, :200] = IGNORE
focal = FocalLoss("multiclass", ignore_index=IGNORE)
whole = focal(logits, half).item()
counted = focal(logits.flatten(2)[..., 200:], labels.flatten(1)[..., 200:]).item()
print(f"FocalLoss with 50 % ignored: {whole:.3f}, of the other half alone: {counted:.3f}")
assert abs(whole - counted) < 1e-5
PY
