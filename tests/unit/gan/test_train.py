"GAN training: one step against a textbook, faults, samples, several processes"

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import make_faces
from PIL import Image
from trainers import assert_same_training, state_on_disk, stop_at, train_on_two_processes
from trainers import make_gan_trainer as make_trainer

from fairparse.core.records import GAN_HISTORY, read_table
from fairparse.core.runs import InputError
from fairparse.data.labels import colour_labels, flip_labels
from fairparse.gan import train as train_module
from fairparse.gan.pix2pixhd import (
    Generator,
    GeneratorSpec,
    feature_loss,
    load_generator,
    one_hot,
    to_bytes,
)
from fairparse.gan.train import GanConfig, GanTrainer, explain_memory, learning_rate, paint


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("faces"), 18, size=16, train=12)


def weights_of(folder):
    return load_generator(folder).state_dict()


# ---- one step


@pytest.fixture
def held(faces, tmp_path, monkeypatch):
    "Trainers whose weights and gradients stay as they are after a step"

    def make(**config):
        trainer = make_trainer(faces, tmp_path, **config)
        trainer.optimizer.step = trainer.optimizer.zero_grad = lambda *_: None
        return trainer

    return make


def textbook(trainer, positions, seed):
    "Losses and gradients from the formulas: two discriminator passes, then the generator's"
    torch.manual_seed(seed)
    config, (maps, real) = trainer.config, trainer.fetch(positions)
    G, D, planes = trainer.plain, trainer.judge, one_hot(maps, 19)
    fake = G(maps)
    on_fake, on_real = D(planes, fake.detach()), D(planes, real)
    judge = 0.5 * sum(
        ((r[-1] - 1) ** 2).mean() + (f[-1] ** 2).mean() for f, r in zip(on_fake, on_real)
    )
    judged = D(planes, fake)
    adversarial, l1, features = (
        sum(((s[-1] - 1) ** 2).mean() for s in judged),
        (fake - real).abs().mean(),
        feature_loss(judged, D(planes, real)),
    )
    loss = adversarial + config.l1 * l1 + config.features * features
    means = [torch.stack([s[-1].mean() for s in side]).mean() for side in (on_real, on_fake)]
    parts = torch.stack([loss, adversarial, features, l1, torch.zeros(()), judge, *means]).detach()
    return (
        parts,
        torch.autograd.grad(judge, list(D.parameters()), retain_graph=True),
        torch.autograd.grad(loss, list(G.parameters())),
    )


def gradients_of(trainer):
    return [
        [p.grad.clone() for p in network.parameters()] for network in (trainer.plain, trainer.judge)
    ]


def assert_same_gradients(first, second):
    "Close, by the largest gradient: that of a bias before a normalisation is but rounding"
    for a, b in zip(first, second, strict=True):
        largest = max(float(g.abs().max()) for g in a)
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            torch.testing.assert_close(
                x, y, rtol=1e-3, atol=1e-4 * largest, msg=lambda text, k=k: f"parameter {k}: {text}"
            )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"scales": 3, "l1": 0.0, "discriminator_layers": 2},
        {"features": 3.0, "flip": 1.0, "scales": 1},
    ],
    ids=str,
)
def test_a_step_is_that_of_the_textbook(held, config):
    "Losses and gradients: neither network gets any from the turn of the other"
    trainer, positions = held(**config), np.array([0, 3, 5])
    parts, of_judge, of_generator = textbook(trainer, positions, 7)
    torch.testing.assert_close(trainer.train_step(positions, 7), parts, rtol=1e-4, atol=1e-5)
    assert_same_gradients([of_generator, of_judge], gradients_of(trainer))
    for network in (trainer.plain, trainer.judge):
        assert (
            all(p.requires_grad for p in network.parameters())
            and max(float(p.grad.abs().max()) for p in network.parameters()) > 1e-4
        )


def test_without_feature_matching_the_loss_is_that_of_the_parsing_paper(held):
    parts = held(features=0.0, l1=7.0).train_step(np.arange(4), 0)
    assert (
        parts[0].item() == pytest.approx((parts[1] + 7 * parts[3]).item(), rel=1e-5)
        and parts[2] == 0
    )


def test_the_perceptual_loss_is_one_of_the_terms(held, monkeypatch):
    monkeypatch.setattr(train_module, "PerceptualLoss", lambda weights: torch.nn.L1Loss())
    parts, plain = (
        held(perceptual=5.0).train_step(np.arange(4), 0),
        held().train_step(np.arange(4), 0),
    )
    assert parts[4].item() == pytest.approx(parts[3].item()) and parts[0].item() == pytest.approx(
        (plain[0] + 5 * plain[3]).item(), rel=1e-5
    )


