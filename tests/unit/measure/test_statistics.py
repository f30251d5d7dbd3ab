"""Statistics: p-values against loops and full enumeration

Uniform where nothing is going on, powerful where something is."""

import itertools

import numpy as np
import pytest
from helpers import random_counts
from scipy import stats

from fairparse.core.runs import InputError
from fairparse.measure.counts import bootstrap_scores, interval, iou
from fairparse.measure.statistics import (
    adjust,
    class_iou,
    combined_p_value,
    hits_and_unions,
    miou_of,
    paired_test,
    seed_p_value,
)


def made_up(rng, skill, images=60, seeds=1, spread=0.05):
    "Counts of a parser whose images vary in difficulty"
    hits = rng.binomial(
        200, np.clip(skill + rng.normal(0, spread, (seeds, images, 1)), 0, 1), (seeds, images, 3)
    )
    return np.stack([hits, (200 - hits) // 2, (201 - hits) // 2], -1)


def slow_miou(counts, classes):
    "mIoU of (N, C, 3) counts, from the definition"
    scores = []
    for c in classes:
        hit = miss = 0
        for image in counts:
            hit, miss = hit + image[c][0], miss + image[c][1] + image[c][2]
        if hit + miss:
            scores.append(hit / (hit + miss))
    return sum(scores) / len(scores)


def exchanged(first, second, coins):
    "Mean difference over seeds after the counts of images whose coin is 1 have been exchanged"
    differences = []
    for a, b in zip(first, second):
        left = [y if e else x for x, y, e in zip(a, b, coins)]
        right = [x if e else y for x, y, e in zip(a, b, coins)]
        differences.append(slow_miou(right, range(a.shape[1])) - slow_miou(left, range(a.shape[1])))
    return sum(differences) / len(differences)


def image_p_value(*arguments, **options):
    return paired_test(*arguments, **options)["p_images"]


def test_sums_and_scores_equal_the_metrics():
    counts = random_counts(2, 9, 4)
    counts[..., 3, :] = 0
    sums = hits_and_unions(counts).sum(1)
    np.testing.assert_allclose(
        class_iou(sums[..., 0], sums[..., 1]), [iou(c, "none") for c in counts]
    )
    np.testing.assert_allclose(miou_of(sums), [slow_miou(c, range(4)) for c in counts])
    np.testing.assert_allclose(
        miou_of(sums, np.array([True, False, True, False])), [slow_miou(c, [0, 2]) for c in counts]
    )
    assert np.isnan(miou_of(sums, np.array([False, False, False, True]))).all()


@pytest.mark.parametrize("seeds", [1, 3])
def test_image_p_value_equals_a_loop_over_the_same_coins(seeds):
    rng = np.random.default_rng(seeds)
    first, second = made_up(rng, 0.80, 12, seeds), made_up(rng, 0.82, 12, seeds)
    coins = np.random.default_rng(5).integers(0, 2, (60, 12))
    observed = abs(exchanged(first, second, np.zeros(12)))
    as_large = sum(abs(exchanged(first, second, toss)) >= observed - 1e-12 for toss in coins)
    assert image_p_value(first, second, tosses=60, seed=5) == pytest.approx((1 + as_large) / 61)


@pytest.mark.parametrize("case", range(3))
def test_image_p_value_approaches_all_tosses_of_eight_images(case):
    rng = np.random.default_rng(case)
    first, second = made_up(rng, 0.80, 8), made_up(rng, 0.83, 8)
    every = [abs(exchanged(first, second, toss)) for toss in itertools.product([0, 1], repeat=8)]
    exact = np.mean([e >= every[0] - 1e-12 for e in every])
    assert image_p_value(first, second, tosses=20_000) == pytest.approx(
        exact, abs=4.5 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4
    )


def test_image_p_value_is_the_same_whichever_parser_is_first():
    rng = np.random.default_rng(0)
    first, second = made_up(rng, 0.8), made_up(rng, 0.81)
    assert image_p_value(first, second) == image_p_value(second, first)
    assert image_p_value(first, first) == 1
    assert image_p_value(first, second, tosses=99) >= 1 / 100  # never 0


def test_image_p_value_runs_over_the_classes_it_is_given():
    rng = np.random.default_rng(0)
    first = made_up(rng, 0.8)
    second = first.copy()
    second[..., 2, :] = made_up(rng, 0.95)[..., 2, :]
    assert image_p_value(first, second, np.array([True, True, False])) == 1
    assert image_p_value(first, second, np.array([False, False, True])) < 0.01


def test_equal_parsers_have_uniform_p_values():
    rng = np.random.default_rng(3)
    p = np.array(
        [
            image_p_value(made_up(rng, 0.8, 30), made_up(rng, 0.8, 30), tosses=199, seed=i)
            for i in range(400)
        ]
    )
    low, high = stats.binom.ppf([0.0005, 0.9995], len(p), 0.05)
    assert low <= (p <= 0.05).sum() <= high, (
        f"{(p <= 0.05).mean():.3f} of the p-values are at most 0.05"
    )
    assert stats.kstest(p, "uniform").pvalue > 1e-4


def test_a_better_parser_is_found():
    rng = np.random.default_rng(4)
    p = np.array(
        [
            image_p_value(made_up(rng, 0.80), made_up(rng, 0.84), tosses=199, seed=i)
            for i in range(50)
        ]
    )
    assert (p <= 0.05).mean() >= 0.9


def test_a_lucky_training_is_not_a_better_method():
    "One training each, of which one was lucky: images alone call it a difference, seeds do not"
    rng = np.random.default_rng(5)
    over_images, over_seeds = [], []
    for _ in range(60):
        first = np.concatenate([made_up(rng, 0.8) for _ in range(5)])
        second = np.concatenate([made_up(rng, 0.8 + luck) for luck in rng.normal(0, 0.05, 5)])
        over_images.append(image_p_value(first, second, tosses=199))
        over_seeds.append(seed_p_value([iou(b) - iou(a) for a, b in zip(first, second)]))
    assert np.mean(np.array(over_images) < 0.05) > 0.4


@pytest.mark.parametrize("seeds", [2, 5])
def test_equal_methods_are_seldom_called_different(seeds):
    """Chance of images and of trainings, of about the same size

    Images alone would be wrong far too often, all three tests are not."""
    rng, wrong, alone = np.random.default_rng(6), [], []
    for _ in range(150):
        hard, luck = rng.normal(0.8, 0.05, 40), rng.normal(0, 0.012, (2, seeds))

        def trained(lucky):
            skill = hard + rng.normal(0, 0.06, 40) + lucky
            return made_up(rng, np.clip(skill, 0, 1)[:, None], 40)

        parsers = [np.concatenate([trained(lucky) for lucky in own]) for own in luck]
        found = paired_test(*parsers, tosses=199)
        wrong.append(found["p"] < 0.05)
        alone.append(found["p_images"] < 0.05)
    assert sum(wrong) <= stats.binom.ppf(0.9995, len(wrong), 0.05), f"{np.mean(wrong):.3f}"
    assert sum(alone) > sum(wrong)


def test_the_combined_test_adds_both_variances():
    d, error = np.array([0.5, 1.0, 0.6, 0.9]), 0.2
    seeds = d.var(ddof=1) / 4
    freedom = (error**2 + seeds) ** 2 / (seeds**2 / 3)
    assert combined_p_value(d, error) == pytest.approx(
        2 * stats.t.sf(d.mean() / np.sqrt(error**2 + seeds), freedom)
    )
    assert combined_p_value(d, 0.0) == pytest.approx(seed_p_value(d)) and combined_p_value(
        [0.4, 0.4], 0.2
    ) == pytest.approx(2 * stats.norm.sf(2))
    assert np.isnan(combined_p_value([0.4], 0.2)) and combined_p_value([0.0, 0.0], 0.0) == 1


def test_a_claim_must_survive_every_test():
    rng = np.random.default_rng(7)
    first, second = (
        np.concatenate([made_up(rng, skill) for _ in range(3)]) for skill in (0.8, 0.82)
    )
    found = paired_test(first, second)
    assert found["p"] >= max(found["p_images"], found["p_seeds"])
    alone = paired_test(first[:1], second[:1])
    assert np.isnan(alone["p_seeds"]) and alone["p"] == alone["p_images"]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_seed_p_value_is_the_t_test(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    t = d.mean() / (d.std(ddof=1) / np.sqrt(n))
    assert seed_p_value(d) == pytest.approx(2 * stats.t.sf(abs(t), n - 1))


def test_seeds_that_cannot_be_asked():
    assert np.isnan(seed_p_value([0.3])) and np.isnan(seed_p_value([]))
    assert seed_p_value([0.0, 0.0]) == 1 and seed_p_value([0.2, 0.2, 0.2]) == 0


def test_parsers_of_different_shape_and_single_images():
    with pytest.raises(InputError, match="differ in shape"):
        image_p_value(random_counts(2, 5, 3), random_counts(1, 5, 3))
    assert np.isnan(
        list(paired_test(random_counts(1, 1, 3), random_counts(1, 1, 3)).values())
    ).all()


def test_adjusted_p_values_equal_the_procedure():
    p = np.random.default_rng(0).random(25) ** 2
    order = sorted(range(25), key=lambda i: p[i])
    expected, lowest = np.empty(25), 1.0
    for rank in range(25, 0, -1):
        lowest = min(lowest, p[order[rank - 1]] * 25 / rank)
        expected[order[rank - 1]] = lowest
    np.testing.assert_allclose(adjust(p), expected)
    assert (adjust(p) >= p).all() and (np.diff(adjust(p)[order]) >= 0).all()


def test_adjusting_ignores_what_was_not_asked():
    p = np.array([0.01, np.nan, 0.04, np.nan, 0.5])
    adjusted = adjust(p)
    np.testing.assert_allclose(adjusted[[0, 2, 4]], adjust(p[[0, 2, 4]]))
    assert np.isnan(adjusted[[1, 3]]).all() and adjust(np.array([0.2]))[0] == 0.2
    assert np.isnan(adjust(np.array([np.nan, np.nan]))).all() and adjust(np.array([])).shape == (0,)


def test_paired_resamples_are_much_sharper_than_two_intervals():
    "Two parsers that differ by one hit in a hundred on every image"
    rng = np.random.default_rng(6)
    first = made_up(rng, 0.7, 100, spread=0.1)
    second = first + np.array([2, -1, -1])
    a, b = bootstrap_scores(first), bootstrap_scores(second)
    low, high = interval(b - a)
    own_low, own_high = interval(a)
    assert low > 0 and (high - low) < 0.1 * (own_high - own_low)
    unpaired_low, unpaired_high = interval(bootstrap_scores(second, seed=9) - a)
    assert (high - low) < 0.1 * (unpaired_high - unpaired_low) and unpaired_low < 0
