"""Tables 1 to 3 and the figures of the balancing paper

What adds up, what is percent, where reported values stand, what is drawn."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from latent_helpers import Bands, Colours
from matplotlib.colors import to_rgb

from fairparse.balancing.latents import random_latents, sample_latents
from fairparse.core.records import (
    CLASSIFIER_SCORES,
    YIELDS,
    write_arrays,
    write_csv,
    write_json,
    write_table,
)
from fairparse.core.runs import InputError
from fairparse.measure.statistics import wilson
from fairparse.results.balance import (
    COLOURS,
    LINES,
    REPORTED,
    SAME_SHARE,
    classifier_table,
    draw_guided,
    draw_unguided,
    draw_yields,
    frame_faces,
    group_colours,
    guided_table,
    reported_group,
    unguided_table,
)

PAPER = ["Asian", "Black", "Indian", "White", "Others"]
TONES = [f"tone_{i}" for i in range(1, 6)]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


# ---- what the paper reports


def test_reported_values_as_printed():
    assert (
        REPORTED["table2"]
        == {"Asian": 882, "Black": 449, "Indian": 975, "White": 6837, "Others": 867}
        and sum(REPORTED["table2"].values()) == 10_010
    )
    assert REPORTED["table3"] == {"Asian": 42.3, "Black": 63.3, "Indian": 25.9} and REPORTED[
        "table1"
    ]["test"] == (80.12, 0.5753)
    assert sorted(SAME_SHARE.values()) == sorted(PAPER)
    from fairparse.balancing.stylegan_train import TABLE2

    assert {
        tone: REPORTED["table2"][reported_group(tone)] for tone in TONES
    } == TABLE2  # the stand-in was made with the shares that stand beside it
    assert [reported_group(g) for g in ("White", "tone_5", "white", "")] == [
        "White",
        "Black",
        "",
        "",
    ]


# ---- Table 1


def classifier(
    folder, data=("own",) * 3, splits=("train", "valid", "test"), task="race", accuracy=0.8
):
    scores = pd.DataFrame(
        [
            {
                "data": d,
                "split": s,
                "n": 100 + i,
                "accuracy": accuracy,
                "low": accuracy - 0.1,
                "high": accuracy + 0.05,
                "balanced_accuracy": 0.6,
                "loss": 0.5,
                "calibration_error": 0.02,
                "uncalibrated_error": 0.07,
            }
            for i, (d, s) in enumerate(zip(data, splits))
        ]
    )
    write_table(scores, folder / "scores.parquet", CLASSIFIER_SCORES)
    write_json(
        folder / "run.json",
        {
            "parameters": {"task": task, "config.backbone": "small"},
            "faces": "faces of x",
            "weights_source": "/somewhere/vgg_face_dag.pth",
            "classes": PAPER,
        },
    )


def test_table1(tmp_path):
    classifier(
        tmp_path / "group",
        ("own", "own", "own", "/data/fairface"),
        ("train", "valid", "test", "test"),
    )
    classifier(tmp_path / "group_second", accuracy=0.7)
    classifier(tmp_path / "smile", task="smile")
    table = (
        classifier_table(tmp_path, ["group", "group_second"])
        .set_index(["classifier", "data", "split"])
        .sort_index()
    )
    assert len(table) == 7
    own = table.loc[("group", "own", "test")]
    assert (
        own.accuracy,
        own.accuracy_low,
        own.accuracy_high,
        own.balanced_accuracy,
        own.calibration_error,
        own.uncalibrated_error,
    ) == tuple(pytest.approx(v) for v in (80, 70, 85, 60, 2, 7)) and own.loss == 0.5
    assert (
        own.reported_accuracy,
        own.reported_loss,
        own.n,
        own.classes,
        own.weights,
        own.backbone,
    ) == (80.12, 0.5753, 102, 5, "vgg_face_dag.pth", "small")
    assert table.loc[("group", "own")].reported_accuracy.to_dict() == {
        "train": 79.93,
        "valid": 80.86,
        "test": 80.12,
    }
    assert (
        table.drop(("group", "own")).reported_accuracy.isna().all()
        and table.drop(("group", "own")).reported_loss.isna().all()
    )  # another data set and another classifier are not the paper's
    assert ("group", "fairface", "test") in table.index  # a folder's name, not its place
    assert list(dict.fromkeys(classifier_table(tmp_path, ["smile", "group"]).classifier)) == [
        "smile",
        "group",
    ]
    with pytest.raises(InputError, match="gender.*missing"):
        classifier_table(tmp_path, ["gender"])


# ---- Table 2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    class Named(Bands):
        classes = ["Asian", "White", "tone_5"]

    return sample_latents(
        tmp_path_factory.mktemp("draws") / "s", Colours(), Named(), 3000, 500, say=lambda text: None
    )


def confusion(folder, matrix, classes=("Asian", "White", "tone_5")):
    write_arrays(folder / "confusion.npz", matrix=np.asarray(matrix), classes=np.array(classes))
    return folder


@pytest.mark.parametrize("first", [100, 1000, 2500, 10_000])
def test_table2_adds_up(tmp_path, store, first):
    table = unguided_table(
        store, confusion(tmp_path, np.diag([300, 300, 300])), first, resamples=50
    )
    counts = pd.Series(
        np.array(store.classes)[
            Bands().predict(Colours().paint(random_latents(0, 0, min(first, 3000), 5))).argmax(1)
        ]
    ).value_counts()
    assert dict(zip(table.group, table["count"])) == counts.to_dict() and table[
        "count"
    ].sum() == table.faces[0] == min(first, 3000)  # kept or not
    assert (
        table.share.sum() == pytest.approx(100)
        and table.corrected.sum() == pytest.approx(100)
        and np.allclose(table.share, 100 * table["count"] / min(first, 3000))
    )
    low, high = wilson(table["count"].to_numpy(), min(first, 3000))
    assert np.allclose(table.share_low, 100 * low) and np.allclose(table.share_high, 100 * high)
    assert np.allclose(
        table.corrected, table.share, atol=0.05
    )  # a classifier without errors needs no correction
    assert (
        list(table.reported_group) == ["Asian", "White", "Black"]
        and list(table.reported_count) == [882, 6837, 449]
        and np.allclose(table.reported_share, [8.82, 68.37, 4.49])
    )
    assert set(table.generator) == {"colours"} and set(table.psi) == {1.0}


def test_table2_undoes_a_known_confusion(tmp_path, store):
    """A tenth of the middle group is called by each other name

    The truth is found again, and lies in the interval."""
    rates, counts = np.array([[1, 0, 0], [0.1, 0.8, 0.1], [0, 0, 1]]), store.counts().to_numpy()
    true = np.linalg.solve(rates.T, counts / counts.sum())
    table = unguided_table(store, confusion(tmp_path, (rates * 5000).astype(int)), resamples=200)
    assert (
        np.allclose(table.corrected, 100 * true, atol=0.05)
        and table.corrected[1] > table.share[1] + 5
        and table.corrected.sum() == pytest.approx(100)
    )
    assert (table.corrected_low < 100 * true).all() and (100 * true < table.corrected_high).all()


def test_table2_without_a_counterpart(tmp_path, tmp_path_factory):
    other = sample_latents(tmp_path / "s", Colours(), Bands(), 1000, say=lambda text: None)
    table = unguided_table(
        other, confusion(tmp_path, np.diag([9, 9, 9]), Bands.classes), resamples=20
    )
    assert table[["reported_count", "reported_share"]].isna().all(axis=None) and set(
        table.reported_group
    ) == {""}
    for classes in (("Asian", "White", "tone_5"), ("high", "middle", "low"), ("low", "middle")):
        with pytest.raises(InputError, match="name the classifier that labelled them"):
            unguided_table(
                other, confusion(tmp_path, np.eye(len(classes), dtype=int), classes), resamples=20
            )


# ---- Table 3


def guided(folder, groups=("Black", "tone_3", "seven"), goal=0.9):
    rows = []
    for group in groups:
        for rule, space, alpha, accepted in (
            ("raw", "z", 3.3, 100),
            ("shift", "z", 2.0, 180),
            ("shift", "w", 9.0, 190),
            ("screen", "z", 0.8, 0),
        ):
            for purpose in ("calibration", "fresh"):
                rows.append(
                    {
                        "target": group,
                        "rule": rule,
                        "space": space,
                        "alpha": alpha,
                        "distance": 2.0,
                        "purpose": purpose,
                        "proposed": 900,
                        "painted": 200,
                        "accepted": accepted,
                        "confirmed": accepted // 2,
                        "both": accepted // 4,
                    }
                )
        rows.append(
            {
                **rows[-5],
                "purpose": "collected",
                "painted": 111,
                "accepted": 100,
                "confirmed": 95,
                "both": 95,
            }
        )
    write_table(pd.DataFrame(rows), folder / "yields.parquet", YIELDS)
    write_csv(
        pd.DataFrame(
            [
                {
                    "group": g,
                    "space": s,
                    "n": 3000,
                    "positives": 150,
                    "C": 0.5,
                    "intercept": -1.0,
                    "fitted_intercept": True,
                    "norm": 3.3 if s == "z" else 7.7,
                    "auc": 0.9,
                    "task": "race",
                }
                for g in (*groups, "smile: yes")
                for s in "zw"
            ]
        ),
        folder / "directions.csv",
    )
    write_csv(
        pd.DataFrame(
            [
                {
                    "target": g,
                    "rule": r,
                    "space": s,
                    "alpha": 1.0,
                    "reached": r == "shift",
                    "within": s == "w",
                    "kid": 0.01,
                    "spread": 5.0,
                }
                for g in groups
                for r, s in (("raw", "z"), ("shift", "z"), ("shift", "w"))
            ]
        ),
        folder / "diversity.csv",
    )
    write_csv(
        pd.DataFrame(
            [
                {
                    "target": g,
                    "kept": 80,
                    "kept_confirmed": 60,
                    "kid": 0.02,
                    "spread": 4.0,
                    "within": g == "seven",
                }
                for g in groups
            ]
        ),
        folder / "collected.csv",
    )
    write_json(
        folder / "run.json",
        {"parameters": {"goal": goal}, "generator": "toy", "groups": list(groups)},
    )
    return folder


def test_table3(tmp_path):
    table = guided_table(guided(tmp_path))
    assert len(table) == 3 * 5 and "calibration" not in set(
        table.purpose
    )  # no row is of the draws that chose the setting, none is doubled
    at = table.set_index(["group", "rule", "space", "purpose"])
    raw = at.loc[("Black", "raw", "z", "fresh")]
    low, high = wilson(100, 200)
    assert (
        raw["yield"] == 50
        and raw.yield_low == pytest.approx(100 * low)
        and raw.yield_high == pytest.approx(100 * high)
        and raw.confirmed_share == 25
        and raw.confirmed_share_low < 25 < raw.confirmed_share_high
    )
    assert (
        raw.C,
        raw.n,
        raw.fitted_intercept,
        raw.norm,
        raw.auc,
        raw.painted_per_accepted,
        raw.goal,
        raw.generator,
    ) == (0.5, 3000, True, 3.3, 0.9, 2.0, 90.0, "toy")
    assert at.loc[("Black", "shift", "w", "fresh")].norm == 7.7  # of its own space
    reported = table.set_index(["group", "rule"]).reported_yield.dropna()
    assert reported.to_dict() == {
        ("Black", "raw"): 63.3,
        ("tone_3", "raw"): 42.3,
    }  # the paper's rule, for groups that it tried
    assert dict(zip(table.group, table.reported_group)) == {
        "Black": "Black",
        "tone_3": "Asian",
        "seven": "",
    }
    assert (
        np.isnan(at.loc[("seven", "screen", "z", "fresh")].painted_per_accepted)
        and at.loc[("seven", "screen", "z", "fresh")]["yield"] == 0
    )  # no face has no price
    collected = table[table.purpose == "collected"]
    assert (
        len(collected) == 3
        and collected.within.tolist() == [False, False, True]
        and (collected.accepted_confirmed == 75).all()
        and collected.confirmed_share.isna().all()
        and np.allclose(collected["yield"], 100 * 100 / 111)
    )
    assert (
        at.loc[("Black", "shift", "w", "fresh")].within,
        at.loc[("Black", "shift", "z", "fresh")].within,
        at.loc[("Black", "raw", "z", "fresh")].reached,
    ) == (True, False, False)


def test_goal_is_in_percent_and_missing_files_are_named(tmp_path):
    assert set(guided_table(guided(tmp_path, goal=0.95)).goal) == {95.0}
    (tmp_path / "yields.parquet").unlink()
    with pytest.raises(InputError, match="yields.parquet is missing"):
        guided_table(tmp_path)


# ---- figures


def test_frames():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    framed = frame_faces(images, ["#ff0000", "#00ff00", "#0000ff"], enlarge=3, width=2)
    assert framed.shape == (3, 4 * 3 + 4, 5 * 3 + 4, 3) and framed.dtype == np.uint8
    for i, colour in enumerate(np.eye(3, dtype=int) * 255):
        border = np.ones(framed.shape[1:3], bool)
        border[2:-2, 2:-2] = False
        assert (framed[i][border] == colour).all() and np.array_equal(
            framed[i, 3:-2:3, 3:-2:3], images[i]
        )


def test_colours_tell_groups_apart():
    for n in (2, 7, 8):
        assert len(set(group_colours([str(i) for i in range(n)]).values())) == n
    assert (
        group_colours(["a", "b"]) == {"a": COLOURS[0], "b": COLOURS[1]}
        and len(group_colours([str(i) for i in range(11)])) == 11
    )


def shares(groups, reported=True):
    share = np.linspace(1, 2, len(groups)) / np.linspace(1, 2, len(groups)).sum() * 100
    return pd.DataFrame(
        {
            "group": groups,
            "share": share,
            "corrected": share + 1,
            "corrected_low": share - 2,
            "corrected_high": share + 3,
            "reported_share": 12.5 if reported else np.nan,
            "faces": 12_345,
        }
    )


@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize("reported", [True, False])
def test_unguided_figure(count, reported):
    groups, rng = [f"group {i}" for i in range(count)], np.random.default_rng(0)
    labels, images, table = (
        list(rng.choice(groups, 21)),
        rng.integers(0, 256, (21, 6, 6, 3), np.uint8),
        shares([f"group {i}" for i in range(count)], reported),
    )
    fig = draw_unguided(images, labels, table, columns=5)
    left, right = fig.axes
    assert [round(bar.get_width(), 6) for bar in right.patches] == list(table.share.round(6)) and [
        bar.get_facecolor()[:3] for bar in right.patches
    ] == [to_rgb(c) for c in COLOURS[:count]]
    ends = right.collections[0].get_segments()
    assert (
        np.allclose([s[:, 0] for s in ends], table[["corrected_low", "corrected_high"]])
        and [t.get_text() for t in right.get_yticklabels()] == groups
    )
    assert (
        len(right.get_legend().get_texts()) == 2 + reported
        and right.get_xlabel() == "percent of 12,345 faces"
    )
    if reported:
        assert any(
            np.allclose(line.get_xdata(), 12.5) and line.get_marker() == "|" for line in right.lines
        )
    sheet = left.images[0].get_array()
    assert sheet.shape == (5 * (18 + 4) - 4, 5 * (18 + 4) - 4, 3) and left.get_title().startswith(
        "21 faces"
    )
    colours = group_colours(groups)
    for i in (0, 4, 20):
        assert np.allclose(
            sheet[i // 5 * 22, i % 5 * 22] / 255, to_rgb(colours[labels[i]]), atol=0.003
        )  # framed in the colour of its label


@pytest.mark.parametrize("count", [1, 2, 7])
def test_guided_figure(count):
    groups, rng = [f"group {i}" for i in range(count)], np.random.default_rng(0)
    images = {g: rng.integers(0, 256, (3 + 4 * i, 6, 6, 3), np.uint8) for i, g in enumerate(groups)}
    table = pd.DataFrame(
        {"group": groups[::-1], "rule": "shift", "yield": [91.4 + i for i in range(count)][::-1]}
    )
    fig = draw_guided(images, table, columns=8)
    assert len(fig.axes) == count
    for i, (ax, group) in enumerate(zip(fig.axes, groups)):
        assert ax.get_ylabel() == f"{group}\nshift\n{91 + i} %" and len(ax.images) == 1
        sheet = ax.images[0].get_array()
        assert sheet.shape == (18, 8 * 22 - 4, 3) and np.allclose(
            sheet[0, 0] / 255, to_rgb(COLOURS[i]), atol=0.003
        )
        shown = min(8, 3 + 4 * i)
        assert (sheet[:, shown * 22 :] == 255).all() and (
            sheet[9, (shown - 1) * 22] != 255
        ).any()  # no more faces than there are


def yields(groups, spaces=("z", "w")):
    rows = [
        {
            "target": g,
            "rule": r,
            "space": s,
            "alpha": a,
            "distance": np.nan if r == "region" else a * a / 2,
            "purpose": p,
            "proposed": 200,
            "painted": 200,
            "accepted": int(50 * a),
            "confirmed": int(40 * a),
            "both": 0,
        }
        for g in groups
        for s in spaces
        for r in LINES
        for a in (3.0, 1.0, 2.0)
        for p in ("calibration", "fresh")
    ]
    return pd.DataFrame(
        rows
        + [
            {
                **rows[0],
                "target": g,
                "rule": r,
                "space": "z",
                "alpha": a,
                "distance": d,
                "accepted": n,
            }
            for g in groups
            for r, a, d, n in (
                ("raw", 2.2, 2.42, 120),
                ("unguided", 0.0, 0.0, 20),
                ("region", 0.5, np.nan, 190),
            )
        ]
    )


@pytest.mark.parametrize("count", [2, 7])
def test_figure_of_yields(count):
    groups = [f"group {i}" for i in range(count)]
    fig = draw_yields(yields(groups), goal=0.9)
    assert [ax.get_title() for ax in fig.axes] == groups
    for ax in fig.axes:
        lines = [
            line
            for line in ax.lines
            if len(line.get_xdata()) == 3 and line.get_marker() in ("None", None, "")
        ]
        assert (
            len(lines) == len(ax.collections) == 8
        )  # four rules in two spaces, each with its band; fresh draws are not drawn
        assert all(
            list(line.get_xdata()) == [0.5, 2.0, 4.5] and list(line.get_ydata()) == [25, 50, 75]
            for line in lines
        )
        dots = [line for line in ax.lines if line.get_marker() == "."]
        assert len(dots) == 8 and all(list(line.get_ydata()) == [20, 40, 60] for line in dots)
        (cross,), (square,) = (
            [line for line in ax.lines if line.get_marker() == mark] for mark in "xs"
        )
        at_goal = [line for line in ax.lines if list(line.get_ydata()) == [90, 90]]
        assert (list(cross.get_xdata()), list(cross.get_ydata()), list(square.get_ydata())) == (
            [2.42],
            [60],
            [10],
        ) and len(at_goal) == 1
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert sorted(legend) == sorted(
        [*LINES, *(f"{r}, in w" for r in LINES), "raw (paper)", "unguided"]
    )  # each once, none for regions, which have no distance
    assert not any(
        list(line.get_ydata()) == [90, 90]
        for ax in draw_yields(yields(groups, ["z"])).axes
        for line in ax.lines
    )
