"The benchmark of damage, counts and resampling: all ways of a case do the same work"

import importlib.util
import sys

import numpy as np
import pandas as pd
import pytest

from fairparse.bench import scores as module
from fairparse.bench.scores import (
    CORRUPTIONS,
    bootstrap_cases,
    count_cases,
    fairlearn_bootstrap,
    load_imagecorruptions,
    made_counts,
    median_finding,
    perturb_cases,
    plain_bootstrap,
)
from fairparse.bench.timing import finding, measure
from fairparse.core.runs import InputError
from fairparse.data.damage import PERTURBATIONS
from fairparse.data.groups import Groups
from fairparse.measure.counts import resample_weights
from fairparse.measure.fairness import bootstrap_groups, group_scores


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None,
        reason=f"{package} is not installed: pip install {package}",
    )


# perturbations


@needs("imagecorruptions")
def test_imagecorruptions_is_loaded_and_leaves_nothing_behind():
    before = "pkg_resources" in sys.modules
    theirs = load_imagecorruptions()
    assert ("pkg_resources" in sys.modules) == before and set(CORRUPTIONS.values()) <= set(
        theirs.get_corruption_names("all")
    )
    assert theirs.corrupt(np.full((32, 32, 3), 100, np.uint8), 3, "gaussian_blur").shape == (
        32,
        32,
        3,
    )


@needs("imagecorruptions")
def test_perturbations_have_a_case_each_and_their_ways_damage_as_many_images():
    cases = perturb_cases(2, 48)
    assert [case.name.split(", ")[-1] for case in cases] == list(CORRUPTIONS) and set(
        CORRUPTIONS
    ) < set(PERTURBATIONS)
    for case in cases:
        ours, theirs = case.ways["ours"](), case.ways["imagecorruptions"]()
        assert (
            ours.shape == (2, 3, 48, 48)
            and np.stack(theirs).shape == (2, 48, 48, 3)
            and case.amount == 2
        )
        assert all(goal.at_least is None and goal.at_most is None for goal in case.goals)


@needs("imagecorruptions")
def test_the_median_of_measured_cases():
    findings = pd.concat(
        [measure(case, 1)[1] for case in perturb_cases(1, 32)[:3]], ignore_index=True
    )
    row = median_finding(findings)
    assert (
        row["value"] == findings.value.median()
        and row["case"] == "median of 3 perturbations"
        and row["at_least"] == 5
    )


def test_the_median_finding():
    single = [
        finding(
            "perturb",
            f"64 images of 256 px, {name}",
            "ours, beside imagecorruptions",
            value,
            "times as fast",
        )
        for name, value in (("blur", 2), ("jpeg", 0.5), ("contrast", 6), ("brightness", 30))
    ]
    row = median_finding(
        pd.DataFrame([*single, finding("perturb", "another", "something else", 100, "MB")])
    )
    assert (row["part"], row["value"], row["low"], row["high"], row["reached"]) == (
        "perturb",
        4,
        0.5,
        30,
        "no",
    ) and "blur 2.0; jpeg 0.5" in row["note"]
    assert (
        median_finding(pd.DataFrame(single[2:]))["reached"] == "yes"
        and median_finding(pd.DataFrame(single + [row]))["value"] == 4
    )
    with pytest.raises(InputError, match="no perturbation"):
        median_finding(pd.DataFrame(single)[:0])


# counts


@needs("torchmetrics")
@pytest.mark.parametrize("shape, classes", [((3, 20, 33), 5), ((1, 8, 8), 19), ((2, 64, 48), 2)])
def test_all_ways_count_the_same(shape, classes):
    (case,) = count_cases(shape, classes)
    counts = [way() for way in case.ways.values()]
    assert (
        counts[0].shape == (shape[0], classes, 3)
        and all((c == counts[0]).all() for c in counts)
        and len(counts) == 3
    )
    assert (counts[0][..., 0] + counts[0][..., 2]).sum() == np.prod(shape) and counts[0][
        ..., 1
    ].sum() > 0
    assert {(goal.beside, goal.at_most) for goal in case.goals} == {
        ("smp.metrics", 1.0),
        ("torchmetrics", 0.1),
    }


