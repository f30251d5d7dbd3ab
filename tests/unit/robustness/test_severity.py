"""Robustness against severity

ImageNet-C's corruption error from plain loops, numbers of the severity table, sweeps on disk with
missing parts.
"""

from zlib import crc32

import numpy as np
import pytest
from helpers import random_counts

from fairparse.core.records import COUNTS, setting_name, write_table
from fairparse.core.runs import InputError
from fairparse.measure.counts import bootstrap_scores, counts_table, interval, iou
from fairparse.robustness.severity import (
    corruption_errors,
    gather_sweep,
    severity_table,
    swept_settings,
)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
SETTINGS = [
    ("none", 0.0),
    ("noise", 0.1),
    ("noise", 0.3),
    ("noise", 0.5),
    ("blur", 0.1),
    ("blur", 0.5),
]


def made_up(rng, skill, seeds=2, images=30):
    hits = rng.binomial(200, skill, (seeds, images, 3))
    return np.stack([hits, (200 - hits) // 2, (201 - hits) // 2], -1)


def sweep(seed=0, settings=SETTINGS, skills=(0.9, 0.88)):
    "Counts of two parsers, of which the second loses half as much under damage"
    rng = np.random.default_rng(seed)
    return {
        (name, s): {
            parser: made_up(rng, skill - loss * s)
            for parser, skill, loss in zip(("single", "linear"), skills, (0.6, 0.3))
        }
        for name, s in settings
    }


def error(counts):
    "1 - mIoU, mean over seeds, from the definition"
    per_seed = []
    for one in counts:
        scores = []
        for c in range(one.shape[1]):
            hit, union = sum(int(i[c][0]) for i in one), sum(int(sum(i[c])) for i in one)
            scores.append(hit / union)
        per_seed.append(1 - sum(scores) / len(scores))
    return sum(per_seed) / len(per_seed)


@pytest.mark.parametrize("baseline", ["single", "linear"])
def test_corruption_errors_are_imagenet_cs(baseline):
    counts = sweep()
    table = corruption_errors(counts, baseline, resamples=20).set_index(["parser", "perturbation"])
    for parser in ("single", "linear"):
        ce, relative = [], []
        for name, severities in (("noise", (0.1, 0.3, 0.5)), ("blur", (0.1, 0.5))):
            own = reference = 0
            lost = reference_lost = 0
            clean = counts["none", 0.0]
            for s in severities:
                damaged = counts[name, s]
                own += error(damaged[parser])
                reference += error(damaged[baseline])
                lost += error(damaged[parser]) - error(clean[parser])
                reference_lost += error(damaged[baseline]) - error(clean[baseline])
            ce.append(100 * own / reference)
            relative.append(100 * lost / reference_lost)
            row = table.loc[parser, name]
            assert row.ce == pytest.approx(ce[-1])
            assert row.relative_ce == pytest.approx(relative[-1])
            assert row.levels == len(severities)
        mean = table.loc[parser, "mean"]
        assert mean.ce == pytest.approx(sum(ce) / 2)
        assert mean.relative_ce == pytest.approx(sum(relative) / 2)
        assert mean.levels == 5
    assert (table.baseline == baseline).all() and len(table) == 6


def test_the_baseline_has_exactly_a_hundred():
    own = corruption_errors(sweep(), "linear", resamples=50).query("parser == 'linear'")
    columns = [c for c in own if "ce" in c.split("_")]
    assert len(columns) == 6 and (own[columns] == 100).all(axis=None)


def test_a_more_robust_parser_is_below_a_hundred_in_both():
    mean = (
        corruption_errors(sweep(), resamples=200)
        .query("parser == 'linear' and perturbation == 'mean'")
        .iloc[0]
    )
    assert mean.ce_high < 100 and mean.relative_ce_high < 100 and mean.relative_ce < mean.ce


def test_worse_on_clean_faces_but_less_to_lose():
    mean = (
        corruption_errors(sweep(skills=(0.9, 0.6)), resamples=50)
        .query("parser == 'linear' and perturbation == 'mean'")
        .iloc[0]
    )
    assert mean.ce > 100 > mean.relative_ce


def test_damage_that_costs_the_baseline_nothing():
    "The relative error has nothing to be relative to; the plain one has"
    counts = sweep()
    counts["blur", 0.1] = counts["blur", 0.5] = counts["none", 0.0]
    table = corruption_errors(counts, resamples=100).set_index(["parser", "perturbation"])
    relative = table[["relative_ce", "relative_ce_low", "relative_ce_high"]]
    assert relative.xs("blur", level=1).isna().all(axis=None)
    assert relative.xs("mean", level=1).isna().all(axis=None)
    assert relative.xs("noise", level=1).notna().all(axis=None)
    assert table[["ce", "ce_low", "ce_high"]].notna().all(axis=None)
    perfect = {
        s: {p: np.stack([c.sum(-1), 0 * c[..., 0], 0 * c[..., 0]], -1) for p, c in parsers.items()}
        for s, parsers in counts.items()
    }
    assert corruption_errors(perfect, resamples=20)[["ce", "relative_ce"]].isna().all(axis=None)


def test_intervals_of_corruption_errors_cover():
    "Truth: errors are 1 - skill by construction"
    true = lambda parser, s: {"single": 0.1 + 0.6 * s, "linear": 0.12 + 0.3 * s}[parser]
    expected = 100 * np.mean(
        [
            sum(true("linear", s) for s in levels) / sum(true("single", s) for s in levels)
            for levels in ((0.1, 0.3, 0.5), (0.1, 0.5))
        ]
    )
    covered = []
    for seed in range(60):
        row = (
            corruption_errors(sweep(seed), resamples=200)
            .query("parser == 'linear' and perturbation == 'mean'")
            .iloc[0]
        )
        covered.append(row.ce_low <= expected <= row.ce_high)
    assert np.mean(covered) >= 0.85, np.mean(covered)


def test_corruption_errors_need_clean_and_damaged_faces():
    counts = sweep()
    with pytest.raises(InputError, match="needs the clean setting"):
        corruption_errors({s: c for s, c in counts.items() if s[0] != "none"})
    with pytest.raises(InputError, match="there is no damage"):
        corruption_errors({("none", 0.0): counts["none", 0.0]})


@pytest.mark.parametrize("baseline,sign", [(None, 1), ("single", 1), ("linear", -1)])
def test_severity_table_equals_a_recomputation(baseline, sign):
    counts = sweep()
    table = severity_table(counts, baseline, resamples=100).set_index(
        ["parser", "perturbation", "severity"]
    )
    assert len(table) == 12 and (table.repetitions == 2).all() and (table.images == 30).all()
    for (name, s), parsers in counts.items():
        scores = {p: 100 * (1 - error(c)) for p, c in parsers.items()}
        other, first = ("linear", "single") if sign == 1 else ("single", "linear")
        for p in parsers:
            row = table.loc[p, name, s]
            assert row.miou == pytest.approx(scores[p])
            assert row.difference == pytest.approx(scores[p] - scores[first])
            np.testing.assert_allclose(
                [row.miou_low, row.miou_high],
                np.multiply(100, interval(bootstrap_scores(parsers[p], iou, resamples=100))),
            )
        paired = interval(
            bootstrap_scores(parsers[other], iou, resamples=100)
            - bootstrap_scores(parsers[first], iou, resamples=100)
        )
        np.testing.assert_allclose(
            table.loc[(other, name, s), ["difference_low", "difference_high"]].astype(float),
            np.multiply(100, paired),
            atol=1e-9,
        )
        assert (
            table.loc[(first, name, s), ["difference", "difference_low", "difference_high"]] == 0
        ).all()


def test_differences_are_paired():
    "One pixel in a hundred better on every damaged face: far inside each interval, yet clear"
    hits = np.random.default_rng(0).integers(60, 160, (1, 40, 3))
    counts = np.stack([hits, (200 - hits) // 2, (201 - hits) // 2], -1)
    row = severity_table(
        {("blur", 0.3): {"single": counts, "linear": counts + np.array([2, -1, -1])}}, resamples=300
    ).iloc[1]
    assert row.difference_low > 0.9
    assert row.difference_high < 1.1
    assert row.miou_high - row.miou_low > 3


def test_sweeps_that_do_not_fit_together():
    counts = sweep()
    for table in (severity_table, corruption_errors):
        with pytest.raises(
            InputError, match=r"baseline 'other' is none of the parsers \['single', 'linear'\]"
        ):
            table(counts, "other")
        with pytest.raises(
            InputError, match=r"settings \['blur_0.5'\] were not counted for the same parsers"
        ):
            table({**counts, ("blur", 0.5): {"single": counts["blur", 0.5]["single"]}})
        fewer = {**counts, ("blur", 0.5): {p: c[:, 1:] for p, c in counts["blur", 0.5].items()}}
        with pytest.raises(InputError, match="different numbers of seeds, faces or classes"):
            table(fewer)
    with pytest.raises(InputError, match="no settings"):
        severity_table({})


# --- sweeps on disk ---

IDS = ["c", "a", "d", "b"]


def save(folder, parser, seed, setting, ids=IDS, table=None):
    counts = random_counts(len(ids), 19, seed=crc32(repr((parser, seed, setting)).encode()))
    path = folder / parser / f"seed{seed}" / "settings" / f"{setting_name(*setting)}.parquet"
    write_table(
        counts_table(counts, ids, parser, seed, *setting) if table is None else table, path, COUNTS
    )
    return counts


@pytest.fixture
def saved(tmp_path):
    return tmp_path, {
        (p, s, setting): save(tmp_path, p, s, setting)
        for p in ("single", "linear")
        for s in (0, 1)
        for setting in SETTINGS
    }


def test_gather_sweep_reads_what_was_written(saved):
    folder, counts = saved
    gathered = gather_sweep(folder, ["single", "linear"], [0, 1], SETTINGS)
    assert list(gathered) == SETTINGS
    order = np.argsort(IDS)  # by id, whatever the order in the file
    for setting, parsers in gathered.items():
        assert list(parsers) == ["single", "linear"]
        for parser, found in parsers.items():
            assert (found == np.stack([counts[parser, s, setting][order] for s in (0, 1)])).all()
    assert len(severity_table(gathered, resamples=20)) == 12
    assert len(corruption_errors(gathered, resamples=20)) == 6
    assert list(gather_sweep(folder, ["linear"], [1], SETTINGS[:2])) == SETTINGS[:2]


def test_missing_parts_of_a_sweep_are_named(saved):
    folder, _ = saved
    (folder / "linear" / "seed1" / "settings" / "noise_0.3.parquet").unlink()
    with pytest.raises(InputError, match="linear/seed1/settings/noise_0.3.parquet is missing"):
        gather_sweep(folder, ["single", "linear"], [0, 1], SETTINGS)
    assert len(gather_sweep(folder, ["single", "linear"], [0], SETTINGS)) == 6
    with pytest.raises(InputError, match="seed7/settings/none.parquet is missing"):
        gather_sweep(folder, ["single"], [0, 7], SETTINGS)
    with pytest.raises(InputError, match="blur_0.9.parquet is missing"):
        gather_sweep(folder, ["single"], [0], [("blur", 0.9)])
    with pytest.raises(InputError, match="no parser 'sigmoid'"):
        gather_sweep(folder, ["sigmoid"], [0], SETTINGS)


def test_parsers_scored_on_other_faces_are_refused(saved):
    folder, _ = saved
    for seed in (0, 1):
        save(folder, "linear", seed, ("blur", 0.5), ["a", "b", "c", "e"])
    with pytest.raises(InputError, match="linear was tested on other faces"):
        gather_sweep(folder, ["single", "linear"], [0, 1], SETTINGS)


def test_a_damaged_file_is_named(saved):
    folder, _ = saved
    path = folder / "single" / "seed0" / "settings" / "blur_0.1.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="single/seed0/settings/blur_0.1.parquet"):
        gather_sweep(folder, ["single"], [0], SETTINGS)


def test_settings_are_those_that_were_swept(tmp_path):
    place = tmp_path / "single" / "seed0" / "settings"
    place.mkdir(parents=True)
    for name in ("none", "hand_0.3", "blur_0.1", "blur_0.3", "salt_and_pepper_0.3"):
        (place / f"{name}.parquet").touch()
    assert swept_settings(tmp_path, "single", 0, severities=[0.3]) == [
        ("none", 0.0),
        ("blur", 0.3),
        ("hand", 0.3),
        ("salt_and_pepper", 0.3),
    ]
    assert swept_settings(tmp_path, "single", 0, ["blur"]) == [
        ("none", 0.0),
        ("blur", 0.1),
        ("blur", 0.3),
    ]
    with pytest.raises(InputError, match="run the stage 'sweep'"):
        swept_settings(tmp_path, "linear", 0)
