"What several test files use: notebooks made on the spot, a toy repository with the real Snakefile, the real data folder"

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def fairparse(*arguments, cwd=ROOT, **options):
    "Run the command line of the package that lies in `cwd`; the finished process, with its output as text"
    command = [sys.executable, "-m", "fairparse.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, **options)


TOY_NOTEBOOKS = {
    "10_prepare": (
        'out = ""\ndata = ""\nextra = []\nsize = 8\nfolds = 3\nworkers = 0',
        "from fairparse import toy_faces\ntoy_faces.make(out, {'size': size, 'data': data, 'extra': extra})",
    ),
    "20_train_parser": (
        'out = ""\nfaces = ""\nobjective = "single"\nseed = 0\nfold = -1\nepochs = 1\nthreads = 1\nwait = 0.0\nencoder_weights = "none"',
        "import time\nfrom pathlib import Path\nfrom fairparse import toy_train",
        "(Path(out) / 'checkpoint').mkdir(parents=True, exist_ok=True)\n(Path(out) / 'checkpoint' / 'last').write_text('kept')\n(Path(out) / 'started').touch()\ntime.sleep(wait)",
        "if epochs > 5: raise toy_train.InputError(f'{epochs} epochs are too many: use 5')\ntoy_train.make(out, {'epochs': epochs, 'fold': fold})",
    ),
    "80_table1_objectives": (
        'out = ""\nparsers = ""\nobjectives = []\nseeds = []\ndigits = 2',
        "from fairparse import toy_tables\ntoy_tables.write(out, f'objective,digits\\nsingle,{digits}\\n')",
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
# stages that the toy only plans: signatures without content
for name, parameters in {
    "30_sweep": ["parser", "faces", "objective", "seed", "fold", "threads"],
    "80_fairness_gaps": ["parsers", "faces", "objectives", "seeds"],
    "80_corruption_error": ["sweep", "objectives", "seeds"],
    "85_figure3_predictions": ["sweep", "faces", "objectives", "seed"],
    "85_figure4_fairness": ["parsers", "faces", "objectives", "seeds"],
    "85_figure5_robustness": ["sweep", "objectives", "seeds", "perturbations"],
    "85_intersections": ["parsers", "faces", "objectives", "seeds"],
    "40_train_pix2pixhd": ["maps", "faces", "seed", "fold", "threads"],
    "50_train_controlnet": ["maps", "faces", "judge", "seed", "fold", "threads", "base"],
    "70_score": [
        "maps",
        "faces",
        "parsers",
        "gans",
        "controlnets",
        "generators",
        "seeds",
        "parser_seeds",
        "folds",
        "judge",
        "perceptual",
        "perturbations",
        "severities",
        "threads",
    ],
    **dict.fromkeys(["80_table4_synthesis", "85_figure7_controlnet"], ["score", "objectives"]),
    **dict.fromkeys(
        ["80_table2_perturbed_synthesis", "85_figure6_gan"],
        ["score", "objectives", "perturbations", "severity"],
    ),
    "60_train_classifier": ["source", "check", "maps", "task", "weights", "seed", "threads"],
    "61_sample_latents": [
        "classifier",
        "generator",
        "psi",
        "batch_size",
        "picture_size",
        "threads",
    ],
    "62_guide": [
        "latents",
        "classifier",
        "second",
        "labellers",
        "generator",
        "psi",
        "batch_size",
        "picture_size",
        "threads",
    ],
    "63_label": ["guided", "classifier", "second", "labellers", "threads"],
    "65_audit_parser": ["parsers", "faces", "balanced", "unguided", "classifier", "threads"],
    "80_balance_loop": ["loop"],
    "80_balance_table1_classifier": ["classifiers", "names"],
    "80_balance_table2_unguided": ["latents", "classifier"],
    "80_balance_table3_guided": ["guided"],
    "85_balance_figure5_unguided": ["latents", "table"],
    "85_balance_figure6_guided": ["guided", "table"],
    "80_claims": ["run", "objectives", "seeds"],
    "86_does_it_work": ["planted", "objectives", "seeds"],
}.items():
    TOY_NOTEBOOKS[name] = (
        "\n".join(
            [
                "out = ''",
                *(
                    f"{p} = {dict(objectives=[], seeds=[], labellers=[], names=[], psi=1.0, parser_seeds=[], folds=[], generators=[], base='standin', judge='single', perceptual='lpips_alex', severities=[0.3], severity=0.3, perturbations=['blur'], seed=0, fold=-1, threads=1).get(p, '')!r}"
                    for p in parameters
                ),
            ]
        ),
        "raise NotImplementedError",
    )
TOY_MODULES = {
    "toy_files": "import json\nfrom pathlib import Path\ndef write(path, text):\n    Path(path).parent.mkdir(parents=True, exist_ok=True)\n    Path(path).write_text(text)\n",
    "toy_faces": "from .toy_files import write, json\ndef make(out, record): write(f'{out}/run.json', json.dumps(record))\n",
    "toy_train": "from .core.runs import InputError\nfrom .toy_files import write, json\ndef make(out, record):\n"
    "    for name in ('counts.parquet', 'history.parquet', 'run.json'): write(f'{out}/{name}', json.dumps(record))\n",
    "toy_tables": "from .toy_files import write\n",
    "costs": "import subprocess\ndef dry_run(command, record, name, out, cores=None): return subprocess.run(command).returncode\n",
    "report_page": "def finish_run(out): return f'report: {out}/report.html'\ndef write_report(out): return f'{out}/report.html'\n",
}
TOY_PROFILE = """
objectives: [single]
seeds: [0, 1]
prepare: {size: 8}
train: {epochs: 1}
table1: {digits: 2}
"""


@pytest.fixture
def toy_root(tmp_path):
    "A repository with the real Snakefile and command line, and notebooks that finish at once"
    root = tmp_path / "repo"
    (root / "nbs" / "workflow" / "profiles").mkdir(parents=True)
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copy(ROOT / "nbs" / "workflow" / "Snakefile", root / "nbs" / "workflow")
    (root / "nbs" / "workflow" / "profiles" / "toy.yaml").write_text(TOY_PROFILE)
    (root / "nbs" / "workflow" / "profiles" / "real.yaml").write_text(
        TOY_PROFILE + "data: required\nbeside: [more]\n"
    )
    copied = ("core/runs", "workflow/notebooks", "workflow/profiles", "workflow/engine")
    copied += ("workflow/terminal", "workflow/parser_commands", "cli")
    for name in (*copied, "__init__", "core/__init__", "workflow/__init__"):
        target = root / "fairparse" / f"{name}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "fairparse" / f"{name}.py", target)
    for name, code in TOY_MODULES.items():
        (root / "fairparse" / f"{name}.py").write_text(code)
    for name, cells in TOY_NOTEBOOKS.items():
        write_notebook(root / "nbs" / "paper" / f"{name}.ipynb", *cells)
    return root


@pytest.fixture(scope="session")
def real_data():
    "The folder of real data sets, from FAIRPARSE_DATA"
    folder = os.environ.get("FAIRPARSE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FAIRPARSE_DATA does not name a folder of real data")
    return Path(folder)
