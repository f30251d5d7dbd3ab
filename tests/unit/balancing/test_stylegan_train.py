"Training of the stand-in: losses, the discriminator, one step, what is shipped"

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from trainers import SMALL_STYLEGAN as SMALL
from trainers import make_stylegan_trainer, random_pictures, state_on_disk

import fairparse.balancing.stylegan_train as training
from fairparse.balancing.generators import open_generator
from fairparse.balancing.stylegan_train import (
    TABLE2,
    Convolution,
    Discriminator,
    StyleGANTraining,
    batch_deviation,
    discriminator_loss,
    generator_loss,
    r1_penalty,
    skewed_world,
    train_tiny_stylegan,
)
from fairparse.core.runs import InputError

torch.set_num_threads(1)


NOISE = random_pictures()
NOWHERE = "never written"


def make(**changes):
    return make_stylegan_trainer(None, NOWHERE, **changes)


def quiet(text):
    pass


# ---- losses


def test_losses_and_their_gradients():
    torch.manual_seed(0)
    real, fake = (3 * torch.randn(9, dtype=torch.float64, requires_grad=True) for _ in range(2))
    real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
    torch.testing.assert_close(generator_loss(fake), -F.logsigmoid(fake).mean())
    torch.testing.assert_close(
        discriminator_loss(real, fake),
        F.binary_cross_entropy_with_logits(real, torch.ones(9).double())
        + F.binary_cross_entropy_with_logits(fake, torch.zeros(9).double()),
    )
    (gradient,) = torch.autograd.grad(generator_loss(fake), fake)
    torch.testing.assert_close(
        gradient, -torch.sigmoid(-fake.detach()) / 9
    )  # does not vanish where the discriminator is sure: "non-saturating"
    on_real, on_fake = torch.autograd.grad(discriminator_loss(real, fake), (real, fake))
    torch.testing.assert_close(on_real, -torch.sigmoid(-real.detach()) / 9)
    torch.testing.assert_close(on_fake, torch.sigmoid(fake.detach()) / 9)
    assert torch.autograd.gradcheck(generator_loss, fake) and torch.autograd.gradcheck(
        discriminator_loss, (real, fake)
    )
    assert (
        generator_loss(torch.tensor([-1e4])).isfinite()
        and generator_loss(torch.tensor([-1e4])) == 1e4
    )


def test_r1_of_a_paraboloid():
    "D(x) = a |x|^2 / 2 has the gradient a x: the penalty is a^2 times the mean of |x|^2"
    x, a = (
        torch.randn(5, 3, 4, 4, dtype=torch.float64),
        torch.tensor(1.7, dtype=torch.float64, requires_grad=True),
    )
    penalty = r1_penalty(lambda v: a * v.square().sum((1, 2, 3)) / 2, x)
    norms = x.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(penalty, 1.7**2 * norms)
    (slope,) = torch.autograd.grad(penalty, a)
    torch.testing.assert_close(slope, 2 * 1.7 * norms)
    assert not x.requires_grad


def test_r1_of_the_discriminator_by_finite_differences():
    torch.manual_seed(0)
    d, x = (
        Discriminator([4, 4]).double(),
        torch.randn(1, 3, 8, 8, dtype=torch.float64),
    )  # one face: no neighbours
    total, e = 0.0, 1e-2
    with torch.no_grad():
        for i in range(x.numel()):
            step = torch.zeros(x.numel(), dtype=torch.float64)
            step[i] = e
            total += float((d(x + step.view_as(x)) - d(x - step.view_as(x))) / (2 * e)) ** 2
    assert r1_penalty(d, x).item() == pytest.approx(total, rel=0.02)


# ---- the discriminator