def test_accumulated_steps_add_up_to_one_large_step(held):
    whole = held(batch_size=4, flip=0.0)
    whole.train_step(np.arange(4), 0)
    parts = held(batch_size=2, accumulate=2, flip=0.0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.plain.parameters(), parts.plain.parameters(), strict=True)
    )
    for half in ([0, 1], [2, 3]):
        parts.train_step(np.array(half), 0)
    assert_same_gradients(gradients_of(whole), gradients_of(parts))


def test_a_batch_of_one_face_has_the_gradients_of_the_function(held):
    trainer = held(batch_size=1, flip=0.0)
    _, of_judge, of_generator = textbook(trainer, np.array([3]), 0)
    trainer.plain.to(memory_format=torch.contiguous_format)
    trainer.judge.to(memory_format=torch.contiguous_format)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            torch.nn.functional,
            "instance_norm",
            lambda x, *_: torch.nn.functional.group_norm(x, x.shape[1]),
        )  # the same function
        _, *expected = textbook(trainer, np.array([3]), 0)
    assert_same_gradients(expected[::-1], [of_generator, of_judge])


def test_weights_move_only_at_the_last_of_accumulated_steps(faces, tmp_path):
    trainer, sums = make_trainer(faces, tmp_path, accumulate=3, ema=0.5), []
    for step in range(6):
        trainer.train_step(np.arange(2), step)
        sums.append(
            tuple(
                sum(float(p.detach().double().abs().sum()) for p in network.parameters())
                for network in (trainer.plain, trainer.judge, trainer.average)
            )
        )
    assert (
        sums[0] == sums[1] != sums[2]
        and sums[2] == sums[3] == sums[4] != sums[5]
        and trainer.updates == 2
    )
    assert all(a != b for a, b in zip(sums[1], sums[2])) and all(
        a != b for a, b in zip(sums[4], sums[5])
    )


def test_mirrored_faces_have_left_and_right_labels_swapped(faces, tmp_path):
    trainer, positions = make_trainer(faces, tmp_path, flip=1.0), np.array([2, 0])
    maps, images = trainer.fetch(positions)
    assert (maps.numpy() == flip_labels(faces.masks[trainer.rows[positions]])).all()
    assert (
        to_bytes(images).permute(0, 2, 3, 1).numpy()
        == faces.images[trainer.rows[positions]][:, :, ::-1]
    ).all()
    trainer.config.flip = 0.0
    maps, images = trainer.fetch(positions)
    assert (maps.numpy() == faces.masks[trainer.rows[positions]]).all() and (
        to_bytes(images).permute(0, 2, 3, 1).numpy() == faces.images[trainer.rows[positions]]
    ).all()


def test_maps_belong_to_the_rows_of_the_images(faces, tmp_path):
    "Maps are one for each row, images those of the whole face set"
    rows = np.array([7, 2, 11])
    trainer = make_trainer(faces, tmp_path, rows=rows, maps=np.array(faces.masks[rows]), flip=0.0)
    maps, images = trainer.fetch(np.array([1, 2]))
    assert (maps.numpy() == faces.masks[[2, 11]]).all() and (
        to_bytes(images).permute(0, 2, 3, 1).numpy() == faces.images[[2, 11]]
    ).all()
    assert sorted(np.unique(trainer.batches())) == [0, 1, 2]


# ---- the whole training


def test_it_learns(faces, tmp_path):
    history = make_trainer(
        faces, tmp_path, epochs=12, lr=5e-3, rows=np.arange(8), flip=0.0, channels=8
    ).fit()
    assert history.l1.iloc[-1] < 0.6 * history.l1.iloc[0]
    pd.testing.assert_frame_equal(read_table(tmp_path / "history.parquet", GAN_HISTORY), history)


