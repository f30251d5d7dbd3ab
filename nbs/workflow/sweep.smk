r"""A grid of one notebook's parameters: one rule, one job a point, each in a process of its own.

`fairparse sweep NOTEBOOK -g name=v1,v2` checks the grid, writes it to sweep.json and runs this in
the sweep's folder. By hand, for instance on a cluster, once sweep.json is there (`fairparse sweep
--dry-run` writes it):
    snakemake -s nbs/workflow/sweep.smk --configfile DIR/sweep.json --directory DIR \
        --cores 2 --keep-going

As in the Snakefile, a point runs again when its parameters or the notebook's code change. The
executed notebook is written last, so it stands for the whole point.
"""
import shlex
import sys
from pathlib import Path

ROOT = Path(workflow.basedir).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from fairparse.workflow.fingerprints import code_fingerprint

HERE = Path.cwd().resolve()
OUT = str(HERE.relative_to(ROOT) if HERE.is_relative_to(ROOT) else HERE)
OUT = shlex.quote(f"./{OUT}" if OUT.startswith("-") else OUT)  # no option of `fairparse run`
NOTEBOOK = ROOT / config["notebook"]  # absolute if it lies elsewhere
LOG = f"{{point}}/{NOTEBOOK.name}"
RESULT = f"{{point}}/{config['file']}"
# `exec`: no shell stays between Snakemake and the job, so that a job ends when Snakemake is killed
PYTHON, NAME = shlex.quote(sys.executable), shlex.quote(str(config["notebook"]))
RUN = f"cd {shlex.quote(str(ROOT))} && exec {PYTHON} -m fairparse.cli run --tied $PPID {NAME}"


wildcard_constraints:
    point=r"[^/]+",


# tells a graph that ran to its end with failed points from one that was stopped
onerror:
    Path(".snakemake/failed").touch()


# what a point leaves: its log, and its file if it is of that kind; `fairparse sweep` looks after the
# rest of a point that leaves a folder
LEFT = [LOG, RESULT] if config["file"] else [LOG]


rule all:
    input: [file.format(point=point) for point in config["points"] for file in LEFT],
    message: "all points"


rule point:
    output: LEFT,
    params:
        code=code_fingerprint(NOTEBOOK, ROOT / "fairparse"),
        values=lambda wildcards: config["values"][wildcards.point],
        out=lambda wildcards: f"{wildcards.point}/{config['file']}".rstrip("/"),
        threads=lambda wildcards: config["threads"][wildcards.point],
    threads: lambda wildcards: config["threads"][wildcards.point]
    resources: gpu=config["gpu"],
    message: "{wildcards.point}"
    shell:
        "{RUN} {OUT}/{wildcards.point}/{NOTEBOOK.name:q} --parameters {params.values:q}"
        " --threads {params.threads} -p out {OUT}/{params.out:q}"
