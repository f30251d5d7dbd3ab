"The benchmark of growth: what it counts as memory, work in fresh processes, exponents by hand"

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

from fairparse.bench import growth as bench
from fairparse.bench.growth import (
    KINDS,
    anonymous_megabytes,
    draw_growth,
    growth_findings,
    measure_growth,
    watch_work,
)
from fairparse.core.runs import InputError

matplotlib.use("agg")
MB = 1_000_000


def memory_of(code):
    "Anonymous megabytes of a process that has run `code` and waits"
    with subprocess.Popen(
        [sys.executable, "-c", code + "\nprint('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            return anonymous_megabytes(process.pid)
        finally:
            process.communicate("\n")


def test_counts_what_is_held_and_not_what_is_mapped(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(40 * MB))
    nothing = memory_of("pass")
    assert memory_of(f"held = bytearray(b'x') * {40 * MB}") - nothing == pytest.approx(40, abs=2)
    read = (
        "import mmap\nfile = open({!r}, 'rb'); pages = mmap.mmap(file.fileno(), 0, "
        "access=mmap.ACCESS_READ); total = sum(pages[::4096])"
    ).format(str(tmp_path / "file"))
    assert memory_of(read) - nothing < 2


def test_pages_that_processes_share_count_once():
    fork = (
        f"import os, time\nheld = bytearray(b'x') * {40 * MB}\n"
        f"children = [os.fork() for _ in range(1)]\nif 0 in children: time.sleep(3); os._exit(0)"
    )
    alone = memory_of(f"held = bytearray(b'x') * {40 * MB}")
    assert memory_of(fork) - alone < 15  # two processes, each with the 40 MB in its reach
    own = (
        f"import os, time\nready, tell = os.pipe()\nif os.fork() == 0:\n"
        f"    held = bytearray(b'x') * {40 * MB}; os.write(tell, b'1'); time.sleep(3); "
        f"os._exit(0)\nos.read(ready, 1)"
    )
    assert memory_of(own) - memory_of("pass") > 38


def test_process_that_has_ended_counts_nothing():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert anonymous_megabytes(process.pid) == 0


# ---- work in a fresh process


@pytest.mark.parametrize(
    "kind, amount, settings",
    [
        ("faces", 5, {"side": 32, "workers": 1}),
        ("faces", 40, {"side": 32, "workers": 2}),
        ("sweep", 2, {"faces": 5, "side": 32}),
    ],
)
def test_kinds_run(kind, amount, settings):
    table = watch_work(kind, amount, **settings)
    assert (
        table.kind.tolist() == [kind]
        and table.work.tolist() == [amount]
        and table.seconds[0] > 0
        and 20 < table.megabytes[0] < 2000
    )


class Telling(list):
    "Collects what work tells"

    def __call__(self, work):
        self.append(work)


def test_draws_tell_at_parts(tmp_path, monkeypatch):
    from latent_helpers import Above, Colours

    monkeypatch.setattr("fairparse.balancing.generators.open_generator", lambda *_: Colours())
    monkeypatch.setattr("fairparse.balancing.classifier.load_classifier", lambda *_: Above(0.0))
    for amount, expected in (
        (9500, [0, 2000, 3000, 5000, 10_000]),
        (16_000, [0, 2000, 4000, 8000, 16_000]),
        (800, [0, 1000]),
    ):
        told = Telling()
        bench._draws(told, tmp_path / str(amount), amount)
        assert told == expected


def test_sees_a_peak_and_a_time(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"""
import fairparse.bench.growth as bench, time
def _fake(tell, folder, amount, after):
    held = bytearray(b'x') * {150 * MB} # preparation does not count
    del held
    print("noise on the output")
    time.sleep(0.2)
    tell(0)
    held = bytearray(b'x') * (amount * {MB})
    time.sleep(0.5)
    del held
    tell(1)
    if after: raise ValueError("after the first part")
    time.sleep(0.3)
    tell(2)
bench.KINDS["fake"] = _fake
""")
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
    )
    monkeypatch.setitem(KINDS, "fake", None)
    small, large = (watch_work("fake", amount, after=False) for amount in (5, 100))
    assert large.work.tolist() == [1, 2] and 0.5 <= large.seconds[0] < large.seconds[1] - 0.25
    assert (
        large.megabytes[0] - small.megabytes[0] == pytest.approx(95, abs=5)
        and large.megabytes[1] >= large.megabytes[0]
    )
    with pytest.raises(InputError, match="after the first part"):
        watch_work("fake", 5, after=True)


def test_faults():
    with pytest.raises(InputError, match="draws"):
        watch_work("nothing", 5)
    with pytest.raises(InputError, match="1 or more"):
        watch_work("faces", 0)
    with pytest.raises(InputError, match="no/such"):
        watch_work("draws", 5, classifier="no/such")
    with pytest.raises(InputError, match="two amounts"):
        growth_findings(
            pd.DataFrame({"kind": ["faces"], "work": [5], "seconds": [1.0], "megabytes": [50.0]})
        )


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(bench.Path, "is_file", lambda path: False)
    with pytest.raises(InputError, match="Linux"):
        watch_work("faces", 5)


# ---- numbers


def test_order_and_choice(monkeypatch):
    asked = []

    def note(kind, amount, threads, **settings):
        asked.append((kind, amount, threads, settings))
        return pd.DataFrame(
            {"kind": [kind], "work": [amount], "seconds": [1.0], "megabytes": [50.0]}
        )

    monkeypatch.setattr(bench, "watch_work", note)
    measure_growth((1, 2), 8000, (3,), "mine", repetitions=2, threads=2)
    assert [call[:2] for call in asked] == [
        ("faces", 1),
        ("faces", 2),
        ("sweep", 3),
        ("faces", 2),
        ("faces", 1),
        ("sweep", 3),
        ("draws", 8000),
    ]
    assert all(call[2] == 2 for call in asked) and asked[-1][3] == {"classifier": "mine"}
    assert set(measure_growth((1, 2), 0, ()).kind) == {"faces"}


def grown(kind, power, memory=(100.0, 100.0, 100.0, 100.0), works=(500, 1000, 2000, 4000)):
    "Time that grows by a power, three times with noise that medians remove"
    noise = np.array([0.5, 1.0, 9.0])
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "kind": kind,
                    "work": works,
                    "seconds": factor * 0.01 * np.array(works, float) ** power,
                    "megabytes": memory,
                }
            )
            for factor in noise
        ],
        ignore_index=True,
    )


