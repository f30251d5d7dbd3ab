"The study's quantities, goals and shares, on counts whose answer is known"

import numpy as np
import pandas as pd
import pytest

from fairparse.core.runs import InputError
from fairparse.data.damage import PERTURBATIONS
from fairparse.data.groups import Groups
from fairparse.data.map_folders import CLEAN
from fairparse.results.study import (
    STUDIED,
    Goals,
    families_seen,
    goal_table,
    kept_table,
    seen_or_held_out,
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


def test_families_seen_are_those_of_the_training():
    assert families_seen("single") == families_seen("turned") == families_seen("cleaned") == set()
    assert families_seen("linear") == set()  # noise on logits shows no damaged picture
    assert families_seen("linear_inputs") == {"noise"}
    assert families_seen("linear_contrast") == families_seen("single_augmented") == {"light"}
    assert families_seen("fair") == families_seen("guided_pictures") == {"light", "noise"}
    with pytest.raises(InputError, match="fairest"):
        families_seen("fairest")


def test_what_is_kept_is_a_share_of_the_clean_score():
    swept = {CLEAN: {"single": counts(0.8, 0.8, 0.8), "fair": counts(0.5, 0.5, 0.5)}}
    for kind, severity, share in [("shot_noise", 0.1, 0.9), ("blur", 0.1, 0.5), ("blur", 0.3, 0.3)]:
        left = {
            name: counts(*[share * level] * 3) for name, level in [("single", 0.8), ("fair", 0.5)]
        }
        swept[kind, severity] = left
    table = kept_table(swept, ["single", "fair"], resamples=100).set_index(["parser", "part"])
    for name in ("single", "fair"):
        assert table.kept[name, "all kinds"] == pytest.approx(100 * np.mean([0.9, 0.5, 0.3]), abs=1)
        assert table.kept[name, "blur"] == pytest.approx(40, abs=1)
        assert table.kinds[name, "all kinds"] == 2
    assert table.kept["fair", "seen in training"] == pytest.approx(90, abs=1)
    assert table.kept["fair", "held out"] == pytest.approx(40, abs=1)
    assert ("single", "seen in training") not in table.index
    assert table.seen["fair", "blur"] == "light noise"
    assert (table.low < table.kept).all() and (table.kept < table.high).all()


def test_every_kind_of_damage_is_of_a_part():
    swept = {CLEAN: {"fair": SINGLE}} | {(kind, 0.1): {"fair": SINGLE} for kind in PERTURBATIONS}
    table = kept_table(swept, ["fair"], resamples=20).set_index("part")
    assert table.kinds["seen in training"] + table.kinds["held out"] == len(PERTURBATIONS)
    assert table.kinds["held out"] > len(PERTURBATIONS) / 2


def test_tables_say_what_training_showed():
    rows = pd.DataFrame(
        {
            "parser": ["fair", "fair", "single", "fair", "fair"],
            "perturbation": ["shadow", "hand", "shadow", "none", "mean"],
        }
    )
    assert seen_or_held_out(rows) == ["seen", "held out", "held out", "", ""]
