"Distances of sets of faces: golden values, halves, intervals that cover, tables with warnings"

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from fairparse.core.records import QUALITY, REPLICATES, read_table, write_table
from fairparse.core.runs import InputError
from fairparse.measure.counts import iou
from fairparse.measure.distances import (
    Measurement,
    distances,
    feature_statistics,
    frechet_distance,
    half_samples,
    kernel_blocks,
    kernel_distance,
    kernel_label,
    kid_subset_size,
    mean_of_faces,
    metric_note,
    miou_of_counts,
    share_followed,
    summarise,
)

PICTURE = {"model": "pix2pixhd_own", "maps": "single", "perturbation": "none", "severity": 0.0}


def draws(n, width, seed=0, shift=0.0, scale=1.0):
    "Features as a network gives them: correlated, not centred, float32"
    rng = np.random.default_rng(99)
    mixing, middle = rng.normal(size=(width, width)) / width**0.5, rng.uniform(0, 1, width)
    return (np.random.default_rng(seed).normal(shift, scale, (n, width)) @ mixing + middle).astype(
        np.float32
    )


def fidelity(first, second):
    return fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(f.astype(float))) for f in (first, second)),
        False,
    )["frechet_inception_distance"]


def ids(n):
    return np.array([f"{i:05d}" for i in range(n)])


# ---- Fréchet


def test_a_set_has_no_distance_to_itself():
    for n, width in ((20, 200), (300, 40)):
        features = draws(n, width)
        assert abs(frechet_distance(features, features)) < 1e-4


@pytest.mark.parametrize(
    "n, m, width",
    [(20, 30, 150), (30, 20, 150), (20, 200, 150), (200, 300, 50), (50, 50, 50), (2, 2, 10)],
)
def test_the_turned_axes_change_nothing(n, m, width):
    first, second = draws(n, width), draws(m, width, 1, 0.5, 1.3)
    expected = fidelity(first, second)
    assert np.isclose(frechet_distance(first, second), expected, rtol=1e-5)
    assert np.isclose(frechet_distance(first, feature_statistics(second)), expected, rtol=1e-5)
    assert np.isclose(frechet_distance(second, first), expected, rtol=1e-5)


def test_two_gaussians_give_the_closed_form():
    """Means 0 and m, covariances of the same eigenvectors

    d² = |m|² + the sum of (sqrt(a) - sqrt(b))²"""
    rng, width, n = np.random.default_rng(0), 6, 100_000
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    a, b, mean = rng.uniform(0.5, 2, width), rng.uniform(0.5, 2, width), rng.normal(size=width)
    first, second = (
        (rng.normal(size=(n, width)) * a**0.5) @ turn.T,
        (rng.normal(size=(n, width)) * b**0.5) @ turn.T + mean,
    )
    assert np.isclose(
        frechet_distance(first, second), mean @ mean + ((a**0.5 - b**0.5) ** 2).sum(), rtol=0.01
    )


def test_distances_grow_with_noise():
    features, noise = draws(60, 300), np.random.default_rng(5).normal(size=(60, 300))
    frechet = [frechet_distance(features + s * noise, features) for s in (0.1, 0.5, 1, 2)]
    kernel = [
        kernel_distance(features + s * noise, features, 60, paired=True) for s in (0.1, 0.5, 1, 2)
    ]
    assert frechet == sorted(frechet) and kernel == sorted(kernel)


@pytest.mark.parametrize(
    "first, second",
    [
        (np.zeros((1, 4)), np.zeros((5, 4))),
        (np.zeros((5, 4)), np.zeros((5, 3))),
        (np.full((5, 4), np.nan), np.zeros((5, 4))),
        (np.zeros(4), np.zeros((5, 4))),
    ],
)
def test_impossible_features_are_refused(first, second):
    with pytest.raises(InputError):
        frechet_distance(first, second)
    with pytest.raises(InputError):
        kernel_distance(np.atleast_2d(first), second, 5)


# ---- kernel


def test_kernel_distance_is_torch_fidelitys():
    first, second = draws(40, 30), draws(40, 30, 1, 0.3)
    expected = kid_features_to_metric(
        torch.from_numpy(first),
        torch.from_numpy(second),
        kid_subsets=1,
        kid_subset_size=40,
        verbose=False,
    )["kernel_inception_distance_mean"]
    assert np.isclose(kernel_distance(first, second, 40), expected, rtol=1e-4)


