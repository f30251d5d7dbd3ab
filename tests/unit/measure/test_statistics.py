"Statistics: scores from sums and adjusted p-values against their definitions"

import numpy as np
from helpers import random_counts

from fairparse.measure.counts import bootstrap_scores, interval, iou
from fairparse.measure.statistics import adjust, class_iou, hits_and_unions, miou_of


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
