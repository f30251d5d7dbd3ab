"""Directions

Scikit-learn's own fit, DeLong's intervals against simulation, conditional directions, faults,
files.
"""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fairparse.balancing.directions import (
    Direction,
    auc_interval,
    conditional,
    fit_directions,
    read_directions,
    write_directions,
)
from fairparse.core.runs import InputError


def world(n=3000, dim=6, seed=0):
    "Vectors and three groups: b lies along the first axis, c opposite the second"
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, dim))
    noise = rng.standard_normal((n, 2))
    return z, np.where(
        z[:, 0] + 0.5 * noise[:, 0] > 1, "b", np.where(z[:, 1] + 0.5 * noise[:, 1] < -1, "c", "a")
    )


def held_out(n, share=0.25, seed=0):
    return np.random.default_rng([seed, 62]).random(n) < share


# ---- fits


@pytest.mark.parametrize("C", [0.003, 1.0, 50.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_fit_is_scikit_learns_on_the_faces_that_are_not_held_out(C, intercept):
    z, labels = world()
    found, table = fit_directions(z, labels, C=C, intercept=intercept)
    test = held_out(len(z))
    for row, group in zip(table.itertuples(), "abc"):
        direct = LogisticRegression(C=C, fit_intercept=intercept, max_iter=2000).fit(
            z[~test], labels[~test] == group
        )
        np.testing.assert_allclose(found[group].theta, direct.coef_[0], rtol=1e-6, atol=1e-9)
        assert found[group].intercept == pytest.approx(
            direct.intercept_[0] if intercept else 0.0, abs=1e-9
        )
        np.testing.assert_allclose(
            found[group].probability(z), direct.predict_proba(z)[:, 1], atol=1e-9
        )
        assert row.auc == pytest.approx(
            roc_auc_score(labels[test] == group, direct.decision_function(z[test])), abs=1e-12
        )
        assert (row.group, row.n, row.n_held_out, row.positives) == (
            group,
            (~test).sum(),
            test.sum(),
            (labels[~test] == group).sum(),
        )
        assert (
            (row.C, row.fitted_intercept, row.space) == (C, intercept, "z")
            and row.norm == pytest.approx(np.linalg.norm(direct.coef_))
            and row.auc_low < row.auc < row.auc_high
        )


def test_raw_length_depends_on_the_penalty_and_unit_does_not():
    z, labels = world()
    weak, strong = (fit_directions(z, labels, ["b"], C=C)[0]["b"] for C in (0.001, 10))
    assert (
        weak.norm < 0.5 * strong.norm
        and weak.unit @ strong.unit > 0.99
        and np.linalg.norm(strong.unit) == pytest.approx(1)
    )


def test_without_intercept_a_rare_group_seems_as_likely_as_not():
    z, labels = world()
    honest, forced = (fit_directions(z, labels, ["b"], intercept=i)[0]["b"] for i in (True, False))
    share = (labels == "b").mean()
    assert (
        abs(honest.probability(z).mean() - share) < 0.02
        and abs(forced.probability(z).mean() - 0.5) < 0.05
        and forced.probability(np.zeros((1, 6)))[0] == 0.5
    )


def test_separable_groups_have_a_finite_direction():
    z = np.random.default_rng(0).standard_normal((400, 3))
    found, table = fit_directions(z, np.where(z[:, 2] > 0, "up", "down"))
    assert found["up"].unit[2] > 0.99 and np.isfinite(found["up"].norm) and table.auc.min() > 0.99
    np.testing.assert_allclose(found["up"].theta, -found["down"].theta, rtol=1e-3)


def test_groups_can_be_chosen_and_seeds_split_differently():
    z, labels = world()
    found, table = fit_directions(z, labels, ["c"], space="w", held_out=0.5, seed=3)
    assert (
        list(found) == ["c"]
        and found["c"].space == "w"
        and table.n_held_out[0] == held_out(len(z), 0.5, 3).sum()
    )
    assert not np.array_equal(
        found["c"].theta, fit_directions(z, labels, ["c"], held_out=0.5, seed=4)[0]["c"].theta
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"groups": ["d"]}, "0 of 3000 faces are 'd'"),
        ({"C": 0}, "C 0 must be"),
        ({"C": -1.0}, "C -1.0"),
        ({"held_out": 0.0}, "held_out 0.0"),
        ({"held_out": 1.0}, "held_out 1.0"),
        ({"labels": ["b"] * 9 + ["a"] * 2991}, "9 of 3000 faces are 'b'"),
        ({"labels": ["b"] * 2991 + ["a"] * 9}, "2991 of 3000 faces are 'b'"),
        ({"labels": ["b"]}, "1 labels do not belong"),
        (
            {"labels": ["b"] * 10 + ["a"] * 2990, "held_out": 0.9999, "seed": 1},
            "hold out a smaller share",
        ),
    ],
)
def test_impossible_fits(change, words):
    z, labels = world()
    with pytest.raises(InputError, match=words):
        fit_directions(z, **{"labels": labels, "groups": ["b"], **change})


