"Training a parser: what it adds to the protocol of all trainings"

import dataclasses
import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import make_faces, make_index, make_parser
from trainers import EVERYTHING, Killed, assert_same_training, stop_at, train_on_two_processes
from trainers import make_parser_trainer as make_trainer

from fairparse.core.precision import pick_precision
from fairparse.core.records import GRADIENTS, HISTORY, read_table
from fairparse.core.runs import InputError
from fairparse.parsing import train
from fairparse.parsing.homotopy import OBJECTIVES
from fairparse.parsing.losses import LossConfig
from fairparse.parsing.train import TrainConfig, Trainer, class_weights
from fairparse.parsing.unet import load_parser


def assert_same_weights(first, second):
    "The written weights, last and best, equal to the bit"
    for which in ("model", "best"):
        one, other = weights_of(first, which), weights_of(second, which)
        assert one.keys() == other.keys(), which
        assert all(torch.equal(one[name], other[name]) for name in one), which


def test_the_best_weights_survive_a_stop(faces, tmp_path, monkeypatch):
    make_trainer(faces, tmp_path / "whole", **EVERYTHING).fit()
    stop_at(monkeypatch, Trainer, done=2, step=2)
    with pytest.raises(Killed):
        make_trainer(faces, tmp_path / "parts", **EVERYTHING).fit()
    make_trainer(faces, tmp_path / "parts", **EVERYTHING).fit()
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_lost_weights_are_made_again_from_the_checkpoint(faces, tmp_path, monkeypatch, capsys):
    "Both, without a step of training; only if the best ones are gone for good it starts again"
    make_trainer(faces, tmp_path / "whole", **EVERYTHING).fit()
    make_trainer(faces, tmp_path / "lost", **EVERYTHING).fit()
    for name in ("model.safetensors", "best.safetensors", "model.json", "history.parquet"):
        (tmp_path / "lost" / name).unlink()
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", None)  # nothing may call it
        make_trainer(faces, tmp_path / "lost", **EVERYTHING).fit()
    assert_same_weights(tmp_path / "whole", tmp_path / "lost")

    for path in tmp_path.joinpath("lost").rglob("best.safetensors"):
        path.unlink()
    make_trainer(faces, tmp_path / "lost", **EVERYTHING).fit()
    assert "has lost its best weights: starting again" in capsys.readouterr().out
    assert_same_weights(tmp_path / "whole", tmp_path / "lost")


def weights_of(folder, which="model"):
    return load_parser(folder, which).state_dict()


@pytest.mark.parametrize(
    "config",
    [{}, {"loss": {"perturb": "inputs", "history": 0.9}}, {"objective": "single"}],
    ids=["plain", "inputs", "single"],
)
def test_measuring_gradients_changes_nothing_and_survives_a_resume(
    faces, tmp_path, monkeypatch, config
):
    make_trainer(faces, tmp_path / "plain", **config).fit()
    with monkeypatch.context() as patched:
        stop_at(patched, Trainer, done=2, step=1)
        with pytest.raises(Killed):
            make_trainer(faces, tmp_path / "measured", measure_gradients=2, **config).fit()
    make_trainer(faces, tmp_path / "measured", measure_gradients=2, **config).fit()
    assert_same_weights(tmp_path / "plain", tmp_path / "measured")
    tables = [
        read_table(tmp_path / name / "history.parquet", HISTORY) for name in ("plain", "measured")
    ]
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))
    table = read_table(tmp_path / "measured" / "gradients.parquet", GRADIENTS)
    assert not (tmp_path / "plain" / "gradients.parquet").exists() and all(
        batches == [0, 1]
        for (_, term), batches in table.groupby(["epoch", "term"]).batch.apply(list).items()
        if term != "fairness"
    )
    assert (
        set(table.term) == {"accuracy", "robustness", "fairness"}
        and set(table.epoch) == {0, 1, 2}
        and (table.norm[table.term != "fairness"] > 0).all()
    )
    assert (
        np.allclose(table.cosine[table.term == "accuracy"], 1)
        and table.cosine.between(-1.001, 1.001).all()
    )


def test_gradients_asked_for_later_are_measured(faces, tmp_path, capsys):
    make_trainer(faces, tmp_path, epochs=1).fit()
    make_trainer(faces, tmp_path, epochs=1, measure_gradients=1).fit()
    assert (
        "without measuring gradients" in capsys.readouterr().out
        and (tmp_path / "gradients.parquet").is_file()
    )


