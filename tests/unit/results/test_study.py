"The study's quantities, goals and shares, on counts whose answer is known"

from dataclasses import replace

import numpy as np
import pytest

from fairparse.data.groups import Groups
from fairparse.data.map_folders import CLEAN
from fairparse.results.study import (
    STUDIED,
    Goals,
    compare_rows,
    goal_table,
    held_out_settings,
    kept_table,
    study_boards,
    study_changes,
)

FACES, TRAININGS = 240, 5
OF = np.random.default_rng(1).choice(3, FACES, p=[0.45, 0.4, 0.15])
GROUPS = Groups(["Tone_1", "Tone_2", "Tone_5"], np.eye(3, dtype=bool)[OF].T)


def counts(*skills, seed=0):
    "Counts of faces whose IoU is that of their group, give or take"
    rng = np.random.default_rng(seed)
    skill = np.array(skills)[OF] + rng.normal(0, 0.002, (TRAININGS, 1))
    tp = rng.binomial(500, skill.clip(0, 1)[..., None], (TRAININGS, FACES, 4))
    return np.stack([tp, 500 - tp, np.zeros_like(tp)], -1)


SINGLE = counts(0.8, 0.8, 0.7)


def boards(**others):
    return study_boards({"single": SINGLE, **others}, GROUPS, "Tone_5", resamples=200)


def test_quantities_are_those_of_the_groups():
    found = boards()
    of = {name: board.scores["single"].mean() for name, board in found.items()}
    assert list(found) == [*STUDIED, *GROUPS.names]
    assert of["rare group"] == of["Tone_5"] == pytest.approx(70, abs=0.3)
    assert of["others"] == pytest.approx(80, abs=0.3)
    assert of["gap"] == pytest.approx(of["others"] - of["rare group"])
    assert of["overall"] == pytest.approx(80 - 10 * (OF == 2).mean(), abs=0.3)
    tones = [of[name] for name in GROUPS.names]
    assert of["variance over groups"] == pytest.approx(np.var(tones), abs=0.1)
    assert not found["gap"].higher and found["overall"].higher


@pytest.mark.parametrize(
    "skills, reached",
    [
        ((0.8, 0.8, 0.76), [True, True, True, True]),
        ((0.8, 0.8, 0.73), [False, False, True, True]),
        ((0.78, 0.78, 0.76), [True, True, False, False]),  # levels down
        ((0.81, 0.78, 0.76), [True, True, True, False]),  # one group pays
    ],
)
def test_goals(skills, reached):
    table = goal_table(boards(fair=counts(*skills, seed=1)), "fair")
    assert table.reached.tolist() == reached
    assert (table.shown <= table.reached).all()
    assert table.goal[0] == "gap, less 50% of the baseline's"


def test_goals_are_a_parameter():
    own = boards(fair=counts(0.8, 0.8, 0.73, seed=1))
    table = goal_table(own, "fair", goals=Goals(gap_left=0.9, gain=2))
    assert table.reached.all() and table.asked[1] == "at least 2"


def test_changes_have_verdicts_of_the_better_side():
    table = study_changes(
        boards(fair=counts(0.8, 0.8, 0.76, seed=1), linear=counts(0.75, 0.75, 0.7, seed=2))
    ).set_index(["parser", "quantity"])
    assert set(table.verdict["single"]) == {"baseline"}
    assert table.verdict["fair", "rare group"] == table.verdict["fair", "gap"] == "better"
    assert table.difference["fair", "gap"] < 0
    assert table.verdict["linear", "others"] == "worse"
    assert table.verdict["linear", "gap"] == "better"  # the gap alone does not see levelling down
    assert table["first"].groupby("quantity").sum().round(6).eq(1).all()


def test_no_group_loses_is_shown_of_all_groups():
    "A small group whose interval is wide decides, whichever changed least"
    own = boards(fair=counts(0.8, 0.8, 0.76, seed=1))
    wide = own["Tone_5"]
    shaken = wide.resampled["fair"] + np.random.default_rng(0).normal(
        0, 9, wide.resampled["fair"].shape
    )
    own["Tone_5"] = replace(wide, resampled={**wide.resampled, "fair": shaken})
    last = goal_table(own, "fair").iloc[-1]
    assert last.reached and not last.shown and last.low < -0.5


def test_pairs_are_compared_and_adjusted_together():
    own = boards(fair=counts(0.8, 0.8, 0.76, seed=1), linear=counts(0.8, 0.8, 0.7, seed=2))
    table = compare_rows(own, [("fair", "single"), ("linear", "single")], ["rare group", "gap"])
    assert table.objective.tolist() == ["fair", "fair", "linear", "linear"]
    assert table.verdict[:2].tolist() == ["better", "better"]
    assert (table.p_adjusted >= table.p).all()


def test_worlds_can_be_scored_over_the_same_classes():
    some = np.array([True, True, False, False])
    own = study_boards({"single": SINGLE}, GROUPS, "Tone_5", resamples=50, classes=some)
    by_hand = SINGLE[..., 0].sum(1) / SINGLE.sum((1, 3))
    assert own["overall"].scores["single"] == pytest.approx(100 * by_hand[:, :2].mean(1))


def test_what_is_kept_is_a_share_of_the_clean_score():
    level = {"single": 0.8, "fair": 0.5}
    swept = {CLEAN: {name: counts(*[own] * 3) for name, own in level.items()}}
    left = {("shot_noise", 0.1): 0.9, ("blur", 0.1): 0.5, ("blur", 0.3): 0.3}
    for setting, share in left.items():
        swept[setting] = {name: counts(*[share * own] * 3) for name, own in level.items()}
    known = {"shot_noise": "seen", "blur": "held out"}
    held = held_out_settings(list(left), known)
    assert held == [("blur", 0.1), ("blur", 0.3)]
    table = kept_table(swept, {"held out": held}, resamples=100).set_index(["parser", "part"])
    for name in level:
        assert table.kept[name, "all kinds"] == pytest.approx(
            100 * np.mean([*left.values()]), abs=1
        )
        assert table.kept[name, "blur"] == table.kept[name, "held out"]
        assert table.kept[name, "blur"] == pytest.approx(40, abs=1)
        assert (table.kinds[name, "all kinds"], table.kinds[name, "held out"]) == (2, 1)
    assert (table.low < table.kept).all() and (table.kept < table.high).all()
    assert np.isnan(table.difference["single", "blur"])
    assert abs(table.difference["fair", "blur"]) < 1


def test_a_family_that_is_handled_is_not_held_out():
    settings = [("shadow", 0.1), ("hand", 0.1)]
    known = {"shadow": "handled", "hand": "held out"}
    assert held_out_settings(settings, known) == [("hand", 0.1)]
