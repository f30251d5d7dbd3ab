"""The loop of both papers

Audit of parsers on balanced faces, retraining with and without balance, tables.
"""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import DECODER, ENCODER, ROOT, make_parser
from PIL import Image

from fairparse.balancing import retrain as retraining
from fairparse.balancing.annotate import model_labels
from fairparse.balancing.arms import compared_arms, group_values
from fairparse.balancing.balanced_set import face_ids, write_balanced_set, write_images
from fairparse.balancing.latents import open_latents, sample_latents
from fairparse.balancing.retrain import (
    agreement_records,
    audit_parsers,
    comparable_groups,
    draw_faces,
    face_set_part,
    generated_part,
    pick_balanced,
    pick_unguided,
    pseudo_label,
    read_balanced,
    repeat_rows,
    resize_faces,
    retrain,
    write_parts,
)
from fairparse.balancing.stylegan_train import skewed_world
from fairparse.core.records import open_face_set
from fairparse.core.runs import InputError
from fairparse.measure.counts import counts_array, gather_with_ids, iou
from fairparse.parsing.teachers import train_parser
from fairparse.parsing.unet import load_parser
from fairparse.results.loop import (
    audit_table,
    change_table,
    describe_change,
    level_table,
    loop_table,
)

WORLD = skewed_world()
TONES = list(WORLD.tones)
NETWORK = dict(encoder=ENCODER, encoder_weights="none", decoder_channels=DECODER)
SETTINGS = dict(objective="single", epochs=2, batch_size=8, lr=0.01)


def quiet(text):
    pass


@pytest.fixture(scope="module")
def data():
    "Base faces, added faces of all arms"
    drawn = {
        f"more_{kind}": draw_faces(10, 32, 2, WORLD, kind == "balanced", "more")
        for kind in ("balanced", "skewed")
    }
    made = {
        f"self_{kind}": generated_part(
            draw_faces(10, 32, 3, WORLD, kind == "balanced", "x").images,
            TONES * 2 if kind == "balanced" else ["tone_1"] * 10,
            32,
            TONES,
            f"self_{kind}",
        )
        for kind in ("balanced", "skewed")
    }
    return draw_faces(14, 32, 1, WORLD, False, "base"), drawn | made


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    "A run of all arms from two seeds: folder, table, test faces"
    folder = tmp_path_factory.mktemp("loop")
    test = write_parts(
        folder / "faces" / "test", [draw_faces(20, 32, 4, WORLD, True, "test")], "test"
    )
    return folder, retrain(folder, *data, test, [0, 1], NETWORK, SETTINGS, say=quiet), test


# faces of the arms


def test_a_pair_of_arms_adds_the_same_faces_in_other_tones(data):
    balanced, skewed = data[1]["more_balanced"], data[1]["more_skewed"]
    assert balanced.groups.sum().tolist() == [2] * 5
    assert (
        len(skewed) == 10
        and skewed.groups["tone_1"].sum() > 4
        and (skewed.groups.sum(axis=1) == 1).all()
    )
    assert np.array_equal(balanced.masks, skewed.masks)
    same = (balanced.groups.to_numpy(int) == skewed.groups.to_numpy(int)).all(1)
    assert same.any() and not same.all()
    assert [np.array_equal(a, b) for a, b in zip(balanced.images, skewed.images)] == same.tolist()


def test_drawn_faces_do_not_depend_on_how_many_are_drawn(data):
    again = draw_faces(5, 32, 2, WORLD, True, "more", start=5)
    assert np.array_equal(again.images, data[1]["more_balanced"].images[5:])


def test_drawn_faces_that_cannot_be_dealt_out():
    with pytest.raises(InputError, match="multiple of 5"):
        draw_faces(7, 32, 0, WORLD, True, "x")
    with pytest.raises(InputError, match="multiple of 5"):
        draw_faces(0, 32, 0, WORLD, False, "x")


def test_generated_faces_of_an_unknown_group_have_unknown_groups():
    part = generated_part(np.zeros((2, 16, 16, 3), np.uint8), ["tone_2", "else"], 32, TONES, "x")
    assert part.groups.loc[0].tolist() == [0, 1, 0, 0, 0] and part.groups.loc[1].isna().all()
    assert part.images.shape == (2, 32, 32, 3) and part.masks is None


