"""Export the network and the search of a bundle as ONNX and OpenVINO graphs, in several precisions.

Thresholds are not part of a graph. Imports torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defectflow.backbones.network_as_graph import export_graph, export_network, make_network
from defectflow.backbones.tiles import graph_input
from defectflow.core.files import UserError
from defectflow.methods.patchcore.bank_as_graph import ScaledSearch, Search
from defectflow.methods.picture_detector import PictureDetector, PictureGraph


def export_onnx(settings: Mapping[str, Any], weights: str | Path, target: str | Path) -> None:
    """Write the network as ONNX, float32.

    Raises:
        UserError: it cannot be exported, or ONNX is not installed.
    """
    export_network(make_network(settings, weights), graph_input(settings)[0], target)


def export_search(
    search: Search | ScaledSearch, input_size: Sequence[int], target: str | Path, scales: int = 1
) -> None:
    """Write network and search as one ONNX graph, float32, for any number of cells.

    Its inputs are "picture" and "cells", and with several ``scales`` "cells_1", "cells_2" ... of the coarser ones.

    Raises:
        UserError: as :func:`export_onnx`.
    """
    picture = torch.zeros(1, *input_size, 3, dtype=torch.uint8)
    names = ["cells", *(f"cells_{k}" for k in range(1, scales))]
    dimensions = [{0: torch.export.Dim(name, min=2)} for name in names]
    # What takes any number of inputs has one shape for all of them.
    shapes: tuple[Any, ...] = ({}, *dimensions) if scales == 1 else ({}, tuple(dimensions))
    example = [
        torch.arange(7 - k % 4) for k in range(scales)
    ]  # of different lengths, so that none is taken for another
    export_graph(search, (picture, *example), target, ["picture", *names], ["distances", "score"], shapes)


def export_pictures(detector: PictureDetector, input_size: Sequence[int], target: str | Path) -> None:
    """Write a detector of whole pictures as one ONNX graph, float32, see `PictureGraph`.

    Raises:
        UserError: ONNX is not installed, or the network cannot be exported: those of anomalib use what ONNX has not.
    """
    picture = torch.zeros(1, *input_size, 3, dtype=torch.uint8)
    try:
        export_graph(PictureGraph(detector), (picture,), target, ["picture"], ["distances"])
    except UserError:
        raise
    except Exception as error:  # the exporter raises many kinds
        Path(target).unlink(missing_ok=True)
        raise UserError(f"{target}: its network cannot be exported to ONNX ({type(error).__name__})") from None


def to_openvino(onnx: str | Path, target: str | Path, precision: str, pictures: Sequence[np.ndarray] = ()) -> None:
    """Convert an ONNX graph to OpenVINO's .xml and .bin.

    Args:
        onnx: float32 graph.
        target: .xml to write.
        precision: "fp32", "fp16" (weights only; the runtime chooses the type of the computation), or "int8" (weights
            and activations, calibrated on ``pictures``).
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

    logging.getLogger().setLevel(logging.ERROR)  # it recommends a pre-processing that torch has already done

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.left, None)
            return None if picture is None else {"picture": picture[None]}

    quantization.quantize_static(
        str(onnx), str(target), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True
    )
