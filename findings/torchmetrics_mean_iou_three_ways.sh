#!/bin/bash
# torchmetrics 1.9.0: `MeanIoU` has three means, and an output option chooses between two of them.
#
# Guess: `MeanIoU()` is the mean of the numbers that `MeanIoU(per_class=True)` gives (its manual: "If set to False, the
# metric will compute the mean IoU over all classes"), and the function `mean_iou` is the same for each picture.
# Behaviour, for the very same labels:
#   MeanIoU(per_class=True)   a mean over pictures in each class; the mean of these counts every class once.
#   MeanIoU()                 one mean over all pairs of picture and class that occur: a class counts by its pictures.
#   mean_iou(), or the values that MeanIoU() returns step by step: over classes in each picture, then over pictures.
# The library's MulticlassJaccardIndex pools the pixels of all pictures first, as sklearn's jaccard_score does: a fourth
# number. A class that few pictures show weighs a third of the score in one and next to nothing in another.
#
# Why it matters here: parsers are compared by "mIoU", and rare parts (glasses, hats, earrings) are where they differ.
# A published value is comparable only when the order of the means is known.
#
# Output seen (Python 3.11, torch 2.13.0, torchmetrics 1.9.0, scikit-learn 1.9.1):
#   IoU of background, skin, hat: 0.892 0.900 0.500
#   MeanIoU(per_class=True), mean of it     0.764
#   MeanIoU()                               0.860
#   mean of MeanIoU()'s values at each step 0.872
#   mean_iou(), mean of it                  0.872
#   MulticlassJaccardIndex                  0.876
#   sklearn jaccard_score, macro            0.876
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
# Any build of torch will do; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu finds the small ones.
venv/bin/pip install --quiet --no-compile --disable-pip-version-check "torch==2.13.0" "torchmetrics==1.9.0" \
    "scikit-learn==1.9.1" "numpy==2.4.6"
venv/bin/python - <<'PY'
import torch
from sklearn.metrics import jaccard_score
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.functional.segmentation import mean_iou
from torchmetrics.segmentation import MeanIoU

BACKGROUND, SKIN, HAT = range(3)

# Ten pictures of 20 x 20: half background, half skin, and two hats. The parser finds the large one alone, and it
# takes one row of skin for background everywhere.
labels = torch.full((10, 20, 20), BACKGROUND)
labels[:, 10:] = SKIN
labels[0, :5] = HAT
labels[1, :1] = HAT
found = labels.clone()
found[1, :1] = BACKGROUND
found[:, 10] = BACKGROUND


def streamed(per_class):
    """The metric after the ten pictures came one by one, and the mean of what it gave at each."""
    metric = MeanIoU(num_classes=3, input_format="index", per_class=per_class)
    steps = [metric(a[None], b[None]) for a, b in zip(found, labels, strict=True)]
    return metric.compute(), torch.stack(steps).mean()


by_class = streamed(per_class=True)[0]
overall, steps = streamed(per_class=False)
values = {
    "MeanIoU(per_class=True), mean of it": by_class.mean(),
    "MeanIoU()": overall,
    "mean of MeanIoU()'s values at each step": steps,
    "mean_iou(), mean of it": mean_iou(found, labels, num_classes=3, input_format="index").mean(),
    "MulticlassJaccardIndex": MulticlassJaccardIndex(3)(found, labels),
    "sklearn jaccard_score, macro": jaccard_score(labels.flatten(), found.flatten(), average="macro"),
}
print("IoU of background, skin, hat:", " ".join(f"{value:.3f}" for value in by_class))
for name, value in values.items():
    print(f"{name:40}{float(value):.3f}")
seen = [round(float(value), 3) for value in values.values()]
assert seen == [0.764, 0.86, 0.872, 0.872, 0.876, 0.876], seen
PY