def test_the_same_seed_gives_the_same_training_and_another_does_not(faces, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_trainer(faces, tmp_path / name, seed=seed, epochs=1).fit()
    assert_same_training(tmp_path / "a", tmp_path / "b")
    assert any(
        not torch.equal(x, y)
        for x, y in zip(weights_of(tmp_path / "a").values(), weights_of(tmp_path / "c").values())
    )


def test_the_rate_is_constant_and_then_falls_linearly(faces, tmp_path):
    rates = [learning_rate(GanConfig(epochs=6, lr=0.8), e) for e in range(6)]
    assert rates == pytest.approx([0.8, 0.8, 0.8, 0.6, 0.4, 0.2])
    assert [learning_rate(GanConfig(epochs=3, lr=1.0, decay_from=1.0), e) for e in range(3)] == [
        1,
        1,
        1,
    ]
    assert [
        learning_rate(GanConfig(epochs=3, lr=1.0, decay_from=0.0), e) for e in range(3)
    ] == pytest.approx([0.75, 0.5, 0.25])
    trainer = make_trainer(faces, tmp_path, epochs=3, decay_from=0.3, lr=0.01)
    assert trainer.fit().lr.tolist() == pytest.approx([0.01, 0.01 * 2 / 3, 0.01 / 3])
    assert all(group["lr"] == pytest.approx(0.01 / 3) for group in trainer.optimizer.param_groups)


def test_the_average_is_the_result(faces, tmp_path):
    trainer = make_trainer(faces, tmp_path, ema=0.9)
    trainer.fit()
    saved = weights_of(tmp_path)
    assert all(torch.equal(saved[k], v) for k, v in trainer.average.state_dict().items()) and any(
        not torch.equal(saved[k], v) for k, v in trainer.plain.state_dict().items()
    )
    assert (
        trainer.result is trainer.average
        and trainer.updates == 9
        and make_trainer(faces, tmp_path / "raw").average is None
    )


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_average_paints_with_its_own_weights(faces, tmp_path, precision):
    "A network prepared for mixed precision has a forward of its own, which its copy must not share"
    trainer, maps = (
        make_trainer(faces, tmp_path, ema=0.9, precision=precision, epochs=1),
        np.array(faces.masks[:2]),
    )
    before = paint(trainer.average, maps)
    with torch.no_grad():
        for p in trainer.plain.parameters():
            p.zero_()
    assert (
        (paint(trainer.average, maps) == before).all()
        and (paint(trainer.plain, maps) == 128).all()
        and (before != 128).any()
    )


@pytest.mark.parametrize("precision", ["no", "bf16", "auto"])
def test_precisions_run_on_a_cpu(faces, tmp_path, precision):
    history = make_trainer(faces, tmp_path, precision=precision, epochs=1).fit()
    assert np.isfinite(history.drop(columns="seconds")).all(axis=None) and all(
        v.dtype == torch.float32 for v in weights_of(tmp_path).values()
    )


# ---- pictures


def test_sheets_show_map_painting_and_face(faces, tmp_path):
    shown = np.array(faces.masks[12:15]), np.array(faces.images[12:15])
    trainer = make_trainer(faces, tmp_path, sample_every=2, shown=shown)
    trainer.fit()
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "epoch_002.png",
        "epoch_003.png",
    ]
    sheet = np.asarray(Image.open(tmp_path / "samples" / "epoch_003.png"))
    assert (
        sheet.shape == (3 * 16, 3 * 16, 3)
        and (sheet[16:32, :16] == colour_labels(shown[0][1:2])[0]).all()
        and (sheet[32:, 32:] == shown[1][2]).all()
    )
    assert (sheet[:16, 16:32] == paint(trainer.result, shown[0][:1])[0]).all()


def test_no_sheets_unless_asked_for_and_the_first_faces_if_none_are_named(faces, tmp_path):
    make_trainer(faces, tmp_path, epochs=1).fit()
    assert not (tmp_path / "samples").exists()
    assert (make_trainer(faces, tmp_path).shown[0] == faces.masks[:4]).all()


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_painting_does_not_depend_on_the_batch(faces, batch_size):
    torch.manual_seed(0)
    generator = Generator(GeneratorSpec(channels=4, downsamplings=1, blocks=1, size=16))
    painted = paint(generator, faces.masks[:5], batch_size)
    assert (
        painted.shape == (5, 16, 16, 3)
        and painted.dtype == np.uint8
        and np.abs(painted.astype(int) - paint(generator, faces.masks[:5])).max() <= 1
    )


def test_colours_become_bytes_by_rounding():
    every = torch.arange(256)
    assert torch.equal(to_bytes(every.float() / 127.5 - 1), every.byte()) and to_bytes(
        torch.tensor([-3.0, 3.0, -0.004, 0.004])
    ).tolist() == [0, 255, 127, 128]


def test_maps_with_unknown_labels_are_not_painted(faces):
    maps = np.array(faces.masks[:2])
    maps[1, 0, 0] = 19
    with pytest.raises(InputError, match="label 19"):
        paint(Generator(GeneratorSpec(channels=4, downsamplings=1, blocks=0, size=16)), maps)


