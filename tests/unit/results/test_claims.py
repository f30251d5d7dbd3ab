"Claims: what a verdict needs, which direction, which reason; chance alone supports nothing"

import numpy as np
import pandas as pd
import pytest
from painting_helpers import save
from scipy import stats

from fairparse.core.records import COUNTS, write_table
from fairparse.core.runs import InputError, write_json
from fairparse.measure.counts import counts_table
from fairparse.measure.moderated import Estimate
from fairparse.results.claim_measures import MEASURES, miou_drops, miou_levels, side_effects
from fairparse.results.claims import (
    ASSETS,
    KINDS,
    NEEDS,
    Claim,
    claim_tables,
    count_verdicts,
    papers_claims,
    read_claims,
)
from fairparse.results.evidence import (
    Change,
    Evidence,
    NotTestable,
    change_of,
    from_interval,
    half_weights,
    is_stand_in,
    share_change,
)
from fairparse.results.verdicts import VERDICTS, Margin

CLAIMS = papers_claims()
MULTI = ["linear", "sigmoid", "piecewise", "linear_alt"]
ALL = ["single", *MULTI]


POINT = Margin("1 point of mIoU", 1.0)


def change(difference, p=0.001):
    "A difference with this two-sided p-value, from many trainings"
    error = abs(difference) / stats.norm.isf(p / 2)
    found = Estimate(difference, error**2 / 2, error**2 * 3 / 2, np.inf, 3, 100)
    return Change("a less b", 50.0, difference, found, 100, 3)