def test_an_objective_brings_its_own_training_settings():
    assert (
        TrainConfig(objective="single_balanced").balance_groups == 0.2
        and TrainConfig(objective="single_balanced", balance_groups=0.0).balance_groups == 0
    )
    contrast = TrainConfig(objective="linear_contrast", severity=0.1)
    assert (
        (contrast.perturbation, contrast.severity) == ("contrast", 0.1)
        and TrainConfig().severity == 0.1
        and TrainConfig(perturbation="blur").perturbation == "blur"
    )
    assert TrainConfig(objective="single_augmented", augment={"flip": 0.5}).augment["flip"] == 0.5
    assert TrainConfig(objective="single").balance_groups == 0
    assert TrainConfig(objective="single_augmented").resolve()[2].rotate == 8
    for name in OBJECTIVES:
        TrainConfig(objective=name).resolve()


def test_balanced_sampling_needs_groups(tmp_path):
    faces = make_faces(tmp_path / "faces", 6, attributes=())
    with pytest.raises(InputError, match=r"no attributes, but \[.balance_groups.\] needs groups"):
        make_trainer(faces, tmp_path / "parser", objective="single_balanced")


def test_faces_of_rare_groups_come_more_often(faces, tmp_path):
    trainer = make_trainer(faces, tmp_path, balance_groups=1.0)
    member = trainer.member[trainer.train_rows] > 0
    expected = np.where(member, np.sqrt(1 / member.mean(0).clip(1e-9)), 1).max(1)
    assert np.allclose(trainer.factors, expected) and trainer.factors.max() > 1
    assert trainer.order(0).shape == make_trainer(faces, tmp_path / "plain").order(0).shape


def test_faces_held_on_the_device_train_the_same(faces, tmp_path, monkeypatch):
    "Begun from the file and gone on with resident faces: equal to the bit, in batches too"
    make_trainer(faces, tmp_path / "file", resident=False, **EVERYTHING).fit()
    with monkeypatch.context() as patched:
        stop_at(patched, Trainer, done=1, step=1)
        with pytest.raises(Killed):
            make_trainer(faces, tmp_path / "held", resident=False, **EVERYTHING).fit()
    held = make_trainer(faces, tmp_path / "held", resident=True, **EVERYTHING)
    assert (
        all(isinstance(a, torch.Tensor) for a in held.source)
        and held.identity
        == make_trainer(faces, tmp_path / "other", resident=False, **EVERYTHING).identity
    )
    file = make_trainer(faces, tmp_path / "other", **EVERYTHING)
    assert file.source == (faces.images, faces.masks)
    for rows in (held.order(1)[0], np.array([17, 3, 3]), np.array([], int)):
        for ours, expected in zip(held.fetch(rows), file.fetch(rows), strict=True):
            assert (
                torch.equal(ours, expected)
                and ours.dtype == expected.dtype
                and (not len(rows) or ours.stride() == expected.stride())
            )
    held.resume()
    assert held.epoch == 1
    make_trainer(faces, tmp_path / "held", resident=True, **EVERYTHING).fit()
    assert_same_training(tmp_path / "file", tmp_path / "held")


@pytest.mark.parametrize(
    "device, free, expected",
    [
        ("cuda:0", 4.0, True),
        ("cuda:0", 2.1, True),
        ("cuda:0", 1.9, False),
        ("cpu", 4.0, False),
        ("mps", 4.0, False),
    ],
)
def test_faces_are_held_where_they_take_less_than_half_of_the_free_memory(
    faces, monkeypatch, device, free, expected
):
    size = faces.images.nbytes + faces.masks.nbytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * size), 10 * size))
    assert train.room_for(faces, torch.device(device)) is expected


def test_a_face_set_is_held_part_by_part(tmp_path):
    "More faces than one part has"
    many = make_faces(tmp_path / "many", 1030, size=32)
    for held, array in zip(
        train.hold_faces(many, torch.device("cpu")), (many.images, many.masks), strict=True
    ):
        assert np.array_equal(held.numpy(), array)


@pytest.mark.parametrize("lr", [1e30, 1e38])
@pytest.mark.parametrize("batch_size", [4, 12], ids=["three steps", "one step"])
def test_weights_that_explode_do_not_become_the_last_good_checkpoint(
    faces, tmp_path, lr, batch_size
):
    with pytest.raises(InputError, match="training stopped: .* in epoch 1, step"):
        make_trainer(faces, tmp_path, lr=lr, batch_size=batch_size).fit()
    assert not (tmp_path / "checkpoint").exists() and not (tmp_path / "model.safetensors").exists()


