"Benchmarks of the parser: ways that claim to compute the same do so; every case runs; faults"

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import make_faces

from fairparse.bench import parser as bench_parser
from fairparse.bench.parser import (
    AS_WRITTEN,
    TERMS,
    inference_cases,
    label_findings,
    make_batch,
    make_loss_call,
    make_step,
    naive_loss,
    naive_miou,
    naive_step_cases,
    operator_shares,
    our_loss,
    parsing_ways,
    step_cases,
)
from fairparse.bench.timing import measure
from fairparse.core.runs import InputError
from fairparse.data.labels import CLASSES
from fairparse.measure.counts import count_pixels, iou
from fairparse.parsing.predict import predict_masks, predict_probabilities
from fairparse.parsing.unet import build_parser, load_parser

ENCODER = "tu-mobilenetv3_small_050"
SMALL = dict(size=32, batch=4, encoder=ENCODER)
WEIGHTS = TERMS["all three"]


def random_batch(count=6, groups=5, size=32, seed=0):
    """Logits, labels and memberships

    Logits are better for one face than for another; every class is in every face."""
    torch.manual_seed(seed)
    target = torch.randint(0, len(CLASSES), (count, size, size))
    skill = torch.linspace(0, 4, count).view(-1, 1, 1, 1)
    logits = torch.randn(count, len(CLASSES), size, size) + skill * torch.nn.functional.one_hot(
        target, len(CLASSES)
    ).permute(0, 3, 1, 2)
    return logits.requires_grad_(), target, (torch.rand(count, groups) < 0.5).float()


def test_a_batch_is_of_faces_with_a_quarter_of_the_attributes():
    images, target, member = make_batch(8, 64)
    assert (
        images.shape == (8, 3, 64, 64)
        and images.is_contiguous(memory_format=torch.channels_last)
        and 0 <= images.min()
        and images.max() > 200
    )
    assert target.shape == (8, 64, 64) and target.dtype == torch.int64 and len(target.unique()) > 8
    assert (
        member.shape == (8, 40)
        and set(member.unique().tolist()) == {0, 1}
        and 0.15 < member.mean() < 0.35
    )
    for first, second in zip(make_batch(8, 64), (images, target, member)):
        assert torch.equal(first, second)


@pytest.mark.parametrize("seed", range(3))
def test_the_written_form_is_our_loss_with_its_gradient(seed):
    logits, target, member = random_batch(seed=seed)
    gradients = []
    for loss in (
        our_loss(5, WEIGHTS, noise_std=0.0, **AS_WRITTEN),
        partial(naive_loss, weights=WEIGHTS, noise_std=0.0),
    ):
        value = loss(logits, target, member)
        gradients.append((value.detach(), torch.autograd.grad(value, logits)[0]))
    for ours, written in zip(*gradients):
        torch.testing.assert_close(ours, written, atol=1e-8, rtol=1e-4)
    assert gradients[0][1].abs().max() > 1e-6


@pytest.mark.parametrize(
    "weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["accuracy", "robustness", "fairness"]
)
def test_each_term_alone_is_the_same(weights):
    logits, target, member = random_batch()
    ours, written = (
        our_loss(5, weights, noise_std=0.0, **AS_WRITTEN)(logits, target, member),
        naive_loss(logits, target, member, weights, noise_std=0.0),
    )
    torch.testing.assert_close(ours, written, atol=1e-7, rtol=1e-4)
    assert written.abs() > 1e-3


def test_the_noise_of_the_written_form_lowers_the_score_and_differs_from_step_to_step():
    target = random_batch()[1]
    logits = 4 * torch.nn.functional.one_hot(target, len(CLASSES)).permute(0, 3, 1, 2).float()
    quiet, first, second = (
        naive_loss(logits, target, torch.ones(6, 2), (0, 1, 0), noise_std=std).item()
        for std in (0.0, 3.0, 3.0)
    )
    assert quiet < first - 0.05 and first != second