def make_run(folder, skills, seeds=3, images=60, luck=0.0):
    "Counts of parsers with the given skill; `luck` is the spread between trainings"
    for k, (objective, skill) in enumerate(skills.items()):
        for seed in range(seeds):
            faces = np.random.default_rng(seed)  # the same hard faces for all
            own = np.random.default_rng([seed, k])
            scores = faces.normal(100 * skill, 3, (images, 19))
            scores = scores + own.normal(0, 0.5, (images, 19)) + 100 * own.normal(0, luck)
            hits = np.clip(scores, 0, 100).round().astype(int)
            counts = np.stack([hits, (100 - hits) // 2, (100 - hits) // 2], -1)
            ids = np.array([f"{i:03d}" for i in range(images)], object)
            place = folder / "20_parsers" / objective / f"seed{seed}"
            table = counts_table(counts, ids, objective, seed, "none", 0.0)
            write_table(table, place / "counts.parquet", COUNTS)
            record = {"faces": "made-up faces", "training_seconds": 10.0 + k + seed}
            write_json(place / "run.json", record)
    return Evidence(folder, list(skills), list(range(seeds)))


def verdict_of(run, name):
    table, _ = claim_tables(run)
    return table.set_index("id").loc[name]


def test_claims_are_complete_sentences_with_names_of_their_own():
    assert len({c.id for c in CLAIMS}) == len(CLAIMS) == 55
    assert {c.paper for c in CLAIMS} == {1, 2}
    for claim in CLAIMS:
        assert claim.claim and claim.section and claim.reported
        assert claim.need in NEEDS
        assert claim.asset in ASSETS
        assert claim.kind in KINDS
        assert callable(claim.test) or isinstance(claim.test, str) and claim.test
        assert claim.rule in ("higher", "lower") or claim.rule[0] < claim.rule[1]


def test_bounds_stand_in_the_sentence():
    "Who reads the sentence must see with which margin it is read"
    for claim in CLAIMS:
        for bound in claim.rule if isinstance(claim.rule, tuple) else ():
            if np.isfinite(bound) and bound != 0:
                assert f"{abs(bound):g}" in claim.claim.partition("(read as: ")[2], claim.id


def test_every_measure_is_used_and_says_what_it_is():
    assert {claim.test.func for claim in CLAIMS if callable(claim.test)} == set(MEASURES.values())
    assert all(function.__doc__ for function in MEASURES.values())


ENTRY = """
  - id: mine
    section: V
    claim: It is better
    reported: no number
    measure: miou
    arguments: {parsers: [linear], others: [single]}
"""


def write_claims(folder, entries=ENTRY, head="paper: 1\nclaims:"):
    path = folder / "mine.yaml"
    path.write_text(head + entries)
    return path


def test_a_claim_of_ones_own(tmp_path):
    bounded_entry = ENTRY.replace("mine", "yours") + "    rule: [-1, .inf]\n    need: most\n"
    first, second = read_claims(write_claims(tmp_path, ENTRY + bounded_entry))
    assert (first.id, first.rule, first.need, first.kind) == ("mine", "higher", "all", "parsers")
    assert (second.rule, second.need) == ((-1.0, np.inf), "most")
    run = make_run(tmp_path / "run", {"single": 0.70, "linear": 0.74})
    assert claim_tables(run, [first])[0].verdict[0] == "supported"


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("measure: miou", "measure: miuo", "'mine' names the measure 'miuo'.*choose one of.*miou"),
        ("others", "other", "'mine' cannot be measured by miou.*others.*correct its arguments"),
        ("section: V", "need: all", "'mine' lacks the field 'section': write"),
        ("section: V", "section: 5", "section: 5, which is no text: put it in quotes"),
        ("section", "sektion", "unknown field 'sektion'"),
        ("measure: miou", "need: few", "either a measure, or `open`"),
        (
            "measure: miou",
            "measure: miou\n    need: few",
            "need: few, choose one of all, most, some",
        ),
        ("measure: miou", "measure: miou\n    rule: up", "higher, lower, or two bounds"),
        ("measure: miou", "measure: miou\n    rule: [1, -1]", "or two bounds such as"),
        ("measure: miou", "measure: miou\n    kind: parser", "kind: parser, choose one of parsers"),
        ("measure: miou", "measure: miou\n    open: no", "either a measure, or `open`"),
        ("measure: miou", "open: nobody knows", "has arguments but no measure: remove them"),
        ("id: mine", "id: [mine", "is not valid YAML, mend it"),
        (ENTRY, ENTRY + ENTRY, "two claims have the id 'mine'"),
        (ENTRY, "\n  - a sentence\n", "'a sentence' is no claim: write its fields"),
    ],
)
def test_a_slip_in_a_claim_names_file_claim_and_remedy(tmp_path, old, new, message):
    path = write_claims(tmp_path, ENTRY.replace(old, new))
    with pytest.raises(InputError, match=message) as error:
        read_claims(path)
    assert str(path) in str(error.value)


def test_a_file_without_claims_is_none(tmp_path):
    for head in ("paper: 1", "claims: []", "paper: one\nclaims: []"):
        with pytest.raises(InputError, match="`paper`, a number, and `claims`, a list"):
            read_claims(write_claims(tmp_path, "", head))
    with pytest.raises(InputError, match="names and values"):
        read_claims(write_claims(tmp_path, "", "[]"))
    with pytest.raises(InputError, match="cannot read .*nowhere.yaml"):
        read_claims(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "skills, verdict, nuance",
    [
        ({"single": 0.70, "linear": 0.74}, "supported", "shown"),
        ({"single": 0.74, "linear": 0.70}, "contradicted", "shown"),
        ({"single": 0.72, "linear": 0.72}, "equal within margin", "within 1 point of mIoU"),
        ({"single": 0.72, "linear": 0.725}, "supported", "within 1 point of mIoU"),
    ],
)
def test_parsers_of_known_skill(tmp_path, skills, verdict, nuance):
    row = verdict_of(make_run(tmp_path, skills), "linear-surpasses")
    assert (row.verdict, row.nuance) == (verdict, nuance)
    assert row.margin == 1
    if verdict != "equal within margin":
        assert row.low < row.difference < row.high
        assert (row.low > 0) == (verdict == "supported")
        assert row.repetitions == 3
        assert row.n == 60
    assert row.data == "made-up faces"


