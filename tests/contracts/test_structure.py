"What must hold for the repository as a whole: notebooks and package agree, files stay small"

import ast
import importlib
import json
import re
import subprocess
import sys
import tokenize
from io import BytesIO

import house
import pytest
from check_export import changed, hash_tree
from conftest import ROOT

from fairparse.workflow.fingerprints import notebook_sources
from fairparse.workflow.notebooks import read_cells, read_parameters
from fairparse.workflow.profiles import workflow_stages

LIBRARY = sorted((ROOT / "nbs" / "lib").rglob("*.ipynb"))
PAPER = sorted((ROOT / "nbs" / "paper").glob("*.ipynb"))
NOTEBOOKS = sorted(
    p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
RESULTS = [p for p in PAPER if p.name.startswith(("80_", "85_"))]


def name(path):
    return path.stem


def default_exp(path):
    "The module that a notebook exports to"
    found = [
        m[1]
        for source, _ in read_cells(path)
        if (m := re.search(r"^#\| *default_exp +(\S+)", source, re.MULTILINE))
    ]
    assert len(found) <= 1, f"{path.name} names {found} as its module"
    return found[0] if found else None


def modules_after(*imports):
    "What `import`ing these leaves in sys.modules, in a process of its own"
    code = "import sys\n" + "".join(f"import {i}\n" for i in imports) + "print(*sys.modules)"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


def test_every_module_has_a_notebook_and_the_other_way_round():
    exported = {default_exp(path) for path in LIBRARY} - {None}
    present = set(house.module_sizes())
    assert present == exported, (
        f"without a notebook: {present - exported}; not exported: {exported - present}"
    )


def test_no_two_notebooks_share_a_module_or_a_name():
    modules = [default_exp(path) for path in LIBRARY]
    assert len(modules) == len(set(modules))
    assert len({p.name for p in PAPER}) == len(PAPER)


def test_notebooks_modules_and_rooms_have_the_same_names():
    "nbs/lib/20_parsing/07_train.ipynb exports fairparse/parsing/train.py; numbers give the order"
    for path in LIBRARY:
        room, _, module = default_exp(path).rpartition(".")
        folder = path.parent.relative_to(ROOT / "nbs" / "lib").name
        assert re.fullmatch(rf"\d\d_{module}", path.stem), f"{path} exports {module}"
        assert re.fullmatch(rf"\d\d_{room}", folder) if room else not folder, path
    for room in {path.parent for path in LIBRARY}:
        numbers = [int(path.name[:2]) for path in sorted(room.glob("*.ipynb"))]
        assert numbers == list(range(1, len(numbers) + 1)) or numbers == [99], room


def test_nothing_is_over_a_limit():
    "Modules, functions and lines: tests/house.py --long names the same"
    assert house.too_long() == []


def test_exported_code_reads_easily():
    found = house.measure()
    assert found["lines a cell, median"] <= house.CELL
    assert found["characters a cell, median"] <= house.CELL_CHARACTERS
    assert found["syntax nodes a line, median over functions"] <= house.NODES


def test_every_library_notebook_teaches_by_an_assert_that_is_seen():
    hidden = re.compile(r"#\| *(export|hide|default_exp)")
    for notebook in house.library():
        shown = [s for kind, s in notebook.cells if kind == "code" and not hidden.match(s)]
        assert any("assert " in source for source in shown), notebook.path.name


def test_the_tour_names_rooms_and_modules_that_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tour = re.findall(r"^\| [a-z].+ \| `(\w+)` \| (`.+`) \|$", text, re.MULTILINE)
    assert len(tour) >= 10
    for room, modules in tour:
        for module in re.findall(r"`(\w+)`", modules):
            assert f"{room}.{module}" in house.module_sizes(), f"{room}.{module}"
    named = re.findall(
        r"`(\w+)`", text.partition("| room | what is in it |")[2].partition("\n\n")[0]
    )
    assert sorted(named) == sorted(house.rooms())


def test_arrows_between_rooms_run_one_way():
    "A room imports only from rooms before it, and no module imports itself through others"
    graph = house.imports()
    assert len(graph) == len(LIBRARY) and sum(map(len, graph.values())) > 400
    assert house.backward(graph, house.rooms()) == []
    assert house.circles(graph) == []


def test_arrows_that_run_back_or_round_are_found(tmp_path):
    for name, code in {
        "core/runs": "",
        "data/labels": "from ..core.runs import x",
        "data/show": "def f():\n    from fairparse.measure import counts",
        "measure/counts": "from fairparse.data.show import (\n    y,\n)",
        "measure/fairness": "from .counts import z",
        "cli": "import fairparse.measure.fairness",
    }.items():
        path = tmp_path / "fairparse" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    graph = house.imports(tmp_path)
    assert graph["cli"] == ["measure.fairness"] and graph["data.labels"] == ["core.runs"]
    back = house.backward(graph, ["core", "data", "measure"])
    assert back == [("data.show", "measure.counts")]
    assert house.circles(graph) == ["data.show", "measure.counts"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_is_small(path):
    assert path.stat().st_size <= 200_000, (
        f"{path.name} has {path.stat().st_size // 1000} KB: make its pictures smaller"
    )
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", []):
            assert len(json.dumps(output)) < 100_000, f"an output in {path.name} is too large"


@pytest.mark.parametrize("path", PAPER, ids=name)
def test_paper_notebook_has_no_stored_output(path):
    "Run on real faces, a paper notebook would carry pictures of them: outputs/ has executed copies"
    assert not any(cell.get("outputs") for cell in json.loads(path.read_text())["cells"]), (
        f"clear the outputs of {path.name}"
    )


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_library_notebook_opens_and_closes_as_agreed(path):
    cells = json.loads(path.read_text())["cells"]
    first, last = "".join(cells[0]["source"]), "".join(cells[-1]["source"])
    assert cells[0]["cell_type"] == "markdown" and re.match(r"# .+\n\n?> .+", first), (
        f"{path.name} does not open with a title and one line"
    )
    assert default_exp(path) and "nbdev_export()" in last and last.startswith("#| hide")


@pytest.mark.parametrize("path", sorted((ROOT / "fairparse").rglob("[!_]*.py")), ids=name)
def test_module_is_readable(path):
    text = path.read_text()
    size = len(text.splitlines())
    assert size <= house.MODULE, f"{path.name} has {size} lines: split it"
    assert "import *" not in text


@pytest.mark.parametrize("path", PAPER, ids=name)
def test_paper_notebook_has_commented_literal_parameters(path):
    parameters = read_parameters(path)
    assert "out" in parameters
    source = next(source for source, tags in read_cells(path) if "parameters" in tags)
    commented = {
        token.start[0]
        for token in tokenize.tokenize(BytesIO(source.encode()).readline)
        if token.type == tokenize.COMMENT
    }
    for statement in ast.parse(source).body:
        assert commented & set(range(statement.lineno, statement.end_lineno + 1)), (
            f"{path.name}: `{ast.unparse(statement)}` has no comment"
        )


def test_paper_notebooks_and_rules_agree():
    "The benchmark alone is no stage: the workflow would run other jobs beside it"
    assert set(workflow_stages().values()) == {p.stem for p in PAPER} - {
        "95_bench",
        "96_bench_commits",
    }


@pytest.mark.parametrize("path", PAPER, ids=name)
def test_paper_notebook_exports_nothing(path):
    assert default_exp(path) is None and not any(
        re.search(r"^#\| *export", source, re.MULTILINE) for source, _ in read_cells(path)
    )


@pytest.mark.parametrize("path", RESULTS, ids=name)
def test_tables_and_figures_do_without_torch(path):
    assert not any(
        re.search(r"^\s*(import|from) torch", source, re.MULTILINE)
        for source, _ in read_cells(path)
    )
    files = notebook_sources(path, ROOT / "fairparse")
    modules = [
        f"fairparse.{house.module_name(p, ROOT / 'fairparse')}"
        for p in files
        if p.stem != "__init__"
    ]
    sources = "\n".join(source for source, _ in read_cells(path))
    direct = [m for m in modules if re.search(rf"\b{m}\b", sources)]
    assert direct and "torch" not in modules_after(*direct)


def test_the_package_loads_at_once():
    assert not {"torch", "pandas", "matplotlib"} & set(modules_after("fairparse"))
    assert not {"torch", "pandas", "matplotlib", "papermill", "snakemake"} & set(
        modules_after("fairparse.cli")
    )


def test_export_check_sees_every_kind_of_change(tmp_path):
    for file in (
        "nbs/lib/a.ipynb",
        "fairparse/a.py",
        "fairparse/b.py",
        "fairparse/__pycache__/a.pyc",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1")
    before = hash_tree(tmp_path)
    assert changed(before, hash_tree(tmp_path)) == [] and len(before) == 3
    (tmp_path / "fairparse" / "__pycache__" / "a.pyc").write_text("2")
    (tmp_path / "nbs" / "lib" / "a.ipynb").write_text("2")
    (tmp_path / "fairparse" / "c.py").write_text("1")
    (tmp_path / "fairparse" / "b.py").unlink()
    assert changed(before, hash_tree(tmp_path)) == [
        "fairparse/b.py was removed",
        "fairparse/c.py is new",
        "nbs/lib/a.ipynb changed",
    ]


def test_lock_names_what_settings_ask_for():
    "Each requirement of settings.ini has an exact version in requirements.lock, without an address"
    from configparser import ConfigParser

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [
        line
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    locked = {canonicalize_name((r := Requirement(line)).name): r for line in lines}
    assert not any("@" in line or "/" in line for line in lines) and not any(
        n.startswith(("nvidia-", "cuda-", "triton")) for n in locked
    )
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini")
    for key in (key for key in settings["DEFAULT"] if key.endswith("requirements")):
        for text in settings["DEFAULT"][key].split():
            wanted = Requirement(text)
            exact = str(locked[canonicalize_name(wanted.name)].specifier)
            assert exact.startswith("==") and wanted.specifier.contains(exact[2:]), text


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def test_cells_have_names_of_their_own():
    "A tool that saves a notebook with two cells of one name gives one of them another"
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        names = [cell["id"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        assert not {name for name in names if names.count(name) > 1}, path.name


def test_links_of_the_pages_lead_somewhere():
    texts = [(page.parent, page.read_text(encoding="utf-8")) for page in PAGES]
    index = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))
    texts.append((ROOT / "nbs", "\n".join("".join(cell["source"]) for cell in index["cells"])))
    links = [
        (folder, link)
        for folder, text in texts
        for link in re.findall(r"\]\(([^)#\s]+)", text)
        if not link.startswith(("http:", "https:"))
    ]
    assert len(links) > 20
    assert not [link for folder, link in links if not (folder / link).exists()]


def test_what_texts_import_is_there():
    "Lines of Python in the pages and in the prose of notebooks name modules and what is in them"
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        texts[path.name] = "\n".join(prose)
    found = [
        (page, module, names)
        for page, text in texts.items()
        for module, names in re.findall(r"from (fairparse[\w.]*) import (\w+(?:, \w+)*)", text)
    ]
    assert any(page == "README.md" for page, *_ in found)
    for page, module, names in found:
        loaded = importlib.import_module(module)
        missing = [name for name in names.split(", ") if not hasattr(loaded, name)]
        assert not missing, f"{page}: {module} has no {missing}"


def test_readme_shows_the_published_table():
    block = re.search(
        r"<!-- table1 -->\n(.*?)<!-- /table1 -->",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )[1]
    assert "Single Objective" in block and block.count("\n") >= 7


def test_the_index_names_every_notebook():
    index = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in index["cells"]]
    assert house.library_table() in cells, (
        "python tests/house.py --write-index brings it up to date"
    )
    assert not [path.name for path in PAPER if f"(paper/{path.name})" not in "".join(cells)]
