#!/bin/bash
# torchmetrics 1.9.0: in a MetricCollection, two different metrics become one if the first batch cannot tell them apart.
#
# Good guess: a collection updates each of its metrics; sharing work (`compute_groups=True`, the default) is for metrics that
# keep the same state by construction, such as precision and recall, as the documentation says.
# Behaviour: the groups are found by comparing the states' values after the first update. Two metrics of one class with other
# arguments (`ignore_index`, `threshold`) have equal states if the first batch has no pixel on which they differ. From then
# on only one is updated and both report its counts. The result of an epoch depends on which batch came first; nothing is
# said. `compute_groups=False` gives the right numbers in any order.
# (Kin: issue 2596 of Lightning-AI/torchmetrics, closed, about metrics of one's own that differ in an attribute.)
#
# Why here: "mean IoU" beside "mean IoU without background" is the usual pair for face parsing, and close-ups without any
# background are real pictures; so are attribute scores at two thresholds.
#
# Output seen (Python 3.11, torchmetrics 1.9.0, torch 2.13.0; the same two batches in both orders):
#   a portrait first: all classes 0.3667, without background 0.7083
#   a close-up first: all classes 0.3667, without background 0.5500
#   a close-up first, compute_groups=False: all classes 0.3667, without background 0.7083
#   thresholds, the telling batch first: lenient 1.0000, strict 0.5000
#   thresholds, the clear batch first: lenient 1.0000, strict 1.0000
# Exit code 1 if that changes. (PyTorch's wheel is large; nothing runs on a GPU. With torch 2.15.0 the same was seen.)
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "torchmetrics==1.9.0" "torch==2.13.0" "numpy==2.4.6"
venv/bin/python - <<'PY'
from importlib.metadata import version

import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, MulticlassJaccardIndex

print("versions:", *(f"{name} {version(name)}" for name in ("torchmetrics", "torch")))


def parsing(groups):
    parts = {
        "all classes": MulticlassJaccardIndex(3),
        "without background": MulticlassJaccardIndex(3, ignore_index=0),
    }
    return MetricCollection(parts, compute_groups=groups)


def attribute(groups):
    cuts = {"lenient": BinaryAccuracy(threshold=0.5), "strict": BinaryAccuracy(threshold=0.9)}
    return MetricCollection(cuts, compute_groups=groups)


def epoch(name, make, batches, groups=True):
    scores = make(groups)
    for predicted, true in batches:
        scores.update(torch.tensor(predicted), torch.tensor(true))
    found = {key: round(value.item(), 4) for key, value in scores.compute().items()}
    print(f"{name}:", ", ".join(f"{key} {value:.4f}" for key, value in found.items()))
    return list(found.values())


# pixels of two small pictures: predicted, true; the close-up has no background (class 0)
close_up = ([1, 2, 1, 2], [1, 2, 2, 2])
portrait = ([1, 2, 1, 2], [0, 0, 1, 2])
right = epoch("a portrait first", parsing, [portrait, close_up])
wrong = epoch("a close-up first", parsing, [close_up, portrait])
apart = epoch("a close-up first, compute_groups=False", parsing, [close_up, portrait], False)
assert right == apart and right[0] == wrong[0] and abs(right[1] - wrong[1]) > 0.1

# probabilities of an attribute and whether the face has it
clear = ([0.95, 0.1], [1, 0])
telling = ([0.7, 0.7], [1, 1])
right = epoch("thresholds, the telling batch first", attribute, [telling, clear])
wrong = epoch("thresholds, the clear batch first", attribute, [clear, telling])
assert right == [1, 0.5] and wrong == [1, 1]
PY
