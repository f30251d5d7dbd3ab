"""The house on one page: rooms, modules, arrows between rooms, and how the code reads.

    python tests/house.py            rooms and their modules, in reading order, with the arrows
    python tests/house.py --style    the measurements: cells, functions, lines, modules
    python tests/house.py --long     whatever is over a limit, by name
    python tests/house.py --write-index    the table of modules in nbs/index.ipynb

Files are read and nothing of them is run, so that it answers at once. What a module imports is
found by the function that the workflow's fingerprints stand on.
"""

import argparse
import ast
import json
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from fairparse.workflow.fingerprints import imported_files

ROOT = Path(__file__).resolve().parents[1]
WIDTH, MODULE, FUNCTION = 100, 500, 60  # characters a line; lines a module and a function
CELL, CELL_CHARACTERS, NODES = 14, 700, 9  # medians: lines and characters a cell, nodes a line


@dataclass
class Notebook:
    "A library notebook: its module, its one line, its cells as (type, source)"

    path: Path
    module: str
    says: str
    cells: list

    @property
    def exported(self):
        "Sources of exported cells, without the directive; cells of imports alone are left out"
        code = [s for kind, s in self.cells if kind == "code" and re.match(r"#\| *export", s)]
        bodies = [s.partition("\n")[2] for s in code]
        return [body for body in bodies if body.strip() and not only_imports(ast.parse(body))]


def only_imports(tree):
    "Whether a piece of code consists of imports alone"
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)


def read_notebook(path):
    "A library notebook as a `Notebook`"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    module = next((m[1] for _, s in cells if (m := re.match(r"#\| *default_exp +(\S+)", s))), "")
    line = re.search(r"^> (.+)$", cells[0][1], re.MULTILINE)
    return Notebook(path, module, line[1] if line else "", cells)


def library(root=ROOT):
    "All library notebooks, room after room"
    paths = sorted((root / "nbs" / "lib").rglob("*.ipynb"))
    return [read_notebook(p) for p in paths if ".ipynb_checkpoints" not in p.parts]


def rooms(root=ROOT):
    "Names of the rooms in reading order: `20_parsing` is the room `parsing`"
    folders = sorted(p for p in (root / "nbs" / "lib").iterdir() if p.is_dir())
    return [p.name.partition("_")[2] for p in folders if not p.name.startswith(".")]


def module_name(path, package):
    "`parsing.train` for the file `parsing/train.py` of the package"
    return ".".join(path.relative_to(package).with_suffix("").parts)


def imports(root=ROOT):
    "Module -> modules of the package that it imports, at the top or inside a function"
    package, found = root / "fairparse", {}
    for name in module_sizes(root):
        path = package.joinpath(*name.split(".")).with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        files = imported_files(tree, package, path.parent)
        found[name] = sorted(module_name(f, package) for f in files if f.stem != "__init__")
    return found


def room_of(module):
    "The room of a module; `cli` stands alone, after all rooms"
    return module.partition(".")[0]


def backward(graph, order):
    "Imports that run back: from a room to one that comes after it"
    place = {room: number for number, room in enumerate([*order, "cli"])}
    pairs = [(module, other) for module, others in graph.items() for other in others]
    return [(a, b) for a, b in pairs if place[room_of(b)] > place[room_of(a)]]


def circles(graph):
    "Modules that import themselves through others"

    def reached(start):
        seen, todo = set(), list(graph[start])
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += graph[module]
        return seen

    return [module for module in graph if module in reached(module)]


def functions(root=ROOT):
    "(module, name, lines, characters, syntax nodes) of every function and method of the package"
    found = []
    for path in sorted((root / "fairparse").rglob("*.py")):
        if path.name.startswith("_"):
            continue
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                source = ast.get_source_segment(text, node)
                lines = node.end_lineno - node.lineno + 1
                nodes = sum(1 for _ in ast.walk(node))
                found.append(
                    (module_name(path, root / "fairparse"), node.name, lines, len(source), nodes)
                )
    return found


def demonstrated(notebooks):
    "(cells that export code, those of them that something visible follows before the next export)"
    every, shown = 0, 0
    for notebook in notebooks:
        waiting = False
        for kind, source in notebook.cells:
            if kind == "markdown":
                if re.search(r"^## ", source, re.MULTILINE):
                    waiting = False
            elif re.match(r"#\| *export", source):
                body = ast.parse(source.partition("\n")[2])
                if body.body and not only_imports(body):
                    every, waiting = every + (not waiting), True
            elif not re.match(r"#\| *(hide|default_exp)", source) and waiting:
                shown, waiting = shown + 1, False
    return every, shown