# resampling


@pytest.mark.parametrize(
    "images, groups, classes, seed", [(60, 5, 4, 0), (25, 3, 1, 1), (7, 8, 19, 2)]
)
def test_the_plain_loop_gives_the_same_scores(images, groups, classes, seed):
    counts, named = made_counts(images, groups, classes, seed)
    draws = [np.repeat(np.arange(images), times) for times in resample_weights(images, 30, seed)]
    looped, ours = (
        plain_bootstrap(counts, named.membership, draws),
        bootstrap_groups(counts[None], named, resamples=30, seed=seed),
    )
    assert looped.shape == (30, groups)
    np.testing.assert_allclose(looped, ours, rtol=1e-6)


def test_an_empty_group_and_an_absent_class():
    counts = np.ones((10, 3, 3), int)
    counts[:, 2] = 0
    looped = plain_bootstrap(
        counts, np.stack([np.ones(10, bool), np.zeros(10, bool)]), [np.arange(10)]
    )
    assert looped[0, 0] == 1 / 3 and np.isnan(looped[0, 1])


def test_resamples_are_of_the_groups_sums():
    """Sums of whole numbers are exact

    Each resample is the score of the images as often as they were drawn."""
    counts, named = made_counts(40, 6, 5, 3)
    two = np.stack([counts, counts[::-1]])
    resamples = bootstrap_groups(two, named, resamples=8)
    for weights, seeds, row in zip(
        resample_weights(40, 8, 0), resample_weights(2, 8, 1), resamples
    ):
        drawn = np.repeat(np.arange(40), weights)
        np.testing.assert_allclose(
            row,
            seeds
            / 2
            @ group_scores(two[:, drawn], Groups(named.names, named.membership[:, drawn])),
            rtol=1e-6,
        )


@needs("fairlearn")
def test_fairlearn_averages_faces():
    counts, named = made_counts(80, 3, 4)
    scores = np.random.default_rng(0).random(80)
    frames = fairlearn_bootstrap(scores, named.membership, 5)
    assert len(frames) == 3
    for member, frame in zip(named.membership, frames):
        assert frame.by_group[True] == pytest.approx(scores[member].mean()) and frame.by_group[
            False
        ] == pytest.approx(scores[~member].mean())
        low, high = (interval[True] for interval in frame.by_group_ci)
        assert low < high


@needs("fairlearn")
def test_the_bootstrap_case_runs_small():
    (case,) = bootstrap_cases(60, 3, 20, 4, loop_resamples=4, fairlearn_resamples=2)
    assert (
        case.ways["ours, first parser"]().shape == (20, 3)
        and case.ways["plain loop"]().shape == (4, 3)
        and len(case.ways["fairlearn"]()) == 3
    )
    np.testing.assert_array_equal(
        case.ways["ours, first parser"](), case.ways["ours, each further parser"]()
    )
    assert case.scale == {"plain loop": 5, "fairlearn": 10}
    times, findings = measure(case, 1)
    assert (
        len(times) == 4
        and len(findings) == 4
        and (findings.at_least == 100).sum() == 1  # beside fairlearn
        and findings.note.str.contains("4 resamples and fairlearn 2").all()
    )


@pytest.mark.parametrize(
    "package, call",
    [
        ("imagecorruptions", load_imagecorruptions),
        ("torchmetrics", count_cases),
        ("fairlearn", bootstrap_cases),
    ],
)
def test_a_missing_package_is_named(package, call, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util,
        "find_spec",
        lambda name, *more: None if name == package else found(name, *more),
    )
    with pytest.raises(InputError, match=f"pip install {package}"):
        call()
