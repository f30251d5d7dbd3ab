"""Figures: what is drawn is what was given, for any parsers

Their numbers are recomputed from counts on disk in a few plain lines.
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import run_notebook
from matplotlib.colors import to_hex
from PIL import Image

from fairparse.core.records import (
    COUNTS,
    INDEX,
    setting_name,
    write_arrays,
    write_json,
    write_table,
)
from fairparse.core.runs import InputError
from fairparse.data.groups import EVERYONE, Groups
from fairparse.data.labels import CLASSES
from fairparse.data.show import STYLES, tile_faces
from fairparse.measure.counts import counts_table
from fairparse.measure.fairness import intersection_table
from fairparse.parsing.homotopy import OBJECTIVES
from fairparse.results.damage import (
    draw_examples,
    draw_severities,
    example_scores,
    image_score,
    read_examples,
    severity_lines,
    spread_apart,
    veil_errors,
)
from fairparse.results.groups import (
    attributes_of,
    demographic_groups,
    demographic_names,
    disparity_blocks,
    draw_groups,
    draw_intersections,
    intersection_grid,
    loss_panels,
    order_groups,
    parsers_group_table,
    with_interval,
)
from fairparse.results.parser_styles import MARKERS, OTHER_STYLES, parser_styles, parser_title

NAMES, SHARES = ["Male", "Young", "Smiling", "Bald", "Tone_1"], (0.45, 0.7, 0.4, 0.05, 0.3)
FACES, SEEDS, OBJECTIVE_NAMES = 60, (0, 1), ["single", "linear", "linear_alt"]
PERTURBED = [("none", 0.0), ("blur", 0.1), ("blur", 0.5), ("jpeg", 0.1), ("jpeg", 0.5)]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def made_up(seed, shape, skill=0.8, classes=4):
    "Counts (*shape, classes, 3); the last class is in a third of the faces"
    rng = np.random.default_rng(seed)
    size = np.full((*shape, classes), 200)
    size[..., -1] *= np.broadcast_to(np.arange(shape[-1]) % 3 == 0, shape)
    tp = rng.binomial(size, skill)
    fp = rng.integers(0, 30, size.shape) * (size > 0)
    return np.stack([tp, fp, size - tp], -1)


def attributes(count=FACES, seed=1):
    rng = np.random.default_rng(seed)
    values = np.stack([rng.random(count) < share for share in SHARES], 1).astype(np.int8)
    values[:4, 1] = -1
    return values


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    "Counts, a sweep, examples and an index (in another order) on disk"
    root = tmp_path_factory.mktemp("study")
    ids, values = [f"{i:03d}" for i in range(FACES)], attributes()
    index = pd.DataFrame({"id": ids, "split": "test", "fold": None, "source": "made up"})
    for column, name in enumerate(NAMES):
        index[name] = pd.array(values[:, column], "Int8").astype("Int8")
    index.loc[:3, "Young"] = pd.NA
    write_table(index.sample(frac=1, random_state=0), root / "faces" / "index.parquet", INDEX)
    write_json(root / "faces" / "faces.json", {"classes": CLASSES})
    truth = np.random.default_rng(0).integers(0, 19, (2, 8, 8)).astype(np.uint8)
    for o, objective in enumerate(OBJECTIVE_NAMES):
        for seed in SEEDS:
            for k, setting in enumerate(PERTURBED):
                counts = made_up(
                    100 * seed + 10 * o + k, (FACES,), 0.85 - 0.5 * setting[1] + 0.01 * o
                )
                folder = root / "sweep" / objective / f"seed{seed}"
                write_table(
                    counts_table(counts, ids, objective, seed, *setting),
                    folder / "settings" / f"{setting_name(*setting)}.parquet",
                    COUNTS,
                )
                if setting[0] == "none":
                    write_table(
                        counts_table(counts, ids, objective, seed),
                        root / "parsers" / objective / f"seed{seed}" / "counts.parquet",
                        COUNTS,
                    )
            maps = np.stack([truth, np.where(np.arange(8) < 1 + o, 0, truth)])
            write_arrays(
                folder / "examples.npz",
                images=np.zeros((2, 2, 8, 8, 3), np.uint8),
                maps=maps,
                truth=truth,
                settings=np.array(["blur_0.3", "jpeg_0.5"]),
                ids=np.array(ids[:2]),
            )
    return root


def places(study, *kinds):
    return {
        "objectives": OBJECTIVE_NAMES,
        "seeds": list(SEEDS),
        "resamples": 40,
        **{kind: str(study / kind) for kind in kinds},
    }


def check_picture(path):
    with Image.open(path) as picture:
        assert min(picture.size) > 200 and len(picture.convert("L").getcolors()) > 20


# styles


def test_objectives_keep_their_style():
    styles = parser_styles(list(MARKERS))
    assert set(MARKERS) == set(STYLES)
    assert all(styles[name]["color"] == STYLES[name][0] for name in STYLES)
    assert len({(s["marker"], s["markerfacecolor"] == "white") for s in styles.values()}) == len(
        styles
    )  # readable in grey


def test_unknown_parsers_get_distinct_styles_in_order():
    names = ["FaRL", "single", "SegFace", "constant_mean", "linear", "EHANet"]
    styles = parser_styles(names)
    assert list(styles) == names and styles["single"]["color"] == STYLES["single"][0]
    assert (
        len({s["color"] for s in styles.values()})
        == len({s["marker"] for s in styles.values()})
        == len(names)
    )
    assert parser_styles(names) == styles
    many = parser_styles([*"abcdefgh", *STYLES])
    assert len({(s["color"], s["marker"], s["markerfacecolor"]) for s in many.values()}) == len(
        many
    )
    with pytest.raises(InputError, match="cannot be told apart"):
        parser_styles([*range(len(OTHER_STYLES) + 1)])


# attributes and groups


def test_attributes_are_matched_by_id(study):
    values, names = attributes_of(study / "faces", np.array(["007", "001", "030"], object))
    assert names == NAMES and (values == attributes()[[7, 1, 30]]).all() and values[1, 1] == -1
    values, names = attributes_of(study / "faces", np.array(["007"], object), ["Bald"])
    assert names == ["Bald"] and values.shape == (1, 1)


def test_attributes_that_are_not_there_are_named(study, tmp_path):
    with pytest.raises(InputError, match=r"lacks 1 of the 2 counted faces \(\['zzz'\]\)"):
        attributes_of(study / "faces", ["001", "zzz"])
    with pytest.raises(InputError, match=r"no attributes \['Goatee'\]"):
        attributes_of(study / "faces", ["001"], ["Goatee"])
    with pytest.raises(InputError, match="index.parquet is missing"):
        attributes_of(tmp_path, ["001"])
    write_table(
        pd.DataFrame({"id": ["a"], "split": "test", "fold": None, "source": "x"}),
        tmp_path / "index.parquet",
        INDEX,
    )
    with pytest.raises(InputError, match="has no attributes, and faces without"):
        attributes_of(tmp_path, ["a"])


def test_demographic_groups_have_negatives_where_both_sides_are_large():
    values = attributes(400)
    groups = demographic_groups(values, NAMES, min_size=5)
    assert groups.names == ["Male", "not Male", "Young", "not Young", "Bald", "Tone_1"]
    assert demographic_groups(values, NAMES, ["Smiling"], min_size=5).names == [
        "Smiling",
        "not Smiling",
    ]
    assert demographic_groups(values, NAMES, min_size=150).dropped.keys() >= {"Bald"}
    with pytest.raises(InputError, match="no attributes \\['Hat'\\]"):
        demographic_groups(values, NAMES, ["Hat"])
    with pytest.raises(InputError, match="none of \\['Smiling'\\]"):
        demographic_groups(values[:, 2:3], ["Smiling"])


def test_order_puts_named_attributes_first_and_the_worst_next():
    table = pd.DataFrame(
        {
            "parser": "p",
            "group": [EVERYONE, "a", "b", "c", "d", "tiny"],
            "size": [50, 20, 20, 20, 20, 3],
            "miou": [60.0, 70, 50, 40, np.nan, 1],
        }
    )
    assert order_groups(table, "p", first=["x", "a", "tiny"]) == (
        ["a", "c", "b"],
        1,
        {"d": 20, "tiny": 3},
    )


def test_disparity_blocks_leave_out_what_cannot_be_asked():
    counts = {"single": made_up(0, (2, FACES))}
    assert set(
        disparity_blocks(counts, attributes(), NAMES, min_size=5, resamples=20).attributes
    ) == {"all", "demographic"}
    assert set(
        disparity_blocks(
            counts, attributes()[:, [0, 2]], ["Male", "Smiling"], min_size=5, resamples=20
        ).attributes
    ) == {"all"}


def test_values_with_intervals():
    table = pd.DataFrame(
        {"x": [1.26, 2.0, np.nan], "x_low": [1.0, np.nan, np.nan], "x_high": [1.5, np.nan, np.nan]}
    )
    assert with_interval(table, "x") == ["1.3 (1.0 to 1.5)", "2.0", ""]
    assert with_interval(table, "x", "x_low", "x_high", 2)[0] == "1.26 (1.00 to 1.50)"


# Figure 4


def group_rows(ax):
    "What the axis says: label -> row, and label of the legend -> (x, y) of the points"
    rows = {tick.get_text(): y for tick, y in zip(ax.get_yticklabels(), ax.get_yticks())}
    return rows, {
        line.get_label(): line.get_data()
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


def test_figure4_shows_the_table():
    counts = {
        name: made_up(k, (2, FACES), 0.7 + 0.02 * k) for k, name in enumerate(OBJECTIVE_NAMES)
    }
    table = parsers_group_table(counts, attributes(), NAMES, min_size=10, resamples=30)
    fig = draw_groups(table, min_size=10)
    left, right = fig.axes
    assert left.get_title() == "Fairness loss: variance"
    assert "shortfall" in right.get_title()
    assert left.get_xlabel() == "mIoU (%)"
    rows, points = group_rows(left)
    sizes = table[table.parser == "single"].set_index("group")["size"]
    assert list(rows)[:4] == [
        f"all faces ({FACES})",
        *(f"{n} ({sizes[n]})" for n in ("Smiling", "Male", "Young")),
    ]
    assert set(points) == {"Single Objective", "Multi-Objective (Linear)"}
    assert set(group_rows(right)[1]) == {"Single Objective", "Multi-Objective (Alt. Fairness)"}
    for ax in fig.axes:
        for title, (x, y) in group_rows(ax)[1].items():
            own = table[[parser_title(p) == title for p in table.parser]].set_index("group")
            for label, row in rows.items():
                group = label.rsplit(" (", 1)[0].replace("Tone 1", "Tone_1")
                assert x[int(row)] == pytest.approx(own.miou[group])
                assert abs(y[int(row)] - row) < 0.5
        bars = np.concatenate(
            [c.get_segments() for c in ax.collections if len(c.get_segments()) == len(rows)]
        )
        assert len(bars) == len(rows) * 2
        assert np.isclose(
            bars[0, :, 0], table.loc[0, ["miou_low", "miou_high"]].astype(float)
        ).all()
    drawn = " ".join(text.get_text() for text in fig.texts)
    small = [n for n in NAMES if sizes[n] < 10]
    assert small
    assert all(f"{n} ({sizes[n]})" in drawn for n in small)
    assert not any(n in " ".join(rows) for n in small)


def test_figure4_for_other_parsers_one_parser_and_one_attribute():
    values = attributes()
    counts = {name: made_up(k, (1, FACES)) for k, name in enumerate(["FaRL", "SegFace"])}
    fig = draw_groups(parsers_group_table(counts, values, NAMES, resamples=20))
    assert len(fig.axes) == 1 and set(group_rows(fig.axes[0])[1]) == {"FaRL", "SegFace"}
    alone = draw_groups(
        parsers_group_table({"single": counts["FaRL"]}, values[:, :1], ["Male"], resamples=20)
    )
    rows, points = group_rows(alone.axes[0])
    assert len(rows) == 2 and list(points) == ["Single Objective"]
    fig.canvas.draw(), alone.canvas.draw()


def test_panels_hold_the_baseline_and_no_empty_one():
    assert loss_panels(["single", "linear"], "single") == {"": ["single", "linear"]}
    only = loss_panels(["single", "linear_alt", "sigmoid_alt"], "single")
    assert list(only.values()) == [["single", "linear_alt", "sigmoid_alt"]]
    assert "shortfall" in next(iter(only))
    assert all("shortfall" == OBJECTIVES[n].loss["fairness"] for n in MARKERS if n.endswith("_alt"))


def test_figure4_leaves_a_missing_score_out():
    table = parsers_group_table(
        {"single": made_up(0, (1, FACES))}, attributes(), NAMES, min_size=5, resamples=20
    )
    table.loc[table.group == "Male", ["miou", "miou_low", "miou_high"]] = np.nan
    fig = draw_groups(table, min_size=5)
    assert not any("Male" in label for label in group_rows(fig.axes[0])[0])
    fig.canvas.draw()


# intersections


def test_intersections_stand_in_their_cells():
    values = attributes(200)
    counts = {p: made_up(k, (1, 200), 0.8) for k, p in enumerate(("single", "SegFace"))}
    counts["single"][:, values[:, 0] == 1, :, 0] //= 2
    table = intersection_table(counts, demographic_groups(values, NAMES), resamples=100)
    names = [g for g in table.group.unique() if " & " not in g]
    fig = draw_intersections(table)
    panels = [ax for ax in fig.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["Single Objective", "SegFace"]
    for ax, parser in zip(panels, counts):
        own = table[table.parser == parser].set_index("group")
        grid = intersection_grid(own.reset_index(), names, "difference")
        assert grid[names.index("Young"), names.index("Male")] == own.difference["Male & Young"]
        assert grid[0, 0] == own.difference["Male"]
        assert np.isnan(grid[0, 1:]).all() and np.isnan(
            grid[names.index("not Male"), 0]
        )  # upper half, impossible pair
        assert np.allclose(np.ma.filled(ax.images[1].get_array(), np.nan), grid, equal_nan=True)
        assert len(ax.patches) == (own.p_adjusted < 0.05).sum()
        assert f"{own['size']['Male & Young']:.0f}" in [t.get_text() for t in ax.texts]
    assert panels[0].patches and panels[0].images[1].get_clim() == panels[1].images[1].get_clim()
    low, high = panels[0].images[1].get_clim()
    assert low == -high and high >= table.difference.abs().max()


def test_intersections_of_many_groups_and_of_one_parser():
    rng = np.random.default_rng(0)
    names = [f"Attribute_{k}" for k in range(14)]
    groups = Groups(names, rng.random((14, 80)) < 0.4)
    table = intersection_table(
        {"single": made_up(0, (1, 80)), "linear": made_up(1, (1, 80))}, groups, resamples=5
    )
    fig = draw_intersections(table)
    assert (
        fig.get_figwidth() < 8 and fig.axes[0].get_position().y0 > fig.axes[1].get_position().y0
    )  # below each other
    draw_intersections(table[table.parser == "single"]).canvas.draw()


# Figure 3


def test_image_score_by_hand():
    truth, predicted = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 1]])
    assert image_score(predicted, truth) == (pytest.approx((1 / 2 + 2 / 3) / 2), 0.25)
    assert image_score(truth, truth) == (1.0, 0.0)
    veiled = veil_errors(predicted, truth, 0.5)
    assert veiled[1, 1].tolist() == [204, 0, 0]
    assert veiled[0, 1].tolist() == [230, 128, 128]
    assert (veil_errors(predicted, truth, 0)[0, 1] == [204, 0, 0]).all()


def test_examples_are_read_and_drawn(study):
    examples = read_examples(
        study / "sweep", ["single", "linear"], 0, [("jpeg", 0.5), ("blur", 0.3)], 2
    )
    assert examples["settings"] == ["jpeg_0.5", "blur_0.3"]
    assert examples["maps"]["linear"].shape == (2, 2, 8, 8)
    scores = example_scores(examples)
    assert (scores[scores.setting == "blur_0.3"].miou == 100).all() and len(scores) == 8
    fig = draw_examples(examples, CLASSES)
    axes = np.array(fig.axes).reshape(4, 4)
    assert [ax.get_title() for ax in axes[0]] == [
        "input",
        "Single Objective",
        "Multi-Objective (Linear)",
        "truth",
    ]
    assert axes[0, 0].get_ylabel() == "jpeg 0.5"
    assert axes[2, 0].get_ylabel() == "blur 0.3"
    first = scores[(scores.setting == "jpeg_0.5") & (scores.id == "000")].set_index("parser")
    for ax, parser in zip(axes[0, 1:3], ("single", "linear")):
        assert (
            ax.get_xlabel() == f"mIoU {first.miou[parser]:.1f} %, {first.wrong[parser]:.1f} % wrong"
        )
        assert (ax.xaxis.label.get_fontweight() == "bold") == (
            first.miou[parser] == first.miou.max()
        )
    assert all(ax.xaxis.label.get_fontweight() == "bold" for ax in axes[2, 1:3])  # equal: both


def test_examples_that_do_not_fit_are_refused(study, tmp_path):
    with pytest.raises(InputError, match=r"no examples of \['blur_0.9'\]"):
        read_examples(study / "sweep", ["single"], 0, [("blur", 0.9)])
    with pytest.raises(InputError, match="faces_shown=3 cannot be shown"):
        read_examples(study / "sweep", ["single"], 0, [("blur", 0.3)], 3)
    with pytest.raises(InputError, match="examples.npz is missing"):
        read_examples(study / "sweep", ["nothing"], 0, [("blur", 0.3)])
    for parser, value in (("a", 0), ("b", 1)):
        write_arrays(
            tmp_path / parser / "seed0" / "examples.npz",
            images=np.full((1, 1, 4, 4, 3), value, np.uint8),
            maps=np.zeros((1, 1, 4, 4), np.uint8),
            truth=np.zeros((1, 4, 4), np.uint8),
            settings=np.array(["blur_0.3"]),
            ids=np.array(["x"]),
        )
    with pytest.raises(InputError, match="shows other pictures than those of a"):
        read_examples(tmp_path, ["a", "b"], 0, [("blur", 0.3)])


# Figure 5


def severity_rows(parsers, perturbations, severities, clean=True):
    rng, rows = np.random.default_rng(0), []
    for name, s in ([("none", 0.0)] if clean else []) + [
        (n, s) for n in perturbations for s in severities
    ]:
        for k, parser in enumerate(parsers):
            score, change = rng.uniform(20, 80), rng.normal() if k else 0.0
            rows.append(
                {
                    "parser": parser,
                    "perturbation": name,
                    "severity": s,
                    "miou": score,
                    "miou_low": score - 2,
                    "miou_high": score + 2,
                    "difference": change,
                    "difference_low": change - 1,
                    "difference_high": change + 1,
                    "repetitions": 1,
                    "images": 9,
                }
            )
    return pd.DataFrame(rows)


def test_figure5_shows_the_table():
    parsers = ["single", "linear", "linear_alt"]
    perturbations = ["gaussian_noise", "blur", "occlusion", "salt_and_pepper"]
    table = severity_rows(parsers, perturbations, [0.1, 0.3, 0.5])
    fig = draw_severities(table)
    top, *below = fig.axes
    assert top.get_ylabel() == "mIoU (%)"
    assert "severity" in top.get_xlabel()
    assert "points" in below[0].get_ylabel()
    assert len(below) == 4
    lines = {line.get_label(): line for line in top.lines}
    assert set(lines) == {f"{n}, {p}" for n in perturbations for p in parsers}
    for name in perturbations:
        assert len({to_hex(lines[f"{name}, {p}"].get_color()) for p in parsers}) == 1
        for p in parsers:
            own = severity_lines(table[table.parser == p], name)
            assert own.severity.tolist() == [0, 0.1, 0.3, 0.5]
            assert np.allclose(lines[f"{name}, {p}"].get_xydata(), own[["severity", "miou"]])
    assert len({to_hex(lines[f"{n}, single"].get_color()) for n in perturbations}) == 4
    assert (
        len(
            {
                lines[f"blur, {p}"].get_linestyle() + lines[f"blur, {p}"].get_markerfacecolor()
                for p in parsers
            }
        )
        == 3
    )
    assert {t.get_text() for t in top.texts} == {n.replace("_", " ") for n in perturbations}
    for ax, name in zip(below, perturbations):
        assert ax.get_title() == name.replace("_", " ")
        drawn = {
            line.get_label(): line.get_ydata()
            for line in ax.lines
            if not line.get_label().startswith("_")
        }
        assert set(drawn) == {"linear", "linear_alt"}
        for p, bars in zip(("linear", "linear_alt"), ax.collections):
            own = severity_lines(table[table.parser == p], name)
            assert np.allclose(drawn[p], own.difference)
            assert np.allclose(
                [b[:, 1] for b in bars.get_segments()], own[["difference_low", "difference_high"]]
            )


def test_figure5_for_few_and_for_many():
    one = draw_severities(
        severity_rows(["FaRL"], ["blur"], [0.5], clean=False)
    )  # one parser, one severity, no clean setting
    assert len(one.axes) == 1 and len(one.axes[0].lines) == 1
    table = severity_rows(["FaRL", "SegFace"], [f"damage_{k}" for k in range(6)], [0.1])
    table.loc[
        table.perturbation == "damage_2",
        ["miou", "miou_low", "miou_high", "difference", "difference_low", "difference_high"],
    ] = np.nan
    many = draw_severities(table, baseline="SegFace")
    assert len(many.axes) == 7 and {line.get_label() for line in many.axes[1].lines} >= {"FaRL"}
    assert len(draw_severities(table, perturbations=["damage_1"]).axes) == 2
    one.canvas.draw(), many.canvas.draw()
    with pytest.raises(InputError, match=r"no perturbations \['fog'\]"):
        draw_severities(table, perturbations=["fog"])
    with pytest.raises(InputError, match="cannot be told apart"):
        draw_severities(severity_rows(["a"], [f"d{k}" for k in range(11)], [0.1]))


def test_labels_at_the_ends_keep_their_distance():
    spread = spread_apart(np.array([10.0, 10.1, 50, 9.9]), 2.0)
    assert np.diff(np.sort(spread)).min() >= 2 - 1e-9 and (np.argsort(spread) == [3, 0, 1, 2]).all()
    assert (spread_apart(np.array([1.0, 5, 9]), 2.0) == [1, 5, 9]).all()


# the notebooks, and their numbers from first principles


def plain_miou(files, faces=None, classes=None):
    """Mean over files (seeds) of the mIoU of the chosen faces and classes, from the definition

    Of the whole data set, in percent.
    """
    scores = []
    for path in files:
        rows = pd.read_parquet(path)
        if faces is not None:
            rows = rows[rows.id.isin(faces)]
        sums = rows.groupby("class_id")[["tp", "fp", "fn"]].sum()
        if classes is not None:
            sums = sums.loc[classes]
        scores.append((sums.tp / sums.sum(axis=1)).mean())
    return 100 * np.mean(scores)


def test_figure4_numbers_are_those_of_the_definition(study, tmp_path):
    out = tmp_path / "figure4_fairness.png"
    run_notebook(
        "85_figure4_fairness", out=str(out), min_size=10, **places(study, "parsers", "faces")
    )
    check_picture(out)
    table = pd.read_csv(out.with_suffix(".csv")).set_index(["parser", "group"])
    index = pd.read_parquet(study / "faces" / "index.parquet").set_index("id")
    members = {
        EVERYONE: set(index.index),
        **{name: set(index.index[index[name].eq(1).fillna(False)]) for name in NAMES},
    }
    rows = pd.read_parquet(study / "parsers" / "single" / "seed0" / "counts.parquet")
    true = rows[rows.tp + rows.fn > 0]
    common = [
        c
        for c in sorted(rows.class_id.unique())
        if all(
            (true[true.class_id == c].id.isin(m)).any() for m in members.values() if len(m) >= 10
        )
    ]
    assert len(table) == len(OBJECTIVE_NAMES) * len(members)
    assert (table.classes == len(common)).all()
    for objective in OBJECTIVE_NAMES:
        files = [study / "parsers" / objective / f"seed{s}" / "counts.parquet" for s in SEEDS]
        for group, faces in members.items():
            row = table.loc[objective, group]
            assert row["size"] == len(faces)
            assert row.miou == pytest.approx(plain_miou(files, faces, common), rel=1e-5)
            if len(faces) >= 10:
                assert row.miou_low < row.miou < row.miou_high


def test_figure5_numbers_are_those_of_the_definition(study, tmp_path):
    out = tmp_path / "figure5_robustness.png"
    run_notebook(
        "85_figure5_robustness",
        out=str(out),
        perturbations=["blur", "jpeg"],
        severities=[0.1, 0.5],
        **places(study, "sweep"),
    )
    check_picture(out)
    table = pd.read_csv(out.with_suffix(".csv"), keep_default_na=False).set_index(
        ["parser", "perturbation", "severity"]
    )
    assert len(table) == len(OBJECTIVE_NAMES) * len(PERTURBED)
    for name, severity in PERTURBED:
        score = {
            o: plain_miou(
                [
                    study
                    / "sweep"
                    / o
                    / f"seed{s}"
                    / "settings"
                    / f"{'none' if name == 'none' else f'{name}_{severity}'}.parquet"
                    for s in SEEDS
                ]
            )
            for o in OBJECTIVE_NAMES
        }
        for objective in OBJECTIVE_NAMES:
            row = table.loc[(objective, name, severity)]
            assert row.miou == pytest.approx(score[objective], rel=1e-5)
            assert row.difference == pytest.approx(score[objective] - score["single"], abs=1e-4)


def test_the_other_notebooks_write_what_they_say(study, tmp_path):
    figure3 = tmp_path / "figure3.png"
    run_notebook(
        "85_figure3_predictions",
        out=str(figure3),
        sweep=str(study / "sweep"),
        faces=str(study / "faces"),
        objectives=["single", "linear_alt"],
        settings=[["jpeg", 0.5]],
        faces_shown=2,
    )
    pairs = tmp_path / "pairs.png"
    run_notebook(
        "85_intersections", out=str(pairs), min_size=5, **places(study, "parsers", "faces")
    )
    for path in (figure3, pairs):
        check_picture(path), pd.read_csv(path.with_suffix(".csv"))
    run_notebook(
        "80_fairness_gaps",
        out=str(tmp_path / "fairness_gaps.csv"),
        min_size=5,
        **places(study, "parsers", "faces"),
    )
    gaps, disparity, comparison = (
        pd.read_csv(tmp_path / f"fairness_{name}.csv")
        for name in ("gaps", "disparity", "comparison")
    )
    assert len(gaps) == 15
    assert gaps.groupby("attribute").demographic.first().to_dict() == {
        "Male": True,
        "Young": True,
        "Smiling": False,
        "Bald": True,
        "Tone_1": True,
    }
    assert len(disparity) == 6 and set(comparison.parser) == {"linear", "linear_alt"}
    run_notebook(
        "80_corruption_error",
        out=str(tmp_path / "ce.csv"),
        perturbations=["blur", "jpeg"],
        severities=[0.1, 0.5],
        **places(study, "sweep"),
    )
    fails = tmp_path / "who_fails.png"
    run_notebook(
        "85_who_fails_first",
        out=str(fails),
        perturbations=["blur", "jpeg"],
        severities=[0.1, 0.5],
        min_size=5,
        **places(study, "sweep", "faces"),
    )
    check_picture(fails)
    cells, thrown, doses = (
        pd.read_csv(tmp_path / f"who_fails{part}.csv") for part in ("", "_errors", "_doses")
    )
    assert set(cells.parser) == set(thrown.parser) == set(doses.parser) == set(OBJECTIVE_NAMES)
    assert len(cells) == 5 * len(thrown)  # clean, and two kinds at two severities
    assert (cells.low <= cells.behind).all() and (cells.behind <= cells.high).all()
    errors = pd.read_csv(tmp_path / "ce.csv").set_index(["parser", "perturbation"])
    assert (errors.loc["single"].ce == 100).all()
    assert list(errors.loc["linear"].index) == [
        "blur",
        "jpeg",
        "mean",
    ]


def test_notebooks_of_one_objective(study, tmp_path):
    alone = {"objectives": ["single"], "seeds": [0], "resamples": 20}
    run_notebook(
        "85_figure4_fairness",
        **{
            **places(study, "parsers", "faces"),
            **alone,
            "out": str(tmp_path / "4.png"),
            "attributes": ["Male"],
        },
    )
    run_notebook(
        "85_figure5_robustness",
        **{
            **places(study, "sweep"),
            **alone,
            "out": str(tmp_path / "5.png"),
            "perturbations": ["blur"],
            "severities": [0.5],
        },
    )
    run_notebook(
        "80_fairness_gaps",
        **{
            **places(study, "parsers", "faces"),
            **alone,
            "out": str(tmp_path / "fairness_gaps.csv"),
            "min_size": 5,
        },
    )
    for name in ("4.png", "5.png"):
        check_picture(tmp_path / name)


@pytest.mark.parametrize(
    "count, columns, enlarge, gap",
    [(1, 1, 1, 1), (5, 3, 1, 1), (6, 3, 2, 0), (7, 10, 3, 2), (4, 1, 2, 1), (9, 4, 1, 5)],
)
def test_tiled_faces_lie_in_rows_with_white_between(count, columns, enlarge, gap):
    h, w = 4, 6
    images = np.random.default_rng(0).integers(0, 255, (count, h, w, 3), np.uint8)  # never white
    sheet, rows = tile_faces(images, columns, enlarge, gap), -(-count // columns)
    assert sheet.shape == (
        enlarge * (rows * (h + gap) - gap),
        enlarge * (columns * (w + gap) - gap),
        3,
    )
    assert sheet.dtype == np.uint8
    small = sheet[::enlarge, ::enlarge].copy()
    assert np.array_equal(small.repeat(enlarge, 0).repeat(enlarge, 1), sheet)
    for i, image in enumerate(images):
        place = small[i // columns * (h + gap) :][:h, i % columns * (w + gap) :][:, :w]
        assert np.array_equal(place, image)
        place[:] = 255
    assert (small == 255).all()  # gaps and places left over


def test_skin_seen_in_pictures_is_demographic():
    names = ["Seen_Hat", "Skin_Dark", "Male", "Tone_1"]
    assert demographic_names(names) == ["Male", "Skin_Dark", "Tone_1"]
    values = np.array([[1, 1, 0, 1], [0, 1, 1, 0]] * 10, np.int8)
    assert demographic_groups(values, names).names == ["Male", "not Male", "Skin_Dark", "Tone_1"]
