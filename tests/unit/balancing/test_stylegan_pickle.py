"""Official StyleGAN pickles

What must be read, what must be refused, and that nothing in a file is ever run.
"""

import collections
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from stylegan_helpers import VARIANTS, draw, make, reference
from torch import nn

from fairparse.balancing.safe_pickle import MAX_STEPS, Array, read_pickle
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


# ---- attacks: files that run a command when `pickle.load` opens them


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


def legacy_zip(command):
    "A storage whose inner pickle calls the command, as `torch.save` would write it"
    return (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 "
        b"j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
        + b"\x80\x02cos\nsystem\n"
        + text(command)
        + b"\x85R."
    )


# name -> (content for a command, what the refusal names)
ATTACKS = {
    "global": (lambda c: b"\x80\x02cos\nsystem\n" + text(c) + b"\x85R.", "os.system"),
    "stack global": (lambda c: whole(called("posix", "system", text(c))), "posix.system"),
    "dotted name": (
        lambda c: whole(called("torch._utils", "torch.os.system", text(c))),
        "torch._utils.torch.os.system",
    ),
    "getattr": (
        lambda c: whole(
            b"cbuiltins\ngetattr\n("
            + called("builtins", "__import__", text("os"))
            + text("system")
            + b"tR("
            + text(c)
            + b"tR"
        ),
        "builtins.getattr",
    ),
    "eval": (
        lambda c: whole(called("builtins", "eval", text(f"__import__('os').system({c!r})"))),
        "builtins.eval",
    ),
    "exec": (
        lambda c: whole(called("builtins", "exec", text(f"import os; os.system({c!r})"))),
        "builtins.exec",
    ),
    "INST": (lambda c: b"\x80\x02(" + text(c) + b"ios\nsystem\n.", "INST"),
    "OBJ": (lambda c: b"\x80\x02(cos\nsystem\n" + text(c) + b"o.", "os.system"),
    "OBJ of an allowed name": (
        lambda c: b"\x80\x02(" + called("os", "system", text(c)) + b"o.",
        "os.system",
    ),
    "partial": (
        lambda c: whole(b"cfunctools\npartial\n(" + found("os", "system") + text(c) + b"tR)R"),
        "functools.partial",
    ),
    "map": (
        lambda c: whole(
            b"cbuiltins\nlist\n(cbuiltins\nmap\n("
            + found("os", "system")
            + b"]("
            + text(c)
            + b"etRtR"
        ),
        "builtins.list",
    ),
    "pickle in a pickle": (
        lambda c: whole(
            called("_pickle", "loads", data(b"\x80\x02cos\nsystem\n" + text(c) + b"\x85R."))
        ),
        "_pickle.loads",
    ),
    "torch.load": (
        lambda c: whole(called("torch.storage", "_load_from_bytes", data(legacy_zip(c)))),
        "os.system",
    ),
    "in the state of a network": (
        lambda c: whole(b"}" + text("G_ema") + called("os", "system", text(c)) + b"s"),
        "os.system",
    ),
    "attribute of a constructor": (
        lambda c: whole(
            called("torch._utils", "_rebuild_tensor_v2.__globals__.__class__")
            + called("os", "system", text(c))
        ),
        "_rebuild_tensor_v2.__globals__.__class__",
    ),
    "state of an object": (
        lambda c: whole(
            b"ccollections\nOrderedDict\n)R}" + text("x") + called("os", "system", text(c)) + b"sb"
        ),
        "os.system",
    ),
    "thrown away": (lambda c: whole(called("os", "system", text(c)) + b"0}"), "os.system"),
}
RUNS_UNDER_PICKLE = set(ATTACKS) - {"attribute of a constructor", "OBJ of an allowed name"}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_by_name(tmp_path, name):
    content, word = ATTACKS[name]
    canary, path = tmp_path / "owned", tmp_path / "model.pkl"
    path.write_bytes(content(f"touch {canary}"))
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            import_stylegan(path, tmp_path / "out")
        assert not canary.exists() and not (tmp_path / "out").exists()
    assert (
        word in str(refused.value)
        and str(path) in str(refused.value)
        and "byte" in str(refused.value)
    )
    if name in RUNS_UNDER_PICKLE:  # it is no attack in name only
        try:
            pickle.loads(path.read_bytes())
        except Exception:
            pass  # some fail after the command
        assert canary.exists()


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
    "far": (2**60, (1,), (1,)),
    "stride": (0, (2, 2), (4, 1)),
    "huge stride": (0, (2,), (2**62,)),
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
    "terabytes": ({"count": 2**40}, "truncated"),
    "another count": ({"held": 5}, "declares 4"),
    "short": ({"stored": b"\0" * 15}, "truncated"),
    "long": ({"stored": b"\0" * 17}, "ends after"),
    "objects": ({"kind": "ObjectStorage"}, "torch.ObjectStorage"),
    "quantised": ({"kind": "QInt8Storage"}, "torch.QInt8Storage"),
    "dotted": ({"kind": "storage.os.system"}, "torch.storage.os.system"),
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
    "NEWOBJ of a command": (
        whole(found("subprocess", "Popen") + text("id") + b"\x85\x81"),
        "subprocess.Popen",
    ),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "text integers": (b"\x80\x02I5\n.", "INT"),
    "DUP": (whole(b"N2"), "DUP"),
    "call of a dict": (whole(b"})R"), "no name of a constructor"),
    "call of text": (whole(text("os.system") + b")R"), "no name of a constructor"),
    "call without a tuple": (whole(found("collections", "OrderedDict") + b"]R"), "calls"),
    "filled OrderedDict": (whole(called("collections", "OrderedDict", b"]")), "damaged"),
    "state of a dict": (whole(b"}}b"), "sets the state"),
    "state of a name": (whole(found("numpy", "dtype") + b"}b"), "sets the state"),
    "name that is no text": (whole(b"K\x01K\x02\x93"), "no text"),
    "endless name": (b"\x80\x02c" + b"a" * 10_000 + b"\nb\n.", "more than 256"),
    "name without end": (b"\x80\x02cos", "damaged"),
    "bad text": (b"\x80\x04X\x02\0\0\0\xff\xff.", "damaged"),
    "items in a tuple": (whole(b")Na"), "adds items"),
    "odd items": (whole(b"}(Nu"), "NoneType|None"),
    "key without value": (whole(b"}(" + text("a") + b"u"), "damaged"),
    "tuple as a key": (whole(b"})Ns"), "tuple"),
    "bytes as a key": (whole(b"}" + data(b"a") + b"Ns"), "memoryview"),
    "tuple in a set": (whole(b"\x8f()\x90"), "tuple"),
    "long integer": (whole(b"\x8a\xff" + b"\x7f" * 255), "integer of 255 bytes"),
    "LONG4": (whole(b"\x8b\x00\x00\x00\x40"), "LONG4"),
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
    "giant array": (whole(array((2**40, 2**20))), "bytes that its shape"),
    "small array": (whole(array((3,))), "bytes that its shape"),
    "negative array": (whole(array((-2, -2))), "bytes that its shape"),
    "array of dimensions": (whole(array((1,) * 40, held=b"\0" * 4)), "bytes that its shape"),
    "ndarray called": (whole(called("numpy", "ndarray", number((2**40,)))), "only named"),
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
    "control characters": (whole(found("os\x1b[2J", "x\n")), r"os\?\[2J.x\?"),
}


