"The benchmarks of synthesis: all ways of a case compute the same, in each precision"

import accelerate
import numpy as np
import pytest
import torch

from fairparse.bench import synthesis as bench
from fairparse.bench.synthesis import (
    FaceFiles,
    build_sd15,
    controlnet_cases,
    controlnet_trainers,
    gan_cases,
    gan_ways,
    own_precision,
    plain_epoch,
)
from fairparse.bench.timing import measure
from fairparse.core.runs import InputError


@pytest.fixture(autouse=True)
def alone():
    "One thread, and nothing of accelerate's from other tests"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    accelerate.state.AcceleratorState._reset_state(True)
    accelerate.state.GradientState._reset_state()
    yield
    torch.set_num_threads(threads)


# ---- ControlNet


@pytest.mark.parametrize("base, size", [("standin", 64), (0.25, 32)])
def test_step_without_cache_sees_the_same_numbers(tmp_path, base, size):
    cached, usual = controlnet_trainers(6, 2, "cpu", base, size, "no", str(tmp_path))
    positions, mirrored = np.array([4, 1]), np.array([False, True])
    for ours, theirs, name in zip(
        cached.fetch(cached.pairs, positions, mirrored),
        usual.fetch(usual.pairs, positions, mirrored),
        ("moments", "words", "maps"),
    ):
        torch.testing.assert_close(
            ours, theirs, rtol=2e-3, atol=2e-3, msg=lambda text: f"{name}: {text}"
        )  # caches are in half precision
    losses = [
        [float(trainer.train_step(positions, seed, 1e-3)) for seed in (1, 2, 3)]
        for trainer in (cached, usual)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-2)
    assert len(set(losses[0])) == 3


def test_sd15_has_the_published_shape():
    with torch.device("meta"):
        parts = build_sd15(1, "meta")
    count = lambda net: sum(p.numel() for p in net.parameters())
    assert count(parts.unet) == 859_520_964 and count(parts.vae) == 83_653_863 and parts.factor == 8
    layers = sum(
        p.numel()
        for name, p in parts.text_encoder.named_parameters()
        if "token_embedding" not in name
    )
    assert (
        layers == 123_060_480 - 49_408 * 768
    )  # but for CLIP's vocabulary, which the stand-in's tokenizer does not have
    with pytest.raises(InputError, match="0.25"):
        build_sd15(0.3)


def test_controlnet_case_runs():
    (case,) = controlnet_cases(4, 2)
    times, findings = measure(case, 1)
    assert (
        set(times.way) == {"cached", "encoded in each step"}
        and (times.amount == 2).all()
        and findings.value.iloc[0] > 0
    )
    assert case.part == "controlnet" and "float32" in case.name and "standin" in case.name


def test_usual_script_computes_in_the_precision_of_the_training(tmp_path):
    cached, usual = controlnet_trainers(4, 2, "cpu", "standin", 64, "bf16", str(tmp_path))
    assert usual.base.vae.dtype == usual.base.text_encoder.dtype == torch.bfloat16
    with own_precision("bf16"):
        losses = [
            float(trainer.train_step(np.array([0, 3]), 1, 1e-3)) for trainer in (cached, usual)
        ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_precisions_in_one_process():
    cases = [controlnet_cases(2, 2, precision=precision)[0] for precision in ("no", "bf16", "no")]
    assert ["bf16" in case.name for case in cases] == [False, True, False]
    seen = []
    for case in reversed(cases):  # made before, whichever was made last
        way = case.ways["cached"]
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: seen.append(x.dtype) or x, lambda x: x
        ):
            way()
        assert (torch.bfloat16 in seen) == ("bf16" in case.name)
        seen.clear()
    assert accelerate.state.AcceleratorState().mixed_precision == "no"


# ---- Pix2PixHD


def test_plain_loop_trains_the_same(tmp_path):
    shape = {
        "network": bench.SMALL["network"],
        "config": {**bench.SMALL["config"], "flip": 0.0, "lr": 1e-5},
    }  # Adam turns a rounding error in a gradient near 0 into a whole step: small steps
    (generator, judge, adams, _), trainers = gan_ways(tmp_path, 6, 32, 2, 4, "cpu", 0, **shape)
    ours = trainers["no"]
    loader = torch.utils.data.DataLoader(
        FaceFiles(tmp_path, 6), batch_sampler=ours.batches().tolist()
    )
    for _ in range(2):
        plain, row = (
            plain_epoch(generator, judge, adams, loader, ours.config),
            ours.train_stretch(),
        )
        assert plain == pytest.approx((row["generator"], row["discriminator"]), rel=1e-4)


def test_files_hold_what_ours_trains_on(tmp_path):
    _, trainers = gan_ways(tmp_path, 3, 32, 1, 4, "cpu", 0, **bench.SMALL)
    planes, image = FaceFiles(tmp_path, 3)[2]
    ours = trainers["no"]
    assert (planes.argmax(0).numpy() == ours.maps[2]).all() and planes.sum() == 32 * 32
    assert ((image.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(
        np.uint8
    ).tolist() == ours.images[2].tolist()


def test_gan_case_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "pick_precision", lambda *_: "bf16")
    (case,) = gan_cases(tmp_path / "a", 4, 32, 2, 4)
    assert (
        list(case.ways) == ["plain loop over files", "ours, float32", "ours, auto (bf16)"]
        and len(measure(case, 1)[1]) == 2
        and case.amount == 4
    )
    monkeypatch.setattr(bench, "pick_precision", lambda *_: "no")
    (case,) = gan_cases(tmp_path / "b", 5, 32, 2, 4)
    assert (
        list(case.ways) == ["plain loop over files", "ours, float32"]
        and "auto" in case.note
        and case.amount == 4
    )
