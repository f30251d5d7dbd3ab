#!/bin/bash
# pandas 3.1.1 and pyarrow 26.0.1: the filter of a Parquet file compares ordered groups as text, not in their order.
#
# Good guess: an ordered categorical comes back from Parquet with its order, so reading with
# `filters=[("age", ">=", "10-19")]` gives the rows that `table[table.age >= "10-19"]` gives.
# Behaviour: the order does come back (the dtypes are equal, and the file's schema says `ordered=1`), and pandas compares by
# it; the filter compares the texts. "3-9" is then older than "10-19" and "more than 70" older than everything: children
# are kept among the grown-up, and "below 10-19" loses them. Nothing is raised; the documentation of `filters` says nothing
# about categories. (Comparing unordered categories, which pandas refuses, is answered by the text as well.)
#
# Why here: FairFace's age groups are exactly these texts, scores per face lie in Parquet files, and a filter while reading
# is what one writes for a gap between age groups.
#
# Output seen (Python 3.11, pandas 3.1.1, pyarrow 26.0.1):
#   dtype comes back: True
#   >= 10-19, pandas: 10-19, 20-29, more than 70
#   >= 10-19, filter: 3-9, 10-19, 20-29, more than 70
#   <  10-19, pandas: 0-2, 3-9
#   <  10-19, filter: 0-2
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "pandas==3.1.1" "pyarrow==26.0.1" "numpy==2.4.6"
venv/bin/python - <<'PY'
import operator
from importlib.metadata import version

import pandas as pd
import pyarrow.parquet as pq

print("versions:", *(f"{name} {version(name)}" for name in ("pandas", "pyarrow")))
groups = ["0-2", "3-9", "10-19", "20-29", "more than 70"]
faces = pd.DataFrame({"age": pd.Categorical(groups, categories=groups, ordered=True)})
faces.to_parquet("faces.parquet")
back = pd.read_parquet("faces.parquet")
print("dtype comes back:", back.age.dtype == faces.age.dtype)
assert back.age.dtype == faces.age.dtype
assert "ordered=1" in str(pq.read_schema("faces.parquet").field("age").type)

seen = {}
for sign, compare in ((">=", operator.ge), ("<", operator.lt)):
    ways = {
        "pandas": back[compare(back.age, "10-19")],
        "filter": pd.read_parquet("faces.parquet", filters=[("age", sign, "10-19")]),
    }
    for way, rows in ways.items():
        seen[sign, way] = list(rows.age)
        print(f"{sign:2} 10-19, {way}: {', '.join(rows.age)}")
assert seen[">=", "pandas"] == ["10-19", "20-29", "more than 70"]
assert seen[">=", "filter"] == ["3-9", "10-19", "20-29", "more than 70"]
assert seen["<", "pandas"] == ["0-2", "3-9"]
assert seen["<", "filter"] == ["0-2"]
PY
