"The methods of a table compared: reference values, the four words, first places, ranks, pairs"

import numpy as np
import pandas as pd
import pytest
from helpers import random_counts
from scipy import stats

from fairparse.core.runs import InputError
from fairparse.measure.counts import bootstrap_scores, iou
from fairparse.measure.scoreboard import (
    Scoreboard,
    add_verdicts,
    counts_board,
    draw_tables,
    estimate_row,
    first_of,
    first_shares,
    four_words,
    pair_p_values,
    points,
    rank_table,
    training_variances,
    widen,
)


def board_of(scores, faces=0.0, seed=0, higher=True):
    "Scores (O, S) of methods a, b, …, each with its own luck with the faces"
    rng = np.random.default_rng(seed)
    names = "abcdefgh"[: len(scores)]
    drawn = rng.normal(0, faces, (len(scores), 400, 1)) if faces else np.zeros((len(scores), 3, 1))
    resampled = {name: own + moved for name, own, moved in zip(names, scores, drawn)}
    return Scoreboard(dict(zip(names, scores)), resampled, 140, higher)


# ---- words


@pytest.mark.parametrize(
    "numbers,words",
    [
        ((2, 0.01, 1.0), "better"),
        ((-2, 0.01, 1.0), "worse"),
        ((0.1, 0.6, 0.01), "equal within 1 point"),
        ((0.9, 0.2, 0.4), "undecided"),
        ((0.2, 0.01, 0.01), "better"),  # small, and beyond chance
        ((np.nan, np.nan, np.nan), "undecided"),
    ],
)
def test_each_word_is_reached(numbers, words):
    assert four_words(*numbers, points(1)) == words


def test_verdicts_of_a_table_are_adjusted_and_know_which_way_is_better():
    rows = {"difference": [3.0, 3.0, 0.1, 0.9], "p": [0.001, 0.04, 0.7, 0.3]}
    table = pd.DataFrame(rows | {"p_equal": [1.0, 1.0, 0.001, 0.6]})
    judged = add_verdicts(table, points(0.5), signs=np.array([1, -1, 1, 1]))
    assert judged.p_adjusted.tolist() == stats.false_discovery_control(table.p).tolist()
    # 0.04 is no longer below 0.05 beside three others
    assert judged.verdict.tolist() == [
        "better",
        "undecided",
        "equal within 0.5 points",
        "undecided",
    ]
    assert (judged.margin == "0.5 points").all()
    lower = add_verdicts(table.head(1), ["5 %"], -1)
    assert lower.verdict[0] == "worse" and lower.margin[0] == "5 %"


def test_a_row_without_a_test():
    "One resample of the faces has no variance: value alone"
    board = Scoreboard({"a": np.array([1.0]), "b": np.array([2.0])}, {}, 9)
    board.resampled.update(a=np.zeros((1, 1)), b=np.zeros((1, 1)))
    row = estimate_row(board.difference("b", "a"), 1.0)
    assert row["difference"] == 1 and np.isnan([row["low"], row["p"], row["p_equal"]]).all()
    assert np.isnan(list(estimate_row(None, 1.0).values())).all()


# ---- scores


def test_scores_of_counts_are_those_of_the_bootstrap():
    counts = {"a": random_counts(2, 12, 4, seed=1), "b": random_counts(2, 12, 4, seed=2)}
    board = counts_board(counts, resamples=30)
    assert board.scores["b"] == pytest.approx([100 * iou(one) for one in counts["b"]])
    slow = [100 * bootstrap_scores(one[None], iou, resamples=30) for one in counts["a"]]
    assert board.resampled["a"] == pytest.approx(np.stack(slow, 1)) and board.images == 12


def test_missing_scores_are_named():
    with pytest.raises(InputError, match="a score of b is missing"):
        board_of(np.array([[1.0], [np.nan]]))


def test_few_faces_are_widened():
    assert widen(1.0, 10) == pytest.approx(10 / 9 * (2.262157 / 1.959964) ** 2, rel=1e-5)
    assert np.isnan(widen(1.0, 1)) and widen(1.0, 10_000) == pytest.approx(1, abs=1e-3)


# ---- the chance of the training


def test_two_methods_have_the_paired_t_test():
    "With two methods there is nothing to moderate: Student's test of the differences"
    scores = np.random.default_rng(0).normal(0, 1, (2, 4))
    board = board_of(scores)
    assert pair_p_values(board).loc["a", "b"] == pytest.approx(stats.ttest_rel(*scores).pvalue)
    one_sided = stats.ttest_rel(*scores, alternative="greater").pvalue
    assert first_of(board, 200_000)["a"] == pytest.approx(1 - one_sided, abs=0.005)