def test_the_same_seed_gives_the_same_training_and_another_does_not(faces, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_trainer(faces, tmp_path / name, seed=seed, epochs=2, augment={"rotate": 10}).fit()
    assert_same_training(tmp_path / "a", tmp_path / "b")
    assert any(
        not torch.equal(x, y)
        for x, y in zip(weights_of(tmp_path / "a").values(), weights_of(tmp_path / "c").values())
    )


def test_all_objectives_of_a_seed_see_the_same_faces(faces, tmp_path, monkeypatch):
    seen, real = {}, train.augment
    for objective in ("single", "linear", "linear_alt"):
        batches = seen[objective] = []
        monkeypatch.setattr(
            train, "augment", lambda *a, batches=batches: batches.append(real(*a)) or batches[-1]
        )
        make_trainer(faces, tmp_path / objective, objective=objective, epochs=2).fit()
    for other in ("linear", "linear_alt"):
        for (a, b), (c, d) in zip(seen["single"], seen[other], strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)


def test_history_records_the_homotopy_and_the_network_learns(faces, tmp_path):
    history = make_trainer(faces, tmp_path, epochs=5, lr=1e-2, objective="linear").fit()
    assert history[["alpha", "beta", "gamma"]].to_numpy() == pytest.approx(
        np.array([[1 - 0.15 * e, 0.075 * e, 0.075 * e] for e in range(5)])
    )
    assert (
        np.isnan(history.robustness_loss[0])
        and history.iloc[1:].notna().all(axis=None)
        and history.accuracy_loss.is_monotonic_decreasing
    )
    pd.testing.assert_frame_equal(read_table(tmp_path / "history.parquet", HISTORY), history)
    assert (tmp_path / "best.safetensors").is_file() and history.valid_miou.between(0, 1).all()


def test_weights_move_only_at_the_last_of_accumulated_steps(faces, tmp_path):
    "Steps see as many different weights as there were updates before them"
    moved = {}
    for accumulate in (1, 2):
        trainer = make_trainer(
            faces, tmp_path / str(accumulate), accumulate=accumulate, objective="single", epochs=1
        )
        updates = []
        trainer.plain.register_forward_hook(
            lambda *_: updates.append(float(next(trainer.plain.parameters()).sum().detach()))
        )
        trainer.fit()
        moved[accumulate] = len(set(updates[: trainer.steps_per_epoch]))
        assert trainer.steps_per_epoch % accumulate == 0
    assert moved == {1: 3, 2: 1}


@pytest.mark.parametrize("precision", ["no", "bf16", "auto"])
def test_precisions_run_on_a_cpu(faces, tmp_path, precision):
    history = make_trainer(faces, tmp_path, precision=precision, epochs=2).fit()
    assert np.isfinite(history.loss).all() and all(
        v.dtype != torch.bfloat16 for v in weights_of(tmp_path).values()
    )
    assert pick_precision(precision, "cpu") in ("no", "bf16")


def test_fp16_on_a_cpu_is_refused_in_words(faces, tmp_path):
    with pytest.raises(InputError, match="fp16 needs a CUDA device, not cpu"):
        make_trainer(faces, tmp_path, precision="fp16")


def test_tensorboard_writes_event_files(faces, tmp_path):
    make_trainer(faces, tmp_path, tensorboard=True, epochs=1).fit()
    assert any(p.stat().st_size > 100 for p in tmp_path.rglob("events.out.tfevents*"))


def test_tensorboard_that_is_not_there_is_said(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="tensorboard is not installed"):
        make_trainer(faces, tmp_path, tensorboard=True)


def test_fewer_faces_than_a_batch_and_none_for_validation(faces, tmp_path):
    trainer = make_trainer(
        faces, tmp_path, batch_size=100, valid=np.array([], int), epochs=2, accumulate=2
    )
    history = trainer.fit()
    assert (
        trainer.steps_per_epoch == 2
        and np.isnan(history.valid_miou).all()
        and not trainer.result.training
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights_of(tmp_path).values(), weights_of(tmp_path, "best").values())
    )