@pytest.mark.parametrize("paired", [False, True])
def test_kernel_distance_is_unbiased(paired):
    "Two halves of one set: 0 on average, below 0 about half of the time, whatever the size"
    for n in (10, 40):
        values = [
            kernel_distance(*draws(2 * n, 8, seed).reshape(2, n, 8), n, paired)
            for seed in range(200)
        ]
        assert (
            abs(np.mean(values)) < 3 * np.std(values) / 200**0.5
            and 0.3 < np.mean(np.array(values) < 0) < 0.8
        )


def test_blocks_cover_all_pictures():
    first, second = draws(50, 20), draws(30, 20, 1)
    for row in (0, 25, 49):
        moved = first.copy()
        moved[row] += 5
        assert kernel_distance(moved, second, 20) != kernel_distance(first, second, 20)
    with pytest.raises(InputError, match="subsets of 40"):
        kernel_distance(first, second, 40)
    with pytest.raises(InputError, match="fit each other"):
        kernel_distance(first, second, 20, paired=True)


def test_blocks_that_are_kept_give_the_same_distance():
    first, second = draws(26, 20), draws(100, 20, 1)
    kept = kernel_blocks(second, 26)
    assert len(kept.blocks) == len(kept.within) == 4
    assert kernel_distance(first, kept, 26) == kernel_distance(first, second, 26)
    assert kernel_distance(first[:10], kernel_blocks(second[:10], 10), 10, paired=True) == (
        kernel_distance(first[:10], second[:10], 10, paired=True)
    )
    with pytest.raises(InputError, match="fit each other"):
        kernel_distance(first, kept, 20)  # blocks of another size
    with pytest.raises(InputError, match="fit each other"):
        kernel_distance(first, kernel_blocks(second[:27], 20), 20, paired=True)


@pytest.mark.parametrize("n, size", [(5, 2), (187, 93), (2000, 1000), (2824, 1000)])
def test_subset_size_follows_n(n, size):
    assert kid_subset_size(n) == size


# ---- halves


def test_halves_depend_on_the_set_of_ids_alone():
    names = ids(21)
    shuffled = np.random.default_rng(3).permutation(names)
    first, second = names[half_samples(names, 30)], shuffled[half_samples(shuffled, 30)]
    assert (first == second).all() and first.shape == (30, 10)
    assert all(len(set(half)) == 10 for half in first)
    assert (half_samples(names, 5) == half_samples(names, 30)[:5]).all(), (
        "more halves leave the first ones alone"
    )
    assert (half_samples(names, 5, seed=1) != half_samples(names, 5)).any()


@pytest.mark.parametrize(
    "names, count", [(["a", "b", "a", "c"], 10), (["a", "b", "c"], 10), (["a", "b", "c", "d"], 1)]
)
def test_impossible_halves_are_refused(names, count):
    with pytest.raises(InputError):
        half_samples(names, count)


def test_intervals_of_a_mean_cover():
    """LPIPS-like numbers, skewed as they are

    The interval from halves holds the true mean in about 95 of 100 studies."""
    n, studies, rng = 100, 1500, np.random.default_rng(0)
    halves = half_samples(ids(n))
    values = rng.lognormal(-1, 0.3, (studies, n))
    spread = values[:, halves].mean(2).std(1, ddof=1)
    covered = np.abs(values.mean(1) - np.exp(-1 + 0.3**2 / 2)) < 1.96 * spread
    assert 0.92 < covered.mean() < 0.98
    assert np.isclose(spread.mean(), values.std() / n**0.5, rtol=0.05)


def test_the_spread_of_a_frechet_distance_is_not_understated():
    "Against what the value does from study to study (its bias is another matter)"
    n, width = 60, 8
    halves, values, spreads = half_samples(ids(n), 40), [], []
    for seed in range(60):
        first, second = draws(n, width, 2 * seed), draws(n, width, 2 * seed + 1, 0.4)
        values.append(frechet_distance(first, second))
        spreads.append(np.std([frechet_distance(first[h], second[h]) for h in halves], ddof=1))
    ratio = np.mean(spreads) / np.std(values)
    covered = np.mean(np.abs(np.array(values) - np.mean(values)) < 1.96 * np.array(spreads))
    assert 0.85 < ratio < 1.6 and covered > 0.9, (ratio, covered)


