"""Runtimes of the network of a bundle: OpenVINO, ONNX Runtime or PyTorch, from a picture to its patches.

Each library is imported when its runtime is created: with OpenVINO or ONNX Runtime, torch is never imported.
"""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from defectflow.backbones.backbone_names import PICTURE, PICTURE_CELL
from defectflow.backbones.network_settings import OPENVINO_BFLOAT16
from defectflow.backbones.openvino_network import compiled
from defectflow.backbones.tiles import embed, graph_input, tiles_of
from defectflow.core.files import UserError
from defectflow.inspection.bundle_files import Bundle

NETWORK = "network.onnx"
# Fastest first (benchmarks/README.md): what `auto` takes, if it is installed.
LIBRARIES = {"openvino": "openvino", "onnx": "onnxruntime", "torch": "torch"}
PRECISIONS = ("fp32", "fp16", "int8")

# Patches of pictures of one size: uint8 RGB (n, height, width, 3) to float32 (n, cells of all scales, d).
Network = Callable[[np.ndarray], np.ndarray]
Single = Callable[[np.ndarray], np.ndarray]  # the same of one picture, without the first axis


def installed(runtime: str) -> bool:
    """Whether the library of a runtime is installed; it is not imported."""
    return importlib.util.find_spec(LIBRARIES[runtime]) is not None


def pick(runtime: str, bundle: Bundle, device: str = "cpu") -> str:
    """The requested runtime, or for "auto" the first of LIBRARIES that is installed and gives the run's verdicts.

    On "cuda" that is torch: the graphs of the other two run on the CPU.

    Raises:
        UserError: the runtime is unknown or not installed, none is installed, or it would give other verdicts.
    """
    if device != "cpu":
        if runtime in ("openvino", "onnx"):
            raise UserError(f"device {device}: runtime {runtime} computes on the processor (use runtime torch)")
        runtime = "torch" if runtime == "auto" else runtime
    if NETWORK not in bundle.settings["files"]:
        if runtime in ("openvino", "onnx"):
            raise UserError(
                f"{bundle.folder}: {runtime} would give other verdicts with this network than the run "
                "(use the torch runtime, or a detector of convolutions with precision float32)"
            )
        runtime = "torch" if runtime == "auto" else runtime
    if bundle.settings["network"].get("precision") == OPENVINO_BFLOAT16:  # torch: as the run did, with OpenVINO in it
        if runtime == "onnx":
            raise UserError(f"{bundle.folder}: its precision is that of OpenVINO (use --runtime openvino)")
        runtime = "openvino" if runtime == "auto" else runtime
    if runtime == "auto":
        runtime = next(filter(installed, LIBRARIES), "openvino")
    if runtime not in LIBRARIES:
        raise UserError(f"runtime {runtime!r} is unknown (known: auto, {', '.join(LIBRARIES)})")
    if not installed(runtime):
        raise UserError(f"runtime {runtime}: {LIBRARIES[runtime]} is not installed (pip install {LIBRARIES[runtime]})")
    return runtime


def graph_file(bundle: Bundle, runtime: str, precision: str) -> Path:
    """The graph that ``runtime`` runs: an export of this precision, or the bundle's network.onnx.

    Raises:
        UserError: it was not exported.
    """
    suffix = {"openvino": "xml", "onnx": "onnx"}[runtime]
    name = f"exports/{runtime}-{precision}/network.{suffix}"
    if precision == "fp32" and name not in bundle.settings["files"]:
        return bundle.path(NETWORK)  # OpenVINO reads ONNX too
    if name not in bundle.settings["files"]:
        raise UserError(
            f"{bundle.folder}: no {precision} for {runtime} in this bundle "
            f"(defectflow export {bundle.folder} --format {runtime} --precision {precision})"
        )
    return bundle.path(name)


def load_network(
    bundle: Bundle, runtime: str, precision: str = "fp32", threads: int = 1, streams: int = 1, device: str = "cpu"
) -> Network:
    """Load the network.

    Args:
        bundle: the bundle.
        runtime: one of LIBRARIES.
        precision: one of PRECISIONS; torch has fp32 only.
        threads: number of computing threads, all streams together.
        streams: number of pictures computed at a time.
        device: "cpu" or "cuda", for torch. The graphs of the others take one picture at a time.

    Raises:
        UserError: the bundle has no such graph, or the library refuses it.
    """
    if runtime == "torch" and precision != "fp32":
        raise UserError(f"precision {precision}: the torch runtime has fp32 only")
    if bundle.settings["network"]["backbone"] == PICTURE:  # the network belongs to the detector
        return pixels_by_cell
    if runtime == "torch":
        return _whole(bundle, _torch(bundle, threads, streams, device))
    return _whole(bundle, _one_by_one(load_graph(bundle, runtime, precision, threads, streams)))


