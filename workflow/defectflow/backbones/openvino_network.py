"""A network computed by OpenVINO: its graph compiled for this processor, in float32 or bfloat16. Needs no torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from defectflow.backbones.network_settings import OPENVINO_BFLOAT16
from defectflow.core.files import UserError

# Without a hint the CPU plugin computes in bfloat16 where the processor has it, and scores differ by a percent.
HINTS = {"float32": "f32", OPENVINO_BFLOAT16: "bf16"}


def compiled(
    path: str | Path, precision: str = "float32", threads: int = 1, streams: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    """Function from a picture, uint8 RGB (height, width, 3), to its patches, float32 (cells of all scales, d).

    It may be called from several threads at a time.

    Args:
        path: the graph, .onnx or .xml, of a `network_as_graph.Network`.
        precision: that it computes in, one of HINTS.
        threads: number of computing threads, all streams together.
        streams: number of pictures computed at a time.

    Raises:
        UserError: the precision is bfloat16, and the processor has none: OpenVINO would compute in float32 in silence.
    """
    import openvino

    core = openvino.Core()
    if precision == OPENVINO_BFLOAT16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError(f"precision {OPENVINO_BFLOAT16}: this processor has no bfloat16 (use float32)")
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # Each process would pin its first thread to the first core, and forks would all compute on that one.
        "ENABLE_CPU_PINNING": False,
    }
    network = core.compile_model(str(path), "CPU", options)
    local, first = threading.local(), threading.Lock()

    def infer(picture: np.ndarray) -> np.ndarray:
        local.request.infer({0: picture[None]}, share_inputs=True)
        patches: np.ndarray = local.request.get_output_tensor(0).data
        return patches.reshape(-1, patches.shape[-1]).copy()

    def run(picture: np.ndarray) -> np.ndarray:
        if hasattr(local, "request"):
            return infer(picture)
        # Under a lock: the first use sets up tables of types, and two threads doing so would deadlock, one with
        # Python's lock and one with that of the tables.
        with first:
            local.request = network.create_infer_request()
            return infer(picture)

    return run
