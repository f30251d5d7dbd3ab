"""The site: links and names as they are rewritten, the reference from comments, broken links found,
and the built pages in a real Chromium"""

import ast
import functools
import json
import os
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import house
import pytest
from conftest import ROOT, write_notebook

from fairparse.core.runs import InputError
from fairparse.workflow.links import broken_links
from fairparse.workflow.reference import (
    argument_rows,
    argument_table,
    cell_entries,
    escape_markdown,
    line_comments,
    module_page,
    signature_block,
)
from fairparse.workflow.site import (
    build_site,
    executed_copies,
    fetch_script,
    navigation,
    notebook_page,
    plain_page,
    rewrite_links,
)

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
NAMES = {
    "measure.counts": "nbs/lib/15_measure/01_counts.ipynb",
    "results.audit": "nbs/lib/80_results/15_audit.ipynb",
    "30_sweep": "nbs/paper/30_sweep.ipynb",
}


@pytest.mark.parametrize(
    "source, text, expected",
    [
        (
            "README.md",
            "[a](nbs/lib/15_measure/01_counts.ipynb#iou)",
            "[a](lib/15_measure/01_counts.ipynb#iou)",
        ),
        (
            "README.md",
            "[![p](outputs/published/p.png)](CONTRIBUTING.md)",
            "[![p](outputs/published/p.png)](contributing.md)",
        ),
        ("README.md", "[a](outputs/published)", "[a](results.md)"),
        (
            "README.md",
            "[a](outputs/published/study/86_does_it_work.ipynb)",
            "[a](paper/86_does_it_work.ipynb)",
        ),
        (
            "README.md",
            "[a](https://x.org/a.ipynb) [b](#here) [c](mailto:a@b.c)",
            "[a](https://x.org/a.ipynb) [b](#here) [c](mailto:a@b.c)",
        ),
        (
            "nbs/lib/80_results/15_audit.ipynb",
            (
                "[a](../15_measure/01_counts.ipynb) [b](../../paper/30_sweep.ipynb#run) "
                "[c](../../../README.md)"
            ),
            (
                "[a](../15_measure/01_counts.html) [b](../../paper/30_sweep.html#run) "
                "[c](../../readme.html)"
            ),
        ),
        (
            "nbs/lib/80_results/15_audit.ipynb",
            "`measure.counts`, `30_sweep`, `results.audit`, `99_none`",
            (
                "[`measure.counts`](../15_measure/01_counts.html), "
                "[`30_sweep`](../../paper/30_sweep.html), `results.audit`, `99_none`"
            ),
        ),
        (
            "nbs/lib/80_results/15_audit.ipynb",
            "[`measure.counts`](../15_measure/01_counts.ipynb)",
            "[`measure.counts`](../15_measure/01_counts.html)",
        ),
        (
            "nbs/index.ipynb",
            "[a](lib/15_measure/01_counts.ipynb)",
            "[a](lib/15_measure/01_counts.html)",
        ),
    ],
)
def test_links_lead_from_page_to_page(source, text, expected):
    assert rewrite_links(text, source, NAMES) == expected


def test_a_page_shows_what_readers_need(tmp_path):
    path = write_notebook(
        tmp_path / "20_toy.ipynb",
        "epochs = 1 # passes",
        "#| export\n#| eval: false\ndef f(): pass",
        "#| hide\nimport nbdev",
        "#| default_exp toy",
        "f()",
    )
    notebook = json.loads(path.read_text())
    notebook["cells"].insert(
        0, {"cell_type": "markdown", "metadata": {}, "source": "# Toy\n\n> A toy."}
    )
    shown = notebook_page(notebook, "nbs/lib/20_toy.ipynb", note="Executed.")["cells"]
    for c in shown:
        c["metadata"].setdefault("tags", [])
    assert [c["source"] for c in shown[1:]] == ["epochs = 1 # passes", "def f(): pass", "f()"] and [
        c["metadata"]["tags"] for c in shown[1:]
    ] == [["parameters"], ["package"], []]
    assert (
        "api/toy.html" in shown[0]["source"]
        and "(20_toy.ipynb)" in shown[0]["source"]
        and "Executed." in shown[0]["source"]
    )