def test_one_training_of_each_cannot_tell_objectives_apart(tmp_path):
    row = verdict_of(
        make_run(tmp_path, {"single": 0.60, "linear": 0.80}, seeds=1), "linear-surpasses"
    )
    assert row.verdict == "not testable here"
    assert "one training" in row.reason
    assert np.isnan(row.difference)


def test_luck_of_trainings_hides_a_small_difference(tmp_path):
    assert (
        verdict_of(
            make_run(tmp_path, {"single": 0.72, "linear": 0.725}, luck=0.05), "linear-surpasses"
        ).nuance
        == "not shown"
    )


def test_an_objective_that_was_not_trained_is_named(tmp_path):
    row = verdict_of(make_run(tmp_path, {"single": 0.7, "linear": 0.8}), "linear-best")
    assert row.verdict == "not testable here" and "sigmoid" in row.reason


def test_without_a_run_every_claim_says_why(tmp_path):
    table, parts = claim_tables(Evidence(tmp_path, [], []))
    assert set(table.verdict) == {"not testable here"}
    assert table.reason.str.len().gt(5).all()
    assert parts.empty
    assert (
        count_verdicts(table)
        == f"{len(CLAIMS)} claims: 0 supported, 0 contradicted, 0 equal within margin, "
        f"0 undecided, {len(CLAIMS)} not testable here"
    )


def test_chance_alone_decides_next_to_nothing():
    rng, false = np.random.default_rng(0), 0
    for _ in range(50):
        claims = [
            Claim(
                f"c{i}", 1, "", "c", "", lambda run, d=rng.normal(), p=rng.uniform(): [change(d, p)]
            )
            for i in range(40)
        ]
        false += (
            claim_tables(Evidence("nowhere", [], []), claims, "noise")[0].verdict != "undecided"
        ).any()
    assert false <= 6  # 5 % of 50


def unguided(generator, white=68.0):
    return pd.DataFrame(
        {
            "group": ["Asian", "White"],
            "share": [9.0, white],
            "share_low": [8.5, white - 1],
            "share_high": [9.5, white + 1],
            "reported_group": ["Asian", "White"],
            "reported_share": [8.82, 68.37],
            "faces": 10_000,
            "generator": generator,
        }
    )


@pytest.mark.parametrize(
    "generator, white, verdict",
    [
        ("tiny_stylegan (stand-in)", 68.0, "not testable here"),
        ("gan_face_generate", 68.0, "not testable here"),
        ("stylegan2_ffhq", 68.0, "supported"),
        ("stylegan2_ffhq", 90.0, "contradicted"),
    ],
)
def test_shares_of_a_generator_are_tested_on_that_generator_alone(
    tmp_path, generator, white, verdict
):
    (tmp_path / "tables").mkdir()
    unguided(generator, white).to_csv(
        tmp_path / "tables" / "balance_table2_unguided.csv", index=False
    )
    row = verdict_of(Evidence(tmp_path, [], []), "unguided-shares")
    assert row.verdict == verdict and row.data == generator
    if verdict == "not testable here":
        assert row.nuance == "stand-in"
        assert not np.isnan(row.difference)
        assert np.isnan(row.claim_p_adjusted)
    if white == 90.0:
        assert row.nuance == "shown" and "White" in row.quantity


def test_guidance_needs_every_group_and_both_classifiers(tmp_path):
    with_table(tmp_path, "balance_table2_unguided", unguided("stylegan2_ffhq"))
    table = pd.DataFrame(guided())
    run = with_table(tmp_path, "balance_table3_guided", table)
    assert verdict_of(run, "guidance-raises").verdict == "supported"
    table.loc[(table.rule == "raw") & (table.group == "Indian"), "confirmed"] = 50
    row = verdict_of(with_table(tmp_path, "balance_table3_guided", table), "guidance-raises")
    assert row.verdict == "undecided" and "Indian" in row.quantity


