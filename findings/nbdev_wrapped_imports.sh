#!/bin/bash
# nbdev 2.4.14: whether an exported import becomes relative depends on how long the LAST line of a wrapped import is.
#
# `nbdev_export` turns `from mylib.core import x` of a notebook into `from .core import x` in the module. When a formatter
# wraps the import over several lines, nbdev looks for the module's name in the first line only up to the column at which
# the last line ends. So the black/ruff form, which ends with a lone `)`, stays absolute, and the same import whose closing
# bracket stands behind the last name becomes relative again. One package then mixes both kinds, without a word, and a
# tool that reads relative imports only (a dependency hash, a vendoring script) misses the wrapped ones.
#
# Output seen (Python 3.11, nbdev 2.4.14):
#   one line:                from .core import one
#   wrapped, lone bracket:   from mylib.core import (
#   wrapped, bracket behind: from .core import (
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "nbdev==2.4.14" "execnb<0.2" "fastcore<1.13" "setuptools<81"
mkdir nbs
cat > settings.ini <<'INI'
[DEFAULT]
repo = mylib
lib_name = mylib
lib_path = mylib
nbs_path = nbs
version = 0.0.1
min_python = 3.10
license = apache2
doc_path = _docs
recursive = True
branch = main
custom_sidebar = False
doc_host = https://example.org
doc_baseurl = /mylib
git_url = https://example.org/mylib
title = mylib
author = A
author_email = a@example.org
copyright = A
description = d
keywords = k
language = English
status = 3
user = u
black_formatting = False
update_pyproject = False
INI
venv/bin/python - <<'PY'
import json


def notebook(path, *sources):
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source,
         "outputs": [], "execution_count": None}
        for i, source in enumerate(sources)
    ]
    meta = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    text = {"cells": cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5}
    with open(path, "w") as file:
        json.dump(text, file)


notebook("nbs/00_core.ipynb", "#| default_exp core", "#| export\none = two_with_a_long_name = 1")
for name, line in {
    "plain": "from mylib.core import one",
    "wrapped": "from mylib.core import (\n    one,\n    two_with_a_long_name,\n)",
    "behind": "from mylib.core import (\n    one,\n    two_with_a_long_name)",
}.items():
    notebook(f"nbs/01_{name}.ipynb", f"#| default_exp {name}", f"#| export\n{line}")
PY
venv/bin/nbdev_export
shown() { grep -h "^from" "mylib/$1.py" | head -1; }
echo "one line:                $(shown plain)"
echo "wrapped, lone bracket:   $(shown wrapped)"
echo "wrapped, bracket behind: $(shown behind)"
[[ "$(shown plain)" == "from .core import one" ]]
[[ "$(shown wrapped)" == "from mylib.core import (" ]]
[[ "$(shown behind)" == "from .core import (" ]]
