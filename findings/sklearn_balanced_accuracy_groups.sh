#!/bin/bash
# scikit-learn 1.9.1: balanced accuracy and macro recall part company in a group that lacks a class.
#
# Guess: balanced_accuracy_score is "the average of recall obtained on each class" (its manual), so it is the same
# number as recall_score(average="macro") and as the "macro avg" recall of classification_report.
# Behaviour: a class that is predicted but never true is left out by the first; the other two take its recall as 0 and
# count it. Over the whole test set all agree; in a group without that class one prediction of it costs them a whole
# class. Each warns of the class, neither of the other's answer.
#
# Why it matters here: gaps between groups. Groups are small, some expressions rare, and "balanced accuracy" and "macro
# recall" stand for each other in papers. Below, one and the same angry face makes group B 5 points better or 6 points
# worse than group A. `labels=` with the classes that the group has gives the same in both.
#
# Output seen (Python 3.11, scikit-learn 1.9.1):
#                        balanced accuracy  macro recall  report  labels=those of the group
#   group A                          0.700         0.700   0.700                       0.700
#   group B, no disgust              0.750         0.643   0.643                       0.750
#   both together                    0.721         0.721   0.721                       0.721
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "scikit-learn==1.9.1" "numpy==2.4.6" "scipy==1.17.1"
venv/bin/python -W ignore - <<'PY'
import numpy as np
from sklearn.metrics import balanced_accuracy_score, classification_report, recall_score

EXPRESSIONS = np.array(["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"])


def group(right, disgusted):
    """True and predicted expressions: 20 pictures of each, so many right; disgust only where `disgusted` is set."""
    shown = EXPRESSIONS if disgusted else EXPRESSIONS[EXPRESSIONS != "disgust"]
    true = np.repeat(shown, 20)
    wrong = np.where(true == "happy", "neutral", "happy")
    predicted = np.where(np.tile(np.arange(20) < right, len(shown)), true, wrong)
    if not disgusted:
        predicted[19] = "disgust"  # one angry face that was taken for something else anyway
    return true, predicted


def scores(true, predicted):
    """Balanced accuracy, macro recall, the report's macro recall, and macro recall over the classes that are there."""
    report = classification_report(true, predicted, output_dict=True)
    return (
        balanced_accuracy_score(true, predicted),
        recall_score(true, predicted, average="macro"),
        report["macro avg"]["recall"],
        recall_score(true, predicted, average="macro", labels=np.unique(true)),
    )


groups = {"group A": group(14, disgusted=True), "group B, no disgust": group(15, disgusted=False)}
groups["both together"] = tuple(np.concatenate(pair) for pair in zip(*groups.values(), strict=True))
print(" " * 21 + "balanced accuracy  macro recall  report  labels=those of the group")
table = {}
for name, pair in groups.items():
    table[name] = [round(float(value), 3) for value in scores(*pair)]
    balanced, macro, report, present = table[name]
    print(f"{name:21}{balanced:17.3f}{macro:14.3f}{report:8.3f}{present:28.3f}")
assert table["group A"] == [0.7] * 4
assert table["group B, no disgust"] == [0.75, 0.643, 0.643, 0.75]
assert table["both together"] == [0.721] * 4
PY