def test_halves_are_halves_and_the_same_for_all():
    weights = half_weights(61, 20)
    assert weights.shape == (21, 61)
    assert (weights[0] == 1).all()
    assert (weights[1:].sum(1) == 30).all()
    assert (weights == half_weights(61, 20)).all()


def test_an_interval_contains_zero_exactly_if_p_is_above_five_percent():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        family = {
            name: np.vstack([rng.normal(0.01, 0.01, 3), rng.normal(0, 0.01, (40, 3))])
            for name in "abc"
        }
        for parts in ({"a": 1}, {"a": 1, "b": -1}):
            one = change_of("", family, parts, 50).found
            assert (one.low <= 0 <= one.high) == (one.p >= 0.05)
            seen.add(one.p < 0.05)
    assert seen == {True, False}


def test_no_verdict_from_one_pair_of_trainings():
    with pytest.raises(NotTestable, match="one training"):
        change_of("", {"a": np.ones((5, 1)), "b": np.zeros((5, 1))}, {"a": 1, "b": -1}, 10)


def test_an_objective_without_a_score_says_nothing_about_luck():
    "A group that one objective has no score for must not take it from the others"
    rng = np.random.default_rng(0)
    family = {name: rng.normal(0.7, 0.01, (20, 3)) for name in "ab"}
    alone = change_of("", family, {"a": 1, "b": -1}, 10)
    beside = change_of("", family | {"c": np.full((20, 3), np.nan)}, {"a": 1, "b": -1}, 10)
    assert alone == beside


def test_shares():
    one = share_change("", (60, 100), (60, 100))
    assert one.difference == 0 and one.found.low == -one.found.high and one.found.p == 1
    assert share_change("", (90, 100), (10, 100)).found.p < 1e-9
    assert share_change("", (0, 10), (0, 10)).found.p == 1.0
    assert from_interval("", 1.0, 2.0, 0.0, 4.0, 10).found.p == pytest.approx(0.05)
    assert from_interval("", 1.0, 0.0, 0.0, 0.0, 10).found.p == 1.0


def test_shares_as_in_the_paper_of_the_interval():
    "Agresti and Caffo (2000): 1 more hit and 1 more miss each, then the usual interval"
    one = share_change("", (7, 20), (1, 15)).found
    p, q = 8 / 22, 2 / 17
    error = np.sqrt(p * (1 - p) / 22 + q * (1 - q) / 17)
    z = stats.norm.ppf(0.975)
    assert (one.low, one.high) == pytest.approx(
        (100 * (p - q - z * error), 100 * (p - q + z * error))
    )


@pytest.mark.parametrize("freedom", [4.0, np.inf])
def test_an_interval_read_from_a_table_is_the_interval(freedom):
    one = from_interval("", 50.0, 1.2, -1.0, 3.0, 200, 3, freedom).found
    assert (one.low, one.high, one.freedom) == pytest.approx((-1.0, 3.0, freedom))


def test_verdicts_of_the_table_are_known():
    table, _ = claim_tables(
        Evidence("nowhere", [], []),
        [
            Claim("a", 1, "s", "c", "r", lambda run: [change(1)]),
            Claim("b", 2, "s", "c", "r", "no measure"),
        ],
        "x",
    )
    assert set(table.verdict) <= set(VERDICTS)
    assert list(table.nuance) == ["shown", "open"]


def test_drops_and_levels_need_two_trainings(tmp_path):
    run = make_run(tmp_path, {"single": 0.7, "linear": 0.7}, seeds=1)
    for changes in (
        lambda: miou_drops(run, ["single"], "none"),
        lambda: miou_levels(run, ["single"], ["none"]),
    ):
        with pytest.raises(NotTestable, match="one training"):
            changes()
    two = make_run(tmp_path, {"single": 0.7, "linear": 0.7}, seeds=2)
    (drop,) = miou_drops(two, ["single"], "none")
    (level,) = miou_levels(two, ["single"], ["none"], less=5)
    assert drop.difference == 0
    assert level.difference == pytest.approx(65, abs=2)