def load_graph(bundle: Bundle, runtime: str, precision: str = "fp32", threads: int = 1, streams: int = 1) -> Single:
    """Load the graph of a bundle for OpenVINO or ONNX Runtime. Arguments and errors as of `load_network`."""
    path, own = graph_file(bundle, runtime, precision), bundle.settings["network"].get("precision", "float32")
    try:
        return compiled(path, own, threads, streams) if runtime == "openvino" else _onnx(path, threads, streams)
    except UserError as error:
        raise UserError(f"{bundle.folder}: {error}") from None
    except Exception as error:  # the libraries raise many kinds of exceptions for a graph that they cannot run
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: {runtime} cannot run this graph ({text})") from None


def _whole(bundle: Bundle, run: Network) -> Network:
    """The network of whole pictures, where ``run`` takes tiles of them; otherwise ``run``."""
    settings = bundle.settings["network"]
    tiles = tiles_of(settings)
    if tiles is None:
        return run

    def tile(picture: np.ndarray) -> np.ndarray:
        patches: np.ndarray = run(picture[None])[0]
        side = math.isqrt(len(patches))
        grid: np.ndarray = patches.reshape(side, side, -1)
        return grid

    def network(pictures: np.ndarray) -> np.ndarray:
        if len(pictures) == 1:  # not a copy: of 20 megapixels the patches take 480 MB
            return embed(pictures[0], settings, tile)[None]
        return np.stack([embed(picture, settings, tile) for picture in pictures])

    return network


def pixels_by_cell(pictures: np.ndarray) -> np.ndarray:
    """The pixels of pictures by cell, as the backbone "picture" gives them: see `PatchEmbedder`."""
    count, height, width, _ = pictures.shape
    rows, columns = height // PICTURE_CELL, width // PICTURE_CELL
    cells = pictures.reshape(count, rows, PICTURE_CELL, columns, PICTURE_CELL, 3).transpose(0, 1, 3, 5, 2, 4)
    shown: np.ndarray = cells.reshape(count, rows * columns, -1).astype(np.float32) / 255
    return shown


def picture_of(patches: np.ndarray, position: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The picture, uint8 RGB (height, width, 3), of `pixels_by_cell` (p, d) at ``position`` (p,); elsewhere black."""
    cells = np.zeros((grid[0] * grid[1], patches.shape[1]), np.uint8)
    cells[position] = (patches * 255).round()
    parts = cells.reshape(*grid, 3, PICTURE_CELL, PICTURE_CELL).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(parts.reshape(grid[0] * PICTURE_CELL, grid[1] * PICTURE_CELL, 3))


def _onnx(path: Path, threads: int, streams: int) -> Single:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads // streams)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(picture: np.ndarray) -> np.ndarray:
        patches: np.ndarray
        (patches,) = session.run(None, {name: picture[None]})
        return patches.reshape(-1, patches.shape[-1])

    return run


def _one_by_one(run: Single) -> Network:
    def network(pictures: np.ndarray) -> np.ndarray:
        return run(pictures[0])[None] if len(pictures) == 1 else np.stack([run(picture) for picture in pictures])

    return network


def _torch(bundle: Bundle, threads: int, streams: int, device: str) -> Network:
    import torch

    from defectflow.backbones.patch_embedding import PatchEmbedder, in_one_list
    from defectflow.core.device import pick_device

    network = bundle.settings["network"]
    weights, precision = bundle.path("backbone.safetensors"), network.get("precision", "float32")
    backbone, layers = network["backbone"], network["layers"]
    reductions, where = graph_input(network)[1], pick_device(device)
    embedder = PatchEmbedder(backbone, layers, weights, device=where, precision=precision, reductions=reductions)
    own = max(1, threads // streams)
    if device == "cuda":  # TF32 would round float32 to 10 binary digits, and scores would differ from the CPU's
        torch.backends.cudnn.allow_tf32 = False

    def run(pictures: np.ndarray) -> np.ndarray:
        torch.set_num_threads(own)  # of the thread that calls
        patches: np.ndarray = in_one_list(embedder.scales(pictures)).cpu().numpy()
        return patches

    return run
