"Gaps and comparisons of groups: each verdict, the chance of small groups, first places"

import numpy as np
import pytest

from fairparse.data.groups import Groups
from fairparse.measure.fairness import bootstrap_groups
from fairparse.measure.group_tests import (
    COMPARED,
    comparison_table,
    gap_table,
    resample_groups,
)


def made_up(rng, skill, trainings=3, luck=0.0, spread=0.05):
    "Counts of parsers with a skill for each face; trainings have luck, faces difficulty"
    faces = skill + rng.normal(0, spread, len(skill))
    each = np.clip(faces + rng.normal(0, luck, (trainings, 1)), 0, 1)
    tp = rng.binomial(200, np.repeat(each[:, :, None], 3, 2))
    return np.stack([tp, (200 - tp) // 2, (201 - tp) // 2], -1)


def members(*groups, faces):
    return Groups([f"g{i}" for i in range(len(groups))], np.stack(groups)[:, :faces])


def test_resamples_are_those_of_the_bootstrap_before_seeds_are_drawn():
    rng = np.random.default_rng(0)
    counts = made_up(rng, np.full(40, 0.8), trainings=1)
    halves = members(np.arange(40) < 20, np.arange(40) >= 20, faces=40)
    drawn = resample_groups(counts, halves, resamples=50)
    assert drawn.shape == (50, 1, 2)
    assert drawn[:, 0] == pytest.approx(bootstrap_groups(counts, halves, resamples=50))


@pytest.mark.parametrize(
    "with_it,others,word",
    [
        (0.85, 0.75, "better"),
        (0.75, 0.85, "worse"),
        (0.80, 0.80, "equal within 1 point"),
        (0.78, 0.80, "undecided"),
    ],
)
def test_each_verdict_of_a_gap(with_it, others, word):
    rng, values = np.random.default_rng(1), (np.arange(200) < 80).astype(np.int8)[:, None]
    spread = {"equal within 1 point": 0.0, "undecided": 0.15}.get(word, 0.05)
    counts = made_up(rng, np.where(values[:, 0] == 1, with_it, others), spread=spread)
    row = gap_table({"p": counts}, values, ["x"], resamples=300).iloc[0]
    assert row.verdict == word and row.gap_low < row.gap < row.gap_high
    assert row.margin == "1 point"


@pytest.mark.parametrize("size", [10, 40])
def test_gaps_by_chance_are_seldom_called_gaps(size):
    "100 sets of faces, three attributes that mean nothing, two trainings with luck"
    rng, p = np.random.default_rng(size), []
    for _ in range(100):
        values = np.stack([rng.permutation(120) < size for _ in range(3)], 1).astype(np.int8)
        counts = made_up(rng, np.full(120, 0.8), 2, luck=0.01)
        p += list(gap_table({"p": counts}, values, list("xyz"), resamples=200).p)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.09


def test_comparisons_know_the_best_of_each_group():
    rng, faces = np.random.default_rng(2), 120
    groups = members(np.arange(faces) < 60, np.arange(faces) >= 60, faces=faces)
    hard = np.random.default_rng(7).normal(0, 0.05, faces)  # the same for all parsers
    better_for_first = np.where(np.arange(faces) < 60, 0.05, 0.0)
    counts = {
        name: made_up(rng, 0.8 + hard + extra, luck=0.002, spread=0.0)
        for name, extra in (("p", 0.0), ("q", better_for_first), ("r", 0.0))
    }
    table = comparison_table(counts, groups, resamples=200)
    assert list(table) == list(COMPARED) and table.parser.tolist() == ["q", "q", "r", "r"]
    words = table.set_index(["parser", "group"]).verdict
    assert words["q", "g0"] == "better" and "better" not in set(words.drop(("q", "g0")))
    first = table.set_index(["parser", "group"])["first"]
    assert first["q", "g0"] > 0.99 and first["q", "g1"] < 0.95


def test_alone_there_is_nothing_to_compare():
    counts = made_up(np.random.default_rng(0), np.full(40, 0.8))
    halves = members(np.arange(40) < 20, np.arange(40) >= 20, faces=40)
    table = comparison_table({"p": counts}, halves, resamples=20)
    assert table.empty and list(table) == list(COMPARED)
