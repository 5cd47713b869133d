"""Linear classifiers as ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

W = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
FLOAT, INT, HALF, DOUBLE = 1, 7, 10, 11


def graph(
    path: str | Path,
    outputs: Sequence[str] = ("logits",),
    *,
    weight: np.ndarray = W,
    bias: Sequence[float] = (0.0, 0.0, 0.0),
    shape: Sequence[int] = (2, 2),
    batch: str | int = "batch",
    kind: int = FLOAT,
    inputs: Sequence[str] = ("x",),
    external: bool = False,
) -> str:
    """Write a linear classifier of inputs (batch, *shape), three classes; its logits, shares or label."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    node, info = helper.make_node, helper.make_tensor_value_info
    dtype = {FLOAT: np.float32, HALF: np.float16, DOUBLE: np.float64}[kind]
    nodes = [
        node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["z"]), node("Add", ["z", "b"], ["logits"]),
        node("Softmax", ["logits"], ["shares"]), node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]  # fmt: skip
    found = [info(one, INT, [batch]) if one == "label" else info(one, kind, [batch, 3]) for one in outputs]
    held = [
        numpy_helper.from_array(np.asarray(one, dtype), name) for one, name in ((weight, "w"), (bias, "b"))
    ]
    made = helper.make_graph(nodes, "net", [info(one, kind, [batch, *shape]) for one in inputs], found, held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    where = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0} if external else {}
    onnx.save(model, str(path), **where)
    return str(path)
