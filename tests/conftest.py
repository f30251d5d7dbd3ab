"What several test files use: notebooks made on the spot, a toy repository, the real data folder"

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairparse.workflow.stages import load_stages

ROOT = Path(__file__).resolve().parents[1]


def write_notebook(path, parameters, *cells):
    "A notebook at `path` whose parameters cell is `parameters`, followed by code `cells`"
    tagged = [(parameters, ["parameters"]), *((cell, []) for cell in cells)]
    code = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {"tags": tags} if tags else {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for i, (source, tags) in enumerate(tagged)
    ]
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        )
    )
    return path


def command_line(*arguments):
    "The words that start the command line of the package, for a process of its own"
    return [sys.executable, "-m", "fairparse.cli", *map(str, arguments)]


def fairparse(*arguments, cwd=ROOT, **options):
    "Run the command line of the package in `cwd`; the finished process, with its output as text"
    command = command_line(*arguments)
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, **options)


# notebooks with content: parameters cell, then code cells
TOY_NOTEBOOKS = {
    "10_prepare": (
        'out = ""\ndata = ""\nextra = []\nsize = 8\ncount = 4\nfolds = 3\nworkers = 0',
        "from fairparse import toy_faces",
        "toy_faces.make(out, {'size': size, 'data': data, 'extra': extra})",
    ),
    "20_train_parser": (
        'out = ""\nfaces = ""\nobjective = "single"\nseed = 0\nfold = -1\nepochs = 1\nthreads = 1\n'
        'wait = 0.0\nencoder = "toy"\nencoder_weights = "none"',
        "import time\nfrom pathlib import Path\nfrom fairparse import toy_train",
        "(Path(out) / 'checkpoint').mkdir(parents=True, exist_ok=True)\n"
        "(Path(out) / 'checkpoint' / 'last').write_text('kept')\n"
        "(Path(out) / 'started').touch()\n"
        "time.sleep(wait)",
        "if epochs > 5: raise toy_train.InputError(f'{epochs} epochs are too many: use 5')\n"
        "toy_train.make(out, {'epochs': epochs, 'fold': fold, 'seconds': 1.25})",
    ),
    "80_table1_objectives": (
        'out = ""\nparsers = ""\nobjectives = []\nseeds = []\ndigits = 2',
        "from fairparse import toy_tables",
        "toy_tables.write(out, f'objective,digits\\nsingle,{digits}\\n')",
    ),
    "80_table3_class_iou": (
        'out = ""\nparsers = ""\nobjectives = []\nseeds = []',
        "from fairparse import toy_tables\ntoy_tables.write(out, 'class,iou\\nskin,1\\n')",
    ),
    "85_figure2_schedules": (
        'out = ""\nparsers = ""\nschedules = ["single"]\nseed = 0\nepochs = 3',
        "from fairparse import toy_tables\ntoy_tables.write(out, 'picture')",
    ),
}

# parameters that rules set, or the profile, beside those of a stage's record
RULE_PARAMETERS = {
    "sweep": "objective seed fold threads",
    "gan": "maps seed fold threads",
    "controlnet": "maps judge seed fold threads base",
    "score": "maps generators seeds parser_seeds folds threads "
    "judge perceptual perturbations severities",
    "figure6": "models",
    "figure7": "objectives",
    "classifier": "source check maps task weights seed threads",
    "latents": "generator psi batch_size picture_size threads",
    "guide": "threads",
    "label": "threads",
    "audit_parser": "parsers faces classifier threads",
}
# values of these; all others are empty text
TOY_VALUES = dict(
    **dict.fromkeys("objectives seeds labellers names parser_seeds folds generators".split(), []),
    psi=1.0,
    base="standin",
    judge="single",
    perceptual="lpips_alex",
    severities=[0.3],
    severity=0.3,
    perturbations=["blur"],
    models=["pix2pixhd_own", "pix2pixhd_shared"],
    seed=0,
    fold=-1,
    threads=1,
)


