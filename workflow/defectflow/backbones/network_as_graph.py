"""The network of a bundle as a graph, from a picture to its patches, and as an ONNX file. Imports torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from defectflow.backbones.input_statistics import input_statistics
from defectflow.backbones.patch_embedding import descriptors, feature_network, in_one_list, reduced
from defectflow.backbones.tiles import graph_input
from defectflow.core.files import UserError

OPSET = 18


class Network(nn.Module):
    """From a picture, uint8 RGB (1, height, width, 3), to its patches, float32 (1, grid height, grid width, d).

    With several scales the patches are (1, cells of all scales, d), one scale after the other.

    Args:
        model: see `feature_network`.
        statistics: mean and standard deviation of its input, see `input_statistics`.
        reductions: see `PatchEmbedder`.
    """

    def __init__(
        self,
        model: nn.Module,
        statistics: tuple[Sequence[float], Sequence[float]],
        reductions: Sequence[int] = (1,),
    ) -> None:
        super().__init__()
        self.model, self._reductions = model, reductions
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) * 255)

    def scales(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """The patches of each scale, float32 (1, grid height, grid width, d)."""
        whole = (picture.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return [descriptors(self.model(reduced(whole, reduction))) for reduction in self._reductions]

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        scales = self.scales(picture)
        return in_one_list(scales) if len(scales) > 1 else scales[0]


def make_network(settings: Mapping[str, Any], weights: str | Path) -> Network:
    """The network of a bundle, with its settings (backbone, layers, scales) and its backbone.safetensors."""
    backbone = settings["backbone"]
    model = feature_network(backbone, settings["layers"], weights)
    network = Network(model, input_statistics(backbone), graph_input(settings)[1])
    network.eval()
    return network


def export_network(network: Network, size: tuple[int, int], target: str | Path) -> None:
    """Write a network as ONNX for pictures of ``size`` (height, width). Errors as of `export_graph`."""
    picture = torch.zeros(1, *size, 3, dtype=torch.uint8)
    export_graph(network, (picture,), target, ["picture"], ["patches"])


def export_graph(
    model: nn.Module,
    example: tuple[torch.Tensor, ...],
    target: str | Path,
    inputs: list[str],
    outputs: list[str],
    dynamic: tuple[Any, ...] | None = None,
) -> None:
    """Write a module as ONNX, float32, the same bytes wherever the code is.

    Args:
        model: any module.
        example: its arguments.
        target: .onnx to write.
        inputs, outputs: names of its arguments and of what it returns.
        dynamic: dimensions of its arguments that may vary, as `torch.export` takes them.

    Raises:
        UserError: ONNX is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it, and says so less plainly)
    except ModuleNotFoundError:
        raise UserError("export to ONNX: onnxscript is not installed (pip install 'defectflow[workflow]')") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.inference_mode():
        torch.onnx.export(
            model.eval(), example, str(target), input_names=inputs, output_names=outputs, opset_version=OPSET,
            dynamo=True, external_data=False, dynamic_shapes=dynamic, verbose=False,
        )  # fmt: skip
    exported = onnx.load(str(target))
    forget_origin(exported)
    onnx.save(exported, str(target))


def forget_origin(message: Any) -> None:
    """Remove the code lines and local paths that torch stores with the nodes of an ONNX message.

    So the same network gives the same bytes wherever the code is, and a bundle reveals nothing about its machine.
    """
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for part in value if hasattr(value, "__len__") else [value]:
                forget_origin(part)
