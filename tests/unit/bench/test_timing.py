"The benchmark's clockwork: turns, ratios, goals; parts that are kept; what is published"

import json
import math
import time

import pandas as pd
import pytest

from fairparse.bench import timing as module
from fairparse.bench.figures import draw_ratios, draw_stages, run_findings
from fairparse.bench.timing import (
    Bench,
    Case,
    Goal,
    OtherPrograms,
    describe_machine,
    finding,
    format_time,
    measure,
    per_item,
    time_shares,
)
from fairparse.core.runs import InputError
from fairparse.results.readers import bench_for_readers


@pytest.fixture
def clock(monkeypatch):
    "A clock that only the test moves"

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

        def __getattr__(self, name):
            return getattr(time, name)

    monkeypatch.setattr(module, "time", clock := Clock())
    return clock


def case(clock, order, seconds, **more):
    "Ways that take the given seconds a call, the warm-up first"
    calls = {way: iter(each) for way, each in seconds.items()}

    def take(way):
        order.append(way)
        clock.now += next(calls[way])

    return Case("p", "c", {way: (lambda way=way: take(way)) for way in seconds}, 10, "face", **more)


def test_ways_take_turns_and_the_first_call_is_not_counted(clock):
    order = []
    times, findings = measure(
        case(
            clock,
            order,
            {"a": [100, 1, 2, 3], "b": [100, 4, 4, 4]},
            goals=(Goal("a", "b", at_least=2), Goal("a", "b", at_most=0.6), Goal("b", "a")),
        ),
        repetitions=3,
    )
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert times[times.way == "a"].seconds.tolist() == [1, 2, 3] and times[
        times.way == "b"
    ].seconds.tolist() == [4, 4, 4]
    faster, share, told = findings.to_dict("records")
    assert (faster["value"], faster["low"], faster["high"], faster["reached"], faster["unit"]) == (
        2,
        4 / 3,
        4,
        "yes",
        "times as fast",
    )
    assert (share["value"], share["low"], share["high"], share["reached"], share["unit"]) == (
        0.5,
        0.25,
        0.75,
        "yes",
        "of the time",
    )
    assert told["reached"] == "" and told["value"] == 0.5 and math.isnan(told["at_most"])


def test_ratios_are_paired_within_a_turn(clock):
    "The machine becomes ten times slower in the second turn: the ratio does not care"
    _, findings = measure(
        case(
            clock, [], {"a": [0, 1, 10, 1], "b": [0, 3, 30, 3]}, goals=(Goal("a", "b", at_least=4),)
        ),
        3,
    )
    assert (
        findings.value.tolist() == [3]
        and findings.low.tolist() == findings.high.tolist() == [3]
        and findings.reached.tolist() == ["no"]
    )


def test_a_way_that_does_a_part_is_scaled(clock):
    times, findings = measure(
        case(clock, [], {"a": [0, 1], "b": [0, 3]}, goals=(Goal("a", "b"),), scale={"b": 100}), 1
    )
    assert times.seconds.tolist() == [1, 300] and findings.value.tolist() == [300]


@pytest.mark.parametrize(
    "more, message",
    [
        ({"goals": (Goal("a", "x"),)}, "'x'"),
        ({"scale": {"y": 2}}, "'y'"),
        ({"goals": (Goal("a", "b", 1, 2),)}, "one bound"),
    ],
)
def test_wrong_cases(clock, more, message):
    with pytest.raises(InputError, match=message):
        case(clock, [], {"a": [1], "b": [1]}, **more)


def test_no_repetitions(clock):
    with pytest.raises(InputError, match="0"):
        measure(case(clock, [], {"a": [1]}), 0)


@pytest.mark.parametrize(
    "value, bounds, reached",
    [
        (1.0, {"at_most": 1.0}, "yes"),
        (1.01, {"at_most": 1.0}, "no"),
        (5, {"at_least": 5}, "yes"),
        (4.99, {"at_least": 5}, "no"),
        (4, {}, ""),
        (math.nan, {"at_least": 5}, "no"),
        (math.nan, {"at_most": 5}, "no"),
    ],
)
def test_a_goal_is_reached_or_not(value, bounds, reached):
    assert finding("p", "c", "w", value, "u", **bounds)["reached"] == reached