def toy_notebooks():
    "Cells of all stages' notebooks: signatures without content for those that are only planned"
    cells = dict(TOY_NOTEBOOKS)
    for name, stage in load_stages().items():
        names = ["out", *stage.folders, *stage.given, *RULE_PARAMETERS.get(name, "").split()]
        lines = [f"{key} = {TOY_VALUES.get(key, '')!r}" for key in dict.fromkeys(names)]
        cells.setdefault(stage.notebook, ("\n".join(lines), "raise NotImplementedError"))
    return cells


TOY_MODULES = {
    "toy_files": "import json\nfrom pathlib import Path\n"
    "def write(path, text):\n"
    "    Path(path).parent.mkdir(parents=True, exist_ok=True)\n"
    "    Path(path).write_text(text)\n",
    "toy_faces": "from .toy_files import write, json\n"
    "def make(out, record):\n"
    "    for name in ('images.npy', 'masks.npy', 'index.parquet', 'run.json'): "
    "write(f'{out}/{name}', json.dumps(record))\n"
    "    described = {'sources': ['toy'], 'count': 2, 'size': 8}\n"
    "    write(f'{out}/faces.json', json.dumps(described))\n",
    "toy_train": "from .core.runs import InputError\nfrom .toy_files import write, json\n"
    "def make(out, record):\n"
    "    for name in ('counts.parquet', 'history.parquet', 'model.safetensors', 'model.json', "
    "'predictions.png', 'run.json'): "
    "write(f'{out}/{name}', json.dumps(record))\n",
    "toy_tables": "from .toy_files import write\n",
    "workflow/costs": "import subprocess\n"
    "def dry_run(command, record, name, out, cores=None): "
    "return subprocess.run(command).returncode\n",
    "workflow/report": "def finish_run(out): return f'report: {out}/report.html'\n"
    "def write_report(out): return f'{out}/report.html'\n",
}
TOY_PROFILE = """
objectives: [single]
seeds: [0, 1]
prepare: {size: 8}
train: {epochs: 1}
table1: {digits: 2}
"""


COPIED = (
    *("__init__", "cli", "core/__init__", "core/assets", "core/runs", "core/threads"),
    *("workflow/__init__", "workflow/notebooks", "workflow/fingerprints"),
    *("workflow/stages", "workflow/profiles", "workflow/plan"),
    *(
        "workflow/engine",
        "workflow/provenance",
        "workflow/terminal",
        "workflow/parser_commands",
        "workflow/audit_commands",
    ),
    *("workflow/nursery", "workflow/warm_kernels"),
)


@pytest.fixture
def toy_root(tmp_path):
    "A repository with the real Snakefile, records and command line, and notebooks that end at once"
    root = tmp_path / "repo"
    profiles = root / "nbs" / "workflow" / "profiles"
    profiles.mkdir(parents=True)
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copy(ROOT / "nbs" / "workflow" / "Snakefile", root / "nbs" / "workflow")
    (profiles / "toy.yaml").write_text(TOY_PROFILE)
    (profiles / "real.yaml").write_text(TOY_PROFILE + "data: required\nbeside: [more]\n")
    for name in COPIED:
        target = root / "fairparse" / f"{name}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "fairparse" / f"{name}.py", target)
    for folder in ("stages", "needs"):
        assets = Path("fairparse") / "assets" / folder
        shutil.copytree(ROOT / assets, root / assets)
    for name, code in TOY_MODULES.items():
        (root / "fairparse" / f"{name}.py").write_text(code)
    for name, cells in toy_notebooks().items():
        write_notebook(root / "nbs" / "paper" / f"{name}.ipynb", *cells)
    return root


@pytest.fixture(scope="session")
def real_data():
    "The folder of real data sets, from FAIRPARSE_DATA"
    folder = os.environ.get("FAIRPARSE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FAIRPARSE_DATA does not name a folder of real data")
    return Path(folder)
