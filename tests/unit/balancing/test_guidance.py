"""Rules, latent models, yields and their counts; the choice of steps; side effects

Balancing from end to end on toys.
"""

import numpy as np
import pandas as pd
import pytest
from latent_helpers import Above, Bands, Colours
from scipy.spatial.distance import pdist
from scipy.special import softmax
from scipy.stats import norm
from sklearn.neural_network import MLPRegressor

from fairparse.balancing.choose_rule import (
    Grid,
    LatentFacts,
    calibrate,
    candidate_rules,
    choose_rule,
    diversity,
    leakage,
    share_difference,
    try_on_fresh_draws,
)
from fairparse.balancing.directions import Direction, fit_directions
from fairparse.balancing.guidance import (
    RULES,
    LatentModel,
    Rule,
    add_shares,
    choose_alpha,
    fit_latent_model,
    predict_labels,
    try_rule,
)
from fairparse.balancing.latents import random_latents
from fairparse.core.records import YIELDS
from fairparse.core.runs import InputError
from fairparse.measure.distances import kernel_distance
from fairparse.measure.statistics import wilson

Z = random_latents(7, 0, 20_000, 5)
WAY = Direction("yes", np.array([3.0, 0, 4.0, 0, 0]), 0.2)


class Known:
    "A latent model that says the logistic function of the first number"

    classes, space = ["no", "yes"], "z"

    def predict(self, latents):
        yes = 1 / (1 + np.exp(-latents[:, 0]))
        return np.stack([1 - yes, yes], 1)


# ---- what rules do to the distribution


@pytest.mark.parametrize(
    "name, alpha, moved, width",
    [
        ("shift", 2.0, 2.0, 1.0),
        ("conditional", -1.5, -1.5, 1.0),
        ("raw", 0.7, 5.0, 1.0),
        ("fix", 1.25, 1.25, 0.0),
        ("unguided", 0.0, 0.0, 1.0),
    ],
)
def test_rules_move_one_coordinate_and_no_other(name, alpha, moved, width):
    x, chosen = Rule(name, "yes", alpha, WAY)(Z)
    assert chosen.all() and x.dtype == np.float32
    along = x @ WAY.unit
    assert along.mean() == pytest.approx(moved, abs=0.03) and along.std() == pytest.approx(
        width, abs=0.02
    )
    off = np.eye(5) - np.outer(WAY.unit, WAY.unit)
    np.testing.assert_allclose(x @ off, Z @ off, atol=1e-5)


def test_rules_leave_the_vectors_they_were_given():
    before, given = Z[:100].copy(), Z[:100]
    for name in ("raw", "shift", "fix"):
        Rule(name, "yes", 1.0, WAY)(given)
    Rule("region", "yes", 0.5, anchors=Z[:3])(given)
    assert np.array_equal(given, before)


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0])
def test_regions_keep_the_expected_length_and_use_every_anchor(radius):
    anchors = Z[100:107]
    x, chosen = Rule("region", "yes", radius, anchors=anchors)(Z[:7000])
    assert chosen.all()
    groups = x.reshape(1000, 7, 5)
    np.testing.assert_allclose(groups.mean(0), np.sqrt(1 - radius**2) * anchors, atol=0.13 * radius)
    assert groups.std(0).mean() == pytest.approx(radius, abs=0.01)
    many = Rule("region", "yes", radius, anchors=Z[:10_000])(Z[10_000:])[
        0
    ]  # anchors from the prior: so is what is painted
    assert (many**2).sum(1).mean() == pytest.approx(5, abs=0.1) and np.abs(
        np.cov(many.T) - np.eye(5)
    ).max() < 0.05


def test_screening_chooses_exactly_those_that_the_model_names():
    x, chosen = Rule("screen", "yes", 0.7 / 0.3, model=Known())(Z)
    no, yes = Known().predict(Z).T
    assert np.array_equal(x, Z) and np.array_equal(chosen, yes >= 0.7 / 0.3 * no)
    assert chosen.mean() == pytest.approx(norm.sf(np.log(0.7 / 0.3)), abs=0.01)
    assert (
        Rule("screen", "no", 0.0, model=Known())(Z)[1].all()
        and not Rule("screen", "no", 1e9, model=Known())(Z)[1].any()
    )


