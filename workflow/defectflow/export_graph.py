"""The network and the search of a bundle as ONNX graphs, and these as OpenVINO's, in several precisions.

Thresholds stay outside of every graph. Imports torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from defectflow.embedding import descriptors, feature_network, input_statistics
from defectflow.files import UserError

OPSET = 18


class Network(nn.Module):
    """From a picture, uint8 RGB (1, height, width, 3), to its patches, float32 (1, grid height, grid width, d).

    Args:
        model: see `feature_network`.
        statistics: mean and standard deviation of its input, see `input_statistics`.
    """

    def __init__(self, model: nn.Module, statistics: tuple[Sequence[float], Sequence[float]]) -> None:
        super().__init__()
        self.model = model
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1) * 255)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return descriptors(self.model((picture.permute(0, 3, 1, 2).float() - self.mean) / self.std))


class Search(nn.Module):
    """From a picture and the cells of the part to the distance of each of them, and PatchCore's image score.

    Args:
        network: see `Network`.
        tensors, settings: of the bank, see `patchcore.PatchCore`.
        neighbours: of the re-weighting, equation 7 of the paper; 1 switches it off.
    """

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, torch.Tensor],
        settings: Mapping[str, Any],
        neighbours: int,
    ) -> None:
        super().__init__()
        from defectflow.patchcore import Bank

        self.network, self.cosine = network, settings["distance"] == "cosine"
        bank = Bank(tensors[""])
        self.register_buffer("bank", bank.features)
        self.register_buffer("origin", bank.features.mean(dim=0))
        # What is nearest to each point of the bank is known beforehand: a table instead of another search.
        self.register_buffer("table", bank.around(torch.arange(len(bank.features)), neighbours))
        if "axes" in tensors:
            self.register_buffer("subspace_mean", tensors["mean"])
            self.register_buffer("axes", tensors["axes"])

    def forward(self, picture: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patches = self.network(picture).flatten(0, 2)[cells]
        if self.cosine:
            patches = nn.functional.normalize(patches, dim=1)
        if hasattr(self, "axes"):
            patches = (patches - self.subspace_mean) @ self.axes
        # Products find the nearest, the difference measures it: a small difference of large squares would be rounded.
        centered, bank = patches - self.origin, self.bank - self.origin
        nearest = (bank.square().sum(dim=1) - 2 * centered @ bank.T).argmin(dim=1)
        distances = self._measure(patches - self.bank[nearest])
        winner = distances.argmax(dim=0, keepdim=True)
        support = self._measure(self.bank[self.table[nearest[winner]]] - patches[winner, None])[0]
        weight = 1 - torch.softmax(support, dim=0)[0] if self.table.shape[1] > 1 else 1.0
        return distances, distances[winner][0] * weight

    def _measure(self, differences: torch.Tensor) -> torch.Tensor:
        squares = differences.square().sum(dim=-1)
        return squares / 2 if self.cosine else squares.sqrt()


def make_network(settings: Mapping[str, Any], weights: str | Path) -> Network:
    """The network of a bundle; ``settings`` has backbone and layers, ``weights`` is its backbone.safetensors."""
    backbone = settings["backbone"]
    return Network(feature_network(backbone, settings["layers"], weights), input_statistics(backbone)).eval()


def export_onnx(settings: Mapping[str, Any], weights: str | Path, target: str | Path) -> None:
    """Write the network as ONNX, float32.

    Raises:
        UserError: it cannot be exported, or ONNX is not installed.
    """
    picture = torch.zeros(1, *settings["input_size"], 3, dtype=torch.uint8)
    _export(make_network(settings, weights), (picture,), target, ["picture"], ["patches"])


def export_search(search: Search, input_size: Sequence[int], target: str | Path) -> None:
    """Write network and search as one ONNX graph, float32, for any number of cells.

    Raises:
        UserError: as :func:`export_onnx`.
    """
    picture = torch.zeros(1, *input_size, 3, dtype=torch.uint8)
    shapes = ({}, {0: torch.export.Dim("cells", min=2)})
    _export(search, (picture, torch.arange(7)), target, ["picture", "cells"], ["distances", "score"], shapes)


def _export(
    model: nn.Module,
    example: tuple[torch.Tensor, ...],
    target: str | Path,
    inputs: list[str],
    outputs: list[str],
    dynamic: tuple | None = None,
) -> None:
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
    """Remove from an ONNX message, and all in it, the lines of code and the paths here that torch notes beside nodes.

    The same network gives the same bytes wherever the code lies, and a bundle says nothing of the machine it is from.
    """
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for part in value if hasattr(value, "__len__") else [value]:
                forget_origin(part)


def to_openvino(onnx: str | Path, target: str | Path, precision: str, pictures: Sequence[np.ndarray] = ()) -> None:
    """Convert an ONNX graph to OpenVINO's .xml and .bin.

    Args:
        onnx: float32 graph.
        target: .xml to write.
        precision: "fp32", "fp16" (weights stored so; computed as the runtime is told), or "int8" (weights and
            activations, calibrated on ``pictures``).
        pictures: uint8 (height, width, 3) as the network sees them; for "int8".
    """
    import openvino

    model = openvino.Core().read_model(str(onnx))
    if precision == "int8":
        try:
            import nncf
        except ModuleNotFoundError:
            raise UserError("int8 for OpenVINO: nncf is not installed (pip install nncf)") from None
        nncf.set_log_level(logging.ERROR)
        data = nncf.Dataset(list(pictures), lambda picture: picture[None])
        model = nncf.quantize(model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=max(1, len(pictures)))
    openvino.save_model(model, str(target), compress_to_fp16=precision == "fp16")


def to_onnx(onnx: str | Path, target: str | Path, precision: str, pictures: Sequence[np.ndarray] = ()) -> None:
    """Convert a float32 ONNX graph to one of another ``precision``; arguments as for :func:`to_openvino`."""
    if precision == "fp32":
        Path(target).write_bytes(Path(onnx).read_bytes())
        return
    if precision == "fp16":
        raise UserError("fp16 for onnx: its CPU runtime computes it in float32 and slower (use --format openvino)")
    from onnxruntime import quantization

    logging.getLogger().setLevel(logging.ERROR)  # it advises to pre-process what torch has optimised already

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.left, None)
            return None if picture is None else {"picture": picture[None]}

    quantization.quantize_static(
        str(onnx), str(target), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True
    )
