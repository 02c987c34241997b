"""ONNX files that answer as SAM 1 and U2-Net do: what is bright in the photograph is the part."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

SIDE = 256


def write_pair(folder: Path, without: str = "") -> tuple[Path, Path]:
    """Write encoder.onnx and decoder.onnx; returns their paths. ``without``: an input that the decoder lacks.

    The decoder rates its mask by the labels of the points: 0.8 and their sum as hundredths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 1, SIDE, SIDE])
    mean = helper.make_node("ReduceMean", ["input"], ["embedding"], axes=[1], keepdims=1)
    _save(folder / "encoder.onnx", [mean], [picture], [embedding], [])
    shapes = {
        "image_embeddings": [1, 1, SIDE, SIDE], "point_coords": [1, "n", 2], "point_labels": [1, "n"],
        "mask_input": [1, 1, 256, 256], "has_mask_input": [1], "orig_im_size": [2],
    }  # fmt: skip
    entries = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items() if k != without]
    answers = {"iou_predictions": [1, 1], "low_res_masks": [1, 1, SIDE, SIDE]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in answers.items()]
    constants = [
        helper.make_tensor(name, kind, [len(values)], values)
        for name, kind, values in (
            ("axis", TensorProto.INT64, [1]),
            ("hundred", TensorProto.FLOAT, [100.0]),
            ("least", TensorProto.FLOAT, [0.8]),
        )
    ]
    nodes = [
        helper.make_node("Identity", ["image_embeddings"], ["low_res_masks"]),
        helper.make_node("ReduceSum", ["point_labels", "axis"], ["sum"], keepdims=1),
        helper.make_node("Div", ["sum", "hundred"], ["share"]),
        helper.make_node("Add", ["share", "least"], ["iou_predictions"]),
    ]
    _save(folder / "decoder.onnx", nodes, entries, outputs, constants)
    return folder / "encoder.onnx", folder / "decoder.onnx"


def write_salient(path: Path) -> Path:
    """Write a network that takes what is bright in a picture of 320 pixels for its figure; returns ``path``."""
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, 320, 320])
    figure = helper.make_tensor_value_info("figure", TensorProto.FLOAT, [1, 1, 320, 320])
    mean = helper.make_node("ReduceMean", ["input.1"], ["mean"], axes=[1], keepdims=1)
    steep = helper.make_node("Mul", ["mean", "ten"], ["steep"])
    path.parent.mkdir(parents=True, exist_ok=True)
    ten = helper.make_tensor("ten", TensorProto.FLOAT, [1], [10.0])
    _save(path, [mean, steep, helper.make_node("Sigmoid", ["steep"], ["figure"])], [picture], [figure], [ten])
    return path


def _save(path: Path, nodes: list, inputs: list, outputs: list, constants: list) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
