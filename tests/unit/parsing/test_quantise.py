"Eight bits: smaller, close to floating point, checked on other faces, and no file that lost much"

import numpy as np
import pytest
import torch
from helpers import make_faces, make_parser

from fairparse.core.runs import InputError, write_json
from fairparse.parsing import quantise
from fairparse.parsing.export import export_onnx
from fairparse.parsing.predict import predict_masks
from fairparse.parsing.quantise import (
    export_int8,
    kept_in_float,
    open_onnx,
    quantise_onnx,
    score_onnx,
)
from fairparse.parsing.train import TrainConfig, Trainer
from fairparse.parsing.unet import load_parser

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
pytest.importorskip("onnxscript", reason="needs the extra `onnx`")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return make_faces(tmp_path_factory.mktemp("faces"), 48, train=32, valid=8)


@pytest.fixture(scope="module")
def folder(faces, tmp_path_factory):
    "A parser that learnt the coloured blocks"
    out = tmp_path_factory.mktemp("parser")
    config = TrainConfig(epochs=6, batch_size=8, lr=0.01)
    parser = make_parser(flip_average=True)
    rows = faces.rows("train"), faces.rows("valid")
    Trainer(parser, faces, *rows, config, out, progress=False).fit()
    write_json(out / "run.json", {"parameters": {}, "faces": "made up"})
    return out


@pytest.fixture(scope="module")
def exported(folder, faces, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "small.onnx"
    return file, export_int8(folder, file, faces, most_lost=5)


def test_the_file_is_small_and_says_what_it_cost(exported, faces):
    file, about = exported
    assert about["bytes"] == file.stat().st_size < 1.2e6
    assert set(about["mious"]) == set(about["pictures_per_second"]) == {"float", "int8"}
    assert about["checked"] == 16 and about["calibrated"] == 16
    assert about["mious"]["float"] - about["mious"]["int8"] < 5


def test_labels_are_nearly_those_of_the_parser(exported, folder, faces):
    rows = faces.rows("test")
    pictures = np.ascontiguousarray(faces.images[rows].transpose(0, 3, 1, 2))
    (probabilities,) = open_onnx(exported[0]).run(["probabilities"], {"images": pictures})
    masks = predict_masks(load_parser(folder), faces.images[rows])
    assert (probabilities.argmax(1) == masks).mean() > 0.9
    assert np.allclose(probabilities.sum(1), 1, atol=1e-4)


def test_calibration_and_check_share_no_face(faces):
    calibration, checked = quantise._deal(faces)
    assert not set(calibration) & set(checked)
    assert set(checked) == {*faces.rows("valid"), *faces.rows("test")}


def test_a_face_set_without_held_out_faces_is_divided(tmp_path):
    calibration, checked = quantise._deal(make_faces(tmp_path / "a", 12, train=12, valid=0))
    assert len(calibration) == len(checked) == 6 and not set(calibration) & set(checked)
    with pytest.raises(InputError, match="has 1 face: name a folder with more"):
        quantise._deal(make_faces(tmp_path / "b", 1, train=1, valid=0))


def test_what_loses_too_much_is_not_written(tmp_path, folder, faces, monkeypatch):
    scores = iter([0.9, 0.88])
    monkeypatch.setattr(quantise, "iou", lambda counts: next(scores))
    with pytest.raises(InputError, match="from 90.0 to 88.0, more than 1 down"):
        export_int8(folder, tmp_path / "small.onnx", faces)
    assert not list(tmp_path.iterdir())


def test_scores_of_a_file_are_those_of_the_parser(tmp_path, folder, faces):
    export_onnx(folder, tmp_path / "float.onnx")
    rows = faces.rows("test")
    pictures = np.ascontiguousarray(faces.images[rows].transpose(0, 3, 1, 2))
    counts = score_onnx(tmp_path / "float.onnx", pictures, faces.masks[rows], len(faces.classes))
    from fairparse.parsing.predict import score_faces

    assert np.abs(counts - score_faces(load_parser(folder), faces, rows)).sum() <= 4


def test_one_look_is_the_parser_without_mirror_and_scales(tmp_path, folder, faces):
    about = export_onnx(folder, tmp_path / "one.onnx", one_look=True)
    assert about["looks"] == "1"
    assert export_onnx(folder, tmp_path / "all.onnx")["looks"] == "2"
    pictures = np.ascontiguousarray(faces.images[:2].transpose(0, 3, 1, 2))
    (theirs,) = open_onnx(tmp_path / "one.onnx").run(None, {"images": pictures})
    with torch.no_grad():
        ours = load_parser(folder)(torch.from_numpy(pictures)).softmax(1).numpy()
    assert np.abs(theirs - ours).max() < 1e-4


def test_weights_have_seven_bits(tmp_path, folder, faces):
    "So that no processor's sum of two products overflows"
    import onnx

    export_onnx(folder, tmp_path / "float.onnx")
    pictures = np.ascontiguousarray(faces.images[:8].transpose(0, 3, 1, 2))
    quantise_onnx(tmp_path / "float.onnx", tmp_path / "int8.onnx", pictures)
    arrays = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(arrays) > 20 and max(np.abs(array.astype(int)).max() for array in arrays) <= 64


def test_what_stays_in_float_and_what_does_not(folder, tmp_path):
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    export_onnx(folder, plain)  # two looks, of one network
    pictures = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
    kept = kept_in_float(onnx.load(plain))
    quantise_onnx(plain, small, pictures)
    model = onnx.load(small)
    made_by = {name: node for node in model.graph.node for name in node.output}
    inputs = {tensor.name for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert 0 < len(kept) < len(convolutions)
    for node in convolutions:
        of_eight_bits = node.input[1] not in inputs  # its weights come from DequantizeLinear
        assert of_eight_bits == (node.name not in kept)
        assert not of_eight_bits or made_by[node.input[1]].op_type == "DequantizeLinear"
    first, last = convolutions[0].name, convolutions[-1].name
    assert {first, last} <= set(kept)
