"Counts: equal to torchmetrics and smp, fast, strict about labels; intervals that cover"

import statistics
import time

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torchmetrics.functional.classification as tm
from helpers import random_counts
from hypothesis import given, settings
from hypothesis import strategies as st

from fairparse.core.records import COUNTS
from fairparse.core.runs import InputError
from fairparse.measure.counts import (
    bootstrap_scores,
    confusion,
    count_pixels,
    counts_array,
    counts_table,
    dice,
    interval,
    iou,
    mean_present,
    resample_weights,
)


def masks(case, classes=7, shape=(5, 16, 16)):
    "Predicted and true masks: random and degenerate ones"
    generator = torch.Generator().manual_seed(1)
    pred, true = (torch.randint(0, classes, shape, generator=generator) for _ in range(2))
    if case == "same":
        pred = true.clone()
    if case == "one class":
        pred, true = torch.full(shape, 2), torch.full(shape, 2)
    if case == "disjoint":
        pred, true = pred % 3, true % 3 + 3
    if case == "class only predicted":
        true[true == 4] = 0
    if case == "class only true":
        pred[pred == 4] = 0
    if case == "class absent":
        pred[pred == 4], true[true == 4] = 0, 0
    return pred, true


CASES = [
    "random",
    "same",
    "one class",
    "disjoint",
    "class only predicted",
    "class only true",
    "class absent",
]


@pytest.mark.parametrize("case", CASES)
def test_iou_and_dice_equal_torchmetrics(case):
    pred, true = masks(case)
    counts = count_pixels(pred, true, 7)
    there = counts.sum((0, 2)) > 0
    per_class = tm.multiclass_jaccard_index(pred, true, 7, average="none").numpy()
    np.testing.assert_allclose(iou(counts, "none")[there], per_class[there], atol=1e-6)
    assert np.isnan(iou(counts, "none")[~there]).all()
    assert iou(counts) == pytest.approx(per_class[there].mean(), abs=1e-6)
    assert iou(counts, "micro") == pytest.approx(
        tm.multiclass_jaccard_index(pred, true, 7, average="micro").item(), abs=1e-6
    )
    f1 = tm.multiclass_f1_score(pred, true, 7, average="none").numpy()
    np.testing.assert_allclose(dice(counts, "none")[there], f1[there], atol=1e-6)
    assert dice(counts) == pytest.approx(
        tm.multiclass_f1_score(pred, true, 7, average="macro").item(), abs=1e-6
    )
    assert dice(counts, "micro") == pytest.approx(
        tm.multiclass_f1_score(pred, true, 7, average="micro").item(), abs=1e-6
    )


@pytest.mark.parametrize("case", CASES)
def test_counts_equal_smp(case):
    pred, true = masks(case)
    tp, fp, fn, _ = smp.metrics.get_stats(pred, true, mode="multiclass", num_classes=7)
    assert (count_pixels(pred, true, 7) == torch.stack([tp, fp, fn], -1).numpy()).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_counts_the_same_and_is_left_alone(dtype):
    pred, true = masks("random")
    ours, theirs = pred.to(dtype), true.to(dtype)
    assert (count_pixels(ours, theirs, 7) == count_pixels(pred, true, 7)).all()
    assert torch.equal(ours.long(), pred) and torch.equal(theirs.long(), true)


def test_confusion_adds_up():
    pred, true = masks("random")
    matrix = confusion(pred, true, 7)
    assert matrix.shape == (5, 7, 7) and (matrix.sum((1, 2)) == 256).all()
    assert matrix[3, 1, 2] == ((true[3] == 1) & (pred[3] == 2)).sum()
    assert count_pixels(pred[:0], true[:0], 7).shape == (0, 7, 3)


@pytest.mark.parametrize(
    "where,value", [("true", 7), ("true", -1), ("predicted", 19), ("predicted", -3)]
)
def test_labels_out_of_range_are_refused(where, value):
    pred, true = masks("random")
    (true if where == "true" else pred)[2, 3, 4] = value
    with pytest.raises(InputError, match=f"{where} masks hold labels .*{value}.*0..6"):
        count_pixels(pred, true, 7)


def test_masks_of_another_shape_are_refused():
    pred, true = masks("random")
    with pytest.raises(InputError, match="shape"):
        count_pixels(pred[:, :8], true, 7)


def test_not_slower_than_smp():
    generator = torch.Generator().manual_seed(0)
    pred, true = (torch.randint(0, 19, (64, 256, 256), generator=generator) for _ in range(2))
    seconds = {"ours": [], "smp": []}
    for _ in range(3):
        for name, count in (
            ("ours", lambda: count_pixels(pred, true, 19)),
            ("smp", lambda: smp.metrics.get_stats(pred, true, mode="multiclass", num_classes=19)),
        ):
            start = time.perf_counter()
            count()
            seconds[name].append(time.perf_counter() - start)
    print({name: f"{statistics.median(s):.3f} s" for name, s in seconds.items()})
    assert statistics.median(seconds["ours"]) <= statistics.median(seconds["smp"])


