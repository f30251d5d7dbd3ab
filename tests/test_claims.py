"Claims: what a verdict needs, which direction, which reason, and that chance alone supports nothing"
import numpy as np
import pandas as pd
import pytest

from fairparse.claims import ALL, PAPER1, PAPER2, VERDICTS, Claim, at_least, claim_tables, needed, tell_claims, weigh
from fairparse.evidence import Change, Evidence, NotTestable, change_of, from_interval, half_weights, share_change
from fairparse.metrics import counts_table
from fairparse.records import COUNTS, write_table
from fairparse.runs import write_json

CLAIMS = [*PAPER1, *PAPER2]


def change(difference, p=0.001, reach=None):
    reach = abs(difference) / 2 if reach is None else reach
    return Change("a less b", 50.0, difference, difference - reach, difference + reach, p, 100, 3)


def make_run(folder, skills, seeds=3, images=60, luck=0.0):
    "Counts of parsers with the given skill; `luck` is the spread between trainings"
    for k, (objective, skill) in enumerate(skills.items()):
        for seed in range(seeds):
            faces, own = np.random.default_rng(seed), np.random.default_rng([seed, k])  # the same hard faces for all
            hits = np.clip(faces.normal(100 * skill, 3, (images, 19)) + own.normal(0, 0.5, (images, 19)) + 100 * own.normal(0, luck), 0, 100).round().astype(int)
            table = counts_table(np.stack([hits, (100 - hits) // 2, (100 - hits) // 2], -1), np.array([f"{i:03d}" for i in range(images)], object), objective, seed, "none", 0.0)
            write_table(table, folder / "20_parsers" / objective / f"seed{seed}" / "counts.parquet", COUNTS)
            write_json(folder / "20_parsers" / objective / f"seed{seed}" / "run.json", {"faces": "made-up faces", "training_seconds": 10.0 + k + seed})
    return Evidence(folder, list(skills), list(range(seeds)))


def verdict_of(run, name):
    table, _ = claim_tables(run)
    return table.set_index("id").loc[name]


def test_claims_are_complete_sentences_with_names_of_their_own():
    assert len({c.id for c in CLAIMS}) == len(CLAIMS) and {c.paper for c in CLAIMS} == {1, 2}
    for claim in CLAIMS:
        assert claim.claim and claim.section and claim.reported and claim.need in ("all", "most", "some") and claim.asset in ("", "diffusion", "stylegan", "faces of people")
        assert callable(claim.test) or isinstance(claim.test, str) and claim.test
        assert claim.rule in ("higher", "lower") or claim.rule[0] < claim.rule[1]


@pytest.mark.parametrize("p, u, expected", [([0.01], 1, 0.01), ([0.01, 0.04], 2, 0.04), ([0.01, 0.04], 1, 0.02), ([0.2, 0.01, 0.03, 0.5], 3, 0.4), ([0.9, 0.9], 1, 1.0), ([np.nan, 0.01], 2, 1.0)])
def test_partial_conjunctions(p, u, expected):
    assert at_least(np.array(p), np.ones(len(p), bool), u) == pytest.approx(expected)


def test_a_wrong_direction_is_no_evidence():
    assert at_least(np.array([1e-9]), np.array([False]), 1) == 1.0


@pytest.mark.parametrize("differences, need, sign", [([1, 2, 3], "all", 1), ([1, 2, -3], "all", -1), ([1, 2, -3], "most", 1), ([1, -2, -3], "most", -1), ([-1, -2, 3], "some", 1), ([-1, -2, -3], "some", -1)])
@pytest.mark.parametrize("rule", ["higher", "lower"])
def test_how_many_must_agree(differences, need, sign, rule):
    found = weigh([change(d if rule == "higher" else -d) for d in differences], rule, need)
    assert found["sign"] == sign and found["p"] < 0.05
    assert found["shown"] == sum(d > 0 for d in differences)


@pytest.mark.parametrize("intervals, sign, deciding", [([(-0.5, 0.5)], 1, 0), ([(-0.5, 2)], 0, 0), ([(2, 3)], -1, 0), ([(-0.1, 0.1), (-0.9, 0.2)], 1, 1), ([(-0.1, 0.1), (-5, 5), (2, 3)], -1, 2)])
def test_bounds_ask_for_the_whole_interval(intervals, sign, deciding):
    found = weigh([Change("", 0.0, (low + high) / 2, low, high, np.nan, 1, 1) for low, high in intervals], (-1, 1), "all")
    assert (found["sign"], found["deciding"]) == (sign, deciding)


def test_the_shown_difference_is_the_one_that_decides():
    changes = [change(3, 0.001), change(1, 0.4), change(2, 0.01)]
    assert weigh(changes, "higher", "all")["deciding"] == 1 and weigh(changes, "higher", "some")["deciding"] == 0
    assert weigh([change(3), change(-3, 0.001), change(-0.1, 0.9)], "higher", "all")["deciding"] == 1


@pytest.mark.parametrize("skills, verdict, nuance", [({"single": 0.70, "linear": 0.74}, "supported", "shown"), ({"single": 0.74, "linear": 0.70}, "not supported", "contradicted"), ({"single": 0.72, "linear": 0.72}, "not supported", "not shown")])
def test_parsers_of_known_skill(tmp_path, skills, verdict, nuance):
    row = verdict_of(make_run(tmp_path, skills), "linear-surpasses")
    assert (row.verdict, row.nuance) == (verdict, nuance)
    if nuance != "not shown": assert row.low < row.difference < row.high and (row.low > 0) == (verdict == "supported") and row.repetitions == 3 and row.n == 60
    assert row.data == "made-up faces"


def test_one_training_of_each_cannot_tell_objectives_apart(tmp_path):
    row = verdict_of(make_run(tmp_path, {"single": 0.60, "linear": 0.80}, seeds=1), "linear-surpasses")
    assert row.verdict == "not testable here" and "one training" in row.reason and np.isnan(row.difference)


def test_luck_of_trainings_hides_a_small_difference(tmp_path):
    assert verdict_of(make_run(tmp_path, {"single": 0.72, "linear": 0.725}, luck=0.05), "linear-surpasses").nuance == "not shown"


def test_an_objective_that_was_not_trained_is_named(tmp_path):
    row = verdict_of(make_run(tmp_path, {"single": 0.7, "linear": 0.8}), "linear-best")
    assert row.verdict == "not testable here" and "sigmoid" in row.reason


def test_without_a_run_every_claim_says_why(tmp_path):
    table, parts = claim_tables(Evidence(tmp_path, [], []))
    assert set(table.verdict) == {"not testable here"} and table.reason.str.len().gt(5).all() and parts.empty
    assert tell_claims(table) == f"{len(CLAIMS)} claims: 0 supported, 0 not supported, {len(CLAIMS)} not testable here"


def test_chance_alone_supports_next_to_nothing():
    rng, false = np.random.default_rng(0), 0
    for _ in range(50):
        claims = [Claim(f"c{i}", 1, "", "c", "", lambda run, d=rng.normal(), p=rng.uniform(): [change(d, p)]) for i in range(40)]
        false += (claim_tables(Evidence("nowhere", [], []), claims, "noise")[0].verdict == "supported").any()
    assert false <= 6  # 5 % of 50, one-sided even less


def unguided(generator, white=68.0):
    return pd.DataFrame({"group": ["Asian", "White"], "share": [9.0, white], "share_low": [8.5, white - 1], "share_high": [9.5, white + 1], "reported_group": ["Asian", "White"], "reported_share": [8.82, 68.37], "faces": 10_000, "generator": generator})


@pytest.mark.parametrize("generator, white, verdict", [("tiny_stylegan (stand-in)", 68.0, "not testable here"), ("gan_face_generate", 68.0, "not testable here"), ("stylegan2_ffhq", 68.0, "supported"), ("stylegan2_ffhq", 90.0, "not supported")])
def test_shares_of_a_generator_are_tested_on_that_generator_alone(tmp_path, generator, white, verdict):
    (tmp_path / "tables").mkdir()
    unguided(generator, white).to_csv(tmp_path / "tables" / "balance_table2_unguided.csv", index=False)
    row = verdict_of(Evidence(tmp_path, [], []), "unguided-shares")
    assert row.verdict == verdict and row.data == generator
    if verdict == "not testable here": assert row.nuance == "stand-in" and not np.isnan(row.difference) and np.isnan(row.claim_p_adjusted)
    if white == 90.0: assert row.nuance == "contradicted" and "White" in row.quantity


def test_guidance_needs_every_group_and_both_classifiers(tmp_path):
    rows = []
    for group in ("Asian", "Black", "Indian"):
        for rule, hits in (("unguided", 50), ("raw", 200)):
            rows.append({"group": group, "rule": rule, "space": "z", "purpose": "fresh", "painted": 500, "accepted": hits, "confirmed": hits, "reported_group": group, "reported_yield": 40.0, "yield": hits / 5, **{f"{name}{end}": hits / 5 + move for name in ("yield", "confirmed_share") for end, move in (("", 0), ("_low", -2), ("_high", 2))}})
    (tmp_path / "tables").mkdir()
    unguided("stylegan2_ffhq").to_csv(tmp_path / "tables" / "balance_table2_unguided.csv", index=False)
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "tables" / "balance_table3_guided.csv", index=False)
    assert verdict_of(Evidence(tmp_path, [], []), "guidance-raises").verdict == "supported"
    table.loc[(table.rule == "raw") & (table.group == "Indian"), "confirmed"] = 50
    table.to_csv(tmp_path / "tables" / "balance_table3_guided.csv", index=False)
    row = verdict_of(Evidence(tmp_path, [], []), "guidance-raises")
    assert row.verdict == "not supported" and "Indian" in row.quantity and "second" in row.quantity


def test_halves_are_halves_and_the_same_for_all():
    weights = half_weights(61, 20)
    assert weights.shape == (21, 61) and (weights[0] == 1).all() and (weights[1:].sum(1) == 30).all() and (weights == half_weights(61, 20)).all()


def test_an_interval_contains_zero_exactly_if_p_is_above_five_percent():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        first = np.vstack([rng.normal(0.01, 0.01, 3), rng.normal(0, 0.01, (40, 3))])
        one = change_of("", first, np.zeros_like(first), 50)
        assert (one.low <= 0 <= one.high) == (one.p >= 0.05)
        seen.add(one.p < 0.05)
    assert seen == {True, False}


def test_no_verdict_from_one_pair_of_trainings():
    with pytest.raises(NotTestable, match="one training"): change_of("", np.ones((5, 1)), np.zeros((5, 1)), 10)


def test_shares():
    one = share_change("", (60, 100, 50.2, 69.1), (60, 100, 50.2, 69.1))
    assert one.difference == 0 and one.low == -one.high and one.p == 1
    assert share_change("", (90, 100, 82.6, 94.5), (10, 100, 5.5, 17.4)).p < 1e-9
    assert share_change("", (0, 10, 0, 28), (0, 10, 0, 28)).p == 1.0
    assert from_interval("", 1.0, 2.0, 0.0, 4.0, 10).p == pytest.approx(0.05) and from_interval("", 1.0, 0.0, 0.0, 0.0, 10).p == 1.0


def test_verdicts_of_the_table_are_the_three():
    table, _ = claim_tables(Evidence("nowhere", [], []), [Claim("a", 1, "s", "c", "r", lambda run: [change(1)]), Claim("b", 2, "s", "c", "r", "no measure")], "x")
    assert set(table.verdict) <= set(VERDICTS) and list(table.nuance) == ["shown", "open"] and needed("most", 4) == 3 and set(ALL) >= {"single"}
