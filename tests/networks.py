"""Small networks in ONNX format, with the folder around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 16
JSON = {"name": "tiny", "input": "x", "output": "y", "size": SIDE, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.2, 0.25]}


def write_folder(folder: Path, without: tuple[str, ...] = (), said: dict[str, Any] | None = None, **how: Any) -> Path:
    """A folder of a network (`how`: see `network`) and its JSON, with other or without some fields."""
    folder.mkdir(exist_ok=True, parents=True)
    network(folder / "model.onnx", **how)
    whole = {**JSON, **(said or {})}
    (folder / "model.json").write_text(json.dumps({key: whole[key] for key in whole if key not in without}))
    return folder


def network(
    path: Path,
    *,
    batch: int | str = "n",
    shape: tuple[Any, ...] = (3, SIDE, SIDE),
    pool: bool = True,
    kind: str = "float",
    factor: float = 1.0,
    external: bool = False,
    dim: int = 6,
    flat: bool = True,
) -> None:
    """A convolution, pooling and flattening, with seeded weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    of = {"float": (TensorProto.FLOAT, np.float32), "float16": (TensorProto.FLOAT16, np.float16)}.get(kind)
    element, numbers = of or (TensorProto.DOUBLE, np.float64)
    random = np.random.default_rng(3)
    weights = numpy_helper.from_array((random.normal(size=(dim, 3, 3, 3)) * factor).astype(numbers), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["r"])]
    if kind == "double":
        nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), *nodes]
        nodes[1].input[0], weights = "f", numpy_helper.from_array(numpy_helper.to_array(weights).astype("f4"), "w")
    nodes += [helper.make_node("GlobalAveragePool" if pool else "Identity", ["r"], ["p"])]
    nodes += [helper.make_node("Flatten" if flat else "Identity", ["p"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", element, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT if kind == "double" else element, None)],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path), save_as_external_data=external, location="weights.bin", size_threshold=0)