@pytest.mark.parametrize(
    "kernel, down, linear",
    [(1, False, False), (3, False, False), (3, True, False), (1, True, True)],
)
def test_convolution_written_out(kernel, down, linear):
    torch.manual_seed(0)
    layer, x = Convolution(3, 5, kernel, down, linear), torch.randn(2, 3, 8, 8)
    layer.bias.data.normal_()
    weight, before = layer.weight / np.sqrt(3 * kernel**2), x
    if down:
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        before = F.conv2d(
            F.pad(x, [(kernel + 1) // 2] * 4), taps.outer(taps).expand(3, 1, 4, 4), groups=3
        )  # smooth, then take every second pixel
    out = (
        F.conv2d(before, weight, stride=2 if down else 1, padding=0 if down else kernel // 2)
        + layer.bias[None, :, None, None]
    )
    if not linear:
        out = F.leaky_relu(out, 0.2) * 2**0.5
    torch.testing.assert_close(layer(x, 0.5), 0.5 * out, atol=1e-5, rtol=1e-4)
    assert out.shape[-1] == (4 if down else 8)


@pytest.mark.parametrize("batch, group", [(8, 4), (4, 4), (6, 2), (5, 1), (1, 1), (12, 4)])
def test_batch_deviation_of_every_group(batch, group):
    x = torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    out = batch_deviation(x)
    assert out.shape == (batch, 4, 4, 4) and torch.equal(out[:, :3], x)
    for i in range(batch):
        mates = x[i % (batch // group) :: batch // group]
        assert len(mates) == group
        torch.testing.assert_close(
            out[i, 3], ((mates - mates.mean(0)).square().mean(0) + 1e-8).sqrt().mean().expand(4, 4)
        )
    same = batch_deviation(x[:1].expand(4, -1, -1, -1))
    torch.testing.assert_close(
        same[:, 3], torch.full((4, 4, 4), 1e-4)
    )  # a generator that always paints the same is found out


@pytest.mark.parametrize("channels", [[5], [5, 6], [4, 5, 6], [3, 4, 5, 6]])
def test_discriminator_of_any_size(channels):
    torch.manual_seed(0)
    d, side = Discriminator(channels), 4 * 2 ** (len(channels) - 1)
    x = torch.randn(4, 3, side, side, requires_grad=True)
    out = d(x)
    assert out.shape == (4,) and out.dtype == torch.float32
    out.sum().backward()
    assert (
        all(
            p.grad is not None and p.grad.abs().sum() > 0
            for name, p in d.named_parameters()
            if not name.endswith("bias")
        )
        and (x.grad.abs().sum((1, 2, 3)) > 0).all()
    )
    assert d.enter.weight.shape[0] == channels[-1] and d.last.weight.shape[:2] == (
        channels[0],
        channels[0] + 1,
    )


# ---- one step


def test_penalty_is_taken_every_few_steps_with_their_weight(monkeypatch):
    trainer, seen, updates, numbers = make(r1=0.4), [], [], []

    def penalty(d, real):
        seen.append(numbers[-1])
        return r1_penalty(d, real) * 0 + 3.0

    real_update = trainer._update
    monkeypatch.setattr(training, "r1_penalty", penalty)
    monkeypatch.setattr(
        trainer,
        "_update",
        lambda optimiser, loss: (
            updates.append((numbers[-1], optimiser is trainer.opt_d, float(loss.detach()))),
            real_update(optimiser, loss),
        ),
    )
    for number in range(7):
        numbers.append(number)
        trainer.train_step(number)
    assert seen == [0, 3, 6]
    assert [number for number, of_d, loss in updates if of_d] == [
        0,
        0,
        1,
        2,
        3,
        3,
        4,
        5,
        6,
        6,
    ] and [n for n, of_d, _ in updates if not of_d] == list(range(7))
    assert [
        loss for (n, of_d, loss), (m, before, _) in zip(updates[1:], updates) if of_d and before
    ] == [pytest.approx(3.0 * 0.4 / 2 * 3)] * 3
    assert (
        trainer.opt_d.param_groups[0]["lr"] == pytest.approx(0.0025 * 3 / 4)
        and trainer.opt_d.param_groups[0]["betas"] == (0.0, pytest.approx(0.99**0.75))
        and trainer.opt_g.param_groups[0]["lr"] == 0.0025
    )


def test_each_network_learns_from_its_own_loss():
    trainer = make(r1_every=100)
    g, d = copy.deepcopy(trainer.g.state_dict()), copy.deepcopy(trainer.d.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            training, "discriminator_loss", lambda real, fake: 0 * (real.sum() + fake.sum())
        )
        trainer.train_step(1)  # no penalty in this step
    assert all(
        torch.equal(v, d[k]) for k, v in trainer.d.state_dict().items()
    )  # the generator's loss does not touch the discriminator
    assert any(not torch.equal(v, g[k]) for k, v in trainer.g.state_dict().items() if "weight" in k)
    g = copy.deepcopy(trainer.g.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "generator_loss", lambda fake: 0 * fake.sum())
        trainer.opt_g = torch.optim.SGD(
            trainer.g.parameters(), 0.1
        )  # no momentum from the step before
        trainer.train_step(2)
    assert all(
        torch.equal(v, g[k]) for k, v in trainer.g.state_dict().items() if not k.endswith("w_avg")
    )
    assert any(not torch.equal(v, d[k]) for k, v in trainer.d.state_dict().items())


def test_average_follows_and_w_avg_is_that_of_w():
    trainer = make(average=0.9)
    before = copy.deepcopy(trainer.average.state_dict())
    for number in range(1, 4):
        trainer.train_step(number - 1)
        share = min(0.9, (1 + number) / (10 + number))
        for name, now in trainer.g.state_dict().items():
            expected = before[name] * share + now * (1 - share)
            torch.testing.assert_close(
                trainer.average.state_dict()[name], expected, atol=1e-6, rtol=1e-5
            )
        before = copy.deepcopy(trainer.average.state_dict())
    assert (
        not any(p.requires_grad for p in trainer.average.parameters())
        and trainer.g.mapping.w_avg.abs().sum() > 0
    )


def test_training_learns_the_colour_of_its_faces():
    "Faces of one colour: within a few steps the generator paints that colour rather than grey"
    images = (
        torch.tensor([220, 60, 40], dtype=torch.uint8)[None, :, None, None]
        .expand(16, 3, 8, 8)
        .contiguous()
    )
    trainer = make(images=images, lr=0.01, steps=60, average=0.5, r1=1.0)
    z = torch.randn(32, 6, generator=torch.Generator().manual_seed(3))

    def distance():
        return (
            (
                trainer.average(z, noise="const").mean((0, 2, 3))
                - (torch.tensor([220.0, 60, 40]) / 127.5 - 1)
            )
            .norm()
            .item()
        )

    start = distance()
    for number in range(60):
        trainer.train_step(number)
    assert distance() < 0.5 * start


# ---- checkpoints


def test_checkpoints_may_be_written_more_often(tmp_path):
    make_stylegan_trainer(None, tmp_path, say=quiet).fit(stop_after=3)
    lines = []
    make_stylegan_trainer(None, tmp_path, every=1, say=lines.append).fit()
    assert lines[0].startswith("resumed after step 3")
    assert [line.split(":")[0] for line in lines[1:]] == [f"step {n} of 7" for n in (4, 5, 6, 7)]


def test_a_loss_that_is_not_finite_is_named_with_its_step(tmp_path, monkeypatch):
    make_stylegan_trainer(None, tmp_path, say=quiet).fit(stop_after=3)
    before, trainer = state_on_disk(tmp_path), make_stylegan_trainer(None, tmp_path, say=quiet)
    factor = lambda: float("nan") if trainer.step == 4 else 1
    monkeypatch.setattr(training, "generator_loss", lambda fake: generator_loss(fake) * factor())
    with pytest.raises(InputError, match="not finite in step 5 of 7.*lower lr, or raise r1"):
        trainer.fit()
    assert state_on_disk(tmp_path)["step"] == before["step"] == 3


@pytest.mark.parametrize(
    "change, words",
    [
        ({"steps": 0}, "steps 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"r1_every": 0}, "r1_every 0"),
        ({"every": -1}, "every -1"),
        ({"lr": "fast"}, "lr must be of type float"),
        ({"steps": 1.5}, "steps must be"),
        ({"discriminator_channels": [6]}, "different numbers of sizes"),
        (
            {"images": NOISE[:, :, :4, :4]},
            r"faces of shape \(3, 4, 4\) do not fit a generator of 8 px",
        ),
        ({"images": NOISE[:, :1]}, "do not fit"),
    ],
)
def test_impossible_trainings(change, words):
    with pytest.raises(InputError, match=words):
        make(**change)


# ---- the shipped one


def test_skewed_world_has_the_shares_of_table_2():
    world = skewed_world()
    assert (
        sum(TABLE2.values()) == 10_010
        and world.tones["tone_1"] == pytest.approx(0.6830, abs=1e-4)
        and world.tones["tone_5"] == pytest.approx(0.0449, abs=1e-4)
    )
    assert (
        sum(world.tones.values()) == pytest.approx(1)
        and world.spread > 1
        and world.attributes["Eyes_Closed"] > 0.1
    )


def test_training_from_drawn_faces_writes_a_generator_that_opens(tmp_path):
    config = StyleGANTraining(
        **{
            **SMALL,
            "steps": 2,
            "generator": {**SMALL["generator"], "channels": [6] * 4},
            "discriminator_channels": [6] * 4,
        }
    )
    record = train_tiny_stylegan(
        tmp_path / "out", tmp_path / "work", 30, config, seed=5, threads=1, workers=1, say=quiet
    )
    first = open_generator(str(tmp_path / "out"))
    assert first.size == 32 and first.paint(np.zeros((1, 6))).shape == (1, 32, 32, 3)
    assert (record["faces"], record["steps"], record["images_seen"], record["seed"]) == (
        30,
        2,
        8,
        5,
    ) and sum(record["shares"].values()) == pytest.approx(1, abs=1e-3)
    there = json.loads((tmp_path / "out" / "generator.json").read_text())
    assert there["shares"] == record["shares"] and there["training"]["steps"] == 2
    train_tiny_stylegan(
        tmp_path / "again",
        tmp_path / "elsewhere",
        30,
        config,
        seed=5,
        threads=1,
        workers=1,
        say=quiet,
    )
    assert open_generator(str(tmp_path / "again")).sha256 == first.sha256
    with pytest.raises(InputError, match="count 3 is less than a batch of 4"):
        train_tiny_stylegan(tmp_path / "no", tmp_path / "no", 3, config, say=quiet)
    assert not (tmp_path / "no").exists()
