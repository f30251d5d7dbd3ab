"ControlNet training: one step against a textbook, faults, several processes"

import importlib.util
import math

import accelerate
import numpy as np
import pandas as pd
import pytest
import torch
from diffusion_helpers import (
    index_of,
    micro_base,
    micro_controlnet,
    micro_pairs,
    same_weights,
    small_faces,
)
from trainers import (
    assert_same_training,
    make_pairs,
    state_on_disk,
    train_on_two_processes,
)
from trainers import make_controlnet_trainer as make_trainer

from fairparse.core.records import DIFFUSION_HISTORY, read_table
from fairparse.core.runs import InputError
from fairparse.core.training import derive_seed, epoch_order
from fairparse.data.labels import PALETTE, flip_labels
from fairparse.diffusion.controlnet import pick_palette
from fairparse.diffusion.sample import ControlNetPainter, SamplingConfig, draw_sheet
from fairparse.diffusion.train import (
    ControlNetConfig,
    ControlNetTrainer,
    learning_rate,
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return small_faces(tmp_path_factory.mktemp("faces"))


def weights_of(trainer):
    return {k: v.clone() for k, v in trainer.plain.state_dict().items()}


# ---- one step


@pytest.fixture
def held(faces, tmp_path):
    "Trainers whose weights and gradients stay as they are after a step; no gradient is clipped"

    def make(**config):
        trainer = make_trainer(faces, tmp_path, **{"clip": 1e9, **config})
        trainer.optimizer.step = trainer.optimizer.zero_grad = lambda *_: None
        return trainer

    return make


def textbook(trainer, faces, positions, seed):
    "Loss and gradients from the formulas of Ho, Jain and Abbeel (2020) and Salimans and Ho (2022)"
    config, base, count = trainer.config, trainer.base, len(positions)
    rows = faces.rows("train")[positions]
    draw = torch.Generator().manual_seed(seed)
    mirrored, empty = (
        torch.rand(count, generator=draw) < config.flip,
        torch.rand(count, generator=draw) < config.drop_prompt,
    )
    t = torch.randint(1000, (count,), generator=draw)
    z, eps = (
        torch.randn(count, 4, 8, 8, generator=draw),
        torch.randn(count, 4, 8, 8, generator=draw),
    )

    moments = torch.from_numpy(
        np.stack([trainer.pairs.latents[int(m), r] for m, r in zip(mirrored, rows)])
    ).float()
    x0 = (moments[:, :4] + (0.5 * moments[:, 4:]).exp() * z) * 0.6
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[t].view(
        -1, 1, 1, 1
    )
    xt = abar.sqrt() * x0 + (1 - abar).sqrt() * eps
    target = (
        eps
        if base.scheduler.config.prediction_type == "epsilon"
        else abar.sqrt() * eps - (1 - abar).sqrt() * x0
    )

    words = torch.stack(
        [
            torch.from_numpy(
                np.array(trainer.pairs.embeddings[-1 if e else trainer.pairs.prompt[p]])
            ).float()
            for e, p in zip(empty, positions)
        ]
    )
    maps = np.stack(
        [
            flip_labels(faces.masks[r][None])[0] if m else faces.masks[r]
            for m, r in zip(mirrored, rows)
        ]
    )
    colours = torch.from_numpy(PALETTE[maps].transpose(0, 3, 1, 2) / np.float32(255))
    added = trainer.plain(xt, t, words, colours)
    told = base.unet(
        xt,
        t,
        words,
        down_block_additional_residuals=added.down_block_res_samples,
        mid_block_additional_residual=added.mid_block_res_sample,
    ).sample
    loss = ((told - target) ** 2).mean()
    return (
        loss.detach(),
        torch.autograd.grad(loss, list(trainer.plain.parameters())),
        mirrored,
        empty,
    )


def gradients_of(trainer):
    return [p.grad.clone() for p in trainer.plain.parameters()]


def assert_same_gradients(first, second, tolerance=1e-4):
    "Close, by the largest gradient of the network"
    largest = max(float(g.abs().max()) for g in first)
    assert largest > 1e-4
    for k, (x, y) in enumerate(zip(first, second, strict=True)):
        torch.testing.assert_close(
            x,
            y,
            rtol=1e-3,
            atol=tolerance * largest,
            msg=lambda text, k=k: f"parameter {k}: {text}",
        )


@pytest.mark.parametrize(
    "config",
    [
        {"prediction": "epsilon"},
        {"prediction": "v_prediction"},
        {"prediction": "epsilon", "flip": 0.0, "drop_prompt": 0.0},
    ],
    ids=str,
)
def test_a_step_is_that_of_the_textbook(held, faces, config):
    trainer = held(**{"drop_prompt": 0.5, **config})
    positions, seed = np.array([0, 3, 5, 8, 11]), 9
    loss, gradients, mirrored, empty = textbook(trainer, faces, positions, seed)
    turned = faces.masks[faces.rows("train")[positions][mirrored.numpy()]]
    if config.get("flip") != 0:
        assert {*mirrored.tolist()} == {*empty.tolist()} == {True, False} and (
            flip_labels(turned) != turned[:, :, ::-1]
        ).any(), "choose another seed"
    torch.testing.assert_close(
        trainer.train_step(positions, seed, 1e-3), loss, rtol=1e-4, atol=1e-5
    )
    assert_same_gradients(gradients, gradients_of(trainer))


def test_a_fresh_controlnet_has_the_loss_of_the_unet_alone(held, faces):
    trainer, positions = held(awake=False), np.arange(4)
    loss = trainer.train_step(positions, 3, 1e-3)
    alone = held(awake=False)

    def without(
        *arguments, down_block_additional_residuals, mid_block_additional_residual, **options
    ):
        return forward(*arguments, **options)

    forward, alone.unet.forward = alone.unet.forward, without
    alone.accelerator.backward = lambda loss: None
    assert torch.equal(loss, alone.train_step(positions, 3, 1e-3))
    spoken = [name for name, p in trainer.plain.named_parameters() if p.grad.abs().max() > 0]
    assert spoken and all(
        name.startswith(("controlnet_down_blocks", "controlnet_mid_block")) for name in spoken
    ), "behind convolutions of zeros nothing moves yet"


def test_accumulated_steps_add_up(held, faces):
    "Two steps of two faces: the mean of both gradients, that of four faces at once"
    trainer, halves = held(batch_size=2, accumulate=2), [np.array([0, 1]), np.array([2, 3])]
    expected = [textbook(trainer, faces, half, seed)[1] for half, seed in zip(halves, (4, 5))]
    for half, seed in zip(halves, (4, 5)):
        trainer.train_step(half, seed, 1e-3)
    assert_same_gradients([(a + b) / 2 for a, b in zip(*expected)], gradients_of(trainer))


def test_gradients_are_clipped(held):
    free, clipped = held(), held(clip=1e-3)
    for trainer in (free, clipped):
        trainer.train_step(np.arange(4), 0, 1e-3)
    norm = torch.nn.utils.get_total_norm(gradients_of(clipped)).item()
    assert (
        norm == pytest.approx(1e-3, rel=0.01)
        and torch.nn.utils.get_total_norm(gradients_of(free)).item() > 0.01
    )


def test_checkpointing_changes_memory_and_no_gradient(held):
    kept = {}
    for checkpointing in (False, True):
        trainer = held(checkpointing=checkpointing)
        seen = set()

        def count(tensor):
            seen.add((tensor.untyped_storage()._cdata, tensor.untyped_storage().nbytes()))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            loss = trainer.train_step(np.arange(4), 0, 1e-3)
        kept[checkpointing] = loss, gradients_of(trainer), len(seen)
    assert torch.equal(kept[True][0], kept[False][0]) and kept[True][2] != kept[False][2]
    assert_same_gradients(kept[False][1], kept[True][1], 1e-6)


def test_the_optimiser_is_adamw_at_the_given_rate(faces, tmp_path):
    "The first update of Adam is the sign of the gradient, and weights decay beside it"
    trainer = make_trainer(faces, tmp_path, weight_decay=0.1, clip=1e9)
    before, gradients = weights_of(trainer), textbook(trainer, faces, np.arange(4), 2)[1]
    trainer.train_step(np.arange(4), 2, 0.01)
    for (name, after), gradient in zip(trainer.plain.named_parameters(), gradients):
        clear = gradient.abs() > 1e-4
        torch.testing.assert_close(
            after[clear],
            (before[name] * (1 - 0.01 * 0.1) - 0.01 * gradient.sign())[clear],
            rtol=1e-3,
            atol=1e-5,
        )


def test_only_the_controlnet_moves(faces, tmp_path):
    base = micro_base()
    trainer = make_trainer(faces, tmp_path, base=base, lr=1e-2)
    before = weights_of(trainer)
    trainer.fit()
    for part in ("unet", "vae", "text_encoder"):
        assert same_weights(
            getattr(base, part).state_dict(), getattr(micro_base(), part).state_dict()
        ) and all(p.grad is None for p in getattr(base, part).parameters()), part
    assert not any(torch.equal(v, before[k]) for k, v in trainer.plain.state_dict().items())


def test_faces_maps_and_prompts_belong_together(faces, tmp_path):
    rows, base = np.array([7, 2, 5]), micro_base()
    pairs = micro_pairs(base, faces, rows, tmp_path / "cache", ["one", "two", "one"])
    trainer = make_trainer(faces, tmp_path, base=base, pairs=pairs)
    moments, words, maps = trainer.fetch(pairs, np.array([1, 2]), np.array([False, True]))
    assert (moments[0].numpy() == pairs.latents[0, 2].astype(np.float32)).all() and (
        moments[1].numpy() == pairs.latents[1, 5].astype(np.float32)
    ).all()
    assert (words[0].numpy() == pairs.embeddings[1].astype(np.float32)).all() and (
        words[1].numpy() == pairs.embeddings[0].astype(np.float32)
    ).all()
    assert (
        (maps[0].numpy() == faces.masks[2]).all()
        and (maps[1].numpy() == flip_labels(faces.masks[5])).all()
        and (flip_labels(faces.masks[5]) != faces.masks[5, :, ::-1]).any()
    )


# ---- held-out faces


def test_the_held_out_loss_is_the_same_each_time_and_tells_better_from_worse(faces, tmp_path):
    trainer = make_trainer(faces, tmp_path, lr=5e-3, epochs=25, checkpoint_every=100, flip=0.0)
    others = micro_pairs(trainer.base, faces, faces.rows("valid"), tmp_path / "cache")
    before, state = trainer.held_out_loss(trainer.plain, others), torch.random.get_rng_state()
    assert before == trainer.held_out_loss(trainer.plain, others) and torch.equal(
        state, torch.random.get_rng_state()
    )
    assert trainer.held_out_loss(trainer.plain, others, batch_size=2) == pytest.approx(
        before, rel=1e-4
    ), "whatever the batch"
    trainer.fit()
    after = trainer.held_out_loss(trainer.plain, others)
    assert after < 0.9 * before
    with torch.no_grad():
        for p in trainer.plain.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    assert trainer.held_out_loss(trainer.plain, others) > after


def test_held_out_faces_are_measured_when_asked_for(faces, tmp_path):
    seen = []

    def look(net, step):
        seen.append((step, net.training))
        return step / 10

    trainer = make_trainer(faces, tmp_path, validate=look, validate_every=4, epochs=4, ema=0.5)
    history = trainer.fit()
    assert seen == [(4, False), (8, False), (12, False)] and history.step.tolist() == [
        2,
        4,
        6,
        8,
        10,
        12,
    ]
    assert (
        history.valid_loss.fillna(-1).tolist() == [-1, 0.4, -1, 0.8, -1, 1.2]
        and trainer.plain.training
    )
    seen.clear()
    assert make_trainer(
        faces, tmp_path / "end", validate=look
    ).fit().valid_loss.notna().tolist() == [False, False, True] and seen == [(6, False)]


# ---- the whole training


def test_the_history_says_what_happened(faces, tmp_path, monkeypatch):
    losses, real = [], ControlNetTrainer.train_step
    monkeypatch.setattr(
        ControlNetTrainer,
        "train_step",
        lambda *arguments: losses.append(real(*arguments)) or losses[-1],
    )
    history = make_trainer(faces, tmp_path, checkpoint_every=4).fit()
    assert (
        history.step.tolist() == [4, 6]
        and history.loss.tolist()
        == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-5)
        and (history.lr == 1e-3).all()
        and history.valid_loss.isna().all()
    )
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "history.parquet", DIFFUSION_HISTORY), history
    )