def test_picking_from_the_balanced_set():
    table = pd.DataFrame({"group": ["a", "b", "a", "b", "a"]})
    assert pick_balanced(table, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="fewer than the 3 of each group"):
        pick_balanced(table, 6)
    with pytest.raises(InputError, match="multiple of 2"):
        pick_balanced(table, 3)


class Grey:
    name, sha256, psi, z_dim, size = "grey", "0", 1.0, 2, 32

    def paint(self, z, space="z", batch_size=None):
        return np.broadcast_to(
            (128 + 40 * z[:, 0]).clip(0, 255).astype(np.uint8)[:, None, None, None],
            (len(z), 32, 32, 3),
        )


class Shade:
    classes = ["dark", "light"]

    def predict(self, images):
        return np.eye(2, dtype=np.float32)[(images[:, 0, 0, 0] > 160).astype(int)]


def test_unguided_faces_come_as_they_were_painted(tmp_path):
    sample_latents(tmp_path / "all", Grey(), Shade(), 1000)
    sample_latents(tmp_path / "few", Grey(), Shade(), 1000, per_group=50)
    store = open_latents(tmp_path / "all")
    rows = pick_unguided(store, 300)
    assert rows.draw.tolist() == list(range(300)) and len(store.images(rows)) == 300
    with pytest.raises(InputError, match="fewer than the 1001"):
        pick_unguided(store, 1001)
    with pytest.raises(InputError, match="larger per_group"):
        pick_unguided(open_latents(tmp_path / "few"), 300)


def write_balanced(folder, each=4, size=32):
    "A balanced set of drawn faces"
    part = draw_faces(5 * each, size, 5, WORLD, True, "x")
    tone = np.array(TONES)[part.groups.to_numpy(int).argmax(1)]
    ids = {t: face_ids(t, each) for t in TONES}
    files = write_images(folder, {t: (ids[t], part.images[tone == t]) for t in TONES})
    names = [name for t in TONES for name in ids[t]]
    table = pd.DataFrame(
        {
            "id": names,
            "file": [files[n] for n in names],
            "group": np.repeat(TONES, each),
            "group_confidence": 0.9,
            "second_group": "tone_1",
            "second_confidence": 0.8,
            "rule": "shift",
            "space": "z",
            "alpha": 2.0,
            "seed": 3,
            "draw": range(len(names)),
        }
    )
    labels = model_labels(names, "smile", ["no", "yes"], np.tile([[0.9, 0.1]], (len(names), 1)))
    write_balanced_set(folder, table, np.zeros((len(names), 2)), labels, labels.head(0))
    return {t: part.images[tone == t] for t in TONES}


def test_the_balanced_set_is_read_back(tmp_path):
    images = write_balanced(tmp_path)
    back, table = read_balanced(tmp_path)
    for tone in TONES:
        assert np.array_equal(back[table.group == tone], images[tone])
    Image.new("RGB", (8, 8)).save(tmp_path / table.file[3])
    with pytest.raises(InputError, match="different sizes"):
        read_balanced(tmp_path)
    (tmp_path / table.file[3]).unlink()
    with pytest.raises(InputError, match="lacks 1 of its 20 pictures"):
        read_balanced(tmp_path)


def test_real_faces_get_groups_from_attributes_or_from_a_classifier(tmp_path):
    part = draw_faces(10, 32, 1, WORLD, True, "x")
    part.groups.loc[0, "tone_1"] = pd.NA
    faces = write_parts(tmp_path, [part], "test")
    rows = faces.rows("test")[2:]
    own = face_set_part(faces, faces.rows("test"), ["tone_2", "tone_1"], None, "test")
    assert (
        list(own.groups) == ["tone_2", "tone_1"]
        and own.groups["tone_1"].isna().tolist() == [True] + [False] * 9
    )
    by_model = face_set_part(faces, rows, [], Shade(), "test")
    light = Shade().predict(faces.images[rows]).argmax(1)
    assert (
        by_model.groups["light"].tolist() == light.tolist()
        and by_model.groups["dark"].tolist() == (1 - light).tolist()
        and by_model.ids == part.ids[2:]
    )
    with pytest.raises(InputError, match="no faces"):
        face_set_part(faces, rows[:0], [], Shade(), "test")
    with pytest.raises(InputError, match="no attributes"):
        face_set_part(faces, rows, ["Male"], None, "test")