@pytest.mark.parametrize(
    "sources, complaint",
    [
        (["procedural faces, seed 0", "/data/CelebAMask-HQ"], "only procedural faces"),
        (None, "no output folder"),
    ],
)
def test_runs_on_real_faces_are_not_shown(tmp_path, sources, complaint):
    if sources:
        (tmp_path / "10_faces").mkdir()
        (tmp_path / "10_faces" / "faces.json").write_text(json.dumps({"sources": sources}))
    with pytest.raises(InputError, match=complaint):
        executed_copies(ROOT, tmp_path)


def test_a_named_run_comes_before_the_published_copy(tmp_path):
    for folder in ("outputs/published/study", "run/study", "run/logs"):
        write_notebook(tmp_path / folder / "86_does_it_work.ipynb", "a = 1")
    for folder in ("nbs/paper", "run/study/.ipynb_checkpoints"):
        write_notebook(tmp_path / folder / "86_does_it_work.ipynb", "a = 1")
    write_notebook(tmp_path / "run" / "mine.ipynb", "a = 1")
    (tmp_path / "run" / "10_faces").mkdir()
    (tmp_path / "run" / "10_faces" / "faces.json").write_text('{"sources": ["procedural faces"]}')
    assert executed_copies(tmp_path, None) == {
        "86_does_it_work.ipynb": tmp_path / "outputs/published/study/86_does_it_work.ipynb"
    }
    assert executed_copies(tmp_path, tmp_path / "run") == {
        "86_does_it_work.ipynb": tmp_path / "run/logs/86_does_it_work.ipynb"
    }


def rows_of(code):
    return argument_rows(ast.parse(code).body[0], line_comments(code))


@pytest.mark.parametrize(
    "code, expected",
    [
        ("def f(a, b=1): pass", [("a", "", "", ""), ("b", "", "1", "")]),
        (
            "def f(a: int, b: str = 'x', # both\n     ): pass",
            [("a", "int", "", ""), ("b", "str", "'x'", "both")],
        ),
        (
            (
                "def f(\n    # above\n    # and more\n    a: int,\n    b=2, # beside\n"
                "    *rest, # others\n    c: float = 0.5, # named\n    **options): pass"
            ),
            [
                ("a", "int", "", "above and more"),
                ("b", "", "2", "beside"),
                ("*rest", "", "", "others"),
                ("c", "float", "0.5", "named"),
                ("**options", "", "", ""),
            ],
        ),
        (
            "def f(self, a, /, b, *, c=None) -> list: # (N,), ascending\n    pass",
            [
                ("a", "", "", ""),
                ("b", "", "", ""),
                ("*", "", "", ""),
                ("c", "", "None", ""),
                ("returns", "list", "", "(N,), ascending"),
            ],
        ),
        ("def f(a='# no comment', # x | y\n     ): pass", [("a", "", "'# no comment'", "x | y")]),
    ],
)
def test_comments_are_found_beside_their_arguments(code, expected):
    assert rows_of(code) == expected


def test_the_call_shows_types_only_without_a_table():
    assert "f(a, b=1)" in signature_block("f", rows_of("def f(a: int, # what\n b=1): pass"))
    assert "f(a: int, b: int = 1) -> str" in signature_block(
        "f", rows_of("def f(a: int, b: int = 1) -> str: pass")
    )
    assert (
        "f(a, *, b=1)" in signature_block("f", rows_of("def f(a, *, b=1): pass"))
        and "f(*, b=1)" in signature_block("f", rows_of("def f(*,\n b=1 # what\n ): pass"))
        and "f(*a, b=1)" in signature_block("f", rows_of("def f(*a, b=1): pass"))
    )
    assert signature_block("f", []) == ""


@pytest.mark.parametrize(
    "text, shown",
    [
        ("fill `<!-- name -->` with <b>", "fill `<!-- name -->` with &lt;b&gt;"),
        ("a | b, `str | None`, $x$", "a \\| b, `str | None`, \\$x\\$"),
        ("a lone ` and <b>", "a lone ` and &lt;b&gt;"),
        ("``a ` <b>`` <c>", "``a ` <b>`` &lt;c&gt;"),
    ],
)
def test_only_text_outside_code_is_escaped(text, shown):
    assert escape_markdown(text) == shown


def test_a_table_shows_what_was_written():
    from markdown import markdown

    html = markdown(
        argument_table(rows_of("def f(a: str | None, # `x | y`, or <b>\n *, b=1): pass")),
        extensions=["tables"],
    )
    assert (
        "<code>str | None</code>" in html
        and "<code>x | y</code>, or &lt;b&gt;" in html
        and "<code>*</code>" not in html
        and html.count("<td>") == 6
    )