# made-up tables, one that bears a claim out and one that does not


def with_table(out, name, rows):
    (out / "tables").mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(out / "tables" / f"{name}.csv", index=False)
    return Evidence(out, [], [])


def guided(rules=("unguided", "raw"), groups=("Asian", "Black", "Indian"), hits=(50, 200)):
    return [
        {
            "group": group,
            "rule": rule,
            "space": "z",
            "purpose": "fresh",
            "painted": 500,
            "accepted": n,
            "confirmed": n,
            "reported_group": group,
            "reported_yield": 40.0,
            **{
                f"{name}{end}": n / 5 + move
                for name in ("yield", "confirmed_share")
                for end, move in (("", 0), ("_low", -2), ("_high", 2))
            },
        }
        for group in groups
        for rule, n in zip(rules, hits)
    ]


@pytest.mark.parametrize(
    "reach, verdict, nuance", [(1.0, "supported", "shown"), (9.0, "undecided", "not shown")]
)
@pytest.mark.parametrize("moved", [0.5, 12.0])
def test_what_else_moves(tmp_path, reach, verdict, nuance, moved):
    labels = {"smile": ["not smiling", "smiling"], "emotion": ["angry", "happy", "sad"]}
    moves = {"smile": [moved, -moved], "emotion": [0.5] * 3}
    rows = [
        {
            "attribute": attribute,
            "label": label,
            "guided": 50.0,
            "difference": difference,
            "low": difference - reach,
            "high": difference + reach,
            "n_guided": 400,
            "target": target,
            "rule": "raw",
            "space": "z",
        }
        for target in ("Asian", "Black")
        for attribute, names in labels.items()
        for label, difference in zip(names, moves[attribute])
    ]
    run = with_table(tmp_path, "balance_side_effects", rows)
    labels = [change.label for change in side_effects(run)]
    assert labels[:4] == [
        "Asian: share of not smiling",
        "Asian: share of angry",
        "Asian: share of happy",
        "Asian: share of sad",
    ]
    assert len(labels) == 8  # of two labels one
    row = verdict_of(run, "disentangled")
    if moved > 5 and reach == 1:
        verdict, nuance = "contradicted", "shown"
    assert (row.verdict, row.nuance) == (verdict, nuance) and "one trained generator" in row.reason


@pytest.mark.parametrize(
    "difference, reach, verdict, nuance",
    [
        (2.0, 1.0, "supported", "shown"),
        (-2.0, 1.0, "contradicted", "shown"),
        (2.0, 3.0, "undecided", "not shown"),
        (0.1, 0.6, "equal within margin", "within 1 point of mIoU"),
    ],
)
@pytest.mark.parametrize(
    "name, quantity",
    [("skew-harms", "tone_5"), ("balance-worst", "worst group"), ("balance-gap", "gap")],
)
def test_retrained_parsers(tmp_path, name, quantity, difference, reach, verdict, nuance):
    d = -difference if quantity == "gap" else difference
    rows = [
        {
            "arm": arm,
            "compared_with": other,
            "quantity": quantity,
            "value": 50.0,
            "difference": d,
            "difference_low": d - reach,
            "difference_high": d + reach,
            "freedom": 6.0,
            "p_adjusted": 1.0,
            "seeds": 3,
            "images": 300,
            "rare_group": "tone_5",
            "world": "procedural",
        }
        for arm, other in (("more_balanced", "more_skewed"), ("self_balanced", "self_skewed"))
    ]
    row = verdict_of(with_table(tmp_path, "balance_loop", rows), name)
    assert (row.verdict, row.nuance) == (verdict, nuance)
    assert (row.low, row.high) == pytest.approx((d - reach, d + reach))
    assert row.freedom == 6
    row = verdict_of(with_table(tmp_path, "balance_loop", [r | {"seeds": 1} for r in rows]), name)
    assert row.verdict == "not testable here" and "one training" in row.reason


