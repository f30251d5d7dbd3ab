#!/bin/bash
# fairlearn 0.15.0: a group that has no positive case gets a true positive rate of 0, and the greatest possible unfairness.
#
# Good guess: a rate over no cases is undefined, so the group's value is NaN or the call warns (scikit-learn's recall warns).
# Behaviour: `true_positive_rate` and `false_negative_rate` of such a group are both 0.0, though they add up to 1 wherever
# they exist, and nothing is said. A predictor that makes no mistake at all then has an equalized odds difference of 1.0 and
# a ratio of 0.0, the worst values there are. The cause lies one library down: the rates are read from scikit-learn's
# `confusion_matrix(normalize="true")`, which divides 0 by 0 in silence and writes 0. The other way round, in a group without
# negative cases, false positive and true negative rate are 0.0. The reference pages mention no such case.
#
# Why here: rare attributes (hats, earrings, glasses) are absent from small groups as a matter of course. The largest gap of
# an audit is then the one of the group about which nothing is known.
#
# Output seen (Python 3.11, fairlearn 0.15.0, scikit-learn 1.9.1):
#   group without positives: true positive rate 0.0, false negative rate 0.0, warnings 0
#   perfect predictions: equalized odds difference 1.0, ratio 0.0
#   the same without that group: difference 0.0, ratio 1.0
#   scikit-learn's recall of that group: 0.0, warnings 1
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  "fairlearn==0.15.0" "scikit-learn==1.9.1" "pandas==3.1.1" "numpy==2.4.6" "scipy==1.17.1"
venv/bin/python - <<'PY'
import warnings
from importlib.metadata import version

import numpy as np
from fairlearn.metrics import (
    equalized_odds_difference,
    equalized_odds_ratio,
    false_negative_rate,
    true_positive_rate,
)
from sklearn.metrics import recall_score

print("versions:", *(f"{name} {version(name)}" for name in ("fairlearn", "scikit-learn")))
# does the face wear a hat? Three groups, and nobody of group c does; every answer is right
truth = np.array([1, 1, 0, 0] + [1, 0, 0, 0] + [0, 0, 0, 0])
answers = truth.copy()
group = np.repeat(["a", "b", "c"], 4)
of_c = group == "c"


def quiet(function, *args, **kwargs):
    "What the function returns, and how many warnings it gave"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return float(function(*args, **kwargs)), len(caught)


tpr, warned = quiet(true_positive_rate, truth[of_c], answers[of_c])
fnr, more = quiet(false_negative_rate, truth[of_c], answers[of_c])
print(f"group without positives: true positive rate {tpr}, false negative rate {fnr}, warnings {warned + more}")
assert (tpr, fnr, warned, more) == (0, 0, 0, 0)



def odds(rows):
    "Equalized odds of these faces: difference, ratio, and the number of warnings"
    of = truth[rows], answers[rows]
    gap, warned = quiet(equalized_odds_difference, *of, sensitive_features=group[rows])
    ratio, more = quiet(equalized_odds_ratio, *of, sensitive_features=group[rows])
    return gap, ratio, warned + more


everyone, known = odds(group != ""), odds(~of_c)
print("perfect predictions: equalized odds difference {}, ratio {}".format(*everyone))
print("the same without that group: difference {}, ratio {}".format(*known))
assert everyone == (1, 0, 0)
assert known == (0, 1, 0)

recall, warned = quiet(recall_score, truth[of_c], answers[of_c])
print(f"scikit-learn's recall of that group: {recall}, warnings {warned}")
assert (recall, warned) == (0, 1)
PY
