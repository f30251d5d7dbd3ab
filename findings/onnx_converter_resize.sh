#!/bin/bash
# onnx 1.23.2: converting a model to a newer opset moves what it has resized, because a default changed in between.
#
# Good guess: `onnx.version_converter.convert_version` keeps what a model computes, and raises RuntimeError for an operator
# that it cannot carry over, as its documentation says.
# Behaviour: Resize of opset 10 (and Upsample of 9) places samples at x / scale. Opset 11 brought the attribute
# `coordinate_transformation_mode`, with another placement, half_pixel, as its default. The converter adds the new inputs
# but not the attribute, so the old node gets the new placement: everything moves by (scale - 1) / 2 pixels. The checker
# accepts the model and nothing is said. Labels reduced by `nearest` to a quarter move by a pixel or two as well.
# (Reported as issue 8480 of onnx/onnx, open when this was written.)
#
# Why here: parsers end in a linear Resize to the size of the picture. After the conversion the face itself still scores
# well, small parts do not, and a mean over pixels hides it.
#
# Output seen (Python 3.11, onnx 1.23.2, onnxruntime 1.32.0; logits of 32 px made 256 px large, IoU with the model before):
#   opset 10 to 11: attributes of Resize: mode
#   opset 10 to 11: face of 90 px radius 0.932, eye of 10 px radius 0.504
#   opset 10 to 21: face of 90 px radius 0.932, eye of 10 px radius 0.504
#   opset  9 to 21: face of 90 px radius 0.932, eye of 10 px radius 0.504
#   opset 13 to 21: face of 90 px radius 1.000, eye of 10 px radius 1.000
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "onnx==1.23.2" "onnxruntime==1.32.0" "numpy==2.4.6"
venv/bin/python - <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

print("versions:", *(f"{name} {version(name)}" for name in ("onnx", "onnxruntime")))
SMALL, SCALE = 32, 8
LARGE = SMALL * SCALE


def model(opset):
    "Logits of two parts, made SCALE times as large by the operator that the opset has for it"
    operator = "Upsample" if opset < 10 else "Resize"
    inputs = ["logits", "", "scales"] if opset > 10 else ["logits", "scales"]
    node = helper.make_node(operator, inputs, ["large"], mode="linear")
    sizes = [1, 2, SMALL, SMALL], [1, 2, LARGE, LARGE]
    graph = helper.make_graph(
        [node],
        "end_of_a_parser",
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, sizes[0])],
        [helper.make_tensor_value_info("large", TensorProto.FLOAT, sizes[1])],
        [numpy_helper.from_array(np.array([1, 1, SCALE, SCALE], np.float32), "scales")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def parts(made, logits):
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"logits": logits})[0][0] > 0


# each part is a disc: its logit is positive nearer to the middle than the radius
y, x = np.mgrid[:SMALL, :SMALL] * SCALE
distance = np.hypot(y - 120, x - 120)
logits = np.stack([90 - distance, 10 - distance])[None].astype(np.float32)

found = {}
for old, new in ((10, 11), (10, 21), (9, 21), (13, 21)):
    before = model(old)
    after = version_converter.convert_version(before, new)
    onnx.checker.check_model(after, full_check=True)
    if new == 11:
        resize = next(node for node in after.graph.node if node.op_type == "Resize")
        print("opset 10 to 11: attributes of Resize:", *(a.name for a in resize.attribute))
    a, b = parts(before, logits), parts(after, logits)
    face, eye = (a & b).sum((1, 2)) / (a | b).sum((1, 2))
    found[old, new] = face, eye
    print(f"opset {old:2} to {new}: face of 90 px radius {face:.3f}, eye of 10 px radius {eye:.3f}")
assert all(face > 0.9 and eye < 0.75 for (old, _), (face, eye) in found.items() if old < 11)
assert found[13, 21] == (1, 1)
PY