def test_reductions_by_hand():
    counts = np.array(
        [[[2, 0, 2], [2, 2, 0], [0, 0, 0]], [[4, 0, 0], [0, 0, 0], [0, 0, 0]]]
    )  # two images, three classes, four pixels each
    assert iou(counts, "none")[:2].tolist() == [6 / 8, 2 / 4] and np.isnan(iou(counts, "none")[2])
    assert iou(counts) == (6 / 8 + 2 / 4) / 2
    assert iou(counts, "image") == ((2 / 4 + 2 / 4) / 2 + 1) / 2
    assert iou(counts, "micro") == 8 / 12 and dice(counts, "micro") == 16 / 20
    assert dice(counts) == pytest.approx((12 / 14 + 4 / 6) / 2)
    assert iou(counts[None].repeat(3, 0)).shape == (3,)
    assert np.isnan(iou(np.zeros((2, 3, 3)))) and np.isnan(mean_present(np.array([np.nan])))


def test_wrong_reductions_and_shapes_are_refused():
    with pytest.raises(InputError, match="macro"):
        iou(random_counts(2, 3), "macro")
    with pytest.raises(InputError, match="images, classes, 3"):
        iou(np.zeros((3, 3)))
    with pytest.raises(InputError, match="class"):
        bootstrap_scores(random_counts(1, 2, 3), iou, "image")


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 19), st.integers(0, 100))
def test_table_and_array_are_inverse(images, classes, seed):
    counts = random_counts(images, classes, seed=seed)
    table = COUNTS.check(
        counts_table(counts, [f"face {i}" for i in range(images)], "linear", 3, "blur", 0.3)
    )
    ids, back = counts_array(table.sample(frac=1, random_state=seed))
    assert (back == counts).all() and list(ids) == [f"face {i}" for i in range(images)]


def test_incomplete_and_mixed_tables_are_refused():
    table = counts_table(random_counts(3, 4), list("abc"), "linear", 0)
    other = counts_table(random_counts(3, 4), list("abc"), "linear", 1)
    import pandas as pd

    for wrong in (table.drop(5), pd.concat([table, other]), table.replace({"class_id": {2: 1}})):
        with pytest.raises(InputError, match="one row for each image and class"):
            counts_array(wrong)
    with pytest.raises(InputError, match="no counts"):
        counts_array(table[table.perturbation == "blur"])


def test_bootstrap_covers_the_truth():
    "The mean over many images is known; intervals from 60 of them hold it about 95 times in 100"
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        skill = rng.beta(6, 2, (1, 60, 1))
        tp = rng.binomial(400, skill)
        samples = bootstrap_scores(np.stack([tp, 400 - tp, 0 * tp], -1), resamples=400, seed=trial)
        low, high = interval(samples)
        covered += (
            low <= 0.75 <= high
        )  # tp / (tp + fp + fn) = tp / 400, and beta(6, 2) has mean 0.75
    assert 180 <= covered <= 199


def test_bootstrap_is_paired_and_repeatable():
    counts = random_counts(1, 80, 5)
    better = counts.copy()
    better[..., 0] += 1
    first, second = bootstrap_scores(counts), bootstrap_scores(better)
    assert (second > first).all() and (first == bootstrap_scores(counts)).all()
    assert np.ptp(second - first) < 0.2 * np.ptp(first)
    assert (first != bootstrap_scores(counts, seed=1)).any()


def test_constant_data_has_an_interval_of_width_zero():
    counts = np.tile([8, 1, 1], (2, 30, 4, 1))
    for reduction in ("class", "micro", "none"):
        low, high = interval(bootstrap_scores(counts, iou, reduction, 50))
        assert np.allclose(low, 0.8) and np.allclose(high, 0.8)


def test_seeds_widen_the_interval():
    one = np.tile([[[50, 25, 25]]], (1, 30, 4, 1))
    low, high = interval(
        bootstrap_scores(np.concatenate([one, np.tile([[[90, 5, 5]]], (1, 30, 4, 1))]))
    )
    assert low == pytest.approx(0.5) and high == pytest.approx(0.9)
    assert (resample_weights(7, 100).sum(1) == 7).all()


def test_a_class_that_no_resample_contains_is_missing():
    counts = random_counts(1, 10, 3)
    counts[..., 2, :] = 0
    samples = bootstrap_scores(counts, iou, "none", 20)
    assert (
        np.isnan(samples[:, 2]).all()
        and np.isfinite(samples[:, :2]).all()
        and np.isfinite(bootstrap_scores(counts)).all()
    )
