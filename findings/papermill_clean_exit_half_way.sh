#!/bin/bash
# papermill 2.7.0: a notebook that stops half-way with SystemExit(0) has succeeded, though its own record says failed.
#
# Guess: papermill runs notebooks with nbclient, so what fails with nbclient's own command, `jupyter execute`, fails
# here too, and exit code 0 means that the last cell ran.
# Behaviour: after SystemExit(0) papermill ends with exit code 0 and no message. The cells behind it have not run, and
# the notebook it leaves says so: an exception in the whole, "failed" for the cell, "pending" for the
# rest. SystemExit(None), for Python the same clean exit, is exit code 1, and `jupyter execute` gives 1 for all of them.
# (papermill lets sys.exit(0) through on purpose, its issue 435; the record that contradicts the exit code is the trap.)
#
# Why it matters here: a workflow engine goes by the exit code. A stage whose last cell writes the table counts as done
# without it. Ask the notebook's record, not the exit code, whether its last cell ran.
#
# Output seen (Python 3.11, papermill 2.7.0, nbclient 0.11.0, ipykernel 7.4.0):
#   second of three cells   papermill   jupyter execute   last cell ran  papermill's record
#   pass                    exit 0      exit 0            yes            exception False, completed completed completed
#   raise SystemExit(0)     exit 0      exit 1            no             exception True, completed failed pending
#   raise SystemExit(None)  exit 1      exit 1            no             exception True, completed failed pending
#   raise SystemExit(1)     exit 1      exit 1            no             exception True, completed failed pending
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "papermill==2.7.0" "nbclient==0.11.0" "ipykernel==7.4.0"
export PATH="$folder/venv/bin:$PATH" JUPYTER_DATA_DIR="$folder/jupyter" IPYTHONDIR="$folder/ipython"
venv/bin/python - <<'PY'
import subprocess
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}


def status(*command):
    """The exit code of a command, and whether the notebook's last cell left its file."""
    Path("table.csv").unlink(missing_ok=True)
    code = subprocess.run(command, capture_output=True, check=False).returncode
    return code, Path("table.csv").exists()


def record(path):
    """What papermill wrote down: an exception in the notebook, and the state of each cell."""
    notebook = nbformat.read(path, as_version=4)
    states = [cell.metadata.get("papermill", {}).get("status") for cell in notebook.cells]
    return bool(notebook.metadata.papermill.exception), [state for state in states if state]


print(f"{'second of three cells':24}{'papermill':12}{'jupyter execute':18}last cell ran  papermill's record")
seen = {}
for line in ("pass", "raise SystemExit(0)", "raise SystemExit(None)", "raise SystemExit(1)"):
    cells = [new_code_cell(text) for text in ("a = 1", line, "open('table.csv', 'w').write('done')")]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), "in.ipynb")
    code, ran = status("papermill", "in.ipynb", "out.ipynb")
    other, other_ran = status("jupyter", "execute", "in.ipynb")
    assert ran == other_ran
    failed, states = record("out.ipynb")
    print(f"{line:24}exit {code:<7}exit {other:<13}{'yes' if ran else 'no':15}exception {failed}, {' '.join(states)}")
    seen[line] = (code, other, ran, failed)
assert seen["pass"] == (0, 0, True, False)
assert seen["raise SystemExit(0)"] == (0, 1, False, True)
assert seen["raise SystemExit(None)"] == seen["raise SystemExit(1)"] == (1, 1, False, True)
PY
