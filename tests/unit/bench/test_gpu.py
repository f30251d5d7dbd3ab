"""Benchmarks of a GPU at work: operations, peaks and shares; faces that stay on the device

Run on a CPU."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import make_faces

from fairparse.bench import gpu as bench_gpu
from fairparse.bench.gpu import (
    count_operations,
    fetch_cases,
    matrix_peak,
    run_epoch,
    unet_cases,
    unet_findings,
)
from fairparse.bench.parser import step_cases
from fairparse.bench.timing import measure
from fairparse.core.runs import InputError
from fairparse.data.augment import AugmentConfig
from fairparse.parsing.batches import hold_faces
from fairparse.workflow.operations import GFLOP

ENCODER = "tu-mobilenetv3_small_050"
SMALL = dict(size=32, batch=4, encoder=ENCODER)


@pytest.mark.parametrize("encoder, size", [("resnet34", 256), (ENCODER, 64)])
def test_operations_are_counted(encoder, size):
    forward, step = count_operations(encoder, size)
    assert 2.5 * forward < step < 3.5 * forward
    if encoder == "resnet34":
        assert (round(forward, 2), round(step, 1)) == (GFLOP["unet"], GFLOP["unet_step"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_matrix_peak_is_a_rate(monkeypatch, dtype):
    """Two products of side 64 in each of three repetitions of one, two and three seconds

    The median is two."""
    monkeypatch.setattr(bench_gpu.time, "perf_counter", iter([0, 1, 10, 12, 20, 23]).__next__)
    assert matrix_peak("cpu", dtype, side=64, repetitions=3, calls=2) == pytest.approx(2 * 64**3)


def test_unet_cases_and_what_they_say():
    (case,) = unet_cases("cpu", **SMALL, precision="bf16", groups=3, backend="eager")
    times, found = measure(case, 2)
    assert list(case.ways) == ["channels last", "channels last, compiled"] and len(found) == 1
    times.seconds = [0.5, 0.25] * 2  # turns go forth and back: way, compiled, compiled, way
    rows = pd.DataFrame(unet_findings(times, 1e12, ENCODER, 32)).set_index("what")
    step = count_operations(ENCODER, 32)[1]
    assert rows.value["measured matrix peak"] == 1 and rows.value[
        "forward and backward pass"
    ] == pytest.approx(step)
    for way in case.ways:
        rate, share = rows.loc[way], rows.loc[f"{way}: share of the matrix peak"]
        assert (
            (rate.low, rate.high) == (8, 16)
            and rate.value == pytest.approx(4 / 0.375)
            and share.value == pytest.approx(100 * rate.value * step * 1e9 / 1e12)
            and share.low < share.value < share.high
        )


def test_findings_without_times_are_refused():
    times = measure(step_cases(**SMALL, groups=2)[1], 1)[0]
    with pytest.raises(InputError, match="measure `unet_cases` first"):
        unet_findings(times, 1e12)


@pytest.mark.parametrize(
    "config", [None, AugmentConfig(flip=0.5, rotate=10, brightness=0.2)], ids=["plain", "augmented"]
)
def test_resident_faces_make_the_same_batches(tmp_path, config):
    faces = make_faces(tmp_path, 10)
    batches, results = np.arange(10)[::-1].reshape(5, 2), []
    for source in ((faces.images, faces.masks), hold_faces(faces, torch.device("cpu"))):
        torch.manual_seed(0)
        results.append(run_epoch(source, batches, "cpu", config))
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)
    if config is None:
        assert torch.equal(results[0][1], torch.from_numpy(faces.masks[[1, 0]]).long())


def test_fetch_cases(tmp_path):
    for case in fetch_cases(make_faces(tmp_path, 10), "cpu", 4):
        assert (
            case.amount == 8
            and list(case.ways) == ["memory map", "resident"]
            and case.part == "unet"
        )
        assert math.isfinite(measure(case, 1)[1].value[0])