def test_no_training_faces_unknown_groups_and_no_attributes_are_refused(faces, tmp_path):
    with pytest.raises(InputError, match="no faces for training"):
        Trainer(
            make_parser(), faces, np.array([], int), faces.rows("valid"), TrainConfig(), tmp_path
        )
    with pytest.raises(InputError, match=r"no attributes \['Beard'\]"):
        make_trainer(faces, tmp_path, groups=["Beard"])
    bare = make_faces(tmp_path / "bare", 6, index=make_index(6, attributes=()))
    with pytest.raises(InputError, match="no attributes.*single"):
        make_trainer(bare, tmp_path / "out")
    make_trainer(bare, tmp_path / "out", objective="single", epochs=1).fit()


def test_chosen_groups_are_those_of_the_fairness_term(faces, tmp_path):
    assert (
        make_trainer(faces, tmp_path, groups=["Smiling"]).member[:, 0] == (faces.index.Smiling == 1)
    ).all()
    unknown = dataclasses.replace(
        faces, index=faces.index.assign(Hat=pd.array([None] * len(faces), "Int8"))
    )
    assert not make_trainer(unknown, tmp_path).member[:, 0].any()


@pytest.mark.parametrize(
    "name,value",
    [
        ("epochs", "many"),
        ("epochs", 2.5),
        ("epochs", True),
        ("lr", "1e-4"),
        ("lr", None),
        ("groups", "Hat"),
        ("loss", ["noise_std"]),
        ("compile", 1),
        ("objective", 3),
        ("seed", None),
        ("augment", "flip"),
    ],
)
def test_settings_of_a_wrong_type_are_named(name, value):
    kind = type(getattr(TrainConfig(), name)).__name__
    with pytest.raises(InputError, match=f"{name} must be of type {kind}"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    "config",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"lr": float("nan")},
        {"seed": -1},
        {"ema": 1.5},
        {"warmup": 2.0},
        {"severity": 3.0},
        {"optimizer": "sgd"},
        {"lr_schedule": "cosine"},
        {"precision": "int8"},
        {"perturbation": "rain"},
        {"objective": "doubel"},
        {"loss": {"noise": 1.0}},
        {"loss": {"noise_std": "much"}},
        {"augment": {"rotat": 3}},
        {"homotopy": {"ende": [1, 0, 0]}},
        {"homotopy": {"end": [1, 1, 1]}},
        {"loss": {"group_classes": "al"}},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_at_once(config):
    name = list(config.values())[0]
    name = next(iter(name)) if isinstance(name, dict) else next(iter(config))
    with pytest.raises(InputError, match=name):
        TrainConfig(**config)


def test_an_int_may_stand_for_a_float():
    assert TrainConfig(lr=1, ema=0, homotopy={"end": [1, 0, 0]}).resolve()[1] == LossConfig()


def test_class_weights_favour_small_classes():
    masks = np.array([[[1] * 8 + [0] * 7 + [2]]], np.uint8)
    weights = class_weights(masks, 3, 0.5, cap=10)
    assert weights[2] / weights[1] == pytest.approx(8**0.5) and np.dot(
        weights, [7 / 16, 0.5, 1 / 16]
    ) == pytest.approx(1)
    capped = class_weights(masks, 3, 0.5, cap=2)
    assert capped[2] / capped[1] == pytest.approx(2)
    assert class_weights(masks, 3, 0.0) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    "config",
    [
        {"loss": {"noise_std": 0.0}, "lr_schedule": "one_cycle", "augment": {"flip": 0}},
        {
            "loss": {"perturb": "drop", "cross_entropy": 0.5},
            "ema": 0.9,
            "accumulate": 2,
            "batch_size": 5,
            "resident": True,
        },
    ],
    ids=["logits", "drop"],
)
def test_two_processes_train_like_one(faces, tmp_path, config):
    "Close, not equal: each process normalises its own half of the batch (BatchNorm)"
    train_on_two_processes("parser", faces, tmp_path / "two", config)
    two, one = (
        read_table(tmp_path / "two" / "history.parquet", HISTORY),
        make_trainer(faces, tmp_path / "one", **config).fit(),
    )
    assert (
        two.drop(columns=["robustness_loss", "fairness_loss"]).notna().all(axis=None)
        and (two.lr == one.lr).all()
    )
    assert (two.accuracy_loss - one.accuracy_loss).abs().max() < 0.1 and (
        two.valid_miou - one.valid_miou
    ).abs().max() < 0.15
    assert all(v.isfinite().all() for v in weights_of(tmp_path / "two").values())