@pytest.mark.parametrize(
    "power, reached", [(0.8, "yes"), (1.0, "yes"), (1.09, "yes"), (1.2, "no"), (2.0, "no")]
)
def test_exponents(power, reached):
    row = growth_findings(grown("draws", power))[0]
    assert (
        row["value"] == pytest.approx(power)
        and row["low"] == pytest.approx(power)
        and row["high"] == pytest.approx(power)
        and row["reached"] == reached
    )


def test_memory():
    rows = growth_findings(grown("sweep", 1.0, (100.0, 105.0, 108.0, 120.0), (1, 2, 4, 8)))
    assert (
        rows[1]["value"] == pytest.approx(1.2)
        and rows[1]["reached"] == "no"
        and rows[2]["value"] == pytest.approx(1000 * 20 / 7)
        and rows[2]["reached"] == ""
    )
    names, pictures = (
        growth_findings(grown("faces", 1.0, 100 + np.array([500, 1000, 2000, 4000]) * each))
        for each in (0.003, 0.0655)
    )  # MB for each face
    assert (
        [row["reached"] for row in names] == ["yes", "", "yes"]
        and [row["reached"] for row in pictures] == ["yes", "", "no"]
        and names[2]["value"] == pytest.approx(3)
    )


@pytest.mark.parametrize("kinds", [["faces"], ["faces", "sweep", "draws"]])
def test_drawn(kinds, tmp_path):
    figure = draw_growth(pd.concat([grown(kind, 1.0) for kind in kinds]))
    assert (
        len(figure.axes) == 2 * len(kinds)
        and [ax.get_title() for ax in figure.axes[: len(kinds)]] == kinds
    )
    line = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(
        line["linear"].get_ydata() * 1.0, np.array([500, 1000, 2000, 4000]) * 0.01
    )
    figure.savefig(tmp_path / "growth.png", dpi=50)