def test_a_cell_lists_what_is_public():
    text = cell_entries(
        "#| export\nLIMIT = 3\n_HIDDEN = 4\nlower = 5\ndef _f(): pass\ndef g(x: int, # a | b\n"
        "     ) -> list: # sums\n    'Do `x`'\n@dataclass\nclass C:\n"
        "    'A record'\n    size: int = 2 # pixels\n"
        "    many: list = field(default_factory=lambda: [1])\n"
        "    def area(self) -> int: return 1\n    def _inner(self): pass\n    @property\n"
        "    def double(self) -> int: 'Twice'\n"
    )
    for expected in (
        "LIMIT = 3",
        "### `g`",
        "| `x` | `int` | a \\| b |",
        "| *result* | `list` | sums |",
        "### `C`",
        "| `size` | `int` | pixels |",
        "C(size=2, many=[1])",
        "#### `C.area`",
        "`int`, a property. Twice",
    ):
        assert expected in text, expected
    for absent in ("_HIDDEN", "lower", "_f", "_inner", "export"):
        assert absent not in text, absent


def test_bad_notebooks_are_named(tmp_path):
    path = tmp_path / "20_toy.ipynb"
    path.write_text("{")
    with pytest.raises(InputError, match="20_toy.ipynb is not a notebook"):
        module_page(path, "")
    write_notebook(path, "#| default_exp toy", "#| export\ndef f(:")
    with_title = json.loads(path.read_text())
    with_title["cells"].insert(0, {"cell_type": "markdown", "source": "# Toy\n\n> A toy."})
    path.write_text(json.dumps(with_title))
    with pytest.raises(InputError, match="20_toy.ipynb: an exported cell is not valid Python"):
        module_page(path, "")


@pytest.mark.parametrize(
    "link, complaint",
    [
        ('<a href="b.html">', ""),
        ('<a href="b.html#there">', ""),
        ('<a href="b.html#%C3%A4">', ""),
        ('<a href="sub/">', ""),
        ('<a href="#">', ""),
        ('<a href="//cdn.org/x.js">', ""),
        ('<a href="data:,">', ""),
        ('<img src="b.html?v=1">', ""),
        ('<a href="c.html">', "no such file"),
        ('<a href="b.html#nowhere">', "no such anchor"),
        ('<a href="#nowhere">', "no such anchor"),
        ('<img src="p.png">', "no such file"),
        ('<script src="s.js"></script>', "no such file"),
        ('<link href="s.css">', "no such file"),
        ('<a href="/b.html">', "leads out of the site"),
        ('<a href="../../b.html">', "leads out of the site"),
        ('<a href="empty">', "no such file"),
    ],
)
def test_broken_links_are_found(tmp_path, link, complaint):
    for folder in ("sub", "empty"):
        (tmp_path / folder).mkdir()
    for path, text in {
        "a.html": link,
        "b.html": '<p id="there"><p id="ä">',
        "sub/index.html": "",
        "404.html": '<a href="/nowhere">',
    }.items():
        (tmp_path / path).write_text(text, encoding="utf-8")
    found = broken_links(tmp_path)
    assert (
        (len(found) == 1 and complaint in found[0] and found[0].startswith("a.html"))
        if complaint
        else not found
    )


def test_scripts_are_checked_and_npm_is_optional(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert fetch_script("tex-svg.js", tmp_path) is False
    (tmp_path / "package" / "es5").mkdir(parents=True)
    (tmp_path / "package" / "es5" / "tex-svg.js").write_text("alert('another file')")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        (
            f"#!/bin/sh\n{shutil.which('tar', path=os.defpath)} -czf mathjax.tgz -C {tmp_path} "
            f"package\n"
        )
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.defpath}")
    with pytest.raises(InputError, match="mathjax@3.2.2 holds another"):
        fetch_script("tex-svg.js", tmp_path / "scripts")
    assert not (tmp_path / "scripts").exists()


def test_styles_and_copies_leave_a_notebooks_page():
    html = (
        '<style type="text/css">\n.a {}\n'
        '</style><script>x</script><div class="highlight-ipynb '
        'hl-python"><pre>f()</pre></div><div class="clipboard-copy-txt" '
        'id="cell-1">f()</div><p>kept</p>'
    )
    assert plain_page(html) == '<div class="highlight hl-python"><pre>f()</pre></div><p>kept</p>'