def test_every_face_is_seen_once_an_epoch_with_other_noise(faces, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        ControlNetTrainer,
        "train_step",
        lambda trainer, positions, seed, rate: calls.append((positions, seed)) or torch.zeros(()),
    )
    make_trainer(faces, tmp_path, seed=3).fit()
    assert [sorted(np.concatenate([p for p, _ in epoch])) for epoch in (calls[:3], calls[3:])] == [
        list(range(12))
    ] * 2
    assert len({seed for _, seed in calls}) == 6 and [seed for _, seed in calls] == [
        derive_seed(3, step) for step in range(6)
    ]
    assert (calls[3][0] == epoch_order(np.arange(12), None, 3, 1, 4)[0]).all()


@pytest.mark.parametrize("max_steps, done", [(1, 1), (4, 4), (100, 6), (0, 6)])
def test_a_limit_of_steps_ends_it_within_an_epoch(faces, tmp_path, max_steps, done):
    trainer = make_trainer(faces, tmp_path, max_steps=max_steps)
    assert (
        trainer.steps == done
        and trainer.fit().step.iloc[-1] == done == state_on_disk(tmp_path)["step"]
    )


def test_rates_rise_stay_and_fall():
    constant, warm = ControlNetConfig(lr=0.5), ControlNetConfig(lr=0.5, warmup=4)
    assert [learning_rate(constant, u, 10) for u in (0, 9)] == [0.5, 0.5]
    assert [learning_rate(warm, u, 10) for u in range(6)] == pytest.approx(
        [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    )
    assert [
        learning_rate(ControlNetConfig(lr=0.5, decay=True), u, 10) for u in (0, 5, 9)
    ] == pytest.approx([0.5, 0.25, 0.25 * (1 + math.cos(0.9 * math.pi))])


def test_the_average_is_the_result(faces, tmp_path):
    "By the formula: 2/11 of the average stay in the first update, 3/12 in the second, …"
    trainer = make_trainer(faces, tmp_path, ema=0.9, checkpoint_every=1, max_steps=3)
    mean, real = weights_of(trainer), trainer.optimizer.step
    updates = []

    def step():
        real()
        updates.append(weights_of(trainer))

    trainer.optimizer.step = step
    trainer.fit()
    for number, now in enumerate(updates, 1):
        stays = (1 + number) / (10 + number)
        mean = {k: stays * mean[k] + (1 - stays) * now[k] for k in mean}
    assert (
        trainer.result is trainer.average and make_trainer(faces, tmp_path / "raw").average is None
    )
    for k, v in trainer.average.state_dict().items():
        torch.testing.assert_close(v, mean[k], rtol=1e-4, atol=1e-6)
    assert not same_weights(mean, weights_of(trainer))


@pytest.mark.parametrize(
    "config",
    [
        {"precision": "bf16"},
        {"precision": "auto"},
        {"precision": "bf16", "ema": 0.5, "checkpointing": True},
    ],
    ids=str,
)
def test_precisions_run_on_a_cpu(faces, tmp_path, config):
    "Stored in float32, near to what float32 gives"
    trainer = make_trainer(faces, tmp_path / "half", **config)
    history, exact = (
        trainer.fit(),
        make_trainer(faces, tmp_path / "full", ema=config.get("ema", 0.0)).fit(),
    )
    assert history.loss.tolist() == pytest.approx(exact.loss.tolist(), rel=0.05) and all(
        v.dtype == torch.float32 for v in trainer.result.state_dict().values()
    )
    if config["precision"] == "bf16":
        assert trainer.unet.dtype == torch.bfloat16 and history.loss.tolist() != exact.loss.tolist()
    assert (
        trainer.base_sha256 == micro_base().fingerprint()
        and trainer.base.vae.dtype == torch.float32
    )


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_looking_at_samples_does_not_disturb_the_training(faces, tmp_path, precision):
    "Painting in between draws from no random numbers of the training and leaves its network alone"
    shown, index = np.array(faces.masks[12:14]), index_of(2)

    def look(net, step):
        painter = ControlNetPainter(
            trainer.base, net, pick_palette("face"), sampling=SamplingConfig(steps=2)
        )
        draw_sheet(painter, shown, np.array(faces.images[12:14]), index, tmp_path / f"{step}.png")
        return trainer.held_out_loss(net, trainer.pairs)

    trainer = make_trainer(
        faces, tmp_path / "looked", validate=look, validate_every=2, precision=precision
    )
    trainer.fit()
    blind = make_trainer(faces, tmp_path / "blind", precision=precision)
    blind.fit()
    assert same_weights(trainer.plain.state_dict(), blind.plain.state_dict()) and {
        v.dtype for v in weights_of(trainer).values()
    } == {torch.float32}
    assert (tmp_path / "2.png").read_bytes() != (tmp_path / "6.png").read_bytes()


def test_the_same_seed_gives_the_same_training_and_another_does_not(faces, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name + str(seed)))
        make_trainer(faces, tmp_path / name, seed=seed, epochs=1).fit()
    assert_same_training(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_training(tmp_path / "a", tmp_path / "c")


# ---- faults


def test_weights_that_break_in_the_last_step_do_not_become_the_checkpoint(faces, tmp_path):
    trainer = make_trainer(faces, tmp_path, max_steps=1)
    trainer.config.lr = 1e38
    trainer.config.weight_decay = 0.0
    for group in trainer.optimizer.param_groups:
        group["weight_decay"] = 1e38
    with pytest.raises(InputError, match="not finite in step 1 of 1"):
        trainer.fit()
    assert not (tmp_path / "checkpoint").exists()


def test_precisions_that_the_device_does_not_have(faces, tmp_path):
    with pytest.raises(
        InputError, match='precision fp16 needs a CUDA device, not cpu: use "bf16", "auto" or "no"'
    ):
        make_trainer(faces, tmp_path, precision="fp16")


def test_the_8_bit_optimiser_needs_its_package_and_a_gpu(faces, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest),
    )
    with pytest.raises(
        InputError,
        match="adamw8bit needs the package bitsandbytes, which is not installed: "
        "pip install bitsandbytes, or use optimizer=adamw",
    ):
        make_trainer(faces, tmp_path, optimizer="adamw8bit")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: "here" if name == "bitsandbytes" else real(name, *rest),
    )
    with pytest.raises(
        InputError, match="adamw8bit needs a CUDA device, not cpu: use optimizer=adamw"
    ):
        make_trainer(faces, tmp_path, optimizer="adamw8bit")


