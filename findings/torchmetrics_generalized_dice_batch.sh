#!/bin/bash
# torchmetrics 1.9.0: the GeneralizedDiceScore of a picture depends on which other pictures share its batch.
#
# Guess: the score belongs to a picture (the function returns one for each, the class averages them), so the batch size
# and the order of a test set change the speed and not the score. MONAI's metric of the same name behaves so.
# Behaviour: a class weighs 1 / area^2 (the default). Where a picture lacks a class that is infinite, and the largest
# weight within the BATCH takes its place, laid out class by class but looked up picture by picture: often it is another
# class's. Behind a face with a small hat, a false hat of one row costs 0.7; in front of the same face it costs what
# it costs with MONAI; alone in its batch the false hat counts nothing at all.
#
# Why it matters here: faces lack parts and small parts weigh most. The score of a test set moves with the batch size,
# and a gap between groups with how the groups are mixed in the batches.
#
# Output seen (Python 3.11, torch 2.13.0, torchmetrics 1.9.0, monai 1.6.1):
#   the same picture                  torchmetrics  MONAI
#   alone                                    0.974  0.950
#   before a face without a hat              0.950  0.950
#   before a face with a small hat           0.950  0.950
#   after a face with a small hat            0.273  0.950
#   eight pictures in batches of 1, 2, 4, 8: 0.987 0.975 0.835 0.882
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
# Any build of torch will do; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu finds the small ones.
venv/bin/pip install --quiet --no-compile --disable-pip-version-check "torch==2.13.0" "torchmetrics==1.9.0" \
    "monai==1.6.1" "numpy==2.4.6"
venv/bin/python - <<'PY'
import torch
from monai.metrics import GeneralizedDiceScore as MonaiScore
from torch.nn.functional import one_hot
from torchmetrics.functional.segmentation import generalized_dice_score
from torchmetrics.segmentation import GeneralizedDiceScore

BACKGROUND, SKIN, HAT = range(3)


def face(hat_rows):
    """Labels of a 20 x 20 picture: background above, skin below, a hat of so many rows on top."""
    labels = torch.full((20, 20), BACKGROUND)
    labels[10:] = SKIN
    labels[:hat_rows] = HAT
    return labels


# The picture that is scored has no hat; the parser gives it one of a single row. The others are parsed without a fault.
target, found = face(0), face(1)


def score(*others, last=False):
    """torchmetrics' score of the picture in a batch with other pictures, and MONAI's."""
    place = len(others) if last else 0
    targets, preds = list(others), list(others)
    targets.insert(place, target)
    preds.insert(place, found)
    targets, preds = torch.stack(targets), torch.stack(preds)
    by_torchmetrics = generalized_dice_score(preds, targets, num_classes=3, input_format="index")
    channels = [one_hot(x, 3).permute(0, 3, 1, 2) for x in (preds, targets)]
    by_monai = MonaiScore()(*channels)
    return float(by_torchmetrics[place]), float(by_monai[place])


cases = {
    "alone": score(),
    "before a face without a hat": score(face(0)),
    "before a face with a small hat": score(face(1)),
    "after a face with a small hat": score(face(1), last=True),
}
print(f"{'the same picture':34}torchmetrics  MONAI")
for name, (by_torchmetrics, by_monai) in cases.items():
    print(f"{name:34}{by_torchmetrics:12.3f}  {by_monai:5.3f}")

faces = [face(rows) for rows in (0, 3, 0, 1, 0, 5, 0, 2)]
targets = torch.stack(faces)
preds = targets.clone()
preds[::2, 0] = HAT
sizes = {}
for size in (1, 2, 4, 8):
    metric = GeneralizedDiceScore(num_classes=3, input_format="index")
    for a, b in zip(preds.split(size), targets.split(size), strict=True):
        metric.update(a, b)
    sizes[size] = float(metric.compute())
print("eight pictures in batches of 1, 2, 4, 8:", " ".join(f"{value:.3f}" for value in sizes.values()))
seen = [round(a, 3) for a, _ in cases.values()]
assert seen == [0.974, 0.95, 0.95, 0.273], seen
assert [round(b, 3) for _, b in cases.values()] == [0.95] * 4
assert [round(value, 3) for value in sizes.values()] == [0.987, 0.975, 0.835, 0.882], sizes
PY