def test_navigation_goes_stage_by_stage():
    order = navigation(
        {
            "index.ipynb": "m",
            "lib/20_parsing/01_unet.ipynb": "U-Net",
            "lib/90_workflow/05_engine.ipynb": "Engine",
            "paper/20_train_parser.ipynb": "Train",
        },
        {"api/parsing.unet.md": "parsing.unet"},
    )
    assert [next(iter(entry)) for entry in order] == [
        "Map",
        "Read me",
        "Results",
        "20 Parser",
        "90 Running",
        "Reference",
        "Contributing",
    ]
    assert order[3]["20 Parser"] == [
        {"U-Net": "lib/20_parsing/01_unet.ipynb"},
        {"Experiments": [{"Train": "paper/20_train_parser.ipynb"}]},
    ]


@pytest.fixture
def small(tmp_path):
    "A small repository with a map, a library notebook and the real settings"
    toy = write_notebook(tmp_path / "nbs" / "lib" / "20_toy.ipynb", "1 + 1")
    write_notebook(tmp_path / "nbs" / "index.ipynb", "1")
    for path, opening in (
        (toy, "# Toy\n\n> A toy."),
        (tmp_path / "nbs" / "index.ipynb", "# Map\n\n[toy](lib/20_toy.ipynb)"),
    ):
        notebook = json.loads(path.read_text())
        code = (
            ["#| default_exp toy", "#| export\ndef f(a: int, # what\n    ): pass"]
            if path is toy
            else []
        )
        notebook["cells"] = [
            {"cell_type": "markdown", "id": "m", "metadata": {}, "source": opening},
            *(
                {
                    "cell_type": "code",
                    "id": f"c{i}",
                    "metadata": {},
                    "outputs": [],
                    "execution_count": None,
                    "source": source,
                }
                for i, source in enumerate(code)
            ),
        ]
        path.write_text(json.dumps(notebook))
    for name in ("README.md", "CONTRIBUTING.md"):
        (tmp_path / name).write_text(f"# {name}\n\n[toy](nbs/lib/20_toy.ipynb)\n")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(
        ROOT / "fairparse" / "assets" / "site", tmp_path / "fairparse" / "assets" / "site"
    )
    return tmp_path


def test_a_small_site_without_npm(small, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(small / "bin"))
    first = build_site(root=small)
    assert (
        first == small / "_docs" / "site" / "index.html"
        and "could not be had from npm" in capsys.readouterr().out
    )
    page = (first.parent / "lib" / "20_toy.html").read_text()
    assert "cdn.jsdelivr.net" in page and "<style" not in page and len(page) < 60_000
    assert "what" in (first.parent / "api" / "toy.html").read_text()
    (small / "nbs" / "lib" / "20_toy.ipynb").unlink()
    with pytest.raises(InputError, match="(?s)not built.*20_toy"):
        build_site(root=small)


def test_other_peoples_folders_are_left_alone(small):
    (small / "mine" / "pages").mkdir(parents=True)
    (small / "mine" / "pages" / "diary.txt").write_text("dear")
    with pytest.raises(InputError, match="mine holds other files"):
        build_site("mine", root=small)
    assert (small / "mine" / "pages" / "diary.txt").read_text() == "dear"


def test_notebooks_of_the_published_report_are_pages(small, monkeypatch):
    monkeypatch.setenv("PATH", str(small / "bin"))
    write_notebook(small / "nbs" / "paper" / "20_train.ipynb", "a = 1")
    notebook = json.loads((small / "nbs" / "paper" / "20_train.ipynb").read_text())
    notebook["cells"].insert(
        0, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# Train"}
    )
    (small / "nbs" / "paper" / "20_train.ipynb").write_text(json.dumps(notebook))
    report = small / "outputs" / "published" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text('<a href="logs/20_train.ipynb">log</a> <a href="tables/t.csv">t</a>')
    with pytest.raises(InputError, match="tables/t.csv"):
        build_site(root=small)
    (report.parent / "tables").mkdir()
    (report.parent / "tables" / "t.csv").write_text("a\n1\n")
    site = build_site(root=small).parent
    assert (
        'href="../../paper/20_train.html"'
        in (site / "outputs" / "published" / "report.html").read_text()
        and "report.html" in (site / "results.html").read_text()
    )


