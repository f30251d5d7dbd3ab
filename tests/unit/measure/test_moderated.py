"""The one model: variances against limma's formulas, tests against definitions, promises

Intervals hold and few equals are called different, also when luck differs between objectives."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, special, stats

from fairparse.core.runs import InputError
from fairparse.measure.moderated import (
    Estimate,
    contrast,
    images_to_decide,
    prior_freedom,
    seed_spread,
    seeds_to_decide,
    shared_variance,
    smallest,
    trigamma_inverse,
)

NAMES = ("single", "linear", "sigmoid", "piecewise", "linear_alt")
EQUAL_LUCK, UNEQUAL_LUCK = (0.8,) * 5, (0.5, 0.6, 0.8, 1.0, 1.4)


def limma_prior(variances, freedom):
    "d0 by the formulas of Smyth (2004, section 6.2), with a root finder"
    e = np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2)
    excess = ((e - e.mean()) ** 2).sum() / (len(e) - 1) - special.polygamma(1, freedom / 2)
    if excess <= 0:
        return np.inf
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-6, 1e6)
    return 2 * half


@pytest.mark.parametrize("x", [1e-3, 0.1, 1.0, 4.9, 100.0])
def test_trigamma_inverse(x):
    assert special.polygamma(1, trigamma_inverse(x)) == pytest.approx(x)


@pytest.mark.parametrize("freedom", [1, 4, 10])
@pytest.mark.parametrize("spread", [1.0, 3.0, 10.0])
def test_prior_freedom_is_limmas(freedom, spread):
    rng = np.random.default_rng(int(10 * spread))
    true = np.geomspace(1 / spread, spread, 12)
    variances = true * rng.chisquare(freedom, 12) / freedom
    expected = max(2.0, limma_prior(variances, freedom))
    assert prior_freedom(variances, freedom) == pytest.approx(expected)


def test_a_worked_example():
    "Three objectives from three seeds, by hand"
    scores = {"a": [70.0, 71.0, 72.0], "b": [71.0, 73.0, 72.0], "c": [69.0, 72.0, 75.0]}
    table = np.array(list(scores.values()))
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    own = (rest**2).sum(1) / 2 * 3 / 2
    spread = seed_spread(scores)
    assert spread.rest == pytest.approx(own.mean())
    assert spread.rest == pytest.approx((rest**2).sum() / 4)  # the interaction's mean square
    assert spread.shared == pytest.approx(3 * table.mean(0).var(ddof=1))
    assert spread.prior == pytest.approx(max(2.0, limma_prior(own, 2)))

    variance, freedom = spread.of(spread.weights({"a": 1, "b": -1}))
    prior = spread.prior
    if np.isinf(prior):
        assert (variance, freedom) == pytest.approx((2 * spread.rest, 4))
    else:
        difference = np.subtract(scores["a"], scores["b"]).var(ddof=1)
        posterior = (prior * 2 * spread.rest + 2 * difference) / (prior + 2)
        assert (variance, freedom) == pytest.approx((posterior, min(prior + 2, 4)))


def test_two_objectives_have_their_own_variance_alone():
    rng = np.random.default_rng(0)
    scores = {"a": rng.normal(size=4), "b": rng.normal(size=4)}
    spread = seed_spread(scores)
    variance, freedom = spread.of(spread.weights({"a": 1, "b": -1}))
    assert variance == pytest.approx((scores["a"] - scores["b"]).var(ddof=1))
    assert freedom == 3


def test_with_two_objectives_it_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 1, 6), rng.normal(0, 1, 6)
    found = contrast(seed_spread({"a": a, "b": b}), {"a": 1, "b": -1}, np.zeros((9, 6)), 10)
    expected = stats.ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_a_level_of_one_objective_has_the_variance_of_its_trainings():
    values = np.array([3.0, 4.0, 8.0])
    spread = seed_spread({"a": values})
    assert spread.of(spread.weights({"a": 1})) == pytest.approx((values.var(ddof=1), 2))


def test_levels_count_what_seeds_share_and_differences_do_not():
    rng = np.random.default_rng(2)
    shared = 5 * rng.normal(size=4)
    scores = {name: shared + rng.normal(size=4) for name in NAMES}
    spread = seed_spread(scores)
    level, freedom = spread.pooled(spread.weights({"linear": 1}))
    within = np.array(list(scores.values())).var(1, ddof=1).mean()
    assert level == pytest.approx(within)  # the mean over objectives of their own variance
    assert 3 <= freedom < 4  # what seeds share is known from four of them alone
    difference, more = spread.pooled(spread.weights({"linear": 1, "single": -1}))
    assert difference < level / 5 and more == 12


def test_one_training_says_nothing_about_luck():
    spread = seed_spread({"a": [1.0], "b": [2.0]})
    found = contrast(spread, {"b": 1, "a": -1}, np.array([[0.5], [1.5], [1.0]]), 10)
    assert found.seeds == 1 and found.seed_variance == 0
    assert found.value == 1.0 and found.error == pytest.approx(0.5)
    assert seeds_to_decide(found, lambda e: e.p_above(0)) == np.inf


def test_bad_input():
    with pytest.raises(InputError, match="different numbers of trainings"):
        seed_spread({"a": [1.0, 2.0], "b": [1.0]})
    with pytest.raises(InputError, match="no scores"):
        seed_spread({})
    with pytest.raises(InputError, match="'c' is none of a, b"):
        seed_spread({"a": [1.0, 2.0], "b": [1.0, 3.0]}).weights({"c": 1})


def test_trainings_that_do_not_differ():
    spread = seed_spread({"a": [5.0, 5.0], "b": [4.0, 4.0], "c": [4.0, 4.0]})
    found = contrast(spread, {"a": 1, "b": -1}, np.zeros((5, 2)), 10)
    assert found.error == 0 and (found.p_above(0), found.p_below(0)) == (0, 1)
    assert (found.p_above(1), found.p_below(1), found.p) == (1, 1, 0)


def test_images_are_not_counted_twice():
    "Of resamples, what moves all trainings alike; what moves each for itself is in their variance"
    rng = np.random.default_rng(3)
    shared, own = rng.normal(0, 2, (4000, 1)), rng.normal(0, 3, (4000, 5))
    of_images, of_each = shared_variance(shared + own)
    assert of_images == pytest.approx(4, rel=0.1) and of_each == pytest.approx(9, rel=0.1)
    found = contrast(seed_spread({"a": np.zeros(5), "b": np.zeros(5)}), {"a": 1}, own, 10)
    assert found.error**2 >= 0.99 * own.mean(1).var(ddof=1)  # never less than the images alone


def test_resamples_without_a_score_are_left_out():
    resampled = np.random.default_rng(0).normal(size=(20, 2))
    with_gaps = np.vstack([resampled, [[np.nan, 1.0]]])
    assert shared_variance(with_gaps) == shared_variance(resampled)
    assert np.isnan(shared_variance(resampled[:1])).all()
    unknown = Estimate(1.0, np.nan)
    assert np.isnan([unknown.p, unknown.low, unknown.p_within(-1, 1)]).all()


def test_two_one_sided_tests():
    "Schuirmann (1987): equal exactly if the 90 % interval lies within the margin"
    rng, seen = np.random.default_rng(4), set()
    for value in rng.normal(0, 1, 200):
        one = Estimate(value, 0.05, 0.3, 6, seeds=3)
        reach = one.error * stats.t.ppf(0.95, one.freedom)
        within = -1 < value - reach and value + reach < 1
        assert (one.p_within(-1, 1) < 0.05) == within
        by_hand = max(stats.t.sf((value + e) / one.error, one.freedom) for e in (1,))
        assert one.p_above(-1) == pytest.approx(by_hand)
        seen.add(within)
    assert seen == {True, False}


def test_outside_two_bounds_that_meet_is_the_two_sided_test():
    one = Estimate(0.8, 0.1, 0.2, 5, seeds=2)
    assert one.p_outside(0, 0) == pytest.approx(one.p)
    assert one.p_outside(-50, 0) == pytest.approx(one.p_above(0))
    assert one.p_outside(-np.inf, 0.2) == pytest.approx(one.p_above(0.2))
    assert one.p_within(-np.inf, np.inf) == 0


@pytest.mark.parametrize("scale", [100.0, 1e-3])
def test_units_change_no_test(scale):
    one = Estimate(0.8, 0.1, 0.2, 5, seeds=2)
    other = one.times(scale)
    assert (other.p, other.freedom) == pytest.approx((one.p, one.freedom))
    assert other.low == pytest.approx(scale * one.low)


@pytest.mark.parametrize("threshold", [1, 2, 3, 17, 1000, 99_999])
def test_the_smallest_number(threshold):
    assert smallest(lambda n: n >= threshold) == threshold
    assert smallest(lambda n: n >= threshold, most=threshold - 1) == np.inf or threshold == 1


def test_what_would_decide():
    one = Estimate(0.6, 0.02, 0.6, 8, seeds=3, images=100)
    for count, more in ((seeds_to_decide, "with_seeds"), (images_to_decide, "with_images")):
        enough = count(one, lambda e: e.p_above(0), 0.01)
        if np.isfinite(enough):
            assert getattr(one, more)(int(enough)).p_above(0) <= 0.01
            assert getattr(one, more)(int(enough) - 1).p_above(0) > 0.01
    assert np.isfinite(seeds_to_decide(one, lambda e: e.p_above(0), 0.01))
    assert images_to_decide(replace(one, value=-1.0), lambda e: e.p_above(0)) == np.inf


# promises, by simulation with normal numbers: mIoU in points, luck of a single training


def simulate(luck, seeds, image_error, draws, seed=0, shared=0.6):
    "p-values of true differences of 0 (all pairs), and of levels"
    rng, luck = np.random.default_rng(seed), np.array(luck)
    pairs = [{i: 1, j: -1} for i in range(5) for j in range(i)]
    differences, levels = [], []
    for _ in range(draws):
        scores = rng.normal(size=(5, seeds)) * luck[:, None] + shared * rng.normal(size=seeds)
        scores += image_error * rng.normal(size=(5, 1))
        spread = seed_spread(dict(enumerate(scores)))
        for parts, found in [*((p, differences) for p in pairs), ({1: 1}, levels)]:
            weights = spread.weights(parts)
            of_images = image_error**2 * float(weights @ weights)
            value = float((weights @ scores).mean())
            found.append(Estimate(value, of_images, *spread.of(weights), seeds).p)
    return np.array(differences), np.array(levels)


@pytest.mark.parametrize("luck", [EQUAL_LUCK, UNEQUAL_LUCK], ids=["equal", "unequal"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_hold_and_equals_are_equal(luck, seeds):
    "93 to 97.5 % of the intervals; no more small p-values than a hundred claims can bear"
    for image_error in (0.0, 0.4):
        differences, levels = simulate(luck, seeds, image_error, 400)
        assert 0.93 <= (differences > 0.05).mean() <= 0.975
        assert 0.92 <= (levels > 0.05).mean() <= 0.98
        worst = 0.006 if luck == EQUAL_LUCK else 0.012
        assert (differences < 0.002).mean() <= worst


def test_pooling_finds_what_a_pair_alone_does_not():
    "A difference of two points by two seeds of five objectives"
    rng, pooled, alone = np.random.default_rng(0), [], []
    for _ in range(300):
        scores = dict(zip(NAMES, rng.normal(0, 0.8, (5, 2)) + 0.6 * rng.normal(size=2)))
        scores["linear"] = scores["linear"] + 2
        pair = {name: scores[name] for name in ("linear", "single")}
        for table, found in ((scores, pooled), (pair, alone)):
            one = contrast(seed_spread(table), {"linear": 1, "single": -1}, np.zeros((3, 2)), 9)
            found.append(one.p < 0.05)
    assert np.mean(pooled) > 2 * np.mean(alone)
