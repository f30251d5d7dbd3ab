"""Official StyleGAN pickles

What must be read, what must be refused, and that nothing in a file is ever run.

No file here would harm Python's own reader. What an attacker sends runs a shell command; here the
command is a canary, a function that notes that it was called. What an attacker makes endless is
here as small as can be, and so are the limits that it passes.
"""

import collections
import contextlib
import inspect
import io
import json
import os
import pickle
import pickletools
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import types
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from stylegan_helpers import VARIANTS, draw, make, reference
from torch import nn

from fairparse.balancing.safe_pickle import Array, Limits, read_pickle
from fairparse.balancing.stylegan import (
    Dense,
    GeneratorConfig,
    StyledConvolution,
    ToPicture,
    load_stylegan,
)
from fairparse.balancing.stylegan_pickle import generator_from_pickle, import_stylegan
from fairparse.core.runs import InputError

FIXTURES = Path(
    os.environ.get("FAIRPARSE_FIXTURES")
    or Path(os.environ.get("FAIRPARSE_DATA", "/none")).parent / "fixtures"
)
TINY = {"z_dim": 2, "w_dim": 3, "channels": [3, 2], "mapping_layers": 2}


# ---- files as the official tools write them: by Python's own pickler, through stand-ins for the
# official modules


class EasyDict(dict):
    __module__ = "dnnlib.util"


class Persistent:
    "Pickled as an object of a class that `torch_utils.persistence` decorated"

    def __init__(
        self, kind, state, source="raise RuntimeError('source code of the file was executed')"
    ):
        self.state = state
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": kind,
            "state": state,
        }

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@contextmanager
def official_modules():
    "The names of the official modules, for `pickle` to find"
    modules = {
        name: types.ModuleType(name)
        for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    }
    exec(
        "def _reconstruct_persistent_obj(meta): exec(meta['module_src'], {})",
        modules["torch_utils.persistence"].__dict__,
    )
    modules[
        "torch_utils.persistence"
    ]._reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    modules["dnnlib.util"].EasyDict = EasyDict
    with patch.dict(sys.modules, modules):
        yield


def settings_of(layer, config):
    "What the official layer of this kind says of itself, beside its weights"
    clamp = config.clamp or None
    if isinstance(layer, Dense):
        return {
            "activation": "linear" if layer.linear else "lrelu",
            "weight_gain": layer.rate / np.sqrt(layer.weight.shape[1]),
            "bias_gain": layer.rate,
        }
    if isinstance(layer, ToPicture):
        return {"conv_clamp": clamp, "weight_gain": 1 / np.sqrt(layer.weight.shape[1])}
    if isinstance(layer, StyledConvolution):
        return {
            "resolution": layer.noise_const.shape[0],
            "up": 1 if layer.kernel is None else 2,
            "use_noise": True,
            "activation": "lrelu",
            "conv_clamp": clamp,
            "padding": 1,
            "act_gain": np.sqrt(2),
        }
    return {}


KINDS = {Dense: "FullyConnectedLayer", StyledConvolution: "SynthesisLayer", ToPicture: "ToRGBLayer"}


def official(layer, config, kind=None, parameter=nn.Parameter, filter_dtype=torch.float32):
    """A layer of this project as an official persistent object

    With all that a torch module carries along.
    """
    kernel, name = (
        getattr(layer, "kernel", None),
        kind or KINDS.get(type(layer), type(layer).__name__),
    )
    buffers = {key: value for key, value in layer.named_buffers(recurse=False) if key != "kernel"}
    if kernel is not None:
        buffers["resample_filter"] = official_filter(config.filter).to(filter_dtype)
    state = {
        **nn.Module().__dict__,
        **settings_of(layer, config),
        "_parameters": {
            key: parameter(value.clone(), requires_grad=False)
            for key, value in layer.named_parameters(recurse=False)
        },
        "_buffers": buffers,
        "_init_args": (),
        "_init_kwargs": EasyDict(w_dim=config.w_dim),
    }
    kinds = {"mapping": "MappingNetwork", "synthesis": "SynthesisNetwork"}
    state["_modules"] = {
        key: official(
            child,
            config,
            kinds.get(key, "SynthesisBlock" if key.startswith("b") else None),
            parameter,
            filter_dtype,
        )
        for key, child in layer.named_children()
    }
    if name == "SynthesisBlock":
        state |= {
            "architecture": config.architecture,
            "use_fp16": False,
            "is_last": False,
            "num_conv": 2,
        }
    if "skip" in state["_modules"]:
        skip = state["_modules"]["skip"]
        skip.meta["class_name"] = "Conv2dLayer"
        skip.state |= {
            "activation": "linear",
            "up": 2,
            "down": 1,
            "conv_clamp": None,
            "padding": 0,
            "act_gain": 1,
            "weight_gain": 1 / np.sqrt(layer.skip.weight.shape[1]),
        }
        skip.state["_buffers"] = {"resample_filter": official_filter(config.filter)}
    return Persistent(name, state)


def official_filter(
    taps,
):  # as upfirdn2d.setup_filter makes it: in two dimensions below 8 taps, else in one
    taps = torch.tensor(taps)
    taps = taps.outer(taps) if taps.ndim == 1 and len(taps) < 8 else taps
    return taps / taps.sum()