def test_groups_by_a_metric_are_a_number_without_a_gradient():
    logits, target, member = random_batch()
    assert (
        not torch.autograd.grad(
            naive_loss(logits, target, member, (0, 0, 1), by_metric=True), logits
        )[0].any()
        and torch.autograd.grad(naive_loss(logits, target, member, (0, 0, 1)), logits)[0].any()
    )
    sharp = (
        40 * torch.nn.functional.one_hot(logits.argmax(1), len(CLASSES)).permute(0, 3, 1, 2).float()
    )  # its soft IoU is the IoU of its label map
    torch.testing.assert_close(
        naive_loss(sharp, target, member, (0, 0, 1), by_metric=True),
        naive_loss(sharp, target, member, (0, 0, 1)),
        atol=1e-7,
        rtol=1e-3,
    )


def test_groups_without_a_face_are_left_out():
    logits, target, member = random_batch()
    alone = naive_loss(logits, target, member, WEIGHTS, noise_std=0.0)
    torch.testing.assert_close(
        naive_loss(
            logits, target, torch.cat([member, torch.zeros(6, 2)], 1), WEIGHTS, noise_std=0.0
        ),
        alone,
    )


def test_a_soft_miou_counts_the_classes_of_the_batch():
    truth = torch.nn.functional.one_hot(torch.tensor([[[0, 1], [1, 1]]]), 3).permute(0, 3, 1, 2)
    assert naive_miou(truth.float(), truth).item() == 1 and naive_miou(
        truth.flip(1).float(), truth
    ).item() == pytest.approx((0 + 1) / 2)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_step_cases(precision):
    step, alone = step_cases(**SMALL, groups=3, precision=precision)
    assert list(step.ways) == list(alone.ways) == list(TERMS) and step.amount == 4
    assert [(goal.way, goal.beside, goal.at_most) for goal in step.goals if goal.at_most] == [
        ("all three", "Dice alone", 1.1)
    ]
    times, found = measure(step, 1)
    assert (
        len(times) == 4
        and (times.seconds > 0).all()
        and set(found.part) == {"step"}
        and found.case[0].endswith("bf16") == (precision == "bf16")
    )
    gradients = {name: way() for name, way in alone.ways.items()}
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients.values())
    assert not torch.equal(gradients["Dice alone"], gradients["all three"])


def test_the_gpu_has_its_own_goal(monkeypatch):
    monkeypatch.setattr(
        bench_parser,
        "build_on_device",
        lambda encoder, size, device: build_parser(encoder, "none", size=size),
    )
    for name in ("make_batch", "our_loss"):
        monkeypatch.setattr(
            bench_parser,
            name,
            lambda *given, _real=getattr(bench_parser, name), **more: _real(
                *(v for v in given if v != "cuda:0"), **more
            ),
        )
    assert step_cases(**SMALL, device="cuda:0")[0].goals[0].at_most == 1.05


def test_a_step_moves_the_weights_and_a_loss_call_does_not():
    parser, batch = build_parser(ENCODER, "none", size=32), make_batch(4, 32, 3)
    weights = lambda: torch.cat([p.detach().flatten() for p in parser.parameters()])
    before, loss = weights(), our_loss(3, WEIGHTS)
    gradient = make_loss_call(parser, batch)(loss)
    assert (
        gradient.shape == (4, 19, 32, 32)
        and torch.equal(weights(), before)
        and all(p.grad is None for p in parser.parameters())
    )
    make_step(parser, batch)(loss)
    assert not torch.equal(weights(), before) and all(p.grad is None for p in parser.parameters())


def test_an_unknown_precision_is_named():
    with pytest.raises(InputError, match="precision must be one of .*'half'"):
        step_cases(**SMALL, precision="half")


def test_naive_step_cases():
    step, alone = naive_step_cases(**SMALL, groups=3)
    assert (
        list(step.ways)
        == list(alone.ways)
        == ["ours", "loop over 3 groups", "loop with torchmetrics"]
    )
    _, found = measure(step, 1)
    assert (
        len(found) == 2
        and set(found.part) == {"naive_step"}
        and found.value.gt(0).all()
        and set(found.reached) == {""}
    )
    assert all(way().any() for way in alone.ways.values())