@pytest.mark.parametrize("content, word", WRONG.values(), ids=WRONG)
def test_wrong_files_are_refused(tmp_path, content, word):
    with pytest.raises(InputError, match=word) as refused:
        read_bytes(tmp_path, content)
    assert str(tmp_path / "model.pkl") in str(refused.value) and len(str(refused.value)) < 600


# ---- files that ask for more than they are worth: in a process with little memory


def laughs(
    levels, last=b""
):  # a tuple of ten of a tuple of ten ... : 10**levels items in a few hundred bytes
    return whole(
        b"N\x94" + b"".join(b"(" + b"h%c" % i * 10 + b"t\x94" for i in range(levels)) + last
    )


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


COSTLY = {
    "BINBYTES8": whole(b"\x8e" + struct.pack("<Q", 2**62)),
    "BINUNICODE8": whole(b"\x8d" + struct.pack("<Q", 2**40)),
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 2**36),
    "BINBYTES": whole(b"B\xff\xff\xff\xff"),
    "LONG4": whole(b"\x8b\xff\xff\xff\x7f"),
    "far memo": whole(b"Nr\xff\xff\xff\xff"),
    "frame": whole(b"\x95" + struct.pack("<Q", 2**63)),
    "billion laughs": laughs(60),
    "billion laughs as a key": laughs(60, b"}" + b"h\x3cNs"),
    "billion laughs in a set": laughs(60, b"\x8f(h\x3c\x90"),
    "billion laughs called": laughs(60, b"h\x3ch\x3cR"),
    "billion laughs as a storage": laughs(
        60, called("torch.storage", "_load_from_bytes", b"h\x3c")
    ),
    "billion laughs as networks": whole(
        b"N\x94"
        + b"".join(b"(" + b"h%c" % i * 10 + b"t\x94" for i in range(60))
        + b"}"
        + text("G_ema")
        + b"h\x3cs"
    ),
    "deep tuples": whole(b"N" + b"\x85" * 400_000),
    "deep dicts": whole(b"}" + (text("a") + b"}") * 150_000 + b"s" * 150_000),
    "one hash": whole(
        b"}("
        + b"".join(
            b"\x8a\x0e" + (i * (2**61 - 1)).to_bytes(14, "little") + b"N" for i in range(100_000)
        )
        + b"u"
    ),
    "deep lists": whole(b"]" * 300_000 + b"a" * 299_999),
    "many instructions": whole(b"N" * (MAX_STEPS + 1)),
    "many dicts": whole(b"}" * (2 * MAX_STEPS)),
    "copied sets": whole(
        b"](" + b"N" * 100_000 + b"e\x94" + b"0cbuiltins\nset\n\x94" + b"h\x01h\x00\x85R" * 20_000
    ),
    "copied bytes": whole(
        text("a" * 1_000_000)
        + b"\x94"
        + (found("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 2_000
    ),
    "terabyte storage": tensor(storage(2**40)),
    "giant array": whole(array((2**40,))),
    "stretched tensor": tensor(storage(), 0, (2**40,), (0,)),
    "layer in itself": self_containing(),
    "shared layers": shared_layers(7, 100),
    "deep layers": deep_layers(20_000),
}


def stretched(root):
    layer_of(root, "mapping.fc0").state["_parameters"]["weight"] = torch.zeros(1).expand(
        2**20, 2**20
    )


def empty(root):
    layer_of(root, "synthesis.b4.conv1").state["_parameters"]["weight"] = nn.Parameter(
        torch.zeros(2**20, 0, 3, 3), requires_grad=False
    )


def wide_mapping(root):
    layer = layer_of(root, "mapping.fc0")
    layer.state["_parameters"]["weight"] = nn.Parameter(
        torch.zeros(300_000, 1), requires_grad=False
    )
    layer.state["weight_gain"] = layer.state["bias_gain"]


def many_channels(root):
    layer_of(root, "synthesis.b4.conv1").state["_parameters"]["weight"] = nn.Parameter(
        torch.zeros(300_000, 1, 1, 1), requires_grad=False
    )


def quieten(root):
    "Take the noise out of all layers, as with use_noise=False"
    for block in root.state["_modules"]["synthesis"].state["_modules"].values():
        for layer in block.state["_modules"].values():
            if "use_noise" not in layer.state:
                continue
            layer.state["use_noise"] = False
            del layer.state["_buffers"]["noise_const"], layer.state["_parameters"]["noise_strength"]


EXPECTED_WORDS = {
    "billion laughs as a key": "a tuple is a key",
    "billion laughs in a set": "a tuple is a key",
    "copied sets": "instructions",
    "many dicts": "instructions",
    "many instructions": "instructions",
    "copied bytes": "more bytes than it has",
    "one hash": "small integers",
    "layer in itself": "occurs twice",
    "shared layers": "occurs twice",
    "deep layers": "deep in each other",
    "terabyte storage": "truncated",
    "giant array": "shape",
    "stretched": "more room than the file",
    "empty": "is empty",
    "wide_mapping": "ask for at least",
    "many_channels": "ask for at least",
    "silent giant": "at most 1024",
    "LONG4": "LONG4",
    "BINBYTES8": "truncated",
    "BINUNICODE8": "truncated",
    "BYTEARRAY8": "truncated",
}
SCRIPT = """
import resource, sys, time
from pathlib import Path
from fairparse.core.runs import InputError
from fairparse.balancing.stylegan_pickle import import_stylegan
folder, met = Path(sys.argv[1]), []
import_stylegan(folder / "good.pkl", folder / "good") # what is loaded late is loaded now
status = open("/proc/self/status")
in_use = int(next(line for line in status if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (in_use + 500 * 2**20, -1))
try: bytearray(600 * 2**20)
except MemoryError: pass
else: raise AssertionError("memory is not limited")
watched = (
    "import", "compile", "exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
    "pickle.find_class", "socket.connect",
)
sys.addaudithook(lambda event, _: met.append(event) if event in watched else None)
for path in sorted(folder.glob("*.pkl")):
    started = time.process_time()
    try: import_stylegan(path, folder / "out" / path.stem)
    except InputError as error: print(path.stem, str(error).replace(str(folder), ""), sep=": ")
    else: assert path.stem == "good", path
    assert time.process_time() - started < 20, path
import_stylegan(folder / "good.pkl", folder / "good") # still in good health
assert not met, met
eval("1")
assert met # the audit is awake
"""


def test_costly_and_hostile_files_are_refused_in_little_memory_and_nothing_is_run(tmp_path):
    """In a process that may take 500 MB more than it has, under Python's own audit

    No import, no code compiled or executed, no command.
    """
    for name, content in COSTLY.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
    for name, (content, _) in ATTACKS.items():
        (tmp_path / f"attack by {name}.pkl").write_bytes(content(f"touch {tmp_path}/owned"))
    for edit in (stretched, empty, wide_mapping, many_channels):
        write(tmp_path / f"{edit.__name__}.pkl", make(), edit=edit)
    write(tmp_path / "silent giant.pkl", make(channels=[1] * 10), edit=quieten)
    write(tmp_path / "good.pkl", make())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    refusals = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert (
        len(refusals) == len(COSTLY) + len(ATTACKS) + 5
        and [p.name for p in (tmp_path / "out").iterdir()] == ["good"]
        and not (tmp_path / "owned").exists()
    )
    for name, words in EXPECTED_WORDS.items():
        assert words in refusals[name], f"{name}: {refusals[name]}"


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
            b"cos\nsystem\n",
        )
    )


def move(content, rng):
    a, b, size = rng.randrange(len(content)), rng.randrange(len(content)), rng.randrange(1, 200)
    content[a : a + size] = content[b : b + size]


@pytest.mark.parametrize("damage", [flip, overwrite, insert, move])
def test_damaged_files_are_refused_or_read(tmp_path, damage):
    rng, path = random.Random(damage.__name__), tmp_path / "a.pkl"
    content = write(path, make(**TINY), 4).read_bytes()
    wanted, refused = outcome(path), 0
    for _ in range(100):
        broken = bytearray(content)
        damage(broken, rng)
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
    (tmp_path / "b.pkl").write_bytes(ATTACKS["global"][0]("true"))
    with pytest.raises(InputError, match="os.system"):
        import_stylegan(tmp_path / "b.pkl", out, force=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_file_in_the_way(tmp_path):
    path = write(tmp_path / "a.pkl", make())
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="a file"):
        import_stylegan(path, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