# ---- measurements and tables


def measure(n=24, width=40, seed=0, train=60):
    real, halves = draws(n, width, 100), half_samples(ids(n), 20)
    return distances(
        draws(n, width, seed, 0.3), real, draws(train, width, 101), halves, "fd128_classifier"
    )


@pytest.mark.parametrize("train", [30, 60])
def test_distances_name_their_reference_and_size(train):
    found = measure(train=train)
    assert [(m.metric, m.reference, m.subset, m.n) for m in found] == [
        ("fd128_classifier_test", "test", 0, 24),
        ("kd128_classifier_test", "test", 12, 24),
        ("fd128_classifier_train", "train", 0, 24),
        ("kd128_classifier_train", "train", 12, 24),
    ]
    generated = draws(24, 40, 0, 0.3)
    real = draws(24, 40, 100)
    whole = draws(train, 40, 101)
    halves = half_samples(ids(24), 20)
    assert np.isclose(found[0].value, fidelity(generated, real), rtol=1e-5)
    assert np.isclose(found[2].value, fidelity(generated, whole), rtol=1e-5)
    assert np.isclose(
        found[0].replicates[3], fidelity(generated[halves[3]], real[halves[3]]), rtol=1e-5
    )
    assert np.isclose(found[2].replicates[3], fidelity(generated[halves[3]], whole), rtol=1e-5), (
        "the training faces stay whole"
    )
    assert np.isclose(found[1].value, found[1].replicates.mean())


def test_measurements_do_not_depend_on_the_order_of_faces():
    generated, real, names = draws(24, 40, 0, 0.3), draws(24, 40, 100), ids(24)
    order = np.random.default_rng(1).permutation(24)
    one = distances(generated, real, None, half_samples(names, 10), "fid2048_inception")
    two = distances(
        generated[order], real[order], None, half_samples(names[order], 10), "fid2048_inception"
    )
    assert [m.metric for m in one] == ["fid2048_inception_test", "kid2048_inception_test"]
    for a, b in zip(one, two):
        assert np.isclose(a.value, b.value, rtol=1e-6)
        np.testing.assert_allclose(a.replicates, b.replicates, rtol=1e-6)


def test_other_faces_and_labels_are_refused():
    with pytest.raises(InputError, match="same faces"):
        distances(draws(24, 8), draws(23, 8), None, half_samples(ids(24), 5), "fid2048_inception")
    with pytest.raises(InputError, match="same faces"):
        distances(draws(24, 8), draws(24, 8), None, half_samples(ids(20), 5), "fid2048_inception")
    with pytest.raises(InputError, match="label"):
        kernel_label("inception")


def test_means_and_counts():
    rng, halves = np.random.default_rng(0), half_samples(ids(20), 15)
    values, counts = rng.random(20), rng.integers(1, 50, (20, 5, 3))
    mean, miou = (
        mean_of_faces("lpips_alex", values, halves),
        miou_of_counts("miou_followed", counts, halves),
    )
    assert np.isclose(mean.value, values.mean()) and np.isclose(
        mean.replicates[4], values[halves[4]].mean()
    )
    assert np.isclose(miou.value, iou(counts)) and np.isclose(
        miou.replicates[4], iou(counts[halves[4]])
    )
    assert mean.reference == miou.reference == "paired"