@pytest.mark.parametrize("name, mean", [("shift", None), ("fix", None), ("unguided", 0.0)])
def test_rules_in_w_work_on_mapped_vectors(name, mean):
    "w has another mean than 0: a shift is on top of it, and `fix` counts from `centre`"
    generator, way = Colours(), Direction("yes", WAY.theta, 0.0, "w")
    w = generator.map(Z)
    centre = float(w.mean(0) @ way.unit)
    assert centre > 1
    x = Rule(name, "yes", 1.5, way, "w", generator, centre=centre)(Z)[0]
    along = (x @ way.unit).mean()
    assert along == pytest.approx(centre + (0 if name == "unguided" else 1.5), abs=1e-3) and x.std(
        0
    )[1] == pytest.approx(w.std(0)[1], rel=1e-4)
    np.testing.assert_array_equal(Rule("unguided", space="w", generator=generator)(Z)[0], w)


def test_screening_by_w_paints_in_z():
    class InW(Known):
        space = "w"

    generator = Colours()
    x, chosen = Rule("screen", "yes", 9.0, generator=generator, model=InW())(Z)
    assert (
        np.array_equal(x, Z)
        and np.array_equal(
            chosen,
            Known().predict(generator.map(Z))[:, 1] >= 9 * Known().predict(generator.map(Z))[:, 0],
        )
        and 0.5 < chosen.mean() < 1
    )


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"name": "push"}, "'push' is not known"),
        ({"name": "shift"}, "needs its direction"),
        ({"name": "raw"}, "needs its direction"),
        ({"name": "screen"}, "needs its model"),
        ({"name": "region"}, "needs its anchors"),
        ({"name": "screen", "target": "purple", "model": Known()}, "knows no 'purple'"),
        ({"name": "region", "alpha": 0.0, "anchors": Z[:2]}, "radius in"),
        ({"name": "region", "alpha": 1.01, "anchors": Z[:2]}, "radius in"),
        ({"name": "region", "alpha": 0.5, "anchors": Z[:0]}, "at least one anchor"),
        ({"name": "region", "alpha": 0.5, "anchors": Z[:2], "space": "w"}, 'space "z"'),
        (
            {"name": "shift", "direction": WAY, "space": "w", "generator": Colours()},
            "direction lies in space 'z'",
        ),
        ({"name": "unguided", "space": "w"}, "needs the generator"),
    ],
)
def test_impossible_rules(wrong, words):
    with pytest.raises(InputError, match=words):
        Rule(**wrong)


# ---- distances


def test_distances_are_divergences():
    assert (
        Rule("unguided").distance() == 0
        and Rule("shift", alpha=-2.0, direction=WAY).distance() == 2
        and Rule("fix", alpha=2.0, direction=WAY).distance() == 2
    )
    assert Rule("raw", alpha=0.0, direction=WAY).distance() == pytest.approx(12.5)
    assert (
        Rule("screen", "yes", 0.7, model=Known()).distance(0.25) == pytest.approx(np.log(4))
        and Rule("screen", "yes", 0.7, model=Known()).distance(1.0) == 0
    )
    assert np.isnan(Rule("region", alpha=0.5, anchors=Z[:2]).distance()) and set(RULES) == {
        "unguided",
        "raw",
        "shift",
        "conditional",
        "fix",
        "screen",
        "region",
    }


def test_distance_of_a_shift_in_w_is_that_of_gaussians_with_its_covariance():
    """KL(N(m + a n, S) || N(m, S)) = a^2 n' S^-1 n / 2

    Along S theta, which raises the regression's score most for each nat, alpha standard deviations
    of it cost least.
    """
    facts = make_facts()
    rule = next(
        r
        for r in candidate_rules("high", facts, Grid([2.0], [], []))
        if (r.name, r.space) == ("shift", "w")
    )
    covariance = np.cov(facts.vectors["w"].T)
    moved = rule.alpha * rule.direction.unit
    assert rule.distance() == pytest.approx(moved @ np.linalg.inv(covariance) @ moved / 2, rel=1e-6)
    assert (
        rule.alpha
        == pytest.approx(2 * (facts.vectors["w"] @ rule.direction.unit).std(ddof=1), rel=1e-6)
        and rule.distance() >= 2 - 1e-9
    )
    theta = facts.directions["high", "w"].theta
    gain = (moved @ theta) / np.sqrt(rule.distance())
    for other in [theta, *np.random.default_rng(0).standard_normal((200, 5))]:
        assert (other @ theta) / np.sqrt(
            other @ np.linalg.inv(covariance) @ other / 2
        ) <= gain + 1e-9


