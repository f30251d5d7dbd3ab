"Which precision a training takes: only what the device has units for, asked in one place"

import contextlib
import importlib
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from fairparse.core import precision
from fairparse.core.precision import has_bf16, pick_precision
from fairparse.core.runs import InputError

VOLTA, TURING, AMPERE, HOPPER = 7, 7, 8, 9  # the first number of the compute capability


@pytest.fixture
def cards(monkeypatch):
    "Say which GPUs there are, by the first number of their compute capability"

    def insert(*majors):
        current = [0]

        @contextlib.contextmanager
        def within(device):
            before, current[0] = current[0], device
            yield
            current[0] = before

        fakes = {
            "is_available": lambda: True,
            "current_device": lambda: current[0],
            "device": within,
            "get_device_properties": lambda number: SimpleNamespace(major=majors[number]),
            "get_device_name": lambda number=None: f"Card {majors[number or 0]}",
            # a tensor of bfloat16 can be made on every card: where there are no units, slowly
            "_check_bf16_tensor_supported": lambda number: True,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch.version, "hip", None)

    return insert


@pytest.mark.parametrize("major, native", [(VOLTA, False), (AMPERE, True), (HOPPER, True)])
def test_emulated_bf16_does_not_count(cards, major, native):
    cards(major)
    assert torch.cuda.is_bf16_supported()  # with emulation, as torch answers by default
    assert has_bf16("cuda") is native
    assert pick_precision("auto", "cuda") == ("bf16" if native else "no")
    assert pick_precision("auto", "cuda", older="fp16") == ("bf16" if native else "fp16")


def test_each_card_is_asked_for_itself(cards):
    cards(HOPPER, TURING)
    assert [has_bf16(name) for name in ("cuda", "cuda:0", "cuda:1")] == [True, True, False]
    assert pick_precision("auto", "cuda:1") == "no"


def test_a_precision_that_the_card_does_not_have_is_refused(cards):
    cards(AMPERE, TURING)
    with pytest.raises(InputError, match=r"cuda:1 \(Card 7\) computes bf16 by emulation.*\"auto\""):
        pick_precision("bf16", "cuda:1")
    assert pick_precision("bf16", "cuda:0") == "bf16"
    assert [pick_precision(name, "cuda:1") for name in ("no", "fp16")] == ["no", "fp16"]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_fp16_needs_a_gpu(device):
    with pytest.raises(InputError, match=f"fp16 needs a CUDA device, not {device}"):
        pick_precision("fp16", device)


@pytest.mark.parametrize("units", [True, False, None])
def test_a_cpu_is_asked_for_its_matrix_units(monkeypatch, units):
    monkeypatch.setattr(precision, "processor", lambda: {"model": "A chip", "bf16": units})
    there = units is True
    assert has_bf16("cpu") is there
    assert pick_precision("auto", "cpu", older="fp16") == ("bf16" if there else "no")
    assert pick_precision("bf16", "cpu") == "bf16"  # asked for by name: right, if slow


def test_other_devices_compute_in_float32():
    assert pick_precision("auto", "mps", older="fp16") == "no"


TRAININGS = (
    *("parsing.train", "gan.train", "diffusion.train", "diffusion.sample"),
    *("balancing.classifier_train", "balancing.stylegan_train", "bench.synthesis"),
)


@pytest.mark.parametrize("module", TRAININGS)
def test_all_trainings_ask_here(module):
    assert importlib.import_module(f"fairparse.{module}").pick_precision is pick_precision


@pytest.mark.parametrize(
    "asks,module",
    [
        ("is_bf16_supported|get_capabilities|get_device_capability", "precision.py"),
        ("amx_bf16", "runs.py"),
    ],
)
def test_nobody_else_asks(asks, module):
    sources = (ROOT / "fairparse").rglob("*.py")
    assert [path.name for path in sources if re.search(asks, path.read_text())] == [module]