def test_parts_that_do_not_fit(tmp_path, data):
    with pytest.raises(InputError, match="no label maps"):
        write_parts(tmp_path, [data[0], data[1]["self_balanced"]])
    with pytest.raises(InputError, match="different sizes"):
        write_parts(tmp_path, [data[0], draw_faces(5, 64, 0, WORLD, True, "large")])
    assert not list(tmp_path.iterdir())


# budgets, labels, resuming


@pytest.mark.parametrize("count, length", [(5, 5), (5, 10), (4, 10)])
def test_repeated_rows_are_even(count, length):
    times = np.bincount(repeat_rows(count, length, 0), minlength=count)
    assert times.sum() == length and times.max() - times.min() <= (length % count > 0)
    assert (repeat_rows(count, length, 0) == repeat_rows(count, length, 0)).all()


def test_rows_longer_than_an_epoch():
    with pytest.raises(InputError, match="too short"):
        repeat_rows(6, 5, 0)


def test_which_faces_come_once_more_depends_on_the_seed():
    assert (
        len({tuple(np.bincount(repeat_rows(20, 30, seed), minlength=20)) for seed in range(4)}) > 1
    )


def test_all_arms_take_as_many_steps(trained, data):
    folder, table, _ = trained
    assert len(table) == 10 and set(table.steps) == {2 * (24 // 8)}
    for arm in ("base", *data[1]):
        for seed in (0, 1):
            state = torch.load(
                folder / "parsers" / arm / f"seed{seed}" / "checkpoint" / "state.pt",
                weights_only=True,
            )
            assert {int(s["step"]) for s in state["optimizer"]["state"].values()} == {6}
            assert state["config"]["seed"] == seed


def test_arms_start_from_the_same_weights(trained, monkeypatch, data, tmp_path):
    first = []

    def watch(parser, *args, **options):
        first.append(torch.cat([p.detach().flatten() for p in parser.parameters()]).clone())
        return train_parser(parser, *args, **options)

    monkeypatch.setattr(retraining, "train_parser", watch)
    retrain(
        tmp_path,
        data[0],
        {"more_skewed": data[1]["more_skewed"]},
        trained[2],
        [0, 1],
        NETWORK,
        SETTINGS | {"epochs": 1},
        say=quiet,
    )
    assert (
        torch.equal(first[0], first[1])
        and torch.equal(first[2], first[3])
        and not torch.equal(first[0], first[2])
    )


def test_faces_of_each_arm(trained, data):
    folder, base = trained[0], data[0]
    assert len(open_face_set(folder / "faces" / "base")) == 14
    for arm, part in data[1].items():
        for seed in (0, 1):
            faces = open_face_set(
                folder / "faces" / (arm if part.masks is not None else f"{arm}_seed{seed}")
            )
            assert np.array_equal(
                faces.images, np.concatenate([base.images, part.images])
            ) and np.array_equal(faces.masks[:14], base.masks)
            assert faces.attributes == TONES and len(faces.rows("train")) == 24
            if part.masks is not None:
                assert np.array_equal(faces.masks[14:], part.masks)
    counts = open_face_set(folder / "faces" / "more_balanced").index[TONES].iloc[14:].sum()
    assert counts.tolist() == [2] * 5


def test_pseudo_labels_come_from_the_base_parser_of_the_same_seed(trained, data):
    folder, part = trained[0], data[1]["self_balanced"]
    labelled = [
        pseudo_label(load_parser(folder / "parsers" / "base" / f"seed{seed}"), part)
        for seed in (0, 1)
    ]
    assert not np.array_equal(labelled[0][0].masks, labelled[1][0].masks)
    for seed in (0, 1):
        assert np.array_equal(
            open_face_set(folder / "faces" / f"self_balanced_seed{seed}").masks[14:],
            labelled[seed][0].masks,
        )
    assert part.masks is None and 1 / 19 < labelled[0][1].min() <= labelled[0][1].max() <= 1
    assert trained[1].query(
        "arm == 'self_balanced' and seed == 0"
    ).confidence.item() == pytest.approx(labelled[0][1].mean())


def test_counts_of_the_arms_fit_the_tables(trained):
    folder, table, test = trained
    ids, counts = gather_with_ids(folder / "parsers", ["base", "self_skewed"], [0, 1])
    assert ids.tolist() == sorted(test.index.id) and counts["base"].shape == (2, 20, 19, 3)
    assert 100 * iou(counts["self_skewed"][1]) == pytest.approx(
        table.query("arm == 'self_skewed' and seed == 1").test_miou.item()
    )
    total = counts["base"][..., 0] + counts["base"][..., 2]
    assert (total.sum(-1) == 32 * 32).all()


def test_finished_trainings_are_not_made_again(trained, data, monkeypatch):
    folder, table, test = trained
    monkeypatch.setattr(
        "fairparse.parsing.train.Trainer.train_stretch",
        lambda *args: pytest.fail("a finished training was made again"),
    )
    again = retrain(folder, *data, test, [0, 1], NETWORK, SETTINGS, say=quiet)
    pd.testing.assert_frame_equal(again, table)


def test_an_interrupted_run_goes_on_to_the_same_result(trained, data, monkeypatch, tmp_path):
    from fairparse.parsing import train

    made, real = [], train.Trainer.train_stretch

    def dies(*args):
        if len(made) == 3:
            raise KeyboardInterrupt  # in the second epoch of the second arm
        made.append(1)
        return real(*args)

    chosen = {"self_balanced": data[1]["self_balanced"]}
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_stretch", dies)
        with pytest.raises(KeyboardInterrupt):
            retrain(tmp_path, data[0], chosen, trained[2], [0], NETWORK, SETTINGS, say=quiet)
    table = retrain(tmp_path, data[0], chosen, trained[2], [0], NETWORK, SETTINGS, say=quiet)
    whole = trained[1].query("seed == 0 and arm in ['base', 'self_balanced']")
    assert table.test_miou.tolist() == whole.test_miou.tolist()


def test_arms_that_cannot_be_compared(trained, data, tmp_path):
    base, added = data
    train = lambda parts, seeds=[0], test=trained[2]: retrain(
        tmp_path, base, parts, test, seeds, NETWORK, SETTINGS, say=quiet
    )
    with pytest.raises(InputError, match="equally many"):
        train(
            {
                "more_balanced": added["more_balanced"],
                "more_skewed": draw_faces(9, 32, 2, WORLD, False, "x"),
            }
        )
    with pytest.raises(InputError, match="each must be one of"):
        train({"most_balanced": added["more_balanced"]})
    with pytest.raises(InputError, match="each once"):
        train({}, [0, 0])
    with pytest.raises(InputError, match="64"):
        train(
            {},
            test=write_parts(tmp_path / "test", [draw_faces(5, 64, 0, WORLD, True, "x")], "test"),
        )
    assert not (tmp_path / "parsers").exists()


# audit


def test_agreement_by_hand():
    clean = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [0, 0]]], dtype=torch.uint8)
    maps = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 2]]], dtype=torch.uint8)
    records = agreement_records("a", "b", ["x", "y"], clean, maps, 3, "blur", 0.3)
    ids, counts = counts_array(records)
    assert (
        ids.tolist() == ["x", "y"]
        and records["first"].eq("a").all()
        and records.second.eq("b").all()
    )
    assert counts.tolist() == [[[1, 0, 1], [2, 1, 0], [0, 0, 0]], [[3, 0, 1], [0, 0, 0], [0, 1, 0]]]
    swapped = counts_array(agreement_records("b", "a", ["x", "y"], maps, clean, 3))[1]
    assert iou(swapped) == iou(counts) == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)