# ---- faults


def test_weights_that_break_in_the_last_step_do_not_become_the_checkpoint(faces, tmp_path):
    trainer = make_trainer(faces, tmp_path, batch_size=12, epochs=1)
    trainer.config.lr = 1e38
    with pytest.raises(InputError, match="not finite in epoch 1"):
        trainer.fit()
    assert (
        not (tmp_path / "checkpoint").exists() and not (tmp_path / "generator.safetensors").exists()
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_out_of_memory_says_what_to_lower_and_keeps_the_checkpoint(
    faces, tmp_path, monkeypatch, error
):
    def fail():
        raise error

    stop_at(monkeypatch, GanTrainer, done=1, step=1, how=fail)
    with pytest.raises(
        InputError, match="batch_size=4, images of 16 pixels and channels=4: lower batch_size first"
    ):
        make_trainer(faces, tmp_path).fit()
    assert state_on_disk(tmp_path)["epoch"] == 1


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    for error in (
        RuntimeError("shapes do not fit"),
        FloatingPointError("not finite"),
        InputError("no"),
    ):
        with pytest.raises(type(error)) as caught:
            with explain_memory(1, 1, 1):
                raise error
        assert caught.value is error


def test_maps_that_do_not_fit_are_refused(faces, tmp_path):
    maps = np.array(faces.masks[faces.rows("train")])
    maps[4, 1, 2] = 19
    with pytest.raises(InputError, match="label map 4 holds the label 19 at row 1, column 2"):
        make_trainer(faces, tmp_path, maps=maps)
    with pytest.raises(InputError, match="11 label maps for 12 faces"):
        make_trainer(faces, tmp_path, maps=np.array(faces.masks[:11]))
    with pytest.raises(InputError, match="0 label maps for 0 faces"):
        make_trainer(faces, tmp_path, rows=np.array([], int))
    with pytest.raises(
        InputError, match=r"\(8, 8\) and images of \(16, 16\) pixels differ in size"
    ):
        make_trainer(faces, tmp_path, maps=np.zeros((12, 8, 8), np.uint8))
    assert not (tmp_path / "checkpoint").exists()


def test_fewer_faces_than_a_batch(faces, tmp_path):
    history = make_trainer(
        faces, tmp_path, rows=np.arange(3), batch_size=100, accumulate=2, epochs=1
    ).fit()
    assert len(history) == 1 and np.isfinite(history.l1).all()


@pytest.mark.parametrize(
    "name, value",
    [
        ("epochs", "many"),
        ("epochs", 2.5),
        ("lr", None),
        ("compile", 1),
        ("perceptual_weights", 3),
        ("scales", True),
    ],
)
def test_settings_of_a_wrong_type_are_named(name, value):
    with pytest.raises(
        InputError, match=f"{name} must be of type {type(getattr(GanConfig(), name)).__name__}"
    ):
        GanConfig(**{name: value})


@pytest.mark.parametrize(
    "config",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"accumulate": 0},
        {"lr": float("nan")},
        {"lr": 0.0},
        {"scales": 0},
        {"discriminator_channels": 0},
        {"discriminator_layers": 0},
        {"seed": -1},
        {"l1": -1.0},
        {"features": -0.1},
        {"perceptual": float("nan")},
        {"beta1": 1.5},
        {"decay_from": -0.1},
        {"flip": 2.0},
        {"ema": 1.1},
        {"precision": "int8"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_at_once(config):
    with pytest.raises(InputError, match=next(iter(config))):
        GanConfig(**config)


def test_two_processes_train_like_one(faces, tmp_path):
    "Instance normalisation keeps faces apart, so both halves of a batch add up to the whole"
    config = {"flip": 0.0, "accumulate": 2, "batch_size": 4, "epochs": 3, "ema": 0.9}
    train_on_two_processes("gan", faces, tmp_path / "two", config)
    two, one = (
        read_table(tmp_path / "two" / "history.parquet", GAN_HISTORY),
        make_trainer(faces, tmp_path / "one", **config).fit(),
    )
    assert np.allclose(
        two.drop(columns="seconds"), one.drop(columns="seconds"), rtol=0.01, atol=1e-3
    )
    maps = np.array(faces.masks[:4])
    assert (
        np.abs(
            paint(load_generator(tmp_path / "two"), maps).astype(int)
            - paint(load_generator(tmp_path / "one"), maps)
        ).max()
        <= 3
    )