def test_the_table_has_a_row_a_repetition_and_their_mean(tmp_path):
    repetitions = [measure(seed=s) for s in range(3)]
    quality, replicates = summarise(PICTURE, repetitions)
    write_table(quality, tmp_path / "quality.parquet", QUALITY)
    write_table(replicates, tmp_path / "replicates.parquet", REPLICATES)
    assert len(read_table(tmp_path / "quality.parquet", QUALITY)) == 4 * 4
    assert len(read_table(tmp_path / "replicates.parquet", REPLICATES)) == 4 * 4 * 20
    one = quality[quality.metric == "fd128_classifier_test"].set_index("seed")
    assert (
        np.isclose(one.value[-1], one.value[[0, 1, 2]].mean())
        and (one.low < one.value).all()
        and (one.value < one.high).all()
    )
    assert np.isclose(one.high[1] - one.value[1], 1.96 * repetitions[1][0].replicates.std(ddof=1))
    shared = replicates[replicates.metric == "fd128_classifier_test"].pivot(
        index="replicate", columns="seed", values="value"
    )
    np.testing.assert_allclose(shared[-1], shared[[0, 1, 2]].mean(axis=1))


def made(value, spread=0.01, metric="lpips_alex", n=50):
    return [Measurement(metric, value, value + spread * np.resize([-1.0, 1.0], 20), n, "paired")]


def test_the_mean_row_covers_faces_and_repetitions():
    def reach(*values):
        row = summarise(PICTURE, [made(v) for v in values])[0].query("seed == -1").iloc[0]
        return row.high - row.value, row.note

    alone, note = reach(0.4)
    assert "one repetition" in note and np.isclose(
        alone, 1.96 * np.std(np.resize([-1.0, 1.0], 20), ddof=1) * 0.01
    )
    assert reach(0.4, 0.4)[1] == "" and alone < reach(0.4, 0.4)[0] < 1.1 * alone, (
        "equal repetitions: a t quantile instead of 1.96"
    )
    assert reach(0.3, 0.5)[0] > 0.5, "two repetitions far apart: t with one degree of freedom"
    assert reach(0.3, 0.4, 0.5)[0] < reach(0.3, 0.5)[0]


def test_intervals_over_repetitions_cover():
    "Faces and training both move the value; three repetitions on the same faces"
    rng, hits = np.random.default_rng(0), []
    halves = half_samples(ids(60), 60)
    for _ in range(120):
        faces, training = rng.normal(0, 0.1, 60), rng.normal(0, 0.012, 3)
        rows = summarise(
            PICTURE,
            [
                [mean_of_faces("lpips_alex", 0.4 + faces + t + rng.normal(0, 0.02, 60), halves)]
                for t in training
            ],
        )[0]
        low, high = rows.loc[rows.seed == -1, ["low", "high"]].iloc[0]
        hits.append(low < 0.4 < high)
    assert 0.9 < np.mean(hits) <= 0.99, np.mean(hits)


@pytest.mark.parametrize(
    "metric, n, words, without",
    [
        ("fid2048_inception_test", 187, "fewer than 2,048", "stand-in"),
        ("fid2048_inception_train", 2048, "", "fewer"),
        ("kid2048_inception_test", 187, "", "fewer"),
        ("fd128_classifier_test", 187, "no FID", "2,048"),
        ("fd128_classifier_test", 187, "biased upwards", "2,048"),
        ("kd128_classifier_test", 9999, "stand-in", "biased"),
        ("fd2048_otherweights_test", 9, "not the weights of FID", "stand-in"),
        ("lpips_alex", 9, "", "images"),
    ],
)
def test_notes_warn_in_the_table_itself(metric, n, words, without):
    note = metric_note(metric, n)
    assert words in note and without not in note and (words or not note)
    assert summarise(PICTURE, [made(0.1, metric=metric, n=n)] * 2)[0].note.eq(note).all()


def test_repetitions_must_measure_the_same():
    with pytest.raises(InputError, match="same metrics"):
        summarise(PICTURE, [made(0.1), made(0.1, n=49)])
    with pytest.raises(InputError, match="same metrics"):
        summarise(PICTURE, [made(0.1), made(0.1) + made(0.2, metric="lpips_vgg")])
    with pytest.raises(InputError, match="same metrics"):
        summarise(PICTURE, [])


def test_the_share_of_the_way_from_floor_to_ceiling():
    assert (
        share_followed(0.5, 0.25, 0.75) == 0.5
        and share_followed(0.8, 0.2, 0.7) == pytest.approx(1.2)
        and share_followed(0.1, 0.2, 0.7) == pytest.approx(-0.2)
    )
    assert np.isnan(share_followed([0.3, 0.3], [0.2, 0.4], [0.2, 0.3])).all()