# ---- a model of the latent space


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("hidden", [(16,), (8, 6)])
def test_latent_model_is_scikit_learns_network(classes, hidden):
    "Fitted to centred logarithms of the probabilities, whose softmax gives them back"
    latents, scores = (
        Z[:1500] * 3 + 1,
        np.linspace(-2, 2, classes) * Z[:1500, :1] - np.linspace(-1, 1, classes) ** 2,
    )
    probabilities = softmax(2 * scores, axis=1)
    model = fit_latent_model(
        latents, probabilities, [f"g{i}" for i in range(classes)], "w", hidden, floor=0.01, seed=3
    )
    shift, scale, aims = (
        latents.mean(0),
        latents.std(0) + 1e-6,
        np.log(np.maximum(probabilities, 0.01)),
    )
    net = MLPRegressor(
        hidden_layer_sizes=hidden,
        alpha=1e-3,
        early_stopping=True,
        n_iter_no_change=8,
        max_iter=500,
        learning_rate_init=2e-3,
        batch_size=200,
        random_state=3,
    )
    net.fit(((latents - shift) / scale).astype(np.float32), aims - aims.mean(1, keepdims=True))
    fresh = Z[2000:2300] * 3 + 1
    np.testing.assert_allclose(
        model.predict(fresh),
        softmax(net.predict(((fresh - shift) / scale).astype(np.float32)), axis=1),
        atol=1e-5,
    )
    assert (
        model.classes == [f"g{i}" for i in range(classes)]
        and model.space == "w"
        and np.allclose(model.predict(fresh).sum(1), 1)
    )
    truth = softmax(
        2 * (np.linspace(-2, 2, classes) * Z[2000:2300, :1] - np.linspace(-1, 1, classes) ** 2),
        axis=1,
    )
    assert np.abs(model.predict(fresh) - truth).mean() < 0.06


def test_latent_model_does_not_overflow():
    model = LatentModel(
        ["a", "b", "c"], "z", [np.eye(3) * 1000], [np.zeros(3)], np.zeros(3), np.ones(3)
    )
    np.testing.assert_allclose(
        model.predict(np.array([[5.0, -5, 0], [0, 0, 0]])), [[1, 0, 0], [1 / 3] * 3]
    )


@pytest.mark.parametrize(
    "count, columns, classes", [(49, 2, "ab"), (60, 1, "a"), (60, 3, "ab"), (60, 2, "abc")]
)
def test_impossible_latent_models(count, columns, classes):
    with pytest.raises(InputError, match="50 faces or more, and a column for each"):
        fit_latent_model(Z[:count], np.full((count, columns), 0.5), list(classes), "z")
    with pytest.raises(InputError, match="give 50 faces"):
        fit_latent_model(Z[:60], np.full((59, 2), 0.5), ["a", "b"], "z")


# ---- counts


class Every:
    "A rule that paints every k-th of all vectors, and remembers how many it was shown"

    name, target, space, alpha = "screen", "yes", "z", 0.5

    def __init__(self, k):
        self.k, self.shown, self.share = k, 0, None

    def __call__(self, z):
        numbers = self.shown + np.arange(len(z))
        self.shown += len(z)
        return z, (numbers + 1) % self.k == 0

    def distance(self, share):
        self.share = share
        return -np.log(max(share, 1e-9))


@pytest.mark.parametrize("k", [1, 3, 500, 501, 777])
@pytest.mark.parametrize("painted", [1, 2, 7, 166, 167])
def test_proposed_is_the_number_of_the_last_vector_looked_at(k, painted):
    if k * painted > 20_000:
        painted = 3
    rule, generator = Every(k), Colours()
    row = try_rule(rule, generator, Above(), Above(), painted, seed=1)
    assert (
        row["painted"] == painted == generator.painted
        and row["proposed"] == k * painted
        and row["distance"] == pytest.approx(np.log(k))
        and rule.share == 1 / k
    )