def test_time_of_an_item(clock):
    times, _ = measure(case(clock, [], {"a": [0, 1, 2, 9]}), 3)
    (row,) = per_item(times).to_dict("records")
    assert (row["median_ms"], row["min_ms"], row["max_ms"], row["per_second"]) == (200, 100, 900, 5)


def test_times_in_words():
    assert [format_time(t) for t in (90_000, 1000, 999.4, 0.5, 0.0123)] == [
        "90 s",
        "1 s",
        "999 ms",
        "500 µs",
        "12.3 µs",
    ]


def test_profile_names_what_takes_the_time():
    def slow():
        time.sleep(0.05)

    def both():
        slow()
        sum(range(10))

    table = time_shares(both, 3)
    assert "sleep" in table.function[0] and table.share[0] > 90 and len(table) == 3


def parts(folder, **more):
    return Bench(folder, {"n": 1, **more}, repetitions=1)


def test_a_part_is_measured_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return [
            Case("p", "c", {"a": lambda: None, "b": lambda: None}, 1, "call", (Goal("a", "b"),)),
            finding("p", "c", "w", 3, "u"),
        ]

    first = parts(tmp_path).run("p", make)
    again = parts(tmp_path)
    pd.testing.assert_frame_equal(again.run("p", make), first)
    assert (
        calls == [1]
        and len(first) == 2
        and len(again.gather("times")) == 2
        and first.note.tolist() == ["", ""]
    )
    parts(tmp_path, m=2).run("p", make)  # other settings
    assert calls == [1, 1]


@pytest.mark.parametrize("change", ["sources_sha256", "machine", "repetitions", "settings"])
def test_a_part_of_other_code_or_another_machine_is_measured_again(tmp_path, change):
    calls = []

    def make():
        calls.append(1)
        return [finding("p", "c", "w", 3, "u")]

    parts(tmp_path).run("p", make)
    record = json.loads((tmp_path / "p" / "part.json").read_text())
    (tmp_path / "p" / "part.json").write_text(json.dumps(record | {change: "another"}))
    parts(tmp_path).run("p", make)
    assert calls == [1, 1]


def test_a_part_that_fails_leaves_the_others(tmp_path):
    bench = parts(tmp_path)
    bench.run("p", lambda: [finding("p", "c", "w", 3, "u")])
    with pytest.raises(ZeroDivisionError):
        bench.run("q", lambda: [1 / 0])
    assert (tmp_path / "p" / "part.json").is_file() and not (tmp_path / "q").exists()


def test_a_finding_of_another_part_is_refused(tmp_path):
    with pytest.raises(InputError, match="'q'"):
        parts(tmp_path).run("p", lambda: [finding("q", "c", "w", 3, "u")])


def test_conclusions_see_what_was_measured(tmp_path):
    make = lambda: [Case("p", "c", {"a": lambda: None}, 1, "call"), finding("p", "c", "w", 3, "u")]
    found = parts(tmp_path).run(
        "p",
        make,
        lambda times, findings: [finding("p", "all", "turns", len(times) + len(findings), "rows")],
    )
    assert found.value.tolist() == [3, 2]


def test_a_busy_machine_is_named(tmp_path, capsys):
    parts(tmp_path).run("p", lambda: [finding("p", "c", "w", 3, "u")])
    record = json.loads((tmp_path / "p" / "part.json").read_text())
    (tmp_path / "p" / "part.json").write_text(json.dumps(record | {"others_share": 0.4}))
    parts(tmp_path).run("p", lambda: 1 / 0)
    assert "40 % of the machine" in capsys.readouterr().out


def test_own_work_is_not_that_of_others(monkeypatch, clock):
    """Two cores of ours; in ten seconds we took 3, a child that ended 4, one that lives 5, somebody
    2, and a neighbour of the machine 1"""
    from types import SimpleNamespace as Times

    import psutil

    done = False

    def cores(percpu):
        return [
            Times(user=10 + done * 9, nice=0, system=0, idle=5, steal=done * 1),
            Times(user=3, nice=0, system=done * 5, idle=5),
            Times(user=done * 100, nice=0, system=0),
        ]

    class Process:
        def cpu_times(self):
            return (done * 2, done * 1, done * 4, 0, 99)

        def children(self, recursive):
            return [Times(cpu_times=lambda: (1 + done * 5, 0, 99))]

    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(psutil, "cpu_times", cores)
    monkeypatch.setattr(psutil, "Process", Process)
    with OtherPrograms() as others:
        clock.now, done = 10, True
    assert others.share == pytest.approx((9 + 1 + 5 - 3 - 4 - 5) / 20)


