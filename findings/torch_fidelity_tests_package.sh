#!/bin/bash
# torch-fidelity 0.4.0 installs its own test suite as a top-level package called `tests`.
#
# A project whose tests/ folder has no __init__.py (pytest's usual layout) is then shadowed by it: a regular package in
# site-packages wins over a folder without __init__.py, even though the project's root comes first on the path. So
# `from tests.helpers import ...`, in a script or under pytest's importlib mode, fails in an environment with
# torch-fidelity and works in one without.
#
# Output seen (Python 3.11, torch-fidelity 0.4.0, installed without its dependencies):
#   before: the project's tests
#   after:  ModuleNotFoundError: No module named 'tests.helpers'
#   tests comes from: site-packages/tests/__init__.py
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
mkdir -p project/tests
echo 'WHOSE = "the project'"'"'s tests"' > project/tests/helpers.py
cat > ask.py <<'PY'
try:
    from tests.helpers import WHOSE
    print(WHOSE)
except ModuleNotFoundError as error:
    print(f"ModuleNotFoundError: {error}")
PY
ask() { (cd project && PYTHONPATH="$PWD" ../venv/bin/python ../ask.py); }
before="$(ask)"
venv/bin/pip install --quiet --disable-pip-version-check --no-deps "torch-fidelity==0.4.0" 2>/dev/null
after="$(ask)"
place="$(cd project && PYTHONPATH="$PWD" ../venv/bin/python -c 'import tests; print("/".join(tests.__file__.split("/")[-3:]))')"
echo "before: $before"
echo "after:  $after"
echo "tests comes from: $place"
[[ "$before" == "the project's tests" ]]
[[ "$after" == "ModuleNotFoundError: No module named 'tests.helpers'" ]]
[[ "$place" == "site-packages/tests/__init__.py" ]]
