"Trials: what is drawn, the rule of before, and that shares are those of the rows"

import numpy as np
import pytest
from helpers import random_counts
from scipy import stats

from fairparse.core.runs import InputError
from fairparse.measure.counts import iou
from fairparse.measure.trials import (
    WORLDS,
    Plan,
    as_if_new,
    deal,
    half_samples,
    made_up_world,
    make_world,
    run_trials,
    three_hurdles,
    weighted_scores,
)


def test_a_world_has_the_scores_of_its_trainings():
    counts = {name: random_counts(6, 9, 4, seed=k) for k, name in enumerate("ab")}
    world = make_world(counts)
    expected = [[100 * iou(one) for one in c] for c in counts.values()]
    np.testing.assert_allclose(world.trained, expected)
    everything = weighted_scores(world.sums, np.ones((1, 9)))[0]
    np.testing.assert_allclose(everything, expected)


def test_worlds_that_are_none():
    with pytest.raises(InputError, match="two objectives or more"):
        make_world({"a": random_counts(6, 9, 4)})
    with pytest.raises(InputError, match="six seeds or more"):
        make_world({name: random_counts(5, 9, 4) for name in "ab"})
    world = make_world({name: random_counts(6, 9, 4) for name in "ab"})
    with pytest.raises(InputError, match="'mars' is none of as trained"):
        run_trials(world, "mars", Plan(2, 9))
    with pytest.raises(InputError, match="two seeds or more"):
        run_trials(world, "as trained", Plan(1, 9))


def test_halves_of_drawn_faces_are_halves():
    rng = np.random.default_rng(0)
    drawn = rng.integers(20, size=30)
    weights = half_samples(rng, drawn, 20, 50)
    assert weights.shape == (51, 20)
    assert (weights[0] == np.bincount(drawn, minlength=20)).all()
    assert (weights[1:].sum(1) == 15).all() and (weights[1:] <= weights[0]).all()


@pytest.mark.parametrize("kind", WORLDS)
def test_what_is_dealt(kind):
    world = made_up_world(seeds=10, images=30)
    rng, firsts = np.random.default_rng(0), []
    for _ in range(50):
        objective, seed = deal(rng, world, kind, 4, 5)
        firsts.append(tuple(objective[:, 0]))
        if kind == "one objective":
            assert len(np.unique(objective)) == 1 and objective.shape == (5, 4)
            continue
        assert (np.sort(objective, 0).T == np.arange(3)).all()  # each seed has each objective
        assert (seed == seed[0]).all() and len(set(seed[0])) == 4
        if kind == "as trained":
            assert (objective.T == objective[:, 0]).all()
    assert len(set(firsts)) > 2


def test_seeds_of_the_world_scatter_like_new_ones():
    "The mean of 5 of 10 lies too near to that of all; what is added makes up for it"
    world = made_up_world(seeds=10, images=30)
    rng, means = np.random.default_rng(0), []
    for _ in range(4000):
        objective, seed = deal(rng, world, "as trained", 5, 5)
        scores = world.trained[objective, seed] + as_if_new(world, objective, seed)
        means.append(scores.mean(1)[objective[:, 0].argsort()])
    expected = world.trained.var(1, ddof=1) / 5
    np.testing.assert_allclose(np.var(means, 0), expected, rtol=0.1)


def test_the_rule_of_before_is_the_largest_of_three():
    rng, decided_by = np.random.default_rng(0), set()
    for _ in range(200):
        differences, error = rng.normal(0.5, 1, 4), rng.uniform(0.05, 0.6)
        over_seeds = stats.ttest_1samp(differences, 0).pvalue
        over_images = 2 * stats.norm.sf(abs(differences.mean()) / error)
        v = differences.var(ddof=1) / 4
        freedom = 3 * ((v + error**2) / v) ** 2
        both = 2 * stats.t.sf(abs(differences.mean()) / np.sqrt(v + error**2), freedom)
        each = [over_images, over_seeds, both]
        assert three_hurdles(differences, error) == pytest.approx(max(each))
        decided_by.add(int(np.argmax(each)))
    assert decided_by == {1, 2}
    assert three_hurdles(np.zeros(3), 0.1) == 1 and three_hurdles(np.ones(3), 0.1) == 0


def test_intervals_hold_in_a_world_of_made_up_trainings():
    world = made_up_world(luck=(0.5, 0.8, 1.3), seeds=16, images=100)
    plan = Plan(3, 100, trials=150, effects=(0.0, 4.0), resamples=40)
    for kind in WORLDS:
        found = run_trials(world, kind, plan).set_index(["rule", "effect"])
        model = found.loc["one model"]
        assert (model.covered > 0.88).all()
        assert model.covered[0.0] == model.covered[4.0]  # a shift moves truth and interval alike
        if kind != "as trained":
            assert model.decided[0.0] < 0.12 and model.decided[4.0] > 0.8
            assert model.decided[4.0] >= found.decided["three hurdles", 4.0]
        assert model.equal[4.0] < 0.05
    again = run_trials(world, kind, plan).set_index(["rule", "effect"])
    assert again.equals(found)