def test_machine_and_versions():
    machine = describe_machine()
    assert (
        machine["cores"] >= 1
        and machine["memory_gb"] > 0
        and machine["packages"]["torch"]
        and machine["card"] is None
    )


FOUND = pd.DataFrame(
    [
        finding("step", "s", "all, beside one", 1.043, "of the time", 1.03, 1.06, at_most=1.1),
        finding("counts", "c", "ours, beside theirs", 23.4, "times as fast", 21, 25, at_least=50),
        finding("guidance", "g", "painted for each", 12, "faces", note="by hand"),
    ]
)


def test_findings_for_readers():
    table = bench_for_readers(FOUND)
    assert table.measured.tolist() == [
        "1.04 (1.03 to 1.06) of the time",
        "23.40 (21.00 to 25.00) times as fast",
        "12 faces",
    ]
    assert table.goal.tolist() == ["at most 1.1", "at least 50", ""] and table.reached.tolist() == [
        "yes",
        "no",
        "",
    ]


def test_ratios_drawn():
    figure = draw_ratios(FOUND)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "s: all, beside one",
        "c: ours, beside theirs",
    ]
    ticks = next(
        line for line in ax.lines if line.get_marker() == "|" and line.get_label() == "goal"
    )
    assert ticks.get_xdata().tolist() == pytest.approx([1 / 1.1, 50])
    assert draw_ratios(FOUND.tail(1)) is None


def test_stages_drawn():
    table = pd.DataFrame(
        {"stage": ["a", "b", "c"], "jobs": [2, 1, 1], "minutes": [9.0, 0.95, 0.05]}
    )
    (ax,) = draw_stages(table.assign(share=100 * table.minutes / table.minutes.sum())).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "1 more"] and [
        text.get_text() for text in ax.texts
    ] == ["9.0 min, 2 jobs", "0.9 min, 1 job", "0.1 min, 1 job"]