def test_latents_must_be_a_table():
    with pytest.raises(InputError, match="do not belong together"):
        fit_directions(np.zeros(20), ["a"] * 20)


# ---- AUC


def test_auc_equals_scikit_learns_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        positive = rng.random(60) < 0.3
        scores = (rng.standard_normal(60) + positive).round(1)  # many ties
        assert auc_interval(scores, positive)[0] == pytest.approx(
            roc_auc_score(positive, scores), abs=1e-12
        )


def test_delong_variance_is_the_textbook_one():
    "Every pair compared, as DeLong et al. 1988 write it"
    rng = np.random.default_rng(1)
    positive = np.arange(50) < 18
    scores = (rng.standard_normal(50) + positive).round(1)
    above = (scores[positive][:, None] > scores[~positive]) + 0.5 * (
        scores[positive][:, None] == scores[~positive]
    )
    spread = above.mean(1).var(ddof=1) / 18 + above.mean(0).var(ddof=1) / 32
    auc, low, high = auc_interval(scores, positive)
    assert auc == pytest.approx(above.mean()) and (high - low) / 2 == pytest.approx(
        1.959964 * spread**0.5, rel=1e-6
    )
    _, narrow_low, narrow_high = auc_interval(scores, positive, 0.5)
    narrower = (high - low) / (narrow_high - narrow_low)
    assert narrower == pytest.approx(1.959964 / 0.67449, rel=1e-4)


@pytest.mark.parametrize("m, n, shift", [(40, 400, 1.0), (150, 150, 0.3), (25, 60, 1.5)])
def test_intervals_hold_the_true_auc_as_often_as_they_say(m, n, shift):
    from scipy.stats import norm

    rng, truth = np.random.default_rng(2), norm.cdf(shift / 2**0.5)
    positive, hits = np.arange(m + n) < m, 0
    for _ in range(400):
        _, low, high = auc_interval(rng.standard_normal(m + n) + shift * positive, positive)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_auc_at_its_ends():
    assert (
        auc_interval(np.arange(10.0), np.arange(10) > 5)[0] == 1
        and auc_interval(-np.arange(10.0), np.arange(10) > 5)[0] == 0
    )
    assert auc_interval(np.zeros(10), np.arange(10) > 5)[0] == 0.5
    assert (
        np.isnan(auc_interval(np.arange(4.0), np.zeros(4, bool))).all()
        and np.isnan(auc_interval(np.arange(4.0), np.ones(4, bool))).all()
    )
    auc, low, high = auc_interval(
        np.arange(30.0), np.arange(30) == 20
    )  # one positive face: a wide interval, not a crash
    assert auc == pytest.approx(20 / 29) and high - low > 0.5 and 0 <= low and high <= 1


# ---- conditional directions