def test_audit_covers_every_parser_setting_and_pair():
    images = draw_faces(5, 32, 0, WORLD, True, "x").images
    records = audit_parsers(
        {"a": make_parser(0).eval(), "b": make_parser(1).eval()},
        images,
        list("vwxyz"),
        [("blur", 0.3), ("darkness", 0.0)],
    )
    found = records.groupby(["first", "second", "perturbation"]).size()
    assert set(found.index) == {
        ("a", "a", "blur"),
        ("a", "a", "darkness"),
        ("b", "b", "blur"),
        ("b", "b", "darkness"),
        ("a", "b", "none"),
    } and set(found) == {5 * 19}
    unhurt, hurt = (
        records.query(f"first == 'a' and perturbation == '{name}'") for name in ("darkness", "blur")
    )
    assert (
        unhurt.fp.sum() == unhurt.fn.sum() == 0 and hurt.fp.sum() > 0
    )  # severity 0 changes nothing
    assert (
        records.groupby(["first", "second", "perturbation", "id"])[["tp", "fn"]].sum().sum(axis=1)
        == 32 * 32
    ).all()


def test_faces_of_another_size_are_resized():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    assert audit_parsers({"a": make_parser().eval()}, images, ["x", "y"], [("blur", 0.3)]).groupby(
        "id"
    )[["tp", "fn"]].sum().sum(axis=1).tolist() == [1024, 1024]
    assert resize_faces(images, 16) is images
    assert (resize_faces(np.full((1, 16, 16, 3), 200, np.uint8), 32) == 200).all()