def test_counts_are_those_of_the_painted_vectors():
    kept = []
    row = try_rule(
        Every(3),
        Colours(),
        Above(0.3),
        Above(0.0, channel=1),
        900,
        seed=5,
        keep=kept,
        purpose="fresh",
    )
    z = random_latents(5, 0, 2700, 5)[2::3]
    images = Colours().paint(z)
    first, second = (
        Above(0.3).predict(images).argmax(1) == 1,
        Above(0.0, 1).predict(images).argmax(1) == 1,
    )
    assert (row["accepted"], row["confirmed"], row["both"]) == (
        first.sum(),
        second.sum(),
        (first & second).sum(),
    ) and row["both"] < row["accepted"] < row["painted"]
    assert np.array_equal(np.concatenate(kept), images[first]) and row["purpose"] == "fresh"
    assert list(YIELDS.check(pd.DataFrame([row])).columns) == list(YIELDS.columns)


@pytest.mark.parametrize("most", [1, 499, 500, 501, 1250])
def test_no_more_vectors_are_proposed_than_allowed(most):
    rule = Every(10)
    row = try_rule(rule, Colours(), Above(), Above(), 10_000, seed=1, most=most)
    assert row["proposed"] == most == rule.shown and row["painted"] == most // 10


def test_a_rule_that_paints_nothing():
    generator, kept = Colours(), []
    row = try_rule(
        Rule("screen", "yes", 1e9, model=Known()),
        generator,
        Above(),
        Above(),
        10,
        seed=0,
        most=1000,
        keep=kept,
    )
    assert (
        (row["proposed"], row["painted"], row["accepted"]) == (1000, 0, 0)
        and generator.painted == 0
        and kept == []
        and row["distance"] > 20
    )
    assert add_shares(pd.DataFrame([row]))[["yield", "yield_low", "yield_high"]].iloc[
        0
    ].tolist() == [0, 0, 1]
    for wrong in ({"painted": 0}, {"painted": 5, "most": 0}):
        with pytest.raises(InputError, match="must be 1 or more"):
            try_rule(Every(1), Colours(), Above(), Above(), seed=0, **wrong)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_yield_of_a_shift_is_the_normal_distributions(alpha):
    row = try_rule(
        Rule("shift", "yes", alpha, Direction("yes", np.array([2.0, 0, 0, 0, 0]), 0.0)),
        Colours(),
        Above(1.0),
        Above(1.0),
        3000,
        seed=2,
    )
    low, high = wilson(row["accepted"], 3000, 0.999)
    assert (
        low <= norm.sf(1 - alpha) + 0.005
        and norm.sf(1 - alpha) - 0.005 <= high
        and row["confirmed"] == row["accepted"] == row["both"]
    )


# ---- intervals, against published examples


@pytest.mark.parametrize(
    "right, n, low, high",
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)  # Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3
def test_wilson(right, n, low, high):
    assert wilson(right, n) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@pytest.mark.parametrize(
    "case, low, high",
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((0, 10, 0, 10), -0.2775, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0),
        ((10, 10, 0, 10), 0.6075, 1.0),
    ],
)  # Newcombe 1998, 17:873, Table II, method 10
def test_differences_of_shares(case, low, high):
    difference, got_low, got_high = share_difference(*case)
    assert (
        difference == pytest.approx(case[0] / case[1] - case[2] / case[3])
        and got_low == pytest.approx(low, abs=6e-5)
        and got_high == pytest.approx(high, abs=6e-5)
    )


# ---- the choice of a step


def yields(*rows, rule="shift", painted=400, target="b"):
    "Rows (alpha, distance, accepted)"
    return pd.DataFrame(
        [
            {
                "target": target,
                "rule": rule,
                "space": "z",
                "alpha": a,
                "distance": d,
                "purpose": "calibration",
                "proposed": painted,
                "painted": painted,
                "accepted": n,
                "confirmed": n,
                "both": n,
            }
            for a, d, n in rows
        ]
    )