def test_pairs_that_do_not_fit_are_refused(faces, tmp_path):
    good = make_pairs(faces)
    with pytest.raises(
        InputError,
        match="11 label maps, 12 prompts and 12 faces: "
        "a ControlNet needs one map and one prompt for each face",
    ):
        make_pairs(faces, maps=good.maps[:11])
    with pytest.raises(InputError, match="12 label maps, 3 prompts and 12 faces"):
        make_pairs(faces, prompt=good.prompt[:3])
    with pytest.raises(InputError, match="0 label maps, 0 prompts and 0 faces"):
        make_pairs(faces, maps=good.maps[:0], prompt=good.prompt[:0], rows=good.rows[:0])
    maps = good.maps.copy()
    maps[4, 1, 2] = 19
    with pytest.raises(
        InputError,
        match="the label maps hold the label 19, but there are 19 classes: "
        "use maps of the same face set",
    ):
        make_trainer(faces, tmp_path, pairs=make_pairs(faces, maps=maps))
    assert not (tmp_path / "checkpoint").exists()


def test_a_model_that_tells_something_else_is_refused(held):
    with pytest.raises(
        InputError, match='prediction_type \'sample\': only "epsilon" and "v_prediction" are known'
    ):
        held(prediction="sample").train_step(np.arange(2), 0, 1e-3)


