#!/bin/bash
# Snakemake 9.27: jobs that wait for a core are weighed again each second, once more for each job that has ended.
#
# `--max-jobs-per-timespan` is 100/1s unless one says otherwise. As long as there is a limit, the scheduler sets a timer
# of that timespan at the end of every round, which starts another round. But a job's start and end start rounds too, so
# each begins a chain of rounds of its own, which goes on as long as a job is ready and waits for a core: after N jobs
# there are about N threads with a timer and about N rounds a second, each of which asks for the existence and size of
# all inputs of all waiting jobs. In a workflow of a few hundred jobs of half a minute the scheduler alone comes to use
# a good part of a core, which nobody sees in a test of ten jobs. A longer timespan slows the chains down, but the last
# timers are waited for at the end, for up to a timespan.
# What ends it: `workflow.scheduler.job_rate_limiter = None` in the Snakefile's `onstart`.
#
# Output seen (Python 3.11, snakemake 9.27.1, one core; threads of Snakemake while a job sleeps and another waits):
#   10 jobs before: 13 threads
#   40 jobs before: 43 threads
#   40 jobs before, without the limit: 2 threads
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "snakemake==9.27.1"
cat > Snakefile <<'PY'
onstart:
    if config["unlimited"]:
        workflow.scheduler.job_rate_limiter = None

rule all:
    input: "slept", "waiting"

rule quick:
    output: "quick/{number}"
    priority: 2
    shell: "touch {output}"

rule sleep:
    input: expand("quick/{number}", number=range(config["jobs"]))
    output: "slept"
    priority: 1
    shell: "sleep 3; ps -o nlwp= -p $PPID > threads; touch {output}"

rule wait:
    input: "quick/0"
    output: "waiting"
    shell: "touch {output}"
PY
threads() {
  rm -rf quick slept waiting threads .snakemake
  venv/bin/snakemake --cores 1 --quiet all --config "jobs=$1" "unlimited=$2" >log 2>&1 || { cat log; exit 1; }
  tr -d ' ' <threads
}
few="$(threads 10 0)" many="$(threads 40 0)" none="$(threads 40 1)"
echo "10 jobs before: $few threads"
echo "40 jobs before: $many threads"
echo "40 jobs before, without the limit: $none threads"
((many - few >= 25 && none < 10))