def directions(count, dim=8, seed=0, space="z"):
    return [
        Direction(str(i), theta, 0.5, space)
        for i, theta in enumerate(np.random.default_rng(seed).standard_normal((count, dim)) * 3)
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_conditional_is_perpendicular_and_the_nearest_such(count):
    first, *others = directions(1 + count)
    left = conditional(first, others)
    basis = np.stack([other.theta for other in others], 1)
    assert max(abs(left.unit @ other.unit) for other in others) < 1e-9
    np.testing.assert_allclose(
        left.theta,
        first.theta - basis @ np.linalg.lstsq(basis, first.theta, rcond=None)[0],
        atol=1e-9,
    )
    assert (left.group, left.intercept, left.space) == (first.group, first.intercept, first.space)


def test_what_is_said_twice_is_taken_out_once():
    first, other, third = directions(3)
    opposite, again = (
        Direction("no", -2 * other.theta, 0.0),
        Direction("again", other.theta * (1 + 1e-9), 0.0),
    )
    np.testing.assert_allclose(
        conditional(first, [other, opposite, again]).theta,
        conditional(first, [other]).theta,
        atol=1e-9,
    )
    np.testing.assert_allclose(
        conditional(first, [other, opposite, third]).theta,
        conditional(first, [third, other]).theta,
        atol=1e-9,
    )


def test_nothing_to_leave_alone_and_nothing_left():
    first, other = directions(2)
    np.testing.assert_array_equal(conditional(first, []).theta, first.theta)
    with pytest.raises(InputError, match=r"nothing is left of '0' when \['0'\]"):
        conditional(first, [Direction("0", -5 * first.theta, 0.0)])
    with pytest.raises(InputError, match="nothing is left"):
        conditional(first, directions(8, seed=1))  # they span the whole space
    with pytest.raises(InputError, match=r"space 'z', the others in \['w'\]"):
        conditional(first, directions(1, space="w"))


def test_moving_along_a_conditional_direction_leaves_the_other_attribute():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((6000, 5))
    group, smile = z @ [1, 0.8, 0, 0, 0] > 1, z @ [0, 1, 0.2, 0, 0] > 0.3
    mine, other = (
        fit_directions(z, np.where(what, "yes", "no"), ["yes"])[0]["yes"] for what in (group, smile)
    )
    plain, free = (
        (lambda way: ((z + 1.5 * way.unit) @ [0, 1, 0.2, 0, 0] > 0.3).mean())(mine),
        (lambda way: ((z + 1.5 * way.unit) @ [0, 1, 0.2, 0, 0] > 0.3).mean())(
            conditional(mine, [other])
        ),
    )
    assert plain - smile.mean() > 0.25 and abs(free - smile.mean()) < 0.03
    assert (
        (z + 1.5 * conditional(mine, [other]).unit) @ [1, 0.8, 0, 0, 0] > 1
    ).mean() > group.mean() + 0.15  # and the group still moves


# ---- files


def test_round_trip(tmp_path):
    first, other = directions(2)
    given = {
        "é / 1 (z)": first,
        "b (w)": Direction("gruppe ß", np.arange(3.0), -1.25, "w"),
        "c": other,
    }  # widths may differ between spaces
    write_directions(tmp_path / "d.npz", given)
    back = read_directions(tmp_path / "d.npz")
    assert list(back) == list(given)
    for name, direction in given.items():
        assert (back[name].group, back[name].intercept, back[name].space) == (
            direction.group,
            direction.intercept,
            direction.space,
        ) and np.array_equal(back[name].theta, direction.theta)
    write_directions(tmp_path / "none.npz", {})
    assert read_directions(tmp_path / "none.npz") == {}


def test_damaged_files(tmp_path):
    with pytest.raises(InputError, match="missing"):
        read_directions(tmp_path / "d.npz")
    np.savez(
        tmp_path / "d.npz",
        names=np.array(["a"]),
        groups=np.array(["a"]),
        spaces=np.array(["z"]),
        intercepts=np.zeros(1),
    )
    with pytest.raises(InputError, match="not readable.*theta_0"):
        read_directions(tmp_path / "d.npz")
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match="not readable"):
        read_directions(tmp_path / "d.npz")
