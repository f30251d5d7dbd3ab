#!/bin/bash
# snakemake 9.27.1: a declared output that was deleted is not made again while nothing asks for it by name.
#
# Guess: a rule's outputs belong together (one that fails to appear is an error, and all are removed when the rule
# fails), so if one of them is lost the rule is out of date and runs again.
# Behaviour: only outputs that a target or another rule names are looked at. Delete another and it is "Nothing to be
# done (all requested files are present and up to date)" with exit code 0, for ever, with `--rerun-incomplete` as well.
# `--summary` sees the loss and lists the file as "missing" and "no update".
#
# Why it matters here: a stage leaves a table beside its figure, weights beside their record. With only the first of
# them as a target a lost file is never restored, and the run reports success. Name every output in the target.
#
# Output seen (Python 3.11, snakemake 9.27.1):
#   first run: figure made 1 time(s), there: figure.png table.csv
#   table.csv deleted, again with exit code 0: figure made 1 time(s), there: figure.png
#   Nothing to be done (all requested files are present and up to date).
#   --summary: table.csv figure missing no update
#   table.csv named as a target: figure made 2 time(s), there: figure.png table.csv
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "snakemake==9.27.1"
export XDG_CACHE_HOME="$folder/cache" PATH="$folder/venv/bin:$PATH"
mkdir work
cd work
cat > Snakefile <<'RULES'
rule all:
    input: "figure.png"

rule figure:
    output: "figure.png", "table.csv"
    shell: "echo made >> ../made.txt; touch {output}"
RULES
run() { snakemake --cores 1 "$@" > ../log.txt 2>&1; }
state() { echo "figure made $(wc -l < ../made.txt) time(s), there: $(find figure.png table.csv 2> /dev/null | xargs)"; }
run
first="$(state)"
rm table.csv
run --rerun-incomplete
again="$(state)"
reason="$(grep "^Nothing to be done" ../log.txt)"
summary="$(snakemake --summary 2> /dev/null | grep "^table.csv" | cut -f 1,3,5,6 | tr '\t' ' ')"
run all table.csv
named="$(state)"
echo "first run: $first"
echo "table.csv deleted, again with exit code 0: $again"
echo "$reason"
echo "--summary: $summary"
echo "table.csv named as a target: $named"
[[ "$first" == "figure made 1 time(s), there: figure.png table.csv" ]]
[[ "$again" == "figure made 1 time(s), there: figure.png" ]]
[[ "$summary" == "table.csv figure missing no update" ]]
[[ "$named" == "figure made 2 time(s), there: figure.png table.csv" ]]