def percentile(values, share):
    "The value below which `share` of the sorted values lie"
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def measure(root=ROOT):
    "The numbers of the style table, by name"
    notebooks = library(root)
    cells = [body for notebook in notebooks for body in notebook.exported]
    lines = [line for body in cells for line in body.splitlines() if line.strip()]
    known = functions(root)
    sizes = module_sizes(root)
    prose = [kind == "markdown" for notebook in notebooks for kind, _ in notebook.cells]
    every, shown = demonstrated(notebooks)
    return {
        "rooms": len(rooms(root)),
        "modules": len(sizes),
        "lines a module, median": statistics.median(sizes.values()),
        "lines a module, longest": max(sizes.values()),
        "exported cells": len(cells),
        "lines a cell, median": statistics.median(len(c.splitlines()) for c in cells),
        "lines a cell, p90": percentile([len(c.splitlines()) for c in cells], 0.9),
        "characters a cell, median": statistics.median(map(len, cells)),
        "characters a cell, p90": percentile(list(map(len, cells)), 0.9),
        "functions": len(known),
        "lines a function, median": statistics.median(f[2] for f in known),
        "lines a function, longest": max(f[2] for f in known),
        "characters a function, median": statistics.median(f[3] for f in known),
        "syntax nodes a line, median over functions": round(
            statistics.median(f[4] / f[2] for f in known), 1
        ),
        "width of a line, p90": percentile(list(map(len, lines)), 0.9),
        "lines over 100 characters, %": round(
            100 * sum(len(line) > WIDTH for line in lines) / len(lines), 1
        ),
        "width of a line, longest": max(map(len, lines)),
        "prose, % of the notebooks' cells": round(100 * statistics.mean(prose)),
        "exports followed by something seen, %": round(100 * shown / every),
    }


def module_sizes(root=ROOT):
    "Module -> lines of its file"
    package = root / "fairparse"
    paths = [p for p in sorted(package.rglob("*.py")) if not p.name.startswith("_")]
    return {module_name(p, package): len(p.read_text(encoding="utf-8").splitlines()) for p in paths}


def too_long(root=ROOT):
    "What is over a limit, in words, place by place"
    found = [
        f"{name}: {size} lines, at most {MODULE}"
        for name, size in module_sizes(root).items()
        if size > MODULE
    ]
    found += [
        f"{module}.{name}: a function of {lines} lines, at most {FUNCTION}"
        for module, name, lines, *_ in functions(root)
        if lines > FUNCTION
    ]
    for notebook in library(root):
        for kind, source in notebook.cells:
            for line in source.splitlines() if kind == "code" else ():
                if len(line) > WIDTH:
                    where = notebook.path.relative_to(root)
                    found.append(f"{where}: {len(line)} characters: {line.strip()[:60]}…")
    return found


def library_table(root=ROOT):
    "The index's table of rooms and modules, from the first lines of their notebooks"
    lines = ["## Library", "", "| room | module | what it owns |", "|---|---|---|"]
    before = None
    for notebook in library(root):
        folder, name = notebook.path.parent.name, notebook.module.rpartition(".")[2]
        link = f"[{name}]({notebook.path.relative_to(root / 'nbs')})"
        room = f"`{folder}`" if "_" in folder else ""
        lines.append(f"| {room if room != before else ''} | {link} | {notebook.says} |")
        before = room
    return "\n".join(lines)


def write_index(root=ROOT):
    "Bring the table of modules in nbs/index.ipynb up to date"
    path = root / "nbs" / "index.ipynb"
    index = json.loads(path.read_text(encoding="utf-8"))
    (cell,) = [c for c in index["cells"] if "".join(c["source"]).startswith("## Library")]
    cell["source"] = library_table(root).splitlines(keepends=True)
    text = json.dumps(index, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def print_house(root=ROOT):
    "Rooms with their modules and what each says of itself, then the arrows"
    notebooks, graph, order = library(root), imports(root), rooms(root)
    for room in [*order, "cli"]:
        print(f"\n{room}")
        for notebook in notebooks:
            if room_of(notebook.module) == room:
                print(f"  {notebook.module.rpartition('.')[2]:20} {notebook.says}")
    print("\narrows: a room and the rooms that it imports from")
    for room in [*order, "cli"]:
        used = {room_of(b) for a, others in graph.items() if room_of(a) == room for b in others}
        print(f"  {room:10} <- {', '.join(r for r in order if r in used - {room}) or '-'}")
    back, round_ = backward(graph, order), circles(graph)
    print(f"\n{len(notebooks)} modules in {len(order)} rooms; arrows back: {back}; round: {round_}")


def main(words=None):
    "Exit code: 1 if --long finds something"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--style", action="store_true", help="measurements of cells and functions")
    parser.add_argument("--long", action="store_true", help="name whatever is over a limit")
    parser.add_argument("--write-index", action="store_true", help="update nbs/index.ipynb")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    given = parser.parse_args(words)
    if given.style:
        for name, value in measure(given.root).items():
            print(f"{name:45} {value}")
    elif given.write_index:
        write_index(given.root)
    elif given.long:
        found = too_long(given.root)
        print(*found, sep="\n")
        return 1 if found else 0
    else:
        print_house(given.root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
