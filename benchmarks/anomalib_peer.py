"""anomalib's PatchCore with the backbone and the bank of a bundle: what `latency.py` and `service.py` compare with."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from defectflow.backbones.network_input import Loaded
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.mask_and_score import read_bank


def anomalib_eager(folder: Path, items: list[Loaded], threads: int) -> tuple[list[list[float]], list[bool]]:
    """anomalib's PatchcoreModel in evaluation mode: processor seconds for each picture, of the whole and of the part's
    cells; and its verdicts by the latter.
    """
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from defectflow.backbones.input_statistics import IMAGENET_MEAN, IMAGENET_STD
    from defectflow.backbones.networks import create_backbone

    torch.set_num_threads(threads)
    bundle = read_bundle(folder)
    network = bundle.settings["network"]
    backbone = create_backbone(network["backbone"], network["layers"], bundle.path("backbone.safetensors"))
    model = PatchcoreModel(layers=network["layers"], backbone=backbone).eval()
    model.memory_bank = torch.from_numpy(read_bank(bundle)[0][""]).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))

    def of_part(x: torch.Tensor, cells: torch.Tensor) -> float:
        features = {layer: model.feature_pooler(feature) for layer, feature in model.feature_extractor(x).items()}
        patches = model.reshape_embedding(model.generate_embedding(features))[cells]
        distances, places = model.nearest_neighbors(embedding=patches, n_neighbors=1)
        return float(model.compute_anomaly_score(distances[None], places[None], patches))

    times, bad = [], []
    with torch.inference_mode():
        for item in [items[0], *items]:
            cells, clock = torch.from_numpy(item.cells), [time.process_time()]
            for judge in (model, partial(of_part, cells=cells)):
                found = judge(((torch.from_numpy(item.picture).permute(2, 0, 1) / 255 - mean) / std)[None])
                clock.append(time.process_time())
            times.append(np.diff(clock))
            bad.append(found >= bundle.settings["threshold"]["value"])
    return np.array(times[1:]).T.tolist(), bad[1:]


def anomalib_graph(folder: Path, place: Path) -> Path:
    """Its Patchcore with the backbone and the bank of the bundle ``folder``, exported to OpenVINO in ``place``."""
    os.environ["TRUST_REMOTE_CODE"] = "1"  # without it, anomalib refuses to load what it has written itself
    import torch
    from anomalib.models import Patchcore
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from anomalib.pre_processing import PreProcessor
    from defectflow.backbones.input_statistics import IMAGENET_MEAN, IMAGENET_STD
    from defectflow.backbones.networks import create_backbone
    from torchvision.transforms.v2 import Compose, Normalize

    bundle = read_bundle(folder)
    network = bundle.settings["network"]
    backbone = create_backbone(network["backbone"], network["layers"], bundle.path("backbone.safetensors"))
    prepared = PreProcessor(transform=Compose([Normalize(IMAGENET_MEAN, IMAGENET_STD)]))
    parts: dict[str, Any] = dict.fromkeys(("post_processor", "evaluator", "visualizer"), False)
    whole = Patchcore(pre_trained=False, layers=network["layers"], pre_processor=prepared, **parts)
    whole.model = PatchcoreModel(layers=network["layers"], backbone=backbone).eval()
    whole.model.memory_bank = torch.from_numpy(read_bank(bundle)[0][""]).float()
    size = tuple(network["input_size"])
    return Path(whole.to_openvino(str(place), input_size=size, onnx_kwargs={"dynamic_shapes": None}))


def inferencer(graph: Path, hint: str = "", threads: int = 1) -> Any:
    """anomalib's OpenVINOInferencer; ``hint``: "f32", or "" for its default, bfloat16 where the processor has it."""
    os.environ["TRUST_REMOTE_CODE"] = "1"
    from anomalib.deploy import OpenVINOInferencer

    # Pinned, all workers of the service would compute on the first core.
    options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    return OpenVINOInferencer(graph, "CPU", options | ({"INFERENCE_PRECISION_HINT": hint} if hint else {}))