def test_fewer_faces_than_a_batch(faces, tmp_path):
    good = make_pairs(faces)
    few = make_pairs(faces, maps=good.maps[:3], prompt=good.prompt[:3], rows=good.rows[:3])
    history = make_trainer(faces, tmp_path, pairs=few, batch_size=100, accumulate=2, epochs=1).fit()
    assert history.step.tolist() == [2] and np.isfinite(history.loss).all()


@pytest.mark.parametrize(
    "config, said",
    [
        (
            {"max_steps": 5, "accumulate": 2},
            "max_steps 5 must be a multiple of accumulate 2: weights move only then",
        ),
        (
            {"checkpoint_every": 3, "accumulate": 2},
            "checkpoint_every 3 must be a multiple of accumulate 2",
        ),
        ({"precision": "int8"}, "precision must be one of"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"lr": 2.0}, "lr must be at most 1"),
        ({"lr": float("nan")}, "lr must be positive"),
        ({"epochs": "one"}, "epochs must be of type int"),
        *[
            ({name: 0}, f"{name} must be positive")
            for name in ("epochs", "batch_size", "accumulate", "clip", "checkpoint_every")
        ],
        *[
            ({name: -1}, f"{name} must not be negative")
            for name in ("seed", "max_steps", "warmup", "weight_decay")
        ],
        *[
            ({name: value}, f"{name} must lie in 0..1")
            for name in ("flip", "drop_prompt", "ema")
            for value in (-0.1, 1.1, float("nan"))
        ],
        ({"checkpointing": 1}, "checkpointing must be of type bool"),
        ({"decay": None}, "decay must be of type bool"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_at_once(config, said):
    with pytest.raises(InputError, match=said):
        ControlNetConfig(**config)


# ---- several processes


def test_two_processes_train_like_one(faces, tmp_path):
    "All that is random in a step is drawn for the whole batch, so both halves add up to it"
    config = {"accumulate": 2, "batch_size": 4, "ema": 0.9, "drop_prompt": 0.5, "lr": 1e-4}
    one = make_trainer(faces, tmp_path / "one", **config)
    history = one.fit()
    train_on_two_processes("controlnet", faces, tmp_path / "two", config)
    two = read_table(tmp_path / "two" / "history.parquet", DIFFUSION_HISTORY)
    assert np.allclose(two[["step", "loss", "lr"]], history[["step", "loss", "lr"]], rtol=1e-3)
    state, first = (
        state_on_disk(tmp_path / "two"),
        micro_controlnet(micro_base()).state_dict(),
    )
    moved = sum(float((v - first[k]).abs().sum()) for k, v in one.average.state_dict().items())
    apart = sum(
        float((v - state["average"][k]).abs().sum()) for k, v in one.average.state_dict().items()
    )
    assert apart < 0.05 * moved


def test_a_batch_that_cannot_be_shared_is_refused(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerate.Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(
        InputError, match="batch_size 4 cannot be shared by 3 processes: use a multiple of 3"
    ):
        make_trainer(faces, tmp_path)