def test_variances_are_those_of_two_way_analysis_of_variance():
    "Methods that vary alike share the mean square of the residuals; a seed moves all of them"
    luck = [[1, -1, 0, 0], [0, 1, -1, 0], [0, 0, 1, -1], [-1, 0, 0, 1]]
    scores = np.array(luck) + np.arange(4.0)
    variances, freedom = training_variances(board_of(scores))
    left = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    assert freedom == 9 and variances == pytest.approx((left**2).sum() / 9)


def test_methods_that_vary_differently_keep_some_of_it():
    "The variance of a wild method is moved down, that of calm ones up, and none past the other"
    scores = np.random.default_rng(3).normal(0, 1, (6, 8)) * np.array([9, 1, 1, 1, 1, 1])[:, None]
    variances, freedom = training_variances(board_of(scores))
    own = (scores - scores.mean(0)).var(1, ddof=1) * 6 / 5
    assert own[1:].max() < variances[1:].max() < variances[0] < own[0] and freedom < 35


def test_one_training_or_one_method_has_no_such_variance():
    for shape in ((4, 1), (1, 4)):
        variances, freedom = training_variances(board_of(np.ones(shape)))
        assert not variances.any() and np.isinf(freedom)


def test_draws_have_the_variance_of_the_model():
    scores = np.random.default_rng(1).normal(0, 1, (6, 5))
    board = board_of(scores, faces=0.7)
    drawn = draw_tables(board, 40_000)
    estimate = board.difference("a", "b")
    spread = (drawn[:, 0] - drawn[:, 1]).std()
    # the variance of Student's t is larger than its scale
    wider = (estimate.seed_variance / 5) * estimate.seed_freedom / (estimate.seed_freedom - 2)
    assert spread == pytest.approx((estimate.image_variance + wider) ** 0.5, rel=0.05)
    assert drawn.mean(0) == pytest.approx(scores.mean(1), abs=0.02)


# ---- places


def test_twins_share_the_first_place():
    counts = random_counts(3, 30, 4)
    alone = first_of(counts_board({"a": counts, "twin": counts.copy()}, resamples=50))
    assert alone == {"a": 0.5, "twin": 0.5}
    with_worse = {"a": counts, "twin": counts.copy(), "c": np.maximum(counts - [40, 0, 0], 0)}
    first = first_of(counts_board(with_worse, resamples=50))
    assert first["a"] == pytest.approx(0.5, abs=0.03) and first["c"] < 0.01


@pytest.mark.parametrize("higher,best", [(True, "c"), (False, "a")])
def test_one_that_is_clearly_better_is_first(higher, best):
    scores = np.array([[70.0, 70.2], [70.9, 71.0], [74.0, 74.1]])
    board = board_of(scores - 0.9 * (np.arange(3) == 0)[:, None], faces=0.1, higher=higher)
    first = first_of(board)
    assert first[best] > 0.99 and sum(first.values()) == pytest.approx(1)
    table = rank_table(board).set_index("method")
    assert table.loc[best, ["rank_low", "rank_high"]].tolist() == [1, 1]
    assert table.loc[best, "separable_from"] == " ".join(sorted({*"abc"} - {best}))


def test_ties_share_places_in_draws():
    drawn = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    assert first_shares(drawn).tolist() == [0.25, 0.75, 0]
    assert first_shares(drawn, higher=False).tolist() == [0.5, 0, 0.5]


@pytest.mark.parametrize("methods,seeds", [(2, 2), (5, 2), (5, 5)])
def test_equal_methods_are_seldom_called_the_best(methods, seeds):
    "300 tables of equal methods: one of them above 0.975 at most as often as chance allows"
    rng = np.random.default_rng(methods + seeds)
    shares = []
    for _ in range(300):
        board = board_of(rng.normal(0, 1, (methods, seeds)))
        shares.append(list(first_of(board, 1000).values()))
    assert np.mean(shares, 0) == pytest.approx(1 / methods, abs=0.06)
    assert (np.max(shares, 1) > 0.975).mean() <= 0.08


def test_intervals_of_ranks_hold_the_true_one():
    "Five methods a standard error apart: nine of ten intervals and more have the true rank"
    rng, held = np.random.default_rng(8), []
    for _ in range(150):
        board = board_of(np.arange(5)[:, None] + rng.normal(0, 1, (5, 3)))
        table = rank_table(board, draws=1000)
        held.append((table.rank_low <= 5 - np.arange(5)) & (5 - np.arange(5) <= table.rank_high))
    assert np.mean(held) >= 0.9


def test_pairs_of_equal_methods_are_seldom_told_apart():
    rng = np.random.default_rng(5)
    found = [
        np.nanmin(pair_p_values(board_of(rng.normal(0, 1, (5, 3))))) < 0.05 for _ in range(200)
    ]
    assert np.mean(found) <= 0.08