def test_torchmetrics_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(bench_parser.importlib.util, "find_spec", lambda name: None)
    logits, target, member = random_batch()
    with pytest.raises(InputError, match="pip install torchmetrics"):
        naive_loss(logits, target, member, WEIGHTS, by_metric=True)
    with pytest.raises(InputError, match=r"pip install 'fairparse\[onnx\]'"):
        bench_parser.onnx_session("parser.onnx", 1)


def test_operator_shares_add_up():
    x = torch.randn(400, 400)
    table = operator_shares(lambda: [x @ x for _ in range(5)], rows=1000)
    assert (
        table.share.sum() == pytest.approx(100)
        and table.share.is_monotonic_decreasing
        and (table.ms >= 0).all()
    )
    assert (
        table.set_index("operator").calls["aten::mm"] == 5
        and table.operator[0] == "aten::mm"
        and len(operator_shares(lambda: x @ x, rows=2)) == 2
    )


@pytest.fixture(scope="module")
def inference(tmp_path_factory):
    "What `inference_cases` gives, and the folder in which it left its parser"
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("parser")
    return inference_cases(
        size=64, batch=4, encoder=ENCODER, scratch=folder, backend="eager"
    ), folder


def test_inference_cases(inference):
    items, _ = inference
    cases, found = items[:2], pd.DataFrame(items[2:])
    assert (
        [case.amount for case in cases] == [4, 1]
        and set(found.part) == {"inference"}
        and (found.value >= 0).all()
    )
    assert (
        list(found.what) == ["export to ONNX, compared"] + 2 * ["compiled: first call"]
        and (found.unit == "s").all()
    )
    for case in cases:
        assert (measure(case, 1)[1].value > 0).all()


def test_all_ways_to_parse_give_the_same_probabilities(inference):
    _, folder = inference
    parser, images = load_parser(folder), make_batch(4, 64)[0].byte().contiguous()
    expected, ways = (
        predict_probabilities(parser, images),
        parsing_ways(parser, folder / "parser.onnx", backend="eager"),
    )
    assert {"contiguous", "channels last", "compiled", "ONNX Runtime"} <= set(ways)
    for name, parse in ways.items():
        for given in (images, images[:1]):
            probabilities = parse(given)
            assert probabilities.dtype == torch.float32 and not probabilities.requires_grad
            torch.testing.assert_close(
                probabilities,
                expected[: len(given)],
                atol=0.1 if name.startswith("bf16") else 1e-4,
                rtol=0,
                msg=lambda m, name=name: f"{name}: {m}",
            )
    assert np.array_equal(
        ways["channels last"](images).argmax(1).byte().numpy(),
        predict_masks(parser, images.permute(0, 2, 3, 1).numpy()),
    )


@pytest.mark.parametrize("units", [True, False])
def test_bfloat16_is_tried_where_there_are_units_for_it(inference, monkeypatch, units):
    _, folder = inference
    parser = load_parser(folder)
    monkeypatch.setattr(bench_parser, "has_bf16", lambda device: units)
    ways = parsing_ways(parser, folder / "parser.onnx", backend="eager")
    assert ({"bf16", "bf16 decoder"} <= set(ways)) is units
    assert next(parser.parameters()).dtype == torch.float32  # the parser given stays as it is


def test_labels_of_a_trained_parser_are_compared(inference, tmp_path):
    faces, rows = make_faces(tmp_path, 7, size=64), np.arange(1, 7)
    parser = load_parser(inference[1])
    found = pd.DataFrame(label_findings(parser, faces, rows, batch=4)).set_index("what")
    expected = iou(
        count_pixels(
            torch.from_numpy(predict_masks(parser, faces.images[rows])),
            torch.from_numpy(faces.masks[rows]),
            len(CLASSES),
        )
    )
    assert found.value["channels last: pixels labelled otherwise"] == 0 and found.value[
        "channels last: mIoU"
    ] == pytest.approx(100 * expected)
    assert found.value["contiguous: pixels labelled otherwise"] < 1 and set(found.part) == {
        "inference"
    }
    with pytest.raises(InputError, match="other classes"):
        label_findings(
            build_parser(ENCODER, "none", classes=["background", "skin"], size=64), faces, rows
        )