def test_choice_of_a_step():
    table = yields(
        (3.0, 4.5, 398), (1.0, 0.5, 200), (2.5, 3.1, 390), (2.0, 2.0, 366)
    )  # in no order; 366 of 400 is 91.5 %, its interval reaches below 90 %
    row, reached = choose_alpha(table)
    assert (row.alpha, reached) == (
        2.5,
        True,
    ) and row.name == 2  # the index is kept: it names the rule
    assert (
        choose_alpha(table, goal=0.85)[0].alpha == 2.0
        and choose_alpha(table, goal=0.4)[0].alpha == 1.0
    )
    row, reached = choose_alpha(table, furthest=3.0)
    assert (row.alpha, reached) == (2.0, False)  # none reaches the goal there: the best
    assert (
        choose_alpha(table, furthest=3.1)[1] and choose_alpha(table, furthest=0.5)[0].alpha == 1.0
    )  # the bound itself is allowed
    with pytest.raises(InputError, match=r"no setting of \['shift'\] stays within 0.1 nats"):
        choose_alpha(table, furthest=0.1)
    row, reached = choose_alpha(yields((1.0, 0.5, 300), (2.0, 2.0, 300), (0.5, 0.125, 100)))
    assert (row.alpha, reached) == (1.0, False)  # as good and nearer


def test_choice_among_settings_without_a_distance():
    table = yields((0.3, np.nan, 400), (0.7, np.nan, 396), (0.9, np.nan, 300), rule="region")
    row, reached = choose_alpha(table, furthest=0.001)  # not bound by it
    assert (row.alpha, reached) == (0.7, True)  # the widest region that is good enough
    assert (
        choose_alpha(yields((0.3, np.nan, 300), (0.7, np.nan, 300), rule="region"))[0].alpha == 0.7
    )


def test_settings_that_painted_nothing_are_no_choice():
    table = pd.concat(
        [yields((0.9, 27.0, 0), painted=0, rule="screen"), yields((0.5, 1.0, 300), rule="screen")],
        ignore_index=True,
    )
    assert choose_alpha(table)[0].name == 1
    with pytest.raises(InputError, match="no setting"):
        choose_alpha(table.head(1), furthest=99)


# ---- diversity and leakage