def test_parsers_that_cannot_be_audited_together():
    images = np.zeros((1, 32, 32, 3), np.uint8)
    one = make_parser().eval()
    with pytest.raises(InputError, match="different sizes"):
        audit_parsers({"a": one, "b": make_parser(size=64).eval()}, images, ["x"], [])
    with pytest.raises(InputError, match="different classes"):
        audit_parsers(
            {"a": one, "b": make_parser(classes=["back", "skin"]).eval()}, images, ["x"], []
        )
    with pytest.raises(InputError, match="nothing to measure"):
        audit_parsers({"a": one}, images, ["x"], [])
    with pytest.raises(InputError, match="at least"):
        audit_parsers({}, images, ["x"], [("blur", 0.3)])


def made_audit(skills, each=30, **changes):
    "Agreement records of faces whose maps hold with the given probability, and their groups"
    rng, parts = np.random.default_rng(0), []
    groups = np.repeat(list(skills), each)
    for i, group in enumerate(groups):
        tp = rng.binomial(200, skills[group], 3)
        parts.append(
            pd.DataFrame(
                {
                    "first": "a",
                    "second": "a",
                    "perturbation": "blur",
                    "severity": 0.3,
                    "id": f"{i:03d}",
                    "class_id": range(3),
                    "tp": tp,
                    "fp": 200 - tp,
                    "fn": 200 - tp,
                }
            )
        )
    return pd.concat(parts, ignore_index=True).assign(**changes), pd.DataFrame(
        {"id": [f"{i:03d}" for i in range(len(groups))], "group": groups}
    )


def test_audit_table_finds_the_group_whose_maps_hold_less():
    records, groups = made_audit({"x": 0.9, "y": 0.9, "z": 0.8})
    table = audit_table(records, groups.sample(frac=1, random_state=0), resamples=200).set_index(
        "group"
    )
    assert table.verdict["z"] == "worse" and table.worst["z"] and table.worst.sum() == 1
    own = counts_array(records[records.id.isin(groups.id[groups.group == "z"])])[1]
    assert (
        table.agreement["z"] == pytest.approx(100 * iou(own))
        and table.agreement_low["z"] < table.agreement["z"] < table.agreement_high["z"]
    )
    assert (
        table.gap["z"] == pytest.approx(table.agreement["z"] - table.others["z"])
        and table.gap_high["z"] < 0
    )


def test_audit_table_sees_nothing_where_there_is_nothing():
    table = audit_table(*made_audit({"x": 0.9, "y": 0.9, "z": 0.9}), resamples=200)
    assert not {"better", "worse"} & set(table.verdict)


