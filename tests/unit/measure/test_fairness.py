"""Fairness: equal to fairlearn and to plain loops

Intervals that cover, p-values that keep their promise, stated results at the edges."""

import functools
import itertools
import time

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import MetricFrame
from helpers import random_counts
from scipy import stats
from sklearn.metrics import jaccard_score

from fairparse.core.runs import InputError
from fairparse.data.groups import Groups, attribute_groups
from fairparse.measure.counts import count_pixels, interval, resample_weights
from fairparse.measure.fairness import (
    basic_interval,
    bootstrap_groups,
    class_table,
    common_classes,
    disparities,
    disparity_intervals,
    disparity_table,
    equity_scaled,
    group_scores,
    group_table,
    intersect,
    intersection_table,
    largest_interval,
    permutation_p_value,
)
from fairparse.measure.group_tests import comparison_table, gap_table

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
NAMES = ["Male", "Young", "Bald"]


def made_up(rng, skill, seeds=1, spread=0.06, classes=2):
    "Counts of true mIoU `skill` (N,): 200 pixels of each class, images vary in difficulty"
    each = np.clip(skill + rng.normal(0, spread, len(skill)), 0, 1)[None, :, None]
    hits = rng.binomial(200, each, (seeds, len(skill), classes))
    return np.stack([hits, (200 - hits) // 2, (201 - hits) // 2], -1)


def blocks(sizes):
    "Disjoint groups of these sizes, one after the other"
    return Groups(
        [f"g{i}" for i in range(len(sizes))], np.repeat(np.eye(len(sizes), dtype=bool), sizes, 1)
    )


def attributes(n=60, seed=0, unknown=True):
    return np.random.default_rng(seed).integers(-1 if unknown else 0, 2, (n, 3)).astype(np.int8)


def slow_class_iou(counts, faces, c):
    "IoU in percent of one class over some faces, from the definition; None where it is nowhere"
    hit = union = 0
    for f in faces:
        hit, union = hit + int(counts[f][c][0]), union + int(sum(counts[f][c]))
    return 100 * hit / union if union else None


def slow_miou(counts, faces, classes, dice=False):
    scores = [s for c in classes if (s := slow_class_iou(counts, faces, c)) is not None]
    if dice:
        scores = [2 * s / (1 + s / 100) for s in scores]
    return sum(scores) / len(scores)


def slow_common(counts, members):
    return [
        c
        for c in range(counts.shape[1])
        if all(any(counts[f][c][0] + counts[f][c][2] for f in m) for m in members)
    ]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


# --- fairlearn ---


@pytest.mark.parametrize("seed", range(3))
def test_scores_and_disparities_equal_fairlearn(seed):
    generator = torch.Generator().manual_seed(seed)
    true, side = (
        torch.randint(0, 5, (24, 8, 8), generator=generator),
        np.repeat([0, 1, 2], [5, 8, 11]),
    )
    wrong = (
        torch.rand(true.shape, generator=generator)
        < torch.tensor([0.2, 0.4, 0.3])[side][:, None, None]
    )
    pred = torch.where(wrong, torch.randint(0, 5, true.shape, generator=generator), true)
    pred[pred == 4], true[:13][true[:13] == 4] = (
        3,
        3,
    )  # the parser never finds class 4, and the first two groups lack it
    counts, groups = count_pixels(pred, true, 5)[None], blocks([5, 8, 11])
    classes = common_classes(counts, groups, min_size=2)
    assert np.flatnonzero(classes).tolist() == [0, 1, 2, 3]
    y_true, y_pred, features = true.flatten().numpy(), pred.flatten().numpy(), np.repeat(side, 64)
    frame = MetricFrame(
        metrics=lambda t, p: jaccard_score(t, p, labels=[0, 1, 2, 3], average="macro"),
        y_true=y_true,
        y_pred=y_pred,
        sensitive_features=features,
    )
    np.testing.assert_allclose(
        group_scores(counts, groups, classes)[0], frame.by_group.to_numpy(float)
    )
    row = disparity_table({"ours": counts}, groups, min_size=2, resamples=20).iloc[0]
    assert (
        row.overall == pytest.approx(100 * frame.overall)
        and row.gap == pytest.approx(100 * frame.difference())
        and row.ratio == pytest.approx(frame.ratio())
    )
    assert row.worst == pytest.approx(
        100 * frame.group_min()
    ) and row.worst + row.gap == pytest.approx(100 * frame.group_max())
    assert row.variance == pytest.approx(1e4 * np.var(frame.by_group.to_numpy(float)))
    each = class_table(counts, groups).set_index(["group", "class_id"]).iou
    one = MetricFrame(
        metrics={
            c: lambda t, p, c=c: jaccard_score(t, p, labels=[c], average="macro", zero_division=0)
            for c in range(5)
        },
        y_true=y_true,
        y_pred=y_pred,
        sensitive_features=features,
    )
    for g, c in itertools.product(range(3), range(4)):
        assert each[f"g{g}", c] == pytest.approx(100 * one.by_group.loc[g, c])
    assert each["g2", 4] == 0 and np.isnan(each["g0", 4])  # missed everywhere; nowhere to be found


# --- plain loops ---


@pytest.fixture(scope="module")
def case():
    """Two seeds, 60 faces, 5 classes, attributes that are partly unknown

    The last class is only in the first ten faces."""
    counts, values = random_counts(2, 60, 5, seed=1), attributes()
    counts[:, 10:, 4] = 0
    return counts, values, attribute_groups(values, NAMES, negative=True)


def members_of(values, column, value):
    return [i for i, row in enumerate(values) if row[column] == value]


def test_group_table_equals_a_loop(case):
    counts, values, groups = case
    table = group_table(counts, groups, resamples=20).set_index("group")
    members = {
        title: members_of(values, a, v)
        for a, n in enumerate(NAMES)
        for title, v in ((n, 1), (f"not {n}", 0))
    }
    classes = slow_common(counts[0], members.values())
    for title, faces in members.items():
        row = table.loc[title]
        assert row["size"] == len(faces) and row.classes == len(classes) and row.note == ""
        assert row.miou == pytest.approx(mean(slow_miou(c, faces, classes) for c in counts))
        assert row.dice_macro == pytest.approx(
            mean(slow_miou(c, faces, classes, dice=True) for c in counts)
        )
        assert row.miou_present == pytest.approx(
            mean(slow_miou(c, faces, range(5)) for c in counts)
        )
        assert row.miou_low < row.miou < row.miou_high


def test_class_table_equals_a_loop(case):
    counts, values, groups = case
    table = class_table(counts, groups)
    assert len(table) == 6 * 5
    for row in table.itertuples():
        faces = members_of(
            values,
            NAMES.index(row.group.removeprefix("not ")),
            int(not row.group.startswith("not ")),
        )
        scores = [slow_class_iou(c, faces, row.class_id) for c in counts]
        if scores[0] is None:
            assert np.isnan(row.iou)
        else:
            assert row.iou == pytest.approx(mean(scores))


def test_disparity_table_equals_a_loop(case):
    counts, values, _ = case
    parsers = {"single": counts, "linear": random_counts(2, 60, 5, seed=2)}
    table = disparity_table(
        parsers, attribute_groups(values, NAMES), baseline="linear", resamples=30
    ).set_index("parser")
    members = [members_of(values, a, 1) for a in range(3)]
    classes, expected = slow_common(parsers["linear"][0], members), {}
    for name, counts in parsers.items():
        scores = [mean(slow_miou(c, faces, classes) for c in counts) for faces in members]
        middle = mean(scores)
        overall = mean(slow_miou(c, range(60), classes) for c in counts)
        expected[name] = {
            "overall": overall,
            "variance": mean((s - middle) ** 2 for s in scores),
            "gap": max(scores) - min(scores),
            "ratio": min(scores) / max(scores),
            "worst": min(scores),
            "equity_scaled": overall / (1 + sum(abs(s - overall) for s in scores) / 100),
        }
        assert table.worst_group[name] == NAMES[scores.index(min(scores))]
    for name, kind in itertools.product(parsers, expected["single"]):
        assert table.loc[name, kind] == pytest.approx(expected[name][kind])
        assert table.loc[name, f"{kind}_difference"] == pytest.approx(
            expected[name][kind] - expected["linear"][kind], abs=1e-9
        )
        assert (
            table.loc[name, f"{kind}_low"]
            <= table.loc[name, kind]
            <= table.loc[name, f"{kind}_high"]
        )
    assert (
        (table.baseline == "linear").all()
        and (table.groups == 3).all()
        and (table.images == 60).all()
        and (table.repetitions == 2).all()
    )


def test_gap_table_equals_a_loop(case):
    counts, values, _ = case
    table = gap_table({"single": counts}, values, NAMES, resamples=30)
    sides = [members_of(values, a, v) for a in range(3) for v in (1, 0)]
    classes = slow_common(counts[0], sides)
    for a, row in table.iterrows():
        yes, no = sides[2 * a], sides[2 * a + 1]
        assert (row["with"], row["without"], row["unknown"]) == (
            len(yes),
            len(no),
            60 - len(yes) - len(no),
        )
        assert row.miou_with == pytest.approx(
            mean(slow_miou(c, yes, classes) for c in counts)
        ) and row.miou_without == pytest.approx(mean(slow_miou(c, no, classes) for c in counts))
        assert (
            row.gap == pytest.approx(row.miou_with - row.miou_without)
            and row.gap_low < row.gap < row.gap_high
        )
    assert (table.p_adjusted >= table.p).all()


@pytest.mark.parametrize("order", [2, 3])
def test_intersections_equal_a_loop(case, order):
    counts, values, groups = case
    table = intersection_table(
        {"single": counts}, groups, order, min_size=4, resamples=30
    ).set_index("group")
    literals = {
        n: set(
            members_of(values, NAMES.index(n.removeprefix("not ")), int(not n.startswith("not ")))
        )
        for n in groups.names
    }
    sets = {}
    for c in (
        c
        for k in range(1, order + 1)
        for c in itertools.combinations(groups.names, k)
        if not any(f"not {n}" in c for n in c)
    ):
        faces = sorted(set.intersection(*(literals[n] for n in c)))
        if faces not in sets.values():
            sets[" & ".join(c)] = faces
    kept = {title: faces for title, faces in sets.items() if len(faces) >= 4}
    combined = intersect(groups, order, 4)
    assert list(table.index) == list(kept) == combined.names and combined.dropped == {
        t: len(f) for t, f in sets.items() if len(f) < 4
    }
    classes = slow_common(counts[0], kept.values())
    everyone = mean(slow_miou(c, range(60), classes) for c in counts)
    for title, faces in kept.items():
        assert table.loc[title, "size"] == len(faces)
        assert table.miou[title] == pytest.approx(
            mean(slow_miou(c, faces, classes) for c in counts)
        )
        assert table.difference[title] == pytest.approx(table.miou[title] - everyone)


def test_bootstrap_equals_a_loop_over_the_same_multiplicities(case):
    counts, values, _ = case
    groups, classes = attribute_groups(values, NAMES), np.array([True, True, True, False, False])
    samples = bootstrap_groups(counts, groups, classes, resamples=6, seed=4)
    images, seeds = resample_weights(60, 6, 4), resample_weights(2, 6, 5)
    for r, g in itertools.product(range(6), range(3)):
        faces = [f for f in members_of(values, g, 1) for _ in range(images[r, f])]
        assert 100 * samples[r, g] == pytest.approx(
            mean(
                slow_miou(counts[s], faces, [0, 1, 2]) for s in range(2) for _ in range(seeds[r, s])
            )
        )


@pytest.mark.parametrize("first,second", [(4, 4), (3, 6), (2, 7)])
def test_permutation_p_value_approaches_all_deals(first, second):
    n, counts = first + second, random_counts(1, first + second, 3, seed=first)
    differences = []
    for faces in itertools.combinations(range(n), first):
        rest = [f for f in range(n) if f not in faces]
        differences.append(
            abs(slow_miou(counts[0], faces, range(3)) - slow_miou(counts[0], rest, range(3)))
        )
    exact = np.mean([d >= differences[0] - 1e-9 for d in differences])
    member = np.arange(n) < first
    p = permutation_p_value(
        counts, np.stack([member, ~member]), np.ones(3, bool), permutations=20_000
    )
    assert p == pytest.approx(exact, abs=4.5 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


# --- do the promises hold? ---


def test_permutation_p_values_are_uniform_when_the_groups_are_equal():
    rng, p = np.random.default_rng(0), []
    member = np.arange(60) < 15
    for i in range(400):
        p.append(
            permutation_p_value(
                made_up(rng, np.full(60, 0.8)),
                np.stack([member, ~member]),
                np.ones(2, bool),
                199,
                seed=i,
            )
        )
    low, high = stats.binom.ppf([0.0005, 0.9995], len(p), 0.05)
    assert low <= np.sum(np.array(p) <= 0.05) <= high and stats.kstest(p, "uniform").pvalue > 1e-4


def test_permutation_test_finds_a_real_difference():
    rng, member = np.random.default_rng(1), np.arange(60) < 20
    p = [
        permutation_p_value(
            made_up(rng, np.where(member, 0.75, 0.82)),
            np.stack([member, ~member]),
            np.ones(2, bool),
            199,
            seed=i,
        )
        for i in range(40)
    ]
    assert np.mean(np.array(p) <= 0.05) >= 0.9


def test_intervals_of_a_group_cover_its_true_score():
    rng, covered = np.random.default_rng(2), []
    groups = blocks([25, 60])
    for i in range(300):
        low, high = interval(
            bootstrap_groups(
                made_up(rng, np.repeat([0.75, 0.85], [25, 60])), groups, None, 400, seed=i
            )
        )
        covered.append((low <= [0.75, 0.85]) & ([0.75, 0.85] <= high))
    assert (np.mean(covered, 0) >= 0.89).all(), np.mean(covered, 0)
    assert (np.mean(covered, 0) < 1).all()  # nor are they uselessly wide


@functools.cache
def coverage(skills, faces, sims=100, overlapping=False):
    """Share of simulated test sets in which each kind of interval contains the truth

    And the mean error of the variance and of the corrected one."""
    rng, truth = np.random.default_rng(len(skills)), disparities(np.array(skills), 0)
    hits, errors = {}, []
    for i in range(sims):
        if overlapping:
            groups = Groups(
                [f"g{k}" for k in range(len(skills))], rng.random((len(skills), faces)) < 0.3
            )
            counts = made_up(rng, np.full(faces, skills[0]))
        else:
            groups, counts = blocks([faces] * len(skills)), made_up(rng, np.repeat(skills, faces))
        observed, samples = (
            group_scores(counts, groups)[0],
            bootstrap_groups(counts, groups, None, 240, seed=i),
        )
        ours, resampled, found = (
            disparity_intervals(observed, samples),
            disparities(samples, 0),
            disparities(observed, 0),
        )
        for kind in ("variance", "gap", "ratio", "worst"):
            for method, (low, high) in (
                ("ours", ours[kind]),
                ("percentile", interval(resampled[kind])),
                ("basic", basic_interval(found[kind], resampled[kind], lowest=0.0)),
            ):
                hits.setdefault((method, kind), []).append(low - 1e-9 <= truth[kind] <= high + 1e-9)
        errors.append(
            (
                found["variance"] - truth["variance"],
                max(0, 2 * found["variance"] - resampled["variance"].mean()) - truth["variance"],
            )
        )
    return {key: np.mean(h) for key, h in hits.items()}, np.mean(errors, 0)


def test_scores_of_groups_are_those_of_fairmedfm():
    "Of one score an image and a group a face, which is all that it computes"
    fairmedfm = pytest.importorskip("fairmedfm", reason="fairmedfm is in the dev extra")
    rng = np.random.default_rng(0)
    scores, groups = rng.uniform(0.5, 1, 60), rng.integers(0, 4, 60)
    means = np.array([scores[groups == g].mean() for g in range(4)])
    ours = disparities(means, scores.mean())
    theirs = {
        kind: getattr(fairmedfm, name)(scores, sensitive_features=groups)
        for kind, name in {
            "gap": "dice_gap",
            "worst": "worst_group_dice",
            "std": "dice_std",
            "scaled": "equity_scaled_dice",
        }.items()
    }
    assert ours["gap"] == pytest.approx(100 * theirs["gap"])
    assert ours["worst"] == pytest.approx(100 * theirs["worst"])
    assert ours["variance"] == pytest.approx(1e4 * theirs["std"] ** 2)
    assert equity_scaled(means, scores.mean(), "std") == pytest.approx(theirs["scaled"])
    assert ours["equity_scaled"] < 100 * theirs["scaled"]  # the sum of four is longer


def test_equity_scaled_scores_by_hand():
    scores = np.array([[0.9, 0.7], [0.8, 0.8]])
    assert equity_scaled(scores, np.array([0.8, 0.8])) == pytest.approx([0.8 / 1.2, 0.8])
    assert equity_scaled(scores[0], 0.8, "std") == pytest.approx(0.8 / 1.1)
    assert equity_scaled(np.array([0.9, np.nan]), 0.8) == pytest.approx(0.8 / 1.1)
    with pytest.raises(InputError, match="deviations"):
        equity_scaled(scores, 0.8, "variance")


@pytest.mark.parametrize("away", [0.0, 0.02, 0.06])
def test_intervals_of_equity_scaled_scores_hold_the_truth(away):
    "Three groups of 60 faces; the middle one is everybody's level"
    rng, truth = np.random.default_rng(1), np.array([0.8 - away, 0.8, 0.8 + away])
    expected, held = 100 * 0.8 / (1 + 2 * away), []
    member = np.repeat(np.eye(3, dtype=bool), 60, axis=1)
    for _ in range(120):
        skill = truth.repeat(60)[None, :, None] + rng.normal(0, 0.05, (1, 180, 1))
        tp = rng.binomial(200, skill.clip(0, 1))
        counts = np.stack([tp, 200 - tp, np.zeros_like(tp)], -1)
        row = disparity_table({"one": counts}, Groups(list("abc"), member), resamples=200).iloc[0]
        held.append(row.equity_scaled_low <= expected <= row.equity_scaled_high)
    assert np.mean(held) >= 0.9


KINDS = ("variance", "gap", "ratio", "worst")


@pytest.mark.parametrize(
    "skills,faces",
    [
        ((0.8,) * 2, 40),
        ((0.794, 0.806), 40),
        ((0.78, 0.82), 40),
        ((0.8,) * 5, 40),
        ((0.8,) * 12, 25),
        (tuple(np.linspace(0.78, 0.82, 12)), 25),
        ((0.7,) + (0.8,) * 11, 25),
    ],
)
def test_intervals_of_disparities_cover(skills, faces):
    covered, (bias, corrected) = coverage(skills, faces, sims=400)
    for kind in KINDS:
        assert covered["ours", kind] >= 0.88, f"{kind}: {covered['ours', kind]:.3f}"
    assert bias > 0 and abs(corrected) < bias


def test_intervals_of_disparities_between_overlapping_groups_cover():
    covered, (bias, corrected) = coverage((0.8,) * 20, 120, overlapping=True)
    for kind in KINDS:
        assert covered["ours", kind] >= 0.88
    assert abs(corrected) < bias


def test_the_usual_intervals_of_disparities_do_not_cover():
    """The reason for ours: percentile intervals never contain a variance of 0

    Basic ones miss gaps of many equal groups and small variances of few."""
    equal, small = coverage((0.8,) * 12, 25)[0], coverage((0.794, 0.806), 40)[0]
    assert (
        equal["percentile", "variance"] == 0
        and equal["percentile", "gap"] == 0
        and equal["percentile", "worst"] < 0.3
    )
    assert equal["basic", "gap"] < 0.75 and equal["basic", "worst"] < 0.85
    assert small["basic", "variance"] < 0.8 and small["basic", "gap"] < 0.85


def test_equal_parsers_seldom_differ_in_disparity():
    "Same truth for both, unequal groups: the intervals of the differences contain 0"
    rng, inside = np.random.default_rng(7), {k: [] for k in ("overall", *KINDS)}
    skill = np.repeat([0.76, 0.8, 0.8, 0.82], 30)
    for _ in range(60):
        row = disparity_table(
            {"a": made_up(rng, skill), "b": made_up(rng, skill)}, blocks([30] * 4), resamples=200
        ).iloc[1]
        for kind in inside:
            inside[kind].append(
                row[f"{kind}_difference_low"] <= 0 <= row[f"{kind}_difference_high"]
            )
    assert all(np.mean(h) >= 0.85 for h in inside.values()), {
        k: np.mean(h) for k, h in inside.items()
    }


def test_a_planted_gap_is_found_and_its_closing_too():
    rng = np.random.default_rng(8)
    unequal, equal = (
        made_up(rng, np.repeat([0.7, 0.8, 0.8], 40) if gap else np.full(120, 0.8), seeds=2)
        for gap in (True, False)
    )
    table = disparity_table({"single": unequal, "linear": equal}, blocks([40] * 3)).set_index(
        "parser"
    )
    assert (
        table.gap_low["single"] > 5
        and table.variance_low["single"] > 0
        and table.worst_group["single"] == "g0"
        and table.worst_high["single"] < 75
    )
    assert table.gap_low["linear"] == 0 and table.variance_low["linear"] == 0
    assert table.gap_difference_high["linear"] < 0 < table.worst_difference_low["linear"]


def test_the_largest_of_one_quantity_has_its_own_interval():
    samples = np.random.default_rng(0).normal(3, 1, (5000, 1))
    low, high = largest_interval(np.array([3.0]), samples)
    assert low == pytest.approx(3 - 1.96, abs=0.1) and high == pytest.approx(3 + 1.96, abs=0.1)
    assert largest_interval(np.array([3.0, 2.0]), np.broadcast_to([3.0, 2.0], (50, 2))) == (
        3,
        3,
    )  # nothing varies


def test_differences_of_paired_parsers_are_sharp():
    rng = np.random.default_rng(9)
    single = made_up(rng, np.repeat([0.7, 0.75], 40), spread=0.1)
    linear, groups = single + np.array([2, -1, -1]), blocks([40, 40])
    row = comparison_table({"single": single, "linear": linear}, groups).iloc[0]
    own = group_table(single, groups).iloc[0]
    assert (
        row.difference == pytest.approx(1)
        and 0 < row.low <= 1 <= row.high + 1e-9
        and row.high - row.low < 0.1 * (own.miou_high - own.miou_low)
    )
    table = disparity_table({"single": single, "linear": linear}, groups).iloc[1]
    assert table.worst_difference_high - table.worst_difference_low < 0.1 * (
        table.worst_high - table.worst_low
    ) and table.gap_difference == pytest.approx(0, abs=1e-9)


# --- edges ---


def test_empty_and_one_face_groups_have_a_stated_result():
    counts = random_counts(2, 40, 3, seed=3)
    membership = np.stack(
        [
            np.arange(40) < 20,
            np.arange(40) >= 20,
            np.zeros(40, bool),
            np.arange(40) == 3,
            np.arange(40) < 4,
        ]
    )
    table = group_table(
        counts, Groups(["a", "b", "none", "one", "few"], membership), resamples=200
    ).set_index("group")
    assert table.note.tolist() == [
        "",
        "",
        "no face",
        "one face: no interval",
        "fewer than 10 faces: too few to be compared",
    ]
    numbers = table[["miou", "miou_low", "miou_high", "dice_macro", "miou_present"]]
    assert numbers.loc["none"].isna().all() and numbers.loc["one"].isna().tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert numbers.loc[["a", "b", "few"]].notna().all(axis=None)
    alone = group_table(counts, Groups(["one"], membership[3:4]), min_size=1, resamples=20).iloc[0]
    assert alone.miou == pytest.approx(table.miou["one"]) and np.isnan(alone.miou_low)


def test_small_groups_are_not_in_disparities():
    counts = random_counts(1, 40, 3, seed=3)
    counts[:, 3] = [0, 50, 50]  # one terrible face
    membership = np.stack(
        [np.arange(40) < 20, np.arange(40) >= 20, np.arange(40) == 3, np.zeros(40, bool)]
    )
    few, two = Groups(["a", "b", "one", "none"], membership), Groups(["a", "b"], membership[:2])
    pd.testing.assert_frame_equal(
        disparity_table({"p": counts}, few, resamples=50),
        disparity_table({"p": counts}, two, resamples=50),
    )
    pd.testing.assert_frame_equal(
        disparity_table({"p": counts}, few, min_size=0, resamples=50),
        disparity_table({"p": counts}, two, min_size=0, resamples=50),
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda c, g: group_table(c, g),
        lambda c, g: disparity_table({"p": c}, g),
        lambda c, g: comparison_table({"p": c, "q": c}, g),
        lambda c, g: intersection_table({"p": c}, g),
    ],
)
def test_only_small_groups(make):
    with pytest.raises(InputError, match="lower min_size, or bring more faces"):
        make(random_counts(1, 12, 3), blocks([4, 3, 5]))


def test_one_large_group_has_no_disparity():
    with pytest.raises(InputError, match=r"two groups of 10 faces or more; there are \['g0'\]"):
        disparity_table({"p": random_counts(1, 23, 3)}, blocks([20, 3]))


def test_unknown_attributes_are_on_neither_side():
    values, counts = attributes(80), random_counts(1, 80, 3)
    table, changed = gap_table({"p": counts}, values, NAMES, resamples=50), counts.copy()
    changed[:, values[:, 0] == -1] = [1, 90, 90]
    after = gap_table({"p": changed}, values, NAMES, resamples=50)
    of_all = ["p_adjusted", "p_equal_adjusted", "verdict"]
    pd.testing.assert_series_equal(table.iloc[0].drop(of_all), after.iloc[0].drop(of_all))
    assert (table.unknown == (values == -1).sum(0)).all() and not np.isclose(
        table.gap[1], after.gap[1]
    )


def test_gaps_of_groups_too_small_to_ask():
    values = np.zeros((40, 4), np.int8)
    values[:20, 0], values[0, 2], values[:4, 3] = 1, 1, 1
    table = gap_table(
        {"p": random_counts(1, 40, 3)}, values, ["half", "nobody", "one", "few"], resamples=100
    ).set_index("attribute")
    assert table.note.tolist() == [
        "",
        "with: no face",
        "with: one face: no interval",
        "with: fewer than 10 faces: too few to be compared",
    ]
    assert table.p.notna().tolist() == [
        True,
        False,
        False,
        False,
    ] and table.gap.notna().tolist() == [True, False, True, True]
    assert (
        table.gap_low.notna().tolist() == [True, False, False, True]
        and table.p_adjusted["half"] == table.p["half"]
    )


def test_names_that_are_no_attributes():
    with pytest.raises(InputError, match="no attributes"):
        attribute_groups(pd.DataFrame({"Male": [1, 0]}), ["Hat"])
    with pytest.raises(InputError, match="a name for each column"):
        gap_table({"p": random_counts(1, 5, 3)}, attributes(5), ["Male"])


def test_a_class_of_one_group_only():
    counts, groups = random_counts(1, 40, 3), blocks([20, 20])
    counts[:, :20, 2] = 0
    counts[:, 20:, 2] = [5, 50, 45]  # a hard class that only the second group has
    table = group_table(counts, groups, resamples=20)
    assert (
        table.classes.tolist() == [2, 2]
        and table.miou_present[0] == pytest.approx(table.miou[0])
        and table.miou_present[1] < table.miou[1]
    )
    counts[:, :20, 2] = [0, 7, 0]  # predicted in the first group, but not there: still not common
    assert common_classes(counts, groups).tolist() == [True, True, False]
    assert group_table(counts, groups, resamples=20).miou.tolist() == table.miou.tolist()
    counts[:, :20] = [0, 7, 0]
    with pytest.raises(InputError, match="no class in common: raise min_size"):
        group_table(counts, groups)


def test_small_groups_do_not_choose_the_classes():
    counts = random_counts(1, 45, 3)
    counts[:, 40:, 1] = 0
    assert common_classes(counts, blocks([20, 20, 5])).all() and common_classes(
        counts, blocks([20, 20, 5]), min_size=5
    ).tolist() == [True, False, True]


def test_groups_over_other_faces_are_refused():
    counts, groups = random_counts(1, 30, 3), blocks([20, 20])
    calls = [
        lambda: group_scores(counts, groups),
        lambda: bootstrap_groups(counts, groups),
        lambda: common_classes(counts, groups),
        lambda: group_table(counts, groups),
        lambda: class_table(counts, groups),
        lambda: disparity_table({"p": counts}, groups),
        lambda: comparison_table({"p": counts, "q": counts}, groups),
        lambda: intersection_table({"p": counts}, groups),
        lambda: gap_table({"p": counts}, attributes(40), NAMES),
    ]
    for call in calls:
        with pytest.raises(InputError, match="counts are of 30 faces, the groups of 40"):
            call()


@pytest.mark.parametrize("table", [disparity_table, comparison_table])
def test_baselines_and_parsers_that_do_not_fit(table):
    counts, groups = random_counts(2, 40, 3), blocks([20, 20])
    with pytest.raises(InputError, match=r"baseline 'other' is none of the parsers \['p', 'q'\]"):
        table({"p": counts, "q": counts}, groups, baseline="other")
    with pytest.raises(InputError, match="different numbers of seeds"):
        table({"p": counts, "q": counts[:1]}, groups)
    with pytest.raises(InputError, match="no counts"):
        table({}, groups)


def test_another_baseline_turns_the_signs():
    rng, groups = np.random.default_rng(1), blocks([20, 20])
    counts = {"p": made_up(rng, np.full(40, 0.8), 2), "q": made_up(rng, np.full(40, 0.82), 2)}
    one, other = (
        comparison_table(counts, groups, resamples=100),
        comparison_table(counts, groups, "q", resamples=100),
    )
    np.testing.assert_allclose(one.difference, -other.difference)
    np.testing.assert_allclose(one.low, -other.high)
    assert (
        one.parser.tolist() == ["q", "q"]
        and other.parser.tolist() == ["p", "p"]
        and one.p.tolist() == other.p.tolist()
    )
    first, second = (
        disparity_table(counts, groups, b, resamples=100).set_index("parser") for b in ("p", "q")
    )
    assert first.gap_difference["q"] == pytest.approx(
        -second.gap_difference["p"]
    ) and first.gap_difference_low["q"] == pytest.approx(-second.gap_difference_high["p"])


def test_one_seed_and_two():
    rng, groups = np.random.default_rng(2), blocks([30, 30])
    first, second = made_up(rng, np.full(60, 0.8), 2), made_up(rng, np.full(60, 0.84), 2)
    one = comparison_table({"p": first[:1], "q": second[:1]}, groups, resamples=200)
    assert one[["low", "high", "p_adjusted"]].notna().all(axis=None) and (one.seeds == 1).all()
    two = comparison_table({"p": first, "q": second}, groups, resamples=200)
    assert (two.seeds == 2).all() and (one.verdict == "better").all()


def test_identical_parsers():
    counts, groups = random_counts(2, 40, 3), blocks([20, 20])
    same = comparison_table({"p": counts, "q": counts.copy()}, groups, resamples=100)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None) and (
        same[["p", "p_adjusted"]] == 1
    ).all(axis=None)
    assert (same.verdict == "equal within 1 point").all() and (same["first"] == 0.5).all()
    row = disparity_table({"p": counts, "q": counts.copy()}, groups, resamples=100).iloc[1]
    assert (row[[c for c in row.index if "_difference" in c]] == 0).all()
    assert comparison_table({"p": counts}, groups).empty


def test_resamples_that_miss_a_group_do_not_spread():
    counts, groups = random_counts(1, 60, 3, seed=5), blocks([2, 28, 30])
    samples = bootstrap_groups(counts, groups, resamples=500)
    assert 0.05 < np.isnan(samples[:, 0]).mean() < 0.25 and not np.isnan(samples[:, 1:]).any()
    table = disparity_table(
        {"p": counts, "q": random_counts(1, 60, 3, seed=6)}, groups, min_size=2, resamples=500
    )
    gaps = [c for c in table if "difference_" in c]
    assert table.drop(columns=gaps).notna().all(axis=None) and table.loc[1, gaps].notna().all()
    assert group_table(counts, groups, 2, 500)[["miou_low", "miou_high"]].notna().all(axis=None)


def test_scores_of_zero_and_of_one():
    counts = np.zeros((1, 40, 2, 3), int)
    counts[:, :20], counts[:, 20:] = [0, 10, 10], [10, 0, 0]
    row = disparity_table({"p": counts}, blocks([20, 20]), resamples=50).iloc[0]
    assert (
        row.worst,
        row.gap,
        row.gap_low,
        row.gap_high,
        row.worst_low,
        row.worst_high,
        row.ratio,
        row.variance,
    ) == (0, 100, 100, 100, 0, 0, 0, 2500)


def test_order_of_faces_does_not_matter(case):
    counts, values, groups = case
    order = np.random.default_rng(0).permutation(60)
    moved, moved_groups = counts[:, order], Groups(groups.names, groups.membership[:, order])
    columns = ["group", "size", "miou", "dice_macro", "miou_present", "note"]
    pd.testing.assert_frame_equal(
        group_table(counts, groups, resamples=20)[columns],
        group_table(moved, moved_groups, resamples=20)[columns],
    )
    pd.testing.assert_frame_equal(class_table(counts, groups), class_table(moved, moved_groups))
    assert disparities(group_scores(counts, groups).mean(0), 0) == pytest.approx(
        disparities(group_scores(moved, moved_groups).mean(0), 0)
    )


def test_intersections_that_repeat_or_contradict():
    values = attributes(60, unknown=False)
    values[:, 1] = values[:, 0]  # two attributes that are the same
    groups = attribute_groups(values, NAMES, negative=True)
    combined = intersect(groups, 3, 5)
    assert (
        "Male" in combined.names and "Male & Young" not in combined.names
    )  # the same faces are asked about once
    assert (
        "Male & not Male" not in {*combined.names, *combined.dropped}
        and combined.dropped["Male & not Young"] == 0
    )
    assert not any(
        (combined.membership[i] == combined.membership[j]).all()
        for i in range(len(combined))
        for j in range(i)
    )
    with pytest.raises(InputError, match="order must be 2 or 3"):
        intersect(groups, 4)
    with pytest.raises(InputError, match="no combination"):
        intersect(groups, 2, 100)


def test_intersections_find_who_is_failed():
    rng, values = np.random.default_rng(3), attributes(400, 4, unknown=False)[:, :2]
    failed = (values[:, 0] == 0) & (values[:, 1] == 0)
    table = intersection_table(
        {"p": made_up(rng, np.where(failed, 0.70, 0.82))},
        attribute_groups(values, NAMES[:2], negative=True),
        resamples=300,
    ).set_index("group")
    assert (
        table.miou.idxmin() == "not Male & not Young"
        and table.difference_high["not Male & not Young"] < -5
        and table.p_adjusted["not Male & not Young"] < 0.05
    )


def test_everybody_is_in_the_group():
    values = np.stack([np.ones(30), np.arange(30) < 15], 1).astype(np.int8)
    table = intersection_table(
        {"p": random_counts(1, 30, 3)},
        attribute_groups(values, ["all", "half"], negative=True),
        resamples=50,
    ).set_index("group")
    assert (
        np.isnan(table.p["all"])
        and table.difference["all"] == pytest.approx(0)
        and not np.isnan(table.p_adjusted["half"])
    )


def test_unknown_score_is_refused():
    with pytest.raises(InputError, match="iou.*dice.*f1"):
        group_scores(random_counts(1, 4, 3), blocks([2, 2]), score="f1")


def test_a_thousand_resamples_of_three_thousand_images_are_quick():
    "The issue asks for at most 5 seconds: 19 classes, 40 attributes with both sides"
    counts = random_counts(1, 3000, 19)
    groups = attribute_groups(
        np.random.default_rng(0).integers(0, 2, (3000, 40)).astype(np.int8),
        [f"a{i}" for i in range(40)],
        negative=True,
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert bootstrap_groups(counts, groups, resamples=1000).shape == (1000, 80)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] <= 5:
            break
    assert min(seconds) <= 5