def plain_diversity(guided, unguided, repeats, seed):
    "Kernel distances and spreads as their definitions say, subset by subset"
    n, m = len(guided), len(unguided)
    size, rng = min(n, m // 2), np.random.default_rng([seed, 620])
    kids, spreads, by_chance = [], [], []
    for _ in range(repeats):
        one, other = rng.permutation(m)[: 2 * size].reshape(2, size)
        mine = guided[rng.permutation(n)[:size]]
        kids.append(kernel_distance(mine, unguided[one], size))
        spreads.append(pdist(mine).mean())
        by_chance.append(kernel_distance(unguided[other], unguided[one], size))
    return np.mean(kids), np.mean(spreads), np.quantile(by_chance, 0.975)


@pytest.mark.parametrize("sizes", [(25, 90), (60, 70), (40, 41)])
def test_diversity_is_what_a_plain_loop_finds(sizes):
    guided, unguided = (np.random.default_rng(n).standard_normal((n, 5)) for n in sizes)
    found = diversity(guided, 1.2 * unguided, repeats=7, seed=3)
    kid, spread, high = plain_diversity(guided, 1.2 * unguided, 7, 3)
    scale = (1 / sizes[0] + 1 / sizes[1]) / (2 / found["subset"])
    assert found["kid"] == pytest.approx(kid, abs=1e-9)
    assert found["spread"] == pytest.approx(spread, rel=1e-9)
    assert found["kid_unguided_high"] == pytest.approx(high * scale, abs=1e-9)


@pytest.mark.parametrize("guided, unguided", [(40, 80), (80, 90), (60, 300)])
def test_same_faces_are_called_other_ones_about_as_seldom_as_intervals_say(guided, unguided):
    "2.5 % for the kernel distance (one-sided) and 5 % for the spread, together at most 7.5 %"
    rng, alarms, trials = np.random.default_rng(guided), np.zeros(3), 400
    for trial in range(trials):
        found = diversity(
            rng.standard_normal((guided, 6)), rng.standard_normal((unguided, 6)), seed=trial
        )
        alarms += [
            not found["within"],
            not found["spread_within"],
            found["kid"] > found["kid_unguided_high"],
        ]
    everything, spreads, kids = alarms / trials
    assert 0.02 <= everything <= 0.13 and 0 < spreads <= 0.11 and 0 < kids <= 0.075, (
        everything,
        spreads,
        kids,
    )


@pytest.mark.parametrize(
    "name, change",
    [
        ("narrower", lambda x: 0.8 * x),
        ("wider", lambda x: 1.25 * x),
        ("moved", lambda x: x + 0.5),
        ("repeated", lambda x: np.repeat(x[:10], 10, 0)),
    ],
)
def test_other_faces_are_found_out(name, change):
    rng = np.random.default_rng(0)
    found = [
        diversity(
            change(rng.standard_normal((100, 6))), rng.standard_normal((300, 6)), repeats=30, seed=i
        )
        for i in range(8)
    ]
    assert sum(not f["within"] for f in found) >= 7
    if name == "narrower":
        assert all(f["spread"] < f["spread_unguided_low"] for f in found)
    if name == "moved":
        assert (
            all(f["kid"] > f["kid_unguided_high"] for f in found)
            and sum(f["spread_within"] for f in found) >= 6
        )


def test_diversity_is_repeatable_and_names_its_sizes():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((70, 4)), rng.standard_normal((100, 4))
    assert diversity(a, b, 10) == diversity(a, b, 10) != diversity(a, b, 10, seed=1)
    found = diversity(a, b, 10, largest=30)
    assert (found["guided"], found["unguided"], found["subset"]) == (70, 100, 30) and diversity(
        a, b, 10
    )["subset"] == 50
    for few in ((a[:19], b), (a, b[:39])):
        with pytest.raises(InputError, match="too few to compare"):
            diversity(*few)


def test_leakage_of_known_shares():
    guided = {"smile": np.array(["yes"] * 56 + ["no"] * 14), "eyes": np.array(["open"] * 70)}
    unguided = {"smile": np.array(["yes"] * 48 + ["no"] * 32), "eyes": np.array(["closed"] * 80)}
    table = leakage(guided, unguided).set_index(["attribute", "label"])
    assert list(table.index) == [
        ("smile", "no"),
        ("smile", "yes"),
        ("eyes", "closed"),
        ("eyes", "open"),
    ]
    yes = table.loc[("smile", "yes")]
    assert (
        (yes.guided, yes.unguided, yes.n_guided, yes.n_unguided) == (0.8, 0.6, 70, 80)
        and yes.low == pytest.approx(0.0524, abs=1e-4)
        and yes.high == pytest.approx(0.3339, abs=1e-4)
    )
    assert table.loc[("smile", "no")].difference == pytest.approx(-0.2) and table.loc[
        ("smile", "no")
    ].high == pytest.approx(-0.0524, abs=1e-4)
    assert (
        table.loc[("eyes", "open")].difference == 1
        and table.loc[("eyes", "closed")].difference == -1
    )
    with pytest.raises(KeyError):
        leakage(guided, {"smile": unguided["smile"]})


# ---- balancing


def make_facts(others=True, spaces=("z", "w")):
    generator = Colours()
    z = Z[:3000]
    vectors = {space: z if space == "z" else generator.map(z) for space in spaces}
    labels = predict_labels(Bands(), generator.paint(z))
    directions = {
        (group, space): d
        for space, x in vectors.items()
        for group, d in fit_directions(x, labels, space=space)[0].items()
    }
    along = (
        [fit_directions(z, predict_labels(Above(0.0, 1), generator.paint(z)), ["yes"])[0]["yes"]]
        if others
        else []
    )
    space = list(spaces)[-1]
    return LatentFacts(
        generator,
        vectors,
        labels,
        directions,
        along,
        fit_latent_model(
            vectors[space], Bands().predict(generator.paint(z)), Bands.classes, space, (16,)
        ),
    )


GRID = Grid([0.5, 1.5, 2.5], [1.0, 3.0], [0.3, 0.6], anchors=4)


def test_candidates_are_the_whole_grid():
    facts = make_facts()
    rules = candidate_rules("middle", facts, GRID)
    counts = pd.Series([(r.name, r.space) for r in rules]).value_counts().to_dict()
    assert counts == {
        ("unguided", "z"): 1,
        ("raw", "z"): 1,
        ("conditional", "z"): 3,
        **{(name, space): 3 for name in ("shift", "fix") for space in "zw"},
        ("screen", "z"): 2,
        ("region", "z"): 2,
    }
    assert {r.target for r in rules} == {"middle"}
    raw = next(r for r in rules if r.name == "raw")
    assert raw.alpha == raw.direction.norm and np.array_equal(
        raw.direction.theta, facts.directions["middle", "z"].theta
    )
    for rule in rules:
        if rule.name == "conditional":
            assert abs(rule.direction.unit @ facts.others[0].unit) < 1e-9
        if rule.name == "region":
            assert np.array_equal(rule.anchors, facts.vectors["z"][facts.labels == "middle"][:4])
        if rule.name == "fix":
            assert rule.centre == (
                0
                if rule.space == "z"
                else pytest.approx(facts.vectors["w"].mean(0) @ rule.direction.unit)
            )
    assert not any(
        r.name == "conditional"
        for r in candidate_rules("middle", make_facts(others=False, spaces=("z",)), GRID)
    )
    with pytest.raises(InputError, match='space "z" too'):
        candidate_rules("middle", make_facts(spaces=("w",)), GRID)


def test_calibrate_and_prove_on_a_world_that_is_understood():
    """The middle band cannot be reached by a straight step, but by screening; high can

    The second judge sees things a little otherwise.
    """
    facts, first, second = make_facts(), Bands(), Bands((-0.9, 1.1))
    generator = facts.generator
    painted = generator.paint(facts.vectors["z"])
    rules = candidate_rules("high", facts, GRID)
    yields, chosen = calibrate(
        rules, generator, first, second, 120, seed=11, goal=0.8, furthest=4.0
    )
    assert (
        len(yields) == len(rules)
        and list(yields.alpha) == [r.alpha for r in rules]
        and set(yields.purpose) == {"calibration"}
        and set(yields.painted) == {120}
    )
    assert len(chosen) == len(
        {(r.name, r.space) for r in rules if not r.distance() > 4.0}
    )  # one setting of each
    for rule, reached in chosen:
        mine = yields[(yields.rule == rule.name) & (yields.space == rule.space)]
        row, expected = choose_alpha(mine, 0.8, 4.0)
        assert (rule.alpha, reached) == (row.alpha, expected) and not row.distance > 4.0
    assert (
        dict(((r.name, r.space), reached) for r, reached in chosen)["screen", "z"]
        and not dict(((r.name, r.space), reached) for r, reached in chosen)["unguided", "z"]
    )

    def features(images):
        return images[:, 0, 0, :1].astype(float) / 32

    fresh, alike, moved = try_on_fresh_draws(
        chosen,
        generator,
        first,
        second,
        150,
        12,
        painted[facts.labels == "high"],
        {"above": Above(0.0, 1)},
        features,
    )
    assert (
        len(fresh) == len(chosen)
        and set(fresh.purpose) == {"fresh"}
        and (fresh.confirmed <= fresh.painted).all()
        and (fresh.both <= fresh[["accepted", "confirmed"]].min(axis=1)).all()
    )
    assert not np.array_equal(
        fresh.accepted, yields.iloc[[rules.index(r) for r, _ in chosen]].accepted
    )  # fresh draws are others
    who = {(r.name, r.space): reached for r, reached in chosen}
    assert all(who[row.rule, row.space] == row.reached for row in alike.itertuples()) and set(
        moved.columns
    ) >= {"target", "rule", "space", "alpha", "attribute", "difference", "low", "high"}
    assert not alike[alike.rule == "fix"].within.any()  # all of one colour along the direction
    pick = fresh.iloc[choose_rule(fresh, alike)]
    assert pick["both"] / pick.painted >= 0.6 and who[pick.rule, pick.space]


def test_a_direction_and_a_screen_on_a_group_between_others():
    facts, judge = make_facts(), Bands((-0.3, 0.3))
    facts.labels = predict_labels(judge, facts.generator.paint(facts.vectors["z"]))
    facts.model = fit_latent_model(
        facts.vectors["w"],
        judge.predict(facts.generator.paint(facts.vectors["z"])),
        judge.classes,
        "w",
        (64,),
    )
    share = lambda rule: (lambda row: row["accepted"] / row["painted"])(
        try_rule(rule, facts.generator, judge, judge, 300, 3)
    )
    way = fit_directions(facts.vectors["z"], facts.labels)[0]["middle"]
    assert (
        share(Rule("shift", "middle", 2.0, way)) < 0.4
        and share(Rule("screen", "middle", 1.5, generator=facts.generator, model=facts.model)) > 0.8
    )


def test_too_few_accepted_faces_say_nothing_of_diversity():
    facts = make_facts()
    painted = facts.generator.paint(facts.vectors["z"])
    chosen = [
        (Rule("unguided", "high"), False),
        (Rule("screen", "high", 1e9, generator=facts.generator, model=facts.model), False),
    ]
    import fairparse.balancing.choose_rule as balancing

    real = balancing.try_rule
    balancing.try_rule = lambda *a, **k: real(*a, most=1000, **k)  # the second rule never paints
    try:
        fresh, alike, moved = try_on_fresh_draws(
            chosen,
            facts.generator,
            Bands(),
            Bands(),
            50,
            1,
            painted[facts.labels == "high"],
            {},
            lambda x: x.reshape(len(x), -1).astype(float),
        )
    finally:
        balancing.try_rule = real
    assert list(fresh.painted) == [50, 0] and len(alike) == 0 and len(moved) == 0
    with pytest.raises(InputError, match="no rule painted a face"):
        choose_rule(fresh, alike)  # nothing but unguided faces


# ---- the choice of a rule


def proved(*rows):  # (rule, accepted, both, reached, within, kernel distance)
    fresh = pd.DataFrame(
        [
            {
                "target": "b",
                "rule": r,
                "space": "z",
                "alpha": 1 + i / 3,
                "painted": 300,
                "accepted": a,
                "both": b,
            }
            for i, (r, a, b, *_) in enumerate(rows)
        ]
    )
    return fresh, fresh[["rule", "space", "alpha"]].assign(
        reached=[r[3] for r in rows],
        within=[r[4] for r in rows],
        kid=[r[5] if len(r) > 5 else 0.0 for r in rows],
    )


@pytest.mark.parametrize(
    "rows, best",
    [
        (
            [
                ("raw", 299, 299, False, True),
                ("shift", 280, 270, True, True),
                ("fix", 299, 290, True, False),
                ("screen", 285, 275, True, True),
            ],
            "screen",
        ),  # diverse and reached: most confirmed
        (
            [
                ("raw", 299, 299, False, True),
                ("shift", 280, 270, True, False, 0.02),
                ("fix", 299, 290, True, False, 0.4),
            ],
            "shift",
        ),  # reached, but none as diverse: the nearest to unguided faces
        (
            [("raw", 200, 190, False, False), ("shift", 150, 140, False, True)],
            "raw",
        ),  # if no yield was reached, the highest that both confirm
        (
            [("unguided", 290, 285, True, True), ("shift", 280, 270, True, True)],
            "unguided",
        ),  # a common group needs no guidance
        ([("unguided", 290, 289, True, False), ("shift", 100, 90, False, False)], "shift"),
        ([("unguided", 290, 289, False, True), ("shift", 10, 9, False, False)], "shift"),
        ([("shift", 299, 290, False, False), ("screen", 0, 0, True, True)], "shift"),
    ],
)  # a rule without a face collects nothing
def test_order_of_preference(rows, best):
    fresh, alike = proved(*rows)
    assert fresh.rule[choose_rule(fresh, alike)] == best
    shuffled = alike.sample(frac=1, random_state=1)
    assert (
        fresh.rule[choose_rule(fresh.set_index(pd.Index(range(50, 50 + len(fresh)))), shuffled)]
        == best
    )  # positions, not index labels


def test_choice_survives_rounded_files():
    "Steps go through a CSV file between the two tables and lose their last digits"
    fresh, alike = proved(("shift", 299, 299, False, False), ("fix", 280, 270, True, True))
    fresh["alpha"], alike["alpha"] = [2 / 3, np.pi], [0.666667, 3.14159]
    assert fresh.rule[choose_rule(fresh, alike)] == "fix"
    assert (
        fresh.rule[choose_rule(fresh, alike.head(1))]
        == fresh.rule[choose_rule(fresh, pd.DataFrame())]
        == "shift"
    )  # without a comparison nothing is known to be diverse: the yield decides


def test_no_face_no_choice():
    with pytest.raises(InputError, match=r"no rule painted a face of \['b'\]"):
        choose_rule(*proved(("shift", 0, 0, True, True), ("raw", 0, 0, False, False)))
    with pytest.raises(InputError, match="no rule painted a face"):
        choose_rule(*proved(("unguided", 290, 280, True, False)))
