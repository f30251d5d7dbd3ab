"""A study of guidance: directions in every space, what is kept between runs, collected faces

The generator and the judges are those of `latent_helpers`, whose yields can be computed by hand.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from latent_helpers import Above, Bands, Colours

from fairparse.balancing.choose_rule import (
    ASIDE,
    CODE,
    Study,
    check_draws,
    collect_faces,
    describe_collected,
    find_rule,
    study_identity,
    wanted_groups,
)
from fairparse.balancing.directions import Direction, fit_directions, fit_every_space
from fairparse.balancing.guidance import Rule, predict_labels, try_attributes, try_rule
from fairparse.balancing.latents import random_latents, sample_latents
from fairparse.core.records import YIELDS
from fairparse.core.runs import InputError, hash_file, package_folder

Z = random_latents(5, 0, 3000, 5)
PAINTER = Colours()
IMAGES = PAINTER.paint(Z)
UP = Direction("high", np.eye(5)[0], 0.0)


def quiet(text):
    pass


# ---- directions of groups and of other questions


def questions(border=0.0):
    judge = Above(border, 1)
    return {"above": (judge.classes, predict_labels(judge, IMAGES))}


def test_every_space_has_the_directions_that_fitting_alone_gives():
    labels, vectors = predict_labels(Bands(), IMAGES), {"z": Z, "w": PAINTER.map(Z)}
    found, leave_alone, table = fit_every_space(
        vectors, labels, ["high", "low"], "band", questions(), C=0.5, intercept=False
    )
    names = ["high", "low", "above: no", "above: yes"]
    assert list(found) == [(name, space) for space in ("z", "w") for name in names]
    for space, latents in vectors.items():
        alone, rows = fit_directions(latents, labels, ["high", "low"], 0.5, False, space)
        assert np.array_equal(found["high", space].theta, alone["high"].theta)
        here = table[(table.space == space) & (table.task == "band")]
        assert here.drop(columns="task").reset_index(drop=True).equals(rows)
    assert list(table.columns)[-1] == "task" and list(table.task.unique()) == ["band", "above"]
    # two answers exclude each other: one of them says all
    assert [(d.group, d.space) for d in leave_alone] == [("no", "z")]


def test_rare_answers_get_no_direction():
    labels = predict_labels(Bands(), IMAGES)
    found, leave_alone, table = fit_every_space(
        {"z": Z}, labels, ["high"], "band", questions(border=4.0)
    )
    assert list(found) == [("high", "z")] and leave_alone == []
    assert list(table.task) == ["band"]


def test_all_fitted_answers_are_left_alone_where_one_is_too_rare():
    given = predict_labels(Bands((-1.0, 3.5)), IMAGES)
    assert (given == "high").sum() < 10
    answers = {"band": (Bands().classes, given)}
    _, leave_alone, _ = fit_every_space({"z": Z}, given, ["low"], "group", answers)
    assert [d.group for d in leave_alone] == ["low", "middle"]


def test_attributes_are_tried_in_steps_by_their_own_judge():
    judge, direction = Above(1.0, 0), Direction("above: yes", np.eye(5)[0], 0.0)
    known = {("above: yes", "z"): direction}
    table = try_attributes(known, {"above": judge}, PAINTER, 200, 9, (0.0, 3.0))
    rows = [
        try_rule(
            Rule("shift", "yes", step, replace(direction, group="yes")),
            PAINTER,
            judge,
            judge,
            200,
            9,
            purpose="fresh",
        )
        for step in (0.0, 3.0)
    ]
    assert table[list(rows[0])].equals(pd.DataFrame(rows))
    assert set(table.task) == {"above"} and table["yield"].is_monotonic_increasing
    assert try_attributes({}, {"above": judge}, PAINTER, 200, 9).empty


# ---- what is kept of a study


def yields_of(group):
    row = try_rule(
        Rule("shift", group, 1.0, replace(UP, group=group)), PAINTER, Bands(), Bands(), 50, 3
    )
    return pd.DataFrame([row])


def test_a_study_goes_on_where_it_stopped(tmp_path):
    study = Study(tmp_path / "studied", ["low", "high"], {"seed": 1})
    table = pd.DataFrame({"target": ["high"], "kid": [1 / 3]})
    study.save("high", yields_of("high"), table, pd.DataFrame())
    names = sorted(path.name for path in study.folder.iterdir())
    assert names == ["1_diversity.csv", "1_leakage.csv", "1_yields.parquet", "of.json"]
    again = Study(tmp_path / "studied", ["low", "high"], {"seed": 1})
    assert again.has("high") and not again.has("low") and again.sha256 == study.sha256
    again.save("low", yields_of("low"), pd.DataFrame(), pd.DataFrame())
    assert list(again.yields().target) == ["low", "high"]
    assert YIELDS.check(again.yields()).equals(again.yields())
    assert again.compared("diversity").kid[0] == pytest.approx(1 / 3, abs=1e-12)
    with pytest.raises(InputError, match="raise fresh"):
        again.compared("leakage")


@pytest.mark.parametrize("name", ["leakage.csv", "diversity.csv", "yields.parquet"])
def test_a_half_written_group_is_not_there(tmp_path, name):
    "Stopped before the last file was written, or one of them lost since"
    study = Study(tmp_path, ["high"], {})
    study.save("high", yields_of("high"), pd.DataFrame(), pd.DataFrame())
    (tmp_path / f"0_{name}").unlink()
    assert not Study(tmp_path, ["high"], {}).has("high")


def test_another_identity_starts_again(tmp_path):
    study = Study(tmp_path, ["high"], {"seed": 1})
    study.save("high", yields_of("high"), pd.DataFrame(), pd.DataFrame())
    other = Study(tmp_path, ["high"], {"seed": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["of.json"]
    assert not other.has("high") and other.sha256 != study.sha256


def test_identity_is_of_contents_not_of_places(tmp_path):
    store = SimpleNamespace(meta={"seed": 3}, proposed=2000)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"the same weights")
    settings = {"seed": 1, "goal": 0.9, "groups": []}

    def identity(name, **further):
        return study_identity({**settings, **further}, ["x"], store, [tmp_path / name])

    assert identity("a") == identity("b", **{name: "elsewhere" for name in ASIDE})
    assert identity("a") != identity("a", goal=0.8)
    assert list(identity("a"))[:3] == ["seed", "goal", "groups"]
    code = [hash_file(package_folder() / "balancing" / f"{name}.py") for name in CODE]
    assert identity("a")["groups"] == ["x"] and identity("a")["code"] == code
    before = identity("a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"other weights")
    assert identity("a") != before


# ---- what a study is made of


@pytest.mark.parametrize(
    "change, words",
    [
        ({"meta": {"psi": 0.7}}, "with psi 0.7 and 2 px, not of colours with 1.0 and 2 px"),
        ({"meta": {"generator_sha256": "c1"}}, "sample again, or name that generator"),
        ({"second": Above()}, r"\['no', 'yes'\], the first \['low', 'middle', 'high'\]"),
        ({"meta": {"seed": 8}}, "seed 7 .* meets that of the draws"),
        ({"meta": {"seed": 9}}, "seed 7 .* meets that of the draws"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, words):
    meta = {"generator": "colours", "generator_sha256": "c0", "psi": 1.0, "size": 2, "seed": 6}
    store = SimpleNamespace(folder="draws", meta=meta | change.get("meta", {}))
    with pytest.raises(InputError, match=words):
        check_draws(store, PAINTER, Bands(), change.get("second", Bands()), 7)
    check_draws(SimpleNamespace(folder="draws", meta=meta), PAINTER, Bands(), Bands(), 7)


def test_wanted_groups():
    counts = pd.Series({"low": 50, "middle": 3, "high": 40})
    assert wanted_groups(counts, [], 40) == (["low", "high"], ["middle"])
    assert wanted_groups(counts, ["middle"], 40) == (["middle"], [])
    with pytest.raises(InputError, match="no group has 60 unguided faces"):
        wanted_groups(counts, [], 60)


# ---- collecting


def test_find_rule_by_name_space_and_step():
    rules = [Rule("unguided", "high"), *(Rule("shift", "high", a, UP) for a in (0.1 + 0.2, 1.0))]
    assert find_rule(rules, pd.Series({"rule": "shift", "space": "z", "alpha": 0.3})) is rules[1]
    with pytest.raises(StopIteration):
        find_rule(rules, pd.Series({"rule": "shift", "space": "w", "alpha": 0.3}))


def test_collected_faces_are_those_of_the_rule(tmp_path):
    rule, judge, other = Rule("shift", "high", 1.5, UP), Bands(), Bands((-1.0, 1.2))
    store = collect_faces(tmp_path / "a", rule, PAINTER, judge, 60, 4, "study")
    by_hand = sample_latents(
        tmp_path / "b",
        PAINTER,
        judge,
        60_000,
        60,
        4,
        rule,
        "shift",
        "high",
        1.5,
        "z",
        want=60,
        identity="study",
        say=quiet,
    )
    assert store.table.equals(by_hand.table) and store.meta == by_hand.meta
    unguided = IMAGES[predict_labels(judge, IMAGES) == "high"]
    row, kept = describe_collected(
        store, rule.distance(), other, unguided, lambda p: p[:, 0, 0].astype(float), 1
    )
    pictures = store.images(store.kept("high"))
    agreed = int((predict_labels(other, pictures) == "high").sum())
    assert list(row) == list(YIELDS.columns) and row["distance"] == 1.5**2 / 2
    assert (row["painted"], row["proposed"]) == (1000, 1000)
    assert row["accepted"] == (store.table.label == "high").sum() > 60
    assert row["confirmed"] == row["both"] == agreed == kept["kept_confirmed"] < 60
    assert kept["kept"] == kept["guided"] == 60
    few, kept = describe_collected(store, 0.0, other, unguided[:39], lambda p: p, 1)
    assert set(kept) == {"target", "kept", "kept_confirmed"}


def test_not_a_single_face(tmp_path):
    never = Rule("fix", "high", -3.0, UP)
    with pytest.raises(InputError, match="fix painted no face of 'high' in 3000 draws"):
        collect_faces(tmp_path, never, PAINTER, Bands(), 3, 4, "study")