def write(path, net, protocol=4, edit=lambda root: None, **options):
    "An official pickle of `net`, changed by `edit` before it is written"
    root = official(net, net.config, "Generator", **options)
    edit(root)
    with official_modules():
        content = {
            "G": None,
            "D": Persistent("Discriminator", {**nn.Module().__dict__, "img_channels": 3}),
            "G_ema": root,
            "augment_pipe": None,
            "training_set_kwargs": EasyDict(
                class_name="training.dataset.ImageFolderDataset",
                path="faces.zip",
                use_labels=False,
                max_size=70000,
                xflip=True,
            ),
        }
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def layer_of(root, path):
    for name in path.split("."):
        root = root.state["_modules"][name]
    return root


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- what must be read


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(tmp_path, protocol):
    net = make()
    again, record = generator_from_pickle(write(tmp_path / "a.pkl", net, protocol))
    assert (
        same(again.state_dict(), net.state_dict())
        and again.config == net.config
        and not again.training
    )
    assert (
        record["source"] == "a.pkl"
        and record["network"] == "G_ema"
        and record["class_name"] == "Generator"
        and record["size"] == 16
    )


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_architecture_gives_the_official_pictures(tmp_path, options):
    """From the configuration that was read to pixels

    Against the formula written out in test_stylegan.
    """
    net = make(**options)
    again, _ = generator_from_pickle(write(tmp_path / "a.pkl", net))
    z, c = draw(net, 2)
    torch.testing.assert_close(
        again(z, c, psi=0.7, cutoff=3), reference(net, z, c, 0.7, 3), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("channels", [[2], [2] * 6, [1, 7, 3, 5, 2]])
def test_every_resolution_is_read(tmp_path, channels):
    net = make(channels=channels)
    again, record = generator_from_pickle(write(tmp_path / "a.pkl", net))
    assert record["size"] == 4 * 2 ** (len(channels) - 1) and same(
        again.state_dict(), net.state_dict()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    net = make()
    rounded = {name: value.to(dtype).float() for name, value in net.named_parameters()}
    again, _ = generator_from_pickle(
        write(
            tmp_path / "a.pkl",
            net,
            parameter=lambda value, requires_grad: nn.Parameter(value.to(dtype), requires_grad),
        )
    )
    assert all(value.dtype == torch.float32 for value in again.parameters()) and same(
        dict(again.named_parameters()), rounded
    )


def test_half_precision_blocks_are_clipped_and_run_in_float32(tmp_path):
    net = make(clamp=0.4)

    def halve(root):
        layer_of(root, "synthesis.b16").state["use_fp16"] = True

    again, _ = generator_from_pickle(write(tmp_path / "a.pkl", net, edit=halve))
    z, _ = draw(net)
    assert again.config.clamp == 0.4 and again(z).dtype == torch.float32
    torch.testing.assert_close(again(z), reference(net, z), rtol=1e-4, atol=1e-4)


def test_weights_in_channels_last_order(tmp_path):
    def reorder(value, requires_grad):
        return nn.Parameter(
            value.to(memory_format=torch.channels_last) if value.ndim == 4 else value, requires_grad
        )

    net = make()
    again, _ = generator_from_pickle(write(tmp_path / "a.pkl", net, parameter=reorder))
    assert same(again.state_dict(), net.state_dict())


def test_frozen_layers_hold_their_weights_as_buffers(tmp_path):
    "As the StyleGAN3 tools write them with --freezed"

    def freeze(root):
        state = layer_of(root, "mapping.fc0").state
        state["_buffers"], state["_parameters"] = (
            {name: value.data for name, value in state["_parameters"].items()},
            {},
        )

    net = make()
    assert same(
        generator_from_pickle(write(tmp_path / "a.pkl", net, edit=freeze))[0].state_dict(),
        net.state_dict(),
    )


def test_layers_without_noise_get_noise_of_no_strength(tmp_path):
    net = make()
    again, _ = generator_from_pickle(write(tmp_path / "a.pkl", net, edit=quieten))
    z, _ = draw(net)
    torch.testing.assert_close(
        again(z, noise="const"), reference(net, z, noise=False), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_values_beside_the_weights(tmp_path, protocol):
    "Arrays and scalars of numpy, on the GPU or not: what augmentation pipes and forks carry along"
    values = {
        "f": np.float64(0.25),
        "i": np.int32(-7),
        "b": np.bool_(True),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "set": {"a"},
        "ordered": collections.OrderedDict(x=1),
        "none": np.zeros((0, 3)),
        "list": [1, (2.5, None)],
        "long": 2**40,
        "text": "ü" * 300,
        "many": tuple(range(300)),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(values, protocol))
    got = read_pickle(path)
    assert (got["f"], got["i"], got["b"], got["long"], got["text"], got["many"]) == (
        0.25,
        -7,
        True,
        2**40,
        "ü" * 300,
        tuple(range(300)),
    )
    assert (
        list(got["set"]) == ["a"] and got["ordered"] == {"x": 1} and got["list"] == [1, (2.5, None)]
    )
    for name in ("array", "fortran", "none"):
        assert type(got[name]) is Array and np.array_equal(got[name].values, values[name])


def test_weights_that_were_on_a_gpu(tmp_path):
    net = make()
    path = write(tmp_path / "a.pkl", net, 3)
    content = path.read_bytes()
    assert content.count(b"X\x03\x00\x00\x00cpu") > 10
    # a longer device name shifts everything, so storages are rebuilt: "cpu" is as long as "xla"
    path.write_bytes(content.replace(b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00xla"))
    assert same(generator_from_pickle(path)[0].state_dict(), net.state_dict())
    assert read_bytes(tmp_path, tensor(storage(device="cuda:0"))).storage.count == 4


def test_official_loaders_would_run_the_source_code(tmp_path):
    "The trap in the files of these tests is a real one"
    path = write(tmp_path / "a.pkl", make())
    with (
        official_modules(),
        open(path, "rb") as file,
        pytest.raises(RuntimeError, match="source code of the file"),
    ):
        pickle.load(file)


def test_reference_pickle(tmp_path):
    "A file that is not ours, with reference pictures"
    if not (FIXTURES / "stylegan2_skip_64.pkl").is_file():
        pytest.skip("no reference pickle: set FAIRPARSE_FIXTURES or FAIRPARSE_DATA")
    import_stylegan(FIXTURES / "stylegan2_skip_64.pkl", tmp_path / "out")
    net, expected = (
        load_stylegan(tmp_path / "out"),
        np.load(FIXTURES / "stylegan2_skip_64_expected.npz"),
    )
    z = torch.from_numpy(expected["z"])
    for psi, cutoff in ((1.0, None), (0.7, None), (0.5, 4)):
        np.testing.assert_allclose(
            net.styles(z, psi=psi, cutoff=cutoff), expected[f"w_psi{psi}_cut{cutoff}"], atol=1e-4
        )
        np.testing.assert_allclose(
            net(z, psi=psi, cutoff=cutoff), expected[f"img_psi{psi}_cut{cutoff}"], atol=1e-4
        )
    np.testing.assert_allclose(net(z, noise="none"), expected["img_psi1.0_nonoise"], atol=1e-4)


# ---- calls: files that would call a function when `pickle.load` opens them


@pytest.fixture
def canary():
    "A module whose function notes that it was called"
    module = types.ModuleType("canary")
    module.calls = []
    module.record = module.calls.append
    module.Kind = type("Kind", (), {"__new__": lambda kind, word: module.record(word)})
    module.inner = types.SimpleNamespace(record=module.record)
    with patch.dict(sys.modules, canary=module):
        yield module


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def data(value):
    return b"B" + struct.pack("<I", len(value)) + value


def found(module, name):
    return text(module) + text(name) + b"\x93"  # STACK_GLOBAL


def called(module, name, *arguments):
    return found(module, name) + b"(" + b"".join(arguments) + b"tR"


def whole(body):
    return b"\x80\x04" + body + b"."


SING = text("sung")
RECORD = called("canary", "record", SING)
INNER = b"\x80\x02ccanary\nrecord\n" + SING + b"\x85R."


def legacy_file(storage):
    "What `torch.save` once wrote, with the pickle `storage` in the place of a storage"
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    return head + b"\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s." + storage


# name -> (content, what the refusal names)
CALLS = {
    "global": (INNER, "canary.record"),
    "stack global": (whole(RECORD), "canary.record"),
    "dotted name": (whole(called("canary", "inner.record", SING)), "canary.inner.record"),
    "getattr": (
        whole(
            b"cbuiltins\ngetattr\n("
            + found("canary", "inner")
            + text("record")
            + b"tR("
            + SING
            + b"tR"
        ),
        "builtins.getattr",
    ),
    "INST": (b"\x80\x02(" + SING + b"icanary\nrecord\n.", "INST"),
    "OBJ": (b"\x80\x02(ccanary\nrecord\n" + SING + b"o.", "canary.record"),
    "OBJ of a result": (b"\x80\x02(" + RECORD + b"o.", "canary.record"),
    "NEWOBJ": (whole(found("canary", "Kind") + SING + b"\x85\x81"), "canary.Kind"),
    "partial": (
        whole(b"cfunctools\npartial\n(" + found("canary", "record") + SING + b"tR)R"),
        "functools.partial",
    ),
    "map": (
        whole(
            b"cbuiltins\nlist\n(cbuiltins\nmap\n("
            + found("canary", "record")
            + b"]("
            + SING
            + b"etRtR"
        ),
        "builtins.list",
    ),
    "pickle in a pickle": (whole(called("_pickle", "loads", data(INNER))), "_pickle.loads"),
    "torch.load": (
        whole(called("torch.storage", "_load_from_bytes", data(legacy_file(INNER)))),
        "canary.record",
    ),
    "in the state of a network": (whole(b"}" + text("G_ema") + RECORD + b"s"), "canary.record"),
    "state of an object": (
        whole(b"ccollections\nOrderedDict\n)R}" + text("x") + RECORD + b"sb"),
        "canary.record",
    ),
    "thrown away": (whole(RECORD + b"0}"), "canary.record"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused_by_name(tmp_path, canary, name):
    content, word = CALLS[name]
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            import_stylegan(path, tmp_path / "out")
        assert not canary.calls and not (tmp_path / "out").exists()
    assert (
        word in str(refused.value)
        and str(path) in str(refused.value)
        and "byte" in str(refused.value)
    )
    with contextlib.suppress(Exception):  # some fail after the call
        pickle.loads(content)
    assert canary.calls == ["sung"]  # it is no call in name only


NAMES = (
    *(("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "eval")),
    *(("builtins", "exec"), ("builtins", "__import__"), ("builtins", "open")),
    *(("torch", "load"), ("torch._utils", "_rebuild_tensor_v2.__globals__")),
)


@pytest.mark.parametrize("module, name", NAMES)
def test_a_name_alone_is_refused(tmp_path, module, name):
    "Not called, only named: the list of names decides, not what they do"
    with pytest.raises(InputError, match=re.escape(f"it asks for {module}.{name}")):
        read_bytes(tmp_path, whole(found(module, name)))


# ---- files that are wrong in other ways


def read_bytes(tmp_path, content):
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    return read_pickle(path)


def storage(
    count=4,
    stored=None,
    kind="FloatStorage",
    device="cpu",
    key="7",
    keys=("7",),
    held=None,
    magic=0x1950A86A20F9469CFC6C,
    little=True,
    word="storage",
):
    "Instructions that make a storage, as torch writes it or nearly so"
    parts = [
        pickle.dumps(magic, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"protocol_version": 1001, "little_endian": little}, 2),
        b"\x80\x02("
        + text(word)
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text(device)
        + pickle.dumps(count, 2)[2:-1]
        + b"NtQ.",
        pickle.dumps(list(keys), 2),
    ]
    held = count if held is None else held
    return called(
        "torch.storage",
        "_load_from_bytes",
        data(
            b"".join(parts)
            + struct.pack("<Q", held)
            + (np.arange(4, dtype="<f4").tobytes() if stored is None else stored)
        ),
    )


def number(value):
    return pickle.dumps(value, 2)[2:-1]  # instructions that push a number, or a tuple of them


def tensor(made, offset=0, size=(4,), stride=(1,)):
    return whole(
        called(
            "torch._utils",
            "_rebuild_tensor_v2",
            made,
            number(offset),
            number(size),
            number(stride),
            b"\x89",
            called("collections", "OrderedDict"),
        )
    )


def test_a_plain_tensor_is_read(tmp_path):
    "The cases below would prove nothing if this were refused"
    assert torch.equal(
        read_bytes(tmp_path, tensor(storage(), 1, (3,), (1,))).read(), torch.tensor([1.0, 2.0, 3.0])
    )
    assert torch.equal(
        read_bytes(tmp_path, tensor(storage(), 0, (2, 2), (1, 2))).read(),
        torch.tensor([[0.0, 2.0], [1.0, 3.0]]),
    )


OUTSIDE = {
    "too long": (0, (5,), (1,)),
    "offset": (2, (4,), (1,)),
    "far": (1000, (1,), (1,)),
    "stride": (0, (2, 2), (4, 1)),
    "great stride": (0, (2,), (1000,)),
    "negative stride": (3, (4,), (-1,)),
    "negative offset": (-1, (1,), (1,)),
    "negative size": (0, (-4,), (1,)),
    "more strides": (0, (2,), (1, 1)),
    "fractions": (0, (1.5,), (1,)),
    "many dimensions": (0, (1,) * 9, (1,) * 9),
    "flags": (0, (True,), (1,)),
    "list": (0, [4], [1]),
}


@pytest.mark.parametrize("where", OUTSIDE.values(), ids=OUTSIDE)
def test_tensors_outside_of_their_storage_are_refused(tmp_path, where):
    with pytest.raises(InputError, match="tensor"):
        read_bytes(tmp_path, tensor(storage(), *where))


STORAGES = {
    "more than there is": ({"count": 1000}, "truncated"),
    "another count": ({"held": 5}, "declares 4"),
    "short": ({"stored": b"\0" * 15}, "truncated"),
    "long": ({"stored": b"\0" * 17}, "ends after"),
    "objects": ({"kind": "ObjectStorage"}, "torch.ObjectStorage"),
    "quantised": ({"kind": "QInt8Storage"}, "torch.QInt8Storage"),
    "dotted": ({"kind": "storage.inner.record"}, "torch.storage.inner.record"),
    "big-endian": ({"little": False}, "little-endian"),
    "magic": ({"magic": 5}, "torch.save"),
    "keys": ({"keys": ("8",)}, "torch.save"),
    "two keys": ({"keys": ("7", "7")}, "torch.save"),
    "negative": ({"count": -4, "held": 0}, "declared"),
    "fraction": ({"count": 4.0, "held": 4}, "declared"),
    "word": ({"word": "module"}, "declared"),
}


@pytest.mark.parametrize("options, word", STORAGES.values(), ids=STORAGES)
def test_wrong_storages_are_refused(tmp_path, options, word):
    with pytest.raises(InputError, match=word):
        read_bytes(tmp_path, tensor(storage(**options)))


def zipped():
    packed = io.BytesIO()
    torch.save({"a": torch.ones(2)}, packed)
    return packed.getvalue()


def dtype(code, order="<"):
    return (
        called("numpy", "dtype", text(code), b"\x89\x88")
        + b"(K\x03"
        + text(order)
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )


def array(size, code="f4", held=b"\0" * 16):
    return (
        called(
            "numpy._core.multiarray",
            "_reconstruct",
            found("numpy", "ndarray"),
            b"K\x00\x85",
            data(b"b"),
        )
        + b"(K\x01"
        + number(size)
        + dtype(code)
        + b"\x89"
        + data(held)
        + b"tb"
    )


WRONG = {
    "empty": (b"", "does not begin"),
    "text": (b"hello, this is no pickle", "does not begin"),
    "protocol 0": (pickle.dumps([1], 0), "does not begin"),
    "protocol 9": (b"\x80\x09N.", "does not begin"),
    "zip": (zipped(), "zip archive"),
    "gzip": (b"\x1f\x8b\x08\x00" * 9, "does not begin"),
    "no end": (b"\x80\x04N", "truncated"),
    "nothing on the stack": (b"\x80\x04.", "damaged"),
    "no mark": (b"\x80\x04t.", "damaged"),
    "unknown memo": (b"\x80\x04h\x07.", "damaged"),
    "second PROTO": (b"\x80\x04\x80\x04N.", "PROTO"),
    "unknown instruction": (b"\x80\x04\xfe.", "instruction 254"),
    "EXT1": (b"\x80\x02\x82\x01.", "EXT1"),
    "EXT4": (b"\x80\x02\x84\x01\0\0\0.", "EXT4"),
    "PERSID": (b"\x80\x02Pabc\n.", "PERSID"),
    "BINPERSID": (whole(text("x") + b"Q"), "outside of the file"),
    "NEWOBJ_EX": (whole(found("collections", "OrderedDict") + b")}\x92"), "NEWOBJ_EX"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "text integers": (b"\x80\x02I5\n.", "INT"),
    "DUP": (whole(b"N2"), "DUP"),
    "call of a dict": (whole(b"})R"), "no name of a constructor"),
    "call of text": (whole(text("canary.record") + b")R"), "no name of a constructor"),
    "call without a tuple": (whole(found("collections", "OrderedDict") + b"]R"), "calls"),
    "filled OrderedDict": (whole(called("collections", "OrderedDict", b"]")), "damaged"),
    "state of a dict": (whole(b"}}b"), "sets the state"),
    "state of a name": (whole(found("numpy", "dtype") + b"}b"), "sets the state"),
    "name that is no text": (whole(b"K\x01K\x02\x93"), "no text"),
    "endless name": (b"\x80\x02c" + b"a" * 300 + b"\nb\n.", "more than 256"),
    "name without end": (b"\x80\x02ccanary", "damaged"),
    "bad text": (b"\x80\x04X\x02\0\0\0\xff\xff.", "damaged"),
    "items in a tuple": (whole(b")Na"), "adds items"),
    "odd items": (whole(b"}(Nu"), "NoneType|None"),
    "key without value": (whole(b"}(" + text("a") + b"u"), "damaged"),
    "tuple as a key": (whole(b"})Ns"), "tuple"),
    "bytes as a key": (whole(b"}" + data(b"a") + b"Ns"), "memoryview"),
    "tuple in a set": (whole(b"\x8f()\x90"), "tuple"),
    "long integer": (whole(b"\x8a\xff" + b"\x7f" * 255), "integer of 255 bytes"),
    "LONG4": (whole(b"\x8b\x04\x00\x00\x00\x01\x00\x00\x00"), "LONG4"),
    "negative LONG4": (whole(b"\x8b\xff\xff\xff\xff"), "LONG4"),
    "storage of text": (
        whole(called("torch.storage", "_load_from_bytes", text("abc"))),
        "not of bytes",
    ),
    "storage of a zip": (
        whole(called("torch.storage", "_load_from_bytes", data(zipped()))),
        "zip archive",
    ),
    "storage in a storage": (
        whole(
            called(
                "torch.storage",
                "_load_from_bytes",
                data(whole(called("torch.storage", "_load_from_bytes", data(b"")))),
            )
        ),
        "torch.storage._load_from_bytes",
    ),
    "storage alone": (whole(called("torch", "FloatStorage")), "torch.FloatStorage"),
    "tensor of nothing": (
        whole(called("torch._utils", "_rebuild_tensor_v2", b"NK\x00))\x89}")),
        "tensor's storage",
    ),
    "parameter of a dict": (
        whole(called("torch._utils", "_rebuild_parameter", b"}\x89}")),
        "parameter is made of",
    ),
    "tensor without arguments": (whole(called("torch._utils", "_rebuild_tensor_v2")), "damaged"),
    "object type": (whole(dtype("O8")), "no type of numbers"),
    "record type": (whole(dtype("V16")), "no type of numbers"),
    "big-endian type": (whole(dtype("f8", ">")), "little-endian"),
    "dates": (whole(dtype("M8")), "no type of numbers"),
    "short scalar": (
        whole(called("numpy.core.multiarray", "scalar", dtype("f8"), data(b"\0" * 4))),
        "scalar",
    ),
    "scalar of text": (
        whole(called("numpy.core.multiarray", "scalar", dtype("f8"), text("12345678"))),
        "scalar",
    ),
    "larger array": (whole(array((1000,))), "bytes that its shape"),
    "small array": (whole(array((3,))), "bytes that its shape"),
    "negative array": (whole(array((-2, -2))), "bytes that its shape"),
    "array of dimensions": (whole(array((1,) * 40, held=b"\0" * 4)), "bytes that its shape"),
    "ndarray called": (whole(called("numpy", "ndarray", number((2,)))), "only named"),
    "encoding": (whole(called("_codecs", "encode", text("a"), text("rot13"))), "latin1"),
    "not latin1": (whole(called("_codecs", "encode", text("漢"), text("latin1"))), "damaged"),
    "persistent without state": (
        whole(called("torch_utils.persistence", "_reconstruct_persistent_obj", b"}")),
        "lacks",
    ),
    "persistent of text": (
        whole(called("torch_utils.persistence", "_reconstruct_persistent_obj", text("a"))),
        "lacks",
    ),
    "TensorFlow": (
        whole(found("dnnlib.tflib.network", "Network")),
        "dnnlib.tflib.network.Network.*legacy.py",
    ),
    "a module": (
        whole(found("torch.nn.modules.linear", "Linear")),
        "torch.nn.modules.linear.Linear",
    ),
    "partial state": (
        whole(called("torch._utils", "_rebuild_parameter_with_state")),
        "_rebuild_parameter_with_state",
    ),
    "control characters": (whole(found("canary\x1b[2J", "x\n")), r"canary\?\[2J.x\?"),
}


@pytest.mark.parametrize("content, word", WRONG.values(), ids=WRONG)
def test_wrong_files_are_refused(tmp_path, content, word):
    with pytest.raises(InputError, match=word) as refused:
        read_bytes(tmp_path, content)
    assert str(tmp_path / "model.pkl") in str(refused.value) and len(str(refused.value)) < 600


# ---- files that ask for more than they are worth, and limits as low as they are


def nested(levels, last=b""):
    "A tuple of ten of a tuple of ten …, each written once: the last has the memo's number `levels`"
    tuples = b"".join(b"(" + b"h%c" % i * 10 + b"t\x94" for i in range(levels))
    return whole(b"N\x94" + tuples + last)


def graph(
    entry,
):  # a dict with a network whose `_modules` are filled by `entry`, after the network is memoized
    return whole(b"}" + text("G_ema") + entry + b"s")


LAYER = b"}(" + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}\x94"


def layer_with(children):
    return called(
        "torch_utils.persistence",
        "_reconstruct_persistent_obj",
        b"}("
        + text("type")
        + text("class")
        + text("class_name")
        + text("L")
        + text("state")
        + LAYER
        + children
        + b"uu",
    )


def self_containing():
    "The dict of children is in the memo before the layer exists, which is put into it afterwards"
    return whole(
        b"}" + text("G_ema") + layer_with(b"") + b"\x94s" + b"h\x00" + text("again") + b"h\x01s0"
    )


def shared_layers(
    levels, width
):  # each layer holds the one before it many times: width**levels paths
    body = layer_with(b"") + b"q\x000"
    for _ in range(levels):
        body += (
            layer_with(
                b"(" + b"".join(text(f"l{i}") + b"h\x00" for i in range(width)) + b"u"
            ).replace(b"}\x94", b"}")
            + b"q\x000"
        )
    return graph(body + b"h\x00")


def deep_layers(levels):
    return graph(
        (layer_with(b"@").replace(b"}\x94", b"}").split(b"@")[0] + text("a")) * levels
        + b"N"
        + layer_with(b"@").replace(b"}\x94", b"}").split(b"@")[1].replace(b"uu", b"suu", 1) * levels
    )


def copied_set(times):
    "A list of thirty, made into a set so many times"
    head = b"](" + b"N" * 30 + b"e\x94" + b"0cbuiltins\nset\n\x94"
    return whole(head + b"h\x01h\x00\x85R" * times)


ENCODE = found("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R"
SAME_HASH = [(i * (2**61 - 1)).to_bytes(14, "little") for i in range(3)]  # as Python hashes them
# name -> (content, limits, what the refusal says)
COSTLY = {
    "BINBYTES8": (whole(b"\x8e" + struct.pack("<Q", 1000)), {}, "truncated"),
    "BINUNICODE8": (whole(b"\x8d" + struct.pack("<Q", 1000)), {}, "truncated"),
    "BYTEARRAY8": (b"\x80\x05\x96" + struct.pack("<Q", 1000), {}, "truncated"),
    "BINBYTES": (whole(b"B" + struct.pack("<I", 1000)), {}, "truncated"),
    "frame": (whole(b"\x95" + struct.pack("<Q", 1000)), {}, "damaged"),
    "nested": (nested(3), {}, "holds no network"),
    "nested, as a key": (nested(3, b"}h\x03Ns"), {}, "a tuple is a key"),
    "nested, in a set": (nested(3, b"\x8f(h\x03\x90"), {}, "a tuple is a key"),
    "nested, called": (nested(3, b"h\x03h\x03R"), {}, "it calls a tuple"),
    "nested, as a storage": (
        nested(3, called("torch.storage", "_load_from_bytes", b"h\x03")),
        {},
        "made of a tuple",
    ),
    "nested, as networks": (nested(3, b"}" + text("G_ema") + b"h\x03s"), {}, "holds no network"),
    "one hash": (
        whole(b"}(" + b"".join(b"\x8a\x0e" + i + b"N" for i in SAME_HASH) + b"u"),
        {},
        "small integers",
    ),
    "many instructions": (whole(b"N" * 50), {"steps": 50}, "more than 50 instructions"),
    "many dicts": (whole(b"}" * 100), {"steps": 50}, "more than 50 instructions"),
    "copied sets": (copied_set(5), {"steps": 150}, "more than 150 instructions"),
    "copied bytes": (whole(text("a" * 100) + b"\x94" + ENCODE * 10), {}, "more bytes than it has"),
    "stretched tensor": (tensor(storage(), 0, (1000,), (0,)), {}, "holds no network"),
    "layer in itself": (self_containing(), {}, "occurs twice"),
    "shared layers": (shared_layers(2, 3), {}, "occurs twice"),
    "deep layers": (deep_layers(6), {"depth": 3}, "more than 3 deep in each other"),
}


@pytest.mark.parametrize("content, limits, words", COSTLY.values(), ids=COSTLY)
def test_costly_files_are_refused(tmp_path, content, limits, words):
    "At the usual limits what is endless would be refused by the same words"
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as refused:
        import_stylegan(path, tmp_path / "out", limits=Limits(**limits))
    assert len(str(refused.value)) < 600 and not (tmp_path / "out").exists()


def test_a_copy_counts_as_what_is_copied(tmp_path):
    "The file of five copies is shorter than the instructions that it takes"
    content = copied_set(5)
    assert len(content) < 100
    (tmp_path / "model.pkl").write_bytes(content)
    assert read_pickle(tmp_path / "model.pkl", Limits(steps=300)) == [None] * 30


def test_a_far_memo_takes_no_more_room_than_a_near_one(tmp_path):
    "Python's reader makes a table up to the number"
    far, near = (whole(b"Nr" + struct.pack("<I", number)) for number in (50_000, 1))
    room = []
    for content in (near, far):
        tracemalloc.start()
        assert read_bytes(tmp_path, content) is None
        room.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert room[1] < room[0] + 10_000


@pytest.mark.parametrize("build", [b"\x85", b"}", b"]"], ids=["tuples", "dicts", "lists"])
def test_depth_takes_no_frames(tmp_path, build):
    "Read and refused by as many calls as flat ones are; Python's `repr` would take one a level"
    depth = 200
    content = {
        b"\x85": whole(b"N" + b"\x85" * depth),
        b"}": whole(b"}" + (text("a") + b"}") * depth + b"s" * depth),
        b"]": whole(b"]" * depth + b"a" * (depth - 1)),
    }[build]
    path, before = tmp_path / "model.pkl", sys.getrecursionlimit()
    path.write_bytes(content)
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        value = read_pickle(path)
        with pytest.raises(InputError, match="holds no network"):
            generator_from_pickle(path)
        with pytest.raises(RecursionError):
            repr(value)
    finally:
        sys.setrecursionlimit(before)


PLAIN = tensor(storage(), 0, (2, 2), (2, 1))
# limit -> (content, the lowest that it passes, what one below says)
EDGES = {
    "file_bytes": (whole(b"N"), 4, "more than 3 bytes"),
    "steps": (whole(b"N" * 9), 10, "more than 9 instructions"),
    "integer_bytes": (whole(b"\x8a\x03abc"), 3, "none above 2"),
    "name": (whole(b"ccollections\nOrderedDict\n)R"), 11, "more than 10 characters"),
    "dimensions": (PLAIN, 2, "tensor's storage, shape"),
}


@pytest.mark.parametrize("limit", EDGES)
def test_each_limit_holds_at_its_edge(tmp_path, limit):
    content, lowest, words = EDGES[limit]
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    read_pickle(path, Limits(**{limit: lowest}))
    with pytest.raises(InputError, match=words):
        read_pickle(path, Limits(**{limit: lowest - 1}))


@pytest.mark.parametrize(
    "limit, lowest, words", [("depth", 4, "more than 3 deep"), ("side", 16, "up to at most 15")]
)
def test_limits_of_generators_hold_at_their_edge(tmp_path, limit, lowest, words):
    net, path = make(), tmp_path / "a.pkl"
    write(path, net)
    again, _ = generator_from_pickle(path, limits=Limits(**{limit: lowest}))
    assert again.config == net.config
    with pytest.raises(InputError, match=words):
        generator_from_pickle(path, limits=Limits(**{limit: lowest - 1}))


def test_the_usual_limits_leave_room_for_official_files():
    "Three networks of 1024 pixels: 0.4 GB, 50,000 instructions, layers four deep"
    usual = Limits()
    assert usual.file_bytes >= 10 * 0.4e9 and usual.steps >= 20 * 50_000
    assert (usual.integer_bytes, usual.name, usual.dimensions) == (16, 256, 8)
    assert (usual.depth, usual.side) == (8, 1024)


def stretched(root):
    weight = torch.zeros(1).expand(300, 300)
    layer_of(root, "mapping.fc0").state["_parameters"]["weight"] = weight


def empty(root):
    weight = nn.Parameter(torch.zeros(5, 0, 3, 3), requires_grad=False)
    layer_of(root, "synthesis.b4.conv1").state["_parameters"]["weight"] = weight


def wide_mapping(root):
    layer = layer_of(root, "mapping.fc0")
    weight = nn.Parameter(torch.zeros(3000, 1), requires_grad=False)
    layer.state["_parameters"]["weight"] = weight
    layer.state["weight_gain"] = layer.state["bias_gain"]


def many_channels(root):
    weight = nn.Parameter(torch.zeros(3000, 1, 1, 1), requires_grad=False)
    layer_of(root, "synthesis.b4.conv1").state["_parameters"]["weight"] = weight


def quieten(root):
    "Take the noise out of all layers, as with use_noise=False"
    for block in root.state["_modules"]["synthesis"].state["_modules"].values():
        for layer in block.state["_modules"].values():
            if "use_noise" not in layer.state:
                continue
            layer.state["use_noise"] = False
            del layer.state["_buffers"]["noise_const"], layer.state["_parameters"]["noise_strength"]


@pytest.mark.parametrize(
    "edit, words",
    [
        (stretched, "more room than the file"),
        (empty, "is empty"),
        (wide_mapping, "ask for at least"),
        (many_channels, "ask for at least"),
    ],
)
def test_networks_that_ask_for_more_than_they_hold_are_refused(tmp_path, edit, words):
    path = write(tmp_path / "a.pkl", make(), edit=edit)
    with pytest.raises(InputError, match=words):
        import_stylegan(path, tmp_path / "out")


def test_a_network_larger_than_the_limit_is_refused_even_without_its_noise(tmp_path):
    "Whose weights say nothing of its size"
    path = write(tmp_path / "a.pkl", make(channels=[1] * 4), edit=quieten)
    assert generator_from_pickle(path)[0].config.size == 32
    with pytest.raises(InputError, match="at most 16"):
        import_stylegan(path, tmp_path / "out", limits=Limits(side=16))


SCRIPT = """
import contextlib, pickle, sys, types
from pathlib import Path
from fairparse.core.runs import InputError
from fairparse.balancing.stylegan_pickle import import_stylegan
folder, met, canary = Path(sys.argv[1]), [], types.ModuleType("canary")
canary.calls = []
canary.record = canary.calls.append
sys.modules["canary"] = canary
import_stylegan(folder / "good.pkl", folder / "good") # what is loaded late is loaded now
watched = (
    "import", "compile", "exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
    "pickle.find_class", "socket.connect",
)
sys.addaudithook(lambda event, _: met.append(event) if event in watched else None)
for path in sorted(folder.glob("*.pkl")):
    try: import_stylegan(path, folder / "out" / path.stem)
    except InputError as error: print(path.stem, str(error).replace(str(folder), ""), sep=": ")
    else: assert path.stem == "good", path
import_stylegan(folder / "good.pkl", folder / "good") # still in good health
assert not met and not canary.calls, (met, canary.calls)
eval("1")
assert met # the audit is awake
pickle.loads((folder / "global.pkl").read_bytes())
assert canary.calls == ["sung"] # and so is the canary
"""


def test_nothing_is_run(tmp_path):
    "Under Python's own audit: no import, no code compiled or executed, no call"
    for name, (content, _) in CALLS.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
    for name, (content, *_) in COSTLY.items():
        (tmp_path / f"costly {name}.pkl").write_bytes(content)
    write(tmp_path / "good.pkl", make())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    refusals = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert len(refusals) == len(COSTLY) + len(CALLS)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good"]


# ---- damage at random


def outcome(path):
    """The generator's names and shapes, or None if the file is refused

    Any other exception goes through.
    """
    try:
        net, _ = generator_from_pickle(path)
    except InputError as error:
        assert str(path) in str(error)
        return None
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


@pytest.mark.parametrize("protocol", [2, 4])
def test_truncated_files_are_refused(tmp_path, protocol):
    path = write(tmp_path / "a.pkl", make(**TINY), protocol)
    content = path.read_bytes()
    for length in [
        *range(20),
        *range(20, len(content) - 20, len(content) // 100),
        *range(len(content) - 20, len(content)),
    ]:
        path.write_bytes(content[:length])
        assert outcome(path) is None, length


def flip(content, rng):
    for _ in range(rng.choice((1, 1, 2, 5))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def overwrite(content, rng):
    at = rng.randrange(len(content))
    content[at : at + rng.randrange(1, 5)] = rng.randbytes(4)


def insert(content, rng):
    at = rng.randrange(len(content))
    content[at:at] = rng.choice(
        (
            b"R",
            b"b",
            b"\x93",
            b"s",
            b"u",
            b"0",
            b"N",
            b"}",
            b")",
            b"\x85",
            b"h\x05",
            b"\x94",
            b"(",
            b"t",
            b"Q",
            b"\x81",
            b"o",
            b"ccanary\nrecord\n",
        )
    )


def move(content, rng):
    a, b, size = rng.randrange(len(content)), rng.randrange(len(content)), rng.randrange(1, 200)
    content[a : a + size] = content[b : b + size]


def modest(content):
    "Whether Python's own reader would take no more room than the file has"
    try:
        for step, value, _ in pickletools.genops(content):
            if step.name.startswith("LONG_BIN") and value > len(content):
                return False  # a memo up to that number
    except ValueError as error:
        return "expected" not in str(error)  # a length beyond the file; at all else it stops too
    return True


@pytest.mark.parametrize("damage", [flip, overwrite, insert, move])
def test_damaged_files_are_refused_or_read(tmp_path, damage):
    rng, path = random.Random(damage.__name__), tmp_path / "a.pkl"
    content = write(path, make(**TINY), 4).read_bytes()
    wanted, refused = outcome(path), 0
    tried = 0
    while tried < 100:
        broken = bytearray(content)
        damage(broken, rng)
        if not modest(bytes(broken)):
            continue  # lengths beyond the file are among the costly ones above
        tried += 1
        path.write_bytes(broken)
        got = outcome(path)
        assert got in (None, wanted)
        refused += got is None
    assert refused > 20


# ---- networks that this project does not have


def setting(path, name, value):
    def edit(root):
        layer_of(root, path).state[name] = value

    return edit


def rename(path, old, new):
    def edit(root):
        names = layer_of(root, path).state["_modules"]
        names[new] = names.pop(old)

    return edit


def replace(path, kind, name, value):
    def edit(root):
        entries = layer_of(root, path).state[kind]
        if value is None:
            del entries[name]
        else:
            entries[name] = value

    return edit


OTHERS = {
    "activation": (
        setting("synthesis.b8.conv0", "activation", "relu"),
        "synthesis.b8.conv0 has activation relu",
    ),
    "mapping's activation": (
        setting("mapping.fc1", "activation", "swish"),
        "mapping.fc1 has activation swish",
    ),
    "architecture": (
        setting("synthesis.b8", "architecture", "progressive"),
        "different architecture",
    ),
    "no setting": (
        lambda root: layer_of(root, "synthesis.b8.conv0").state.pop("up"),
        "does not say its up",
    ),
    "setting of another type": (setting("mapping.fc0", "bias_gain", "much"), "weight_gain"),
    "gain": (setting("synthesis.b8.conv0", "act_gain", 1.0), "act_gain"),
    "weight gain": (setting("mapping.fc0", "weight_gain", 1.0), "weight_gain"),
    "down-sampling": (setting("synthesis.b8.conv0", "up", 4), "up 4"),
    "clamps differ": (setting("synthesis.b8.conv0", "conv_clamp", 256), "different conv_clamp"),
    "learning rates differ": (setting("mapping.fc1", "bias_gain", 0.5), "weight_gain|bias_gain"),
    "filter": (
        replace("synthesis.b8", "_buffers", "resample_filter", torch.full((4, 4), 1 / 16)),
        "different resample_filter",
    ),
    "another filter size": (
        replace("synthesis.b8", "_buffers", "resample_filter", torch.full((2, 2), 0.25)),
        "common resample_filter",
    ),
    "StyleGAN3": (rename("synthesis", "b4", "input"), "StyleGAN3"),
    "sizes": (rename("synthesis", "b8", "b12"), r"\[4, 12, 16\]"),
    "no mapping": (rename("synthesis", "b4", "b5"), r"\[5, 8, 16\]"),
    "a weight is missing": (
        replace("mapping.fc1", "_parameters", "bias", None),
        "lacks mapping.fc1.bias",
    ),
    "no average": (replace("mapping", "_buffers", "w_avg", None), "lacks mapping.w_avg"),
    "a weight too many": (
        replace(
            "mapping.fc1", "_parameters", "scale", nn.Parameter(torch.ones(1), requires_grad=False)
        ),
        "mapping.fc1.scale",
    ),
    "shape": (
        replace(
            "mapping.fc1", "_parameters", "bias", nn.Parameter(torch.ones(3), requires_grad=False)
        ),
        "mapping.fc1.bias has shape",
    ),
    "integers": (
        replace("mapping", "_buffers", "w_avg", torch.ones(10, dtype=torch.int64)),
        "w_avg is no plain tensor",
    ),
    "overlapping": (
        replace("mapping", "_buffers", "w_avg", torch.ones(1).expand(10)),
        "w_avg is no plain tensor",
    ),
    "not a number": (
        replace("mapping", "_buffers", "w_avg", torch.full((10,), torch.nan)),
        "not finite",
    ),
    "not a tensor": (replace("mapping", "_buffers", "w_avg", [1.0]), "w_avg.*is a list"),
    "a layer more": (
        lambda root: (
            layer_of(root, "mapping")
            .state["_modules"]
            .update(fc7=layer_of(root, "mapping").state["_modules"].pop("fc1"))
        ),
        "mapping.fc7",
    ),
}


@pytest.mark.parametrize("edit, word", OTHERS.values(), ids=OTHERS)
def test_networks_of_other_kinds_are_refused(tmp_path, edit, word):
    path = write(tmp_path / "a.pkl", make(), edit=edit)
    with pytest.raises(InputError, match=word) as refused:
        import_stylegan(path, tmp_path / "out")
    assert str(path) in str(refused.value) and not (tmp_path / "out").exists()


def test_the_network_is_named(tmp_path):
    path = write(tmp_path / "a.pkl", make())
    with pytest.raises(InputError, match="no network 'G'.*it has D, G_ema"):
        generator_from_pickle(path, "G")
    with pytest.raises(InputError, match="Discriminator.*mapping and synthesis"):
        generator_from_pickle(path, "D")
    for content in ([1, 2], {"a": 1}, None):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match="no pickle of networks"):
            generator_from_pickle(path)
    with pytest.raises(InputError, match="missing"):
        generator_from_pickle(tmp_path / "b.pkl")
    with pytest.raises(InputError, match="missing"):
        generator_from_pickle(tmp_path)


# ---- import


def test_import(tmp_path):
    net = make(architecture="resnet", c_dim=3, clamp=256.0)
    record = import_stylegan(write(tmp_path / "a.pkl", net), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generator.json").read_text())
    assert (
        written == {"config": written["config"], **record}
        and GeneratorConfig(**written["config"]) == net.config
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "generator.json",
        "generator.safetensors",
    ] and same(load_stylegan(tmp_path / "out").state_dict(), net.state_dict())


def test_another_generator_is_not_overwritten(tmp_path):
    first, second, out = (
        write(tmp_path / "a.pkl", make(0)),
        write(tmp_path / "b.pkl", make(1)),
        tmp_path / "out",
    )
    import_stylegan(first, out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(InputError, match="--force"):
        import_stylegan(second, out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    import_stylegan(first, out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    import_stylegan(second, out, force=True)
    assert same(load_stylegan(out).state_dict(), make(1).state_dict())


def test_a_refused_file_leaves_the_folder_as_it_was(tmp_path):
    out = tmp_path / "out"
    import_stylegan(write(tmp_path / "a.pkl", make()), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    (tmp_path / "b.pkl").write_bytes(INNER)
    with pytest.raises(InputError, match="canary.record"):
        import_stylegan(tmp_path / "b.pkl", out, force=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_file_in_the_way(tmp_path):
    path = write(tmp_path / "a.pkl", make())
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="a file"):
        import_stylegan(path, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