@pytest.mark.parametrize(
    "text, named",
    [
        ("[gone](nbs/lib/21_gone.ipynb)", "21_gone"),
        ("![gone](picture.png)", "picture.png"),
        ("[gone](nbs/lib/20_toy.ipynb#nowhere)", "#nowhere"),
    ],
)
def test_a_broken_link_ends_the_build(small, text, named, monkeypatch):
    monkeypatch.setenv("PATH", str(small / "bin"))
    (small / "README.md").write_text(f"# R\n\n{text}\n")
    with pytest.raises(InputError, match=re.escape(named)):
        build_site(root=small)


# the whole site, built once


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The built site's folder"
    return build_site(tmp_path_factory.mktemp("docs")).parent


def test_every_notebook_and_module_has_a_page(site):
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        if ".ipynb_checkpoints" in path.parts:
            continue
        page = site / path.relative_to(ROOT / "nbs").with_suffix(".html")
        assert page.is_file() and page.stat().st_size < 600_000, page
        assert page.with_suffix(".ipynb").read_bytes() == path.read_bytes(), (
            "what one downloads is the notebook itself"
        )
    modules = set(house.module_sizes())
    assert len(modules) > 50 and modules <= {path.stem for path in (site / "api").glob("*.html")}
    assert "in the order of CelebAMask-HQ" in (site / "readme.html").read_text()


def test_reference_carries_the_comments(site):
    text = (site / "api" / "core.records.html").read_text()
    assert (
        "missing, unexpected or uncastable" in text
        and "../lib/00_core/02_records.html#tables-with-a-schema" in text
    )


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip(
        "playwright.sync_api", reason="Playwright for Python is not installed"
    )
    if not CHROMIUM:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["http", "file"])
def address(request, site):
    "The site as a server gives it, and as it lies on a disk"
    if request.param == "file":
        yield site.as_uri()
        return

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture
def page(browser):
    "A page that collects what goes wrong on it"
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    page.troubles = []
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on(
        "requestfailed",
        lambda request: request.failure != "net::ERR_ABORTED" and page.troubles.append(request.url),
    )  # aborted: the test went on to the next page
    yield page
    context.close()


def test_formulas_are_drawn(site, page, address):
    if not (site / "assets" / "tex-svg.js").is_file():
        pytest.skip("MathJax could not be had from npm: formulas need a network here")
    page.goto(f"{address}/lib/20_parsing/04_homotopy.html")
    page.wait_for_selector("mjx-container svg", timeout=20_000)
    assert (
        "$$" not in page.locator(".jp-RenderedMarkdown").first.inner_text()
        and page.locator("mjx-merror, [data-mjx-error]").count() == 0
    )
    assert not page.troubles


def test_search_finds_a_section(site, page, address):
    if not (site / "assets" / "iframe-worker.js").is_file() and address.startswith("file"):
        pytest.skip("the search shim could not be had from npm: search needs a server here")
    page.goto(f"{address}/index.html")
    page.locator(".md-search__input").fill("homotopy schedules")
    page.wait_for_selector(".md-search-result__item a", timeout=30_000)
    results = page.locator(".md-search-result__item a").evaluate_all(
        "links => links.map(a => a.getAttribute('href'))"
    )
    assert any("20_parsing/04_homotopy" in link for link in results) and not page.troubles


PAGES = [
    "index.html",
    "readme.html",
    "results.html",
    "lib/20_parsing/03_losses.html",
    "lib/80_results/04_damage.html",
    "paper/86_does_it_work.html",
    "api/core.records.html",
]


@pytest.mark.parametrize("width", [390, 1300])
def test_pages_fit_the_screen(site, page, width):
    page.set_viewport_size({"width": width, "height": 844})
    for name in PAGES:
        page.goto((site / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        wide = page.evaluate(
            """[...document.querySelectorAll('article img')]
                .filter(i => i.getBoundingClientRect().width > innerWidth || !i.naturalWidth)
                .map(i => i.src.slice(0, 80))"""
        )
        assert not wide, f"{name}: pictures too wide or missing: {wide}"
    assert not page.troubles


def test_dark_pages_keep_their_contrast(site, browser):
    def colours(scheme):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto((site / "lib/80_results/02_objectives.html").as_uri())
        found = page.evaluate(
            """['.highlight pre', '.jp-OutputArea-output', '.jp-RenderedMarkdown p'].map(s => {
                const style = getComputedStyle(document.querySelector(s));
                return style.color + ' ' + style.backgroundColor })"""
        )
        context.close()
        return found

    assert all(light != dark for light, dark in zip(colours("light"), colours("dark")))