def test_audit_table_with_faces_that_do_not_fit():
    records, groups = made_audit({"x": 0.9, "y": 0.8}, each=12)
    with pytest.raises(InputError, match="have no group"):
        audit_table(records, groups.head(20))
    with pytest.raises(InputError, match="more than one group"):
        audit_table(records, pd.concat([groups, groups.head(1)]))
    with pytest.raises(InputError, match="not all faces"):
        audit_table(pd.concat([records, records[records.id > "003"].assign(severity=0.5)]), groups)


# tables of the retraining

GROUPS = np.repeat(["common", "rare"], [90, 40])
VALUES, NAMES = group_values(GROUPS, ["common", "rare"]), ["common", "rare"]


def made_up(common, rare, seeds=5, spread=0.0, seed=0):
    "Counts of parsers that are right about the given share of pixels in each group"
    rng = np.random.default_rng(seed)
    skill = np.where(GROUPS == "rare", rare, common)[None, :, None] + rng.normal(
        0, spread, (seeds, 1, 1)
    )
    tp = rng.binomial(200, np.clip(np.broadcast_to(skill, (seeds, len(GROUPS), 3)), 0, 1))
    return np.stack([tp, (200 - tp) // 2, (201 - tp) // 2], -1)


def test_pairs_of_arms():
    assert compared_arms(["base", "more_balanced", "more_skewed"]) == [
        ("more_balanced", "more_skewed"),
        ("more_balanced", "base"),
        ("more_skewed", "base"),
    ]
    assert compared_arms(["base", "self_balanced"]) == [("self_balanced", "base")]
    with pytest.raises(InputError, match="unknown"):
        compared_arms(["base", "unknown"])
    with pytest.raises(InputError, match="come once"):
        compared_arms(["base", "base"])


def test_levels_by_hand():
    counts = {"base": made_up(0.8, 0.7)}
    table = level_table(counts, VALUES, NAMES, "rare", resamples=100).set_index("quantity")
    scores = {
        group: 100 * np.mean([iou(one[GROUPS == group]) for one in counts["base"]])
        for group in NAMES
    }
    for group in NAMES:
        assert table.value[group] == pytest.approx(scores[group])
    difference = scores["common"] - scores["rare"]
    assert (
        table.value["shortfall"] == pytest.approx(difference)
        and table.value["gap"] == pytest.approx(difference)
        and table.value["variance"] == pytest.approx((difference / 2) ** 2)
    )
    assert table.value["worst group"] == pytest.approx(scores["rare"])
    assert (table.low <= table.value).all() and (table.value <= table.high).all()


@pytest.mark.parametrize(
    "now, verdicts, sentence",
    [
        (
            (0.80, 0.77),
            {
                "shortfall": "smaller",
                "gap": "smaller",
                "variance": "smaller",
                "rare": "better",
                "worst group": "better",
            },
            "the rare group gained",
        ),
        (
            (0.72, 0.69),
            {
                "shortfall": "smaller",
                "gap": "smaller",
                "variance": "smaller",
                "rare": "worse",
                "common": "worse",
            },
            "levelling down",
        ),
        (
            (0.80, 0.60),
            {"shortfall": "larger", "gap": "larger", "rare": "worse", "worst group": "worse"},
            "The gap grew",
        ),
        (
            (0.80, 0.70),
            {
                "shortfall": "equal within 1 point",
                "gap": "equal within 1 point",
                "rare": "equal within 1 point",
            },
            "stayed what it was",
        ),
    ],
)
def test_what_happened_to_the_gap(now, verdicts, sentence):
    counts = {
        "base": made_up(0.8, 0.7),
        "more_skewed": made_up(0.8, 0.7, seed=1),
        "more_balanced": made_up(*now, seed=2),
    }
    changes = change_table(
        counts, VALUES, NAMES, "rare", compared_arms(list(counts)), resamples=300
    )
    found = changes.query("arm == 'more_balanced' and compared_with == 'more_skewed'").set_index(
        "quantity"
    )
    assert {name: found.verdict[name] for name in verdicts} == verdicts
    assert sentence in describe_change(changes, "more_balanced", "more_skewed", "rare")
    assert (found.p_adjusted >= found.p - 1e-12).all() and (
        found.low <= found.difference + 1e-9
    ).all()


def test_two_seeds_that_disagree_prove_nothing():
    counts = {
        "base": made_up(0.8, 0.7, seeds=2),
        "self_balanced": np.stack([made_up(0.8, 0.78, 1)[0], made_up(0.8, 0.66, 1)[0]]),
    }
    found = change_table(
        counts, VALUES, NAMES, "rare", [("self_balanced", "base")], resamples=200
    ).set_index("quantity")
    assert set(found.verdict) == {"undecided"} and found.p["shortfall"] > 0.3


def test_a_group_that_resamples_miss_proves_nothing():
    "A rare group of two faces, one training: some resamples have neither face"
    few = (
        np.flatnonzero(GROUPS == "common").tolist() + np.flatnonzero(GROUPS == "rare")[:2].tolist()
    )
    counts = {
        arm: made_up(0.8, 0.7, 1, seed=seed)[:, few]
        for arm, seed in (("base", 0), ("self_balanced", 1))
    }
    found = change_table(
        counts, VALUES[few], NAMES, "rare", [("self_balanced", "base")], min_size=2, resamples=200
    ).set_index("quantity")
    of_the_few = ["rare", "shortfall", "gap", "worst group", "variance"]
    assert (found.verdict[of_the_few] == "undecided").all() and found.p["shortfall"] > 0.05


def test_equal_arms_are_rarely_called_different():
    """Twenty pairs of equal arms with luck of seeds

    At most two show a difference in the shortfall before adjustment.
    """
    p = [
        change_table(
            {
                "base": made_up(0.8, 0.7, 5, 0.01, i),
                "more_skewed": made_up(0.8, 0.7, 5, 0.01, 100 + i),
            },
            VALUES,
            NAMES,
            "rare",
            [("more_skewed", "base")],
            resamples=100,
        )
        .set_index("quantity")
        .p["shortfall"]
        for i in range(20)
    ]
    assert (np.array(p) < 0.05).sum() <= 2 and max(p) > 0.5


def test_the_written_table_has_levels_and_changes():
    counts = {"base": made_up(0.8, 0.7), "self_balanced": made_up(0.8, 0.77)}
    levels, changes = (
        level_table(counts, VALUES, NAMES, "rare", resamples=50),
        change_table(counts, VALUES, NAMES, "rare", [("self_balanced", "base")], resamples=50),
    )
    table = loop_table(levels, changes)
    assert (
        len(table) == len(levels) + len(changes)
        and table[table.compared_with == ""].difference.isna().all()
    )
    row = table.query("compared_with == 'base' and quantity == 'rare'").iloc[0]
    assert table[table.compared_with == ""].groupby("quantity")["first"].sum().round(6).eq(1).all()
    assert row.value_low <= row.value <= row.value_high and row.difference == pytest.approx(
        row.value - row.other_value
    )


def test_tables_of_groups_that_cannot_be_compared():
    counts = {"base": made_up(0.8, 0.7)}
    with pytest.raises(InputError, match="fewer than 50"):
        level_table(counts, VALUES, NAMES, "rare", min_size=50)
    with pytest.raises(InputError, match="none of"):
        level_table(counts, VALUES, NAMES, "green")
    with pytest.raises(InputError, match="no counts of"):
        change_table(counts, VALUES, NAMES, "rare", [("more_skewed", "base")])
    with pytest.raises(InputError, match="does not compare"):
        describe_change(change_table(counts, VALUES, NAMES, "rare", []), "base", "base", "rare")


def test_tables_do_not_need_torch():
    code = "import sys\nimport fairparse.results.loop\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_groups_with_too_few_test_faces_are_not_compared():
    counts = pd.Series({"a": 12, "b": 3, "c": 10, "d": 1})
    assert comparable_groups(counts, 10) == (["a", "c"], {"b": 3, "d": 1})
    assert comparable_groups(counts, 1) == (["a", "b", "c"], {"d": 1})  # never fewer than 2
    with pytest.raises(InputError, match=r"only \['a'\] have 11 test faces or more"):
        comparable_groups(counts, 11)
