"""Compare two inspectors of one bundle: raw scores and maps, photograph by photograph."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from defectflow.backbones.network_input import Loaded, Scale
from defectflow.core.files import UserError
from defectflow.decision.verdict_rule import decide
from defectflow.images.read_write import read_photograph
from defectflow.inspection.inspector import Inspector

# Largest allowed relative deviation of a raw score or a map, by precision. int8 has none: it is an approximation, and
# its cost is reported as changed verdicts and AUROC.
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-3, "int8": None}
FLOOR = (
    0.1  # share of the threshold: photographs in the bank have scores near 0, where relative deviations mean nothing
)
MEANING = (
    "raw_score: |other - reference| / |reference|. map: largest |other - reference| of a patch, divided by the largest "
    "distance of a patch in the photograph's reference map. Divisors are a tenth of the threshold at least. The "
    "reference is PyTorch in float32."
)


class DetectorGraph:
    """An exported detector.*, network and search in one graph, as `compare` takes it.

    Args:
        path: the graph.
        runtime: "onnx" or "openvino".
        scales: of the network; the cells of each are an input of their own.
    """

    def __init__(self, path: Path, runtime: str, scales: Sequence[Scale]) -> None:
        self.runtime = runtime
        self._ends = np.cumsum([0] + [scale.grid[0] * scale.grid[1] for scale in scales])
        self._run: Callable[..., Any]
        if runtime == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            names = [one.name for one in session.get_inputs()]
            self._run = lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))
        else:
            import openvino

            graph = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            self._run = lambda *inputs: graph(list(inputs)).values()

    def score(self, item: Loaded) -> tuple[float, np.ndarray]:
        """As `Inspector.score`."""
        assert item.picture is not None  # none of the items is embedded yet
        between = np.searchsorted(item.cells, self._ends[1:-1])
        cells = [own - first for own, first in zip(np.split(item.cells, between), self._ends, strict=False)]
        distances, score = self._run(item.picture[None], *cells)
        return float(score), distances


def compare(
    reference: Inspector, other: Inspector | DetectorGraph, photographs: Iterable[str | Path]
) -> dict[str, Any]:
    """Compare both inspectors on the same photographs, which are segmented and isolated once.

    Returns:
        The parity report: n_images, reference, runtime, raw_score and map (largest and mean deviation), the number of
        changed verdicts, and each photograph's path below their `common_folder`, both raw scores and both deviations.

    Raises:
        UserError: a photograph cannot be read, or there is none.
    """
    photographs = list(photographs)
    if not photographs:
        raise UserError("parity: no photograph to compare on")
    rows, threshold, folder = [], reference.settings["threshold"]["value"], common_folder(photographs)
    least = max(FLOOR * abs(threshold), 1e-12)
    for path in photographs:
        item = reference.prepare(read_photograph(path, reference.settings["depth"]))
        (expected, distances), (found, others) = reference.score(item), other.score(item)
        rows.append(
            {
                "image": Path(os.path.abspath(path)).relative_to(folder).as_posix(),
                "reference": expected,
                "other": found,
                "raw_score": abs(found - expected) / max(abs(expected), least),
                "map": float(np.abs(others - distances).max() / max(float(distances.max()), least)),
                "verdict_changed": bool(decide(expected, threshold).bad != decide(found, threshold).bad),
            }
        )
    columns = {key: np.array([row[key] for row in rows]) for key in ("raw_score", "map")}
    return {
        "reference": reference.runtime,
        "runtime": other.runtime,
        "n_images": len(rows),
        **{key: {"largest": float(v.max()), "mean": float(v.mean())} for key, v in columns.items()},
        "verdicts_changed": sum(row["verdict_changed"] for row in rows),
        "meaning": MEANING,
        "images": rows,
    }


def common_folder(photographs: Iterable[str | Path]) -> Path:
    """The deepest folder that all of them are below."""
    return Path(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in photographs]))


class Differs(UserError):
    """An export gives other results than PyTorch."""


def require(report: dict[str, Any], tolerance: float | None, what: str | Path) -> None:
    """Raise Differs if a deviation of the report is above ``tolerance`` or NaN."""
    if tolerance is None:
        return
    for key in ("raw_score", "map"):
        largest = report[key]["largest"]
        if not largest <= tolerance:
            worst = max(report["images"], key=lambda row: row[key])["image"]
            raise Differs(
                f"{what}: not written, {report['runtime']} and {report['reference']} differ: {key} by {largest:.2g} of "
                f"its value on {worst}, allowed are {tolerance:g}"
            )
