#!/bin/bash
# Every finding of this folder, one after the other: run_all.sh [NAME ...]
#
# A finding installs its own pinned packages in a temporary folder, so this takes a while and needs a package index; it is
# no part of the tests. For each: its name, what it printed, and whether the behaviour is still what its head says. Ends with
# exit code 1 if one is not.
set -uo pipefail
cd "$(dirname "$0")"
PYTHON="${PYTHON:-python3}"
export PYTHON
echo "$("$PYTHON" --version), pip $("$PYTHON" -m pip --version | cut -d' ' -f2), $(uname -sm)"
names=("$@")
[[ ${#names[@]} -gt 0 ]] || for file in *.sh; do [[ $file == run_all.sh ]] || names+=("${file%.sh}"); done
changed=()
for name in "${names[@]}"; do
  echo "== $name: $(sed -n 2p "$name.sh" | cut -c3-)"
  if bash "$name.sh"; then echo "   as described"; else echo "   CHANGED"; changed+=("$name"); fi
done
echo "${#names[@]} findings, ${#changed[@]} changed${changed[*]:+: ${changed[*]}}"
[[ ${#changed[@]} -eq 0 ]]