def test_no_finished_run(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        run_findings(tmp_path)


# the notebook and what is published of it


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "The whole benchmark with the tests' sizes"
    from conftest import fairparse

    folder = tmp_path_factory.mktemp("bench")
    done = fairparse(
        "run",
        "95_bench",
        folder / "95_bench.ipynb",
        "-p",
        "out",
        folder,
        "-p",
        "tiny",
        "true",
        "-p",
        "repetitions",
        "1",
        "-p",
        "threads",
        "1",
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_notebook_writes_its_records(tiny):
    findings, times, record = (
        pd.read_csv(tiny / "findings.csv"),
        pd.read_csv(tiny / "times.csv"),
        json.loads((tiny / "run.json").read_text()),
    )
    timed = {
        "faces",
        "batches",
        "step",
        "naive_step",
        "inference",
        "counts",
        "perturb",
        "bootstrap",
        "controlnet",
        "gan",
        "stylegan",
    }
    assert (
        set(findings.part) == timed | {"growth"}
        and set(times.part) == timed
        and (times.seconds > 0).all()
    )
    assert (
        set(record["not_run"]) == {"guidance", "unet", "demo"}
        and record["machine"]["packages"]["torch"]
        and (tiny / "ratios.png").is_file()
    )
    assert pd.read_csv(tiny / "machine.csv").repetitions.tolist() == [1]
    assert set(record["others_share"]) == set(findings.part) and not (tiny / "scratch").exists()


def test_unknown_part(tmp_path):
    from conftest import fairparse

    done = fairparse(
        "run", "95_bench", tmp_path / "x.ipynb", "-p", "out", tmp_path, "-p", "parts", '["face"]'
    )
    assert done.returncode and "there are no parts ['face']" in done.stderr


@pytest.fixture
def site(tmp_path):
    "A README, and published results of the demo"
    (tmp_path / "README.md").write_text("# x\n\n<!-- bench -->\nold\n<!-- /bench -->\n")
    (tmp_path / "published" / "tables").mkdir(parents=True)
    (tmp_path / "published" / "tables" / "a.csv").write_text("a\n1\n")
    (tmp_path / "published" / "made_by.json").write_text(
        json.dumps({"tables/a.csv": {"sha256": "1", "code": {}}})
    )
    return tmp_path


def finished(folder, source, **changes):
    "A copy of the tiny benchmark that says to be the whole"
    import shutil

    shutil.copytree(source, folder)
    record = json.loads((folder / "run.json").read_text())
    record["parameters"] |= {
        "tiny": False,
        "repetitions": 5,
        "celebamask": "/data/mine/CelebAMask-HQ",
    } | changes.pop("parameters", {})
    (folder / "run.json").write_text(
        json.dumps(record | {"not_run": {"unet": "there is no GPU here"}} | changes)
    )
    notebook = folder / "95_bench.ipynb"
    notebook.write_text(
        notebook.read_text().replace("tiny = True", 'celebamask = \\"/data/mine/CelebAMask-HQ\\"')
    )
    return folder


def test_published_with_its_code_and_without_paths(tiny, site):
    from fairparse.workflow.publish import stale_published
    from fairparse.workflow.publish_bench import publish_bench

    out = finished(site / "out", tiny)
    written = publish_bench(out, site / "published", site / "README.md")
    made = json.loads((site / "published" / "made_by.json").read_text())
    assert {"tables/a.csv", "bench/findings.csv", "bench/times.csv", "bench/ratios.png"} <= set(
        made
    ) and all(path.is_file() for path in written)
    page = (site / "README.md").read_text()
    assert (
        "ours, beside" in page and "other programs took at most" in page and "\nold\n" not in page
    )
    copy = (site / "published" / "bench" / "95_bench.ipynb").read_text()
    assert "/data/mine" not in copy and "CelebAMask-HQ" in copy
    assert not [name for name in stale_published(site / "published") if name.startswith("bench/")]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"notebook_code": "0" * 16}, "is old"),
        ({"not_run": {"demo": "no run"}}, r"demo \(no run\)"),
        ({"parameters": {"repetitions": 3}}, "repetitions 3, and not 5"),
        ({"parameters": {"draws": 1000}}, "draws 1000"),
    ],
)
def test_old_or_partial_benchmark_is_not_published(tiny, site, changes, message):
    from fairparse.workflow.publish_bench import publish_bench

    with pytest.raises(InputError, match=message):
        publish_bench(
            finished(site / "out", tiny, **changes), site / "published", site / "README.md"
        )
    assert (
        "\nold\n" in (site / "README.md").read_text()
        and not (site / "published" / "bench").exists()
    )


def test_a_gpus_benchmark_lies_apart(tiny, site):
    from fairparse.workflow.publish_bench import publish_bench

    written = publish_bench(
        finished(site / "out", tiny, parameters={"device": "cuda"}),
        site / "published",
        site / "README.md",
    )
    assert (site / "published" / "bench_cuda" / "findings.csv") in written and "\nold\n" in (
        site / "README.md"
    ).read_text()


def test_tests_sizes_are_not_published(tiny, site):
    from fairparse.workflow.publish_bench import publish_bench

    with pytest.raises(InputError, match="tests' sizes"):
        publish_bench(tiny, site / "published", site / "README.md")


def test_demo_and_benchmark_are_published_apart(site):
    "Publishing one forgets nothing of the other"
    from fairparse.workflow.provenance import write_made_by

    path = site / "published" / "made_by.json"
    write_made_by(
        path,
        {"tables/a.csv": {}, "bench/b.csv": {}, "study/c.csv": {}},
        {"bench/d.csv": {}},
        "bench/",
    )
    assert set(json.loads(path.read_text())) == {"tables/a.csv", "bench/d.csv", "study/c.csv"}
    write_made_by(path, json.loads(path.read_text()), {"tables/e.csv": {}}, "")
    assert (
        set(json.loads(path.read_text())) == {"tables/e.csv", "bench/d.csv", "study/c.csv"}
        and not (site / "published" / "tables" / "a.csv").exists()
    )
