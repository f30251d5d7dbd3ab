#!/bin/bash
# PyTorch 2.13.0: behind a warm-up in SequentialLR, ExponentialLR starts from the full rate, MultiplicativeLR from what is left.
#
# Good guess: `MultiplicativeLR(optimizer, lambda epoch: 0.95)` and `ExponentialLR(optimizer, 0.95)` are the same schedule (alone
# they are, to the last digit), so they stay the same when SequentialLR puts a warm-up before them.
# Behaviour: at a milestone SequentialLR starts the next schedule by `step(0)`. A schedule with a closed form then begins at
# the optimizer's base rate; MultiplicativeLR has none and multiplies what the warm-up left. A linear warm-up of 5
# steps leaves 0.82 of the rate, a constant one at a tenth leaves a tenth, and the whole training runs at that, without a
# warning. Neither page mentions it, and that of SequentialLR shows a constant warm-up at a tenth before ExponentialLR.
#
# Why here: warm-up and decay are joined like this for parsers and ControlNets. A rate that is ten times too small looks like
# a method that does not help.
#
# Output seen (Python 3.11, torch 2.13.0; learning rates of steps 0 to 8 for a rate of 1):
#   alone:                     exponential and multiplicative are equal: True
#   linear, then exponential:     0.100 0.280 0.460 0.640 0.820 1.000 0.950 0.902 0.857
#   linear, then multiplicative:  0.100 0.280 0.460 0.640 0.820 0.779 0.740 0.703 0.668
#   tenth, then exponential:      0.100 0.100 0.100 0.100 0.100 1.000 0.950 0.902 0.857
#   tenth, then multiplicative:   0.100 0.100 0.100 0.100 0.100 0.095 0.090 0.086 0.081
# Exit code 1 if that changes. (PyTorch's wheel is large; nothing runs on a GPU. With torch 2.15.0 the same was seen.)
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "torch==2.13.0" "numpy==2.4.6"
venv/bin/python - <<'PY'
from importlib.metadata import version

import torch
from torch.optim import lr_scheduler as schedules

print("versions:", f"torch {version('torch')}")
WARM = 5


def exponential(optimizer):
    return schedules.ExponentialLR(optimizer, 0.95)


def multiplicative(optimizer):
    return schedules.MultiplicativeLR(optimizer, lambda epoch: 0.95)


def linear(optimizer):
    return schedules.LinearLR(optimizer, 0.1, total_iters=WARM)


def tenth(optimizer):
    return schedules.ConstantLR(optimizer, 0.1, total_iters=WARM)


def rates(*parts, steps=9):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = [part(optimizer) for part in parts]
    if len(made) > 1:
        made = [schedules.SequentialLR(optimizer, made, milestones=[WARM])]
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made[0].step()
    return seen


equal = rates(exponential) == rates(multiplicative)
print("alone:                     exponential and multiplicative are equal:", equal)
assert equal
after = {}
for warm_up in (linear, tenth):
    for decay in (exponential, multiplicative):
        seen = after[warm_up, decay] = rates(warm_up, decay)
        name = f"{warm_up.__name__}, then {decay.__name__}:"
        print(f"{name:29}", *(f"{rate:.3f}" for rate in seen))
assert after[linear, exponential][WARM] == after[tenth, exponential][WARM] == 1
assert max(after[linear, multiplicative]) < 0.83
assert max(after[tenth, multiplicative]) <= 0.1
PY