@pytest.mark.parametrize(
    "unsure, verdict, nuance",
    [
        (0.55, "supported", "shown"),
        (1.0, "contradicted", "shown"),
        (0.93, "undecided", "not shown"),
    ],
)
def test_errors_where_a_classifier_is_unsure(tmp_path, unsure, verdict, nuance):
    folder = tmp_path / "60_classifiers" / "smile"
    folder.mkdir(parents=True)
    pd.DataFrame(
        {
            "low": [0.6, 0.8],
            "high": [0.8, 1.0],
            "n": [100, 400],
            "confidence": [0.7, 0.9],
            "accuracy": [unsure, 0.92],
            "which": "calibrated",
        }
    ).to_csv(folder / "reliability.csv", index=False)
    row = verdict_of(Evidence(tmp_path, [], []), "unsure-wrong")
    assert (row.verdict, row.nuance) == (verdict, nuance) and "each trained once" in row.reason


@pytest.mark.parametrize(
    "shares, verdict, nuance",
    [
        ((1000, 1000, 1000), "supported", "shown"),
        ((1500, 1000, 500), "contradicted", "shown"),
        ((12, 10, 8), "undecided", "not shown"),
    ],
)
def test_evenness_of_the_balanced_set(tmp_path, shares, verdict, nuance):
    (tmp_path / "balanced_faces").mkdir()
    pd.DataFrame(
        {
            "group": np.repeat(list("abc"), sum(shares) // 3),
            "second_group": np.repeat(list("abc"), shares),
        }
    ).to_csv(tmp_path / "balanced_faces" / "labels.csv", index=False)
    row = verdict_of(Evidence(tmp_path, [], []), "set-even")
    assert (row.verdict, row.nuance) == (verdict, nuance)


@pytest.mark.parametrize(
    "test, verdict, nuance",
    [
        (89.0, "supported", "shown"),
        (96.0, "supported", "shown"),
        (70.0, "contradicted", "shown"),
        (86.0, "undecided", "not shown"),
    ],
)
def test_overfitting(tmp_path, test, verdict, nuance):
    run = with_table(
        tmp_path,
        "balance_table1_classifier",
        [
            {
                "classifier": "group",
                "data": "own",
                "split": split,
                "n": n,
                "accuracy": a,
                "accuracy_low": a - 1.9,
                "accuracy_high": a + 1.9,
                "reported_accuracy": 80.0,
                "faces": "procedural faces",
            }
            for split, n, a in (("train", 1000, 90.0), ("test", 1000, test))
        ],
    )
    row = verdict_of(run, "race-overfit")
    assert (row.verdict, row.nuance) == (verdict, nuance) and "one trained classifier" in row.reason
    assert verdict_of(run, "race-accuracy").nuance == "stand-in"


@pytest.mark.parametrize(
    "white, verdict, nuance",
    [
        (68.0, "supported", "shown"),
        (40.0, "contradicted", "shown"),
        (50.5, "equal within margin", "within 5 points"),
    ],
)
def test_the_largest_group_of_unguided_faces(tmp_path, white, verdict, nuance):
    row = verdict_of(
        with_table(tmp_path, "balance_table2_unguided", unguided("stylegan2_ffhq", white)),
        "unguided-biased",
    )
    assert (row.verdict, row.nuance) == (verdict, nuance) and "White" in row.quantity
    assert (
        verdict_of(
            with_table(
                tmp_path,
                "balance_table2_unguided",
                unguided("stylegan2_ffhq", white).replace({"group": {"White": "tone_1"}}),
            ),
            "unguided-biased",
        ).nuance
        == "stand-in"
    )  # tones of drawn faces, whatever paints them


@pytest.mark.parametrize(
    "raw, verdict, nuance",
    [
        (200, "supported", "shown"),
        (40, "contradicted", "shown"),
        (102, "equal within margin", "within 5 points"),
        (115, "undecided", "not shown"),
    ],
)
def test_more_than_an_equal_share(tmp_path, raw, verdict, nuance):
    row = verdict_of(
        with_table(tmp_path, "balance_table3_guided", guided(hits=(50, raw))), "bias-reduced"
    )
    assert (row.verdict, row.nuance) == (verdict, nuance)


def test_a_group_without_the_rule_or_a_run_without_the_group_is_named(tmp_path):
    rows = guided()
    row = verdict_of(with_table(tmp_path, "balance_table3_guided", rows[:-1]), "guidance-raises")
    assert row.verdict == "not testable here" and "Indian by raw" in row.reason
    row = verdict_of(with_table(tmp_path, "balance_table3_guided", rows[:-2]), "guidance-raises")
    assert row.verdict == "not testable here" and row.reason.endswith("Indian")


@pytest.mark.parametrize(
    "closed, verdict", [((5, 25, 60), "supported"), ((30, 32, 10), "contradicted")]
)
def test_other_features(tmp_path, closed, verdict):
    (tmp_path / "62_guided").mkdir()
    table = pd.DataFrame(
        [
            {
                "target": target,
                "rule": "shift",
                "alpha": alpha,
                "purpose": "fresh",
                "painted": 150,
                "accepted": n,
                "yield_low": n / 150 - 0.05,
                "yield_high": n / 150 + 0.05,
            }
            for target, hits in (("smiling", (40, 80, 120)), ("closed", closed))
            for alpha, n in zip((0, 2, 4), hits)
        ]
    )
    table.to_csv(tmp_path / "62_guided" / "attributes.csv", index=False)
    assert verdict_of(Evidence(tmp_path, [], []), "other-features").verdict == verdict
    table[table.alpha > 0].to_csv(tmp_path / "62_guided" / "attributes.csv", index=False)
    assert "smiling, closed" in verdict_of(Evidence(tmp_path, [], []), "other-features").reason


@pytest.mark.parametrize(
    "effect, verdict, nuance",
    [
        (-30, "supported", "shown"),
        (30, "contradicted", "shown"),
        (0, "equal within margin", "within 8 % of the other's distance"),
    ],
)
def test_painted_faces(tmp_path, effect, verdict, nuance):
    for name in ALL:
        save(
            tmp_path / "70_score",
            name,
            effects={
                "fid2048_inception_test": effect if name in MULTI else 0,
                "lpips_alex": 0.1 * (name in MULTI),
            },
            repetitions=3,
            settings=(("none", 0.0),),
        )
    table = claim_tables(Evidence(tmp_path, ALL, [0, 1, 2]))[0].set_index("id")
    for claim in ("gan-fid", "gan-shared"):
        assert (table.verdict[claim], table.nuance[claim]) == (verdict, nuance)
    assert "not run" in table.reason["gan-damaged"]
    assert "not run" in table.reason["gan-damaged-lpips"]


def test_a_margin_in_lpips_is_held_against_lpips_alone(tmp_path):
    for name in ALL:
        save(tmp_path / "70_score", name, metrics=("fd128_classifier_test", "stlpips_alex"))
    row = verdict_of(Evidence(tmp_path, ALL, [0, 1]), "gan-damaged-lpips")
    assert row.verdict == "not testable here"
    assert "stlpips_alex" in row.reason
    assert "scale" in row.reason


@pytest.mark.parametrize(
    "what, used, groups, answer",
    [
        ("faces", "procedural faces, seed 0", (), True),
        ("faces", "CelebAMask-HQ", (), False),
        ("diffusion model", "standin", (), True),
        ("diffusion model", "stand-in base", (), True),
        ("diffusion model", "stable-diffusion-v1-5", (), False),
        ("generator", "tiny_stylegan (stand-in)", (), True),
        ("generator", "stylegan2_ffhq", ("tone_1", "tone_2"), True),
        ("generator", "stylegan2_ffhq", ("White", "Black"), False),
    ],
)
def test_stand_ins(what, used, groups, answer):
    assert is_stand_in(what, used, groups) == answer
