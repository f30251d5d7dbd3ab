"ONNX: the same probabilities, any batch, metadata, and no file that differs"

import importlib.util
import json

import numpy as np
import pytest
import torch
from helpers import make_parser

import fairparse.parsing.export as export
from fairparse.core.runs import InputError, hash_file, write_json
from fairparse.data.labels import CLASSES
from fairparse.parsing.export import WholeParser, compare_with_onnx, export_onnx, resize_matrix
from fairparse.parsing.predict import predict_probabilities
from fairparse.parsing.unet import save_parser

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnxscript", reason="needs the extra `onnx`")


@pytest.fixture(scope="module")
def network():
    return make_parser(
        size=64,
        coordinates=True,
        flip_average=True,
        scales=[1.5],
        standardise=True,
        clean=True,
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, network):
    out = tmp_path_factory.mktemp("parser")
    save_parser(network, out)
    write_json(out / "run.json", {"parameters": {}, "faces": "procedural faces"})
    return out


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "parser.onnx"
    return file, export_onnx(folder, file)


def faces(n, size=64):
    return (
        np.random.default_rng(n)
        .integers(0, 256, (n, 3, size // 4, size // 4), dtype=np.uint8)
        .repeat(4, 2)
        .repeat(4, 3)
    )


@pytest.mark.parametrize(
    "old, new, mode",
    [(64, 96, "bicubic"), (96, 64, "bilinear"), (32, 32, "bilinear"), (64, 32, "bicubic")],
)
def test_two_products_resize_as_pytorch_does(old, new, mode):
    x, a = torch.rand(2, 3, old, old), resize_matrix(old, new, mode)
    torch.testing.assert_close(
        a @ x @ a.T,
        torch.nn.functional.interpolate(x, (new, new), mode=mode, antialias=True),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip_average": True},
        {"scales": [1.5]},
        {"standardise": True, "clean": True},
        {"flip_average": True, "scales": [0.5, 1.0, 2.0], "coordinates": True},
    ],
)
def test_the_whole_way_is_that_of_predict(options):
    parser = make_parser(size=64, **options).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            WholeParser(parser)(torch.from_numpy(faces(2))),
            predict_probabilities(parser, torch.from_numpy(faces(2))),
            atol=1e-5,
            rtol=1e-3,
        )


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_any_batch_gives_the_probabilities_of_pytorch(exported, network, batch):
    session = onnxruntime.InferenceSession(str(exported[0]), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["probabilities"], {"images": faces(batch)})
    ours = predict_probabilities(network, torch.from_numpy(faces(batch))).numpy()
    assert theirs.dtype == np.float32 and np.abs(ours - theirs).max() < 1e-4
    np.testing.assert_allclose(theirs.sum(1), 1, atol=1e-5)


def test_the_file_says_how_it_is_used(exported, folder):
    session = onnxruntime.InferenceSession(str(exported[0]), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == CLASSES
    assert about["size"] == "64"
    assert about["weights_sha256"] == hash_file(folder / "model.safetensors")
    assert json.loads(about["trained_on"]) == ["procedural faces"] and "drawn" in about["warning"]
    (entry,) = session.get_inputs()
    assert entry.name == "images"
    assert entry.type == "tensor(uint8)"
    assert isinstance(entry.shape[0], str)
    assert entry.shape[1:] == [3, 64, 64]
    assert sorted(p.name for p in exported[0].parent.iterdir()) == ["parser.onnx"]  # weights inside
    assert exported[1]["difference"] < 1e-4


def test_a_file_that_differs_is_found(exported, network):
    other = make_parser(seed=1, size=64, coordinates=True, flip_average=True, scales=[1.5]).eval()
    assert compare_with_onnx(network, exported[0]) < 1e-4 < compare_with_onnx(other, exported[0])


@pytest.fixture
def quick(monkeypatch, exported):
    "The export of the fixture again, without its half minute"
    import onnx

    model = onnx.load(str(exported[0]))
    monkeypatch.setattr(
        export.torch.onnx,
        "export",
        lambda *args, **kwargs: type("Program", (), {"model_proto": model}),
    )


def test_a_file_that_differs_is_not_left(tmp_path, quick):
    save_parser(make_parser(seed=1, size=64), tmp_path / "other")
    (tmp_path / "kept.onnx").write_bytes(b"an older file")
    with pytest.raises(InputError, match="was not written.*differ"):
        export_onnx(tmp_path / "other", tmp_path / "new.onnx")
    with pytest.raises(InputError, match="was not written"):
        export_onnx(tmp_path / "other", tmp_path / "kept.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.onnx", "other"]
    assert (tmp_path / "kept.onnx").read_bytes() == b"an older file"


def test_the_tolerance_counts(folder, tmp_path, quick):
    assert export_onnx(folder, tmp_path / "a.onnx")["bytes"] == (tmp_path / "a.onnx").stat().st_size
    with pytest.raises(InputError, match="was not written"):
        export_onnx(folder, tmp_path / "b.onnx", tolerance=-1.0)


def test_bad_requests(tmp_path, folder, monkeypatch):
    with pytest.raises(InputError, match="does not end in .onnx"):
        export_onnx(folder, tmp_path / "parser.pt")
    with pytest.raises(InputError, match="holds no parser"):
        export_onnx(tmp_path, tmp_path / "a.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"needs onnx, onnxruntime, onnxscript.*pip install 'fairparse\[onnx\]'"
    ):
        export_onnx(folder, tmp_path / "a.onnx")
