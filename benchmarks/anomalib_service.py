"""anomalib's OpenVINOInferencer behind the web server of `defectflow serve`; `service.py --peer` starts it.

    python benchmarks/anomalib_service.py BUNDLE GRAPH f32 2

Its workers read a photograph as ours do, fit it into the network's input, and have anomalib judge that: it finds and
isolates no part. Prints on which port it listens.
"""

import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from anomalib_peer import inferencer
from defectflow.backbones.network_input import Loaded
from defectflow.core.anomaly_maps import AnomalyMap
from defectflow.images.read_write import letterbox, read_photograph
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.inspector import Inspector, Ready, Verdict
from defectflow.service.options import Options
from defectflow.service.server import serve


class Peer(Inspector):
    """anomalib's inferencer in the place of an inspector."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.settings, self.runtime = read_bundle(folder).settings, "openvino"
        self._inferencer = inferencer(Path(os.environ["GRAPH"]), os.environ["HINT"], threads)

    def ready(self, image: np.ndarray | str | Path) -> Ready:
        """Read the photograph and fit it into the network's input."""
        assert not isinstance(image, np.ndarray), "the service gives files"
        photo = read_photograph(image, self.settings["depth"])
        picture, affine = letterbox(photo, tuple(self.settings["network"]["input_size"]))
        return Ready(photo.shape[:2], None, Loaded(picture, np.zeros(0, int), True, affine), {})

    def finish(self, photographs: Any) -> list[Verdict]:
        """Judge it; there are no regions."""
        (one,) = photographs
        found = self._inferencer.predict(one.item.picture / np.float32(255))
        raw, threshold = float(np.ravel(found.pred_score)[0]), self.settings["threshold"]["value"]
        heat = AnomalyMap(np.zeros((1, 1), np.float32), one.item.affine, one.item.picture.shape[:2])
        return [
            Verdict(
                bad=raw >= threshold, score=0.5, raw_score=raw, threshold=threshold, review=None, present=None,
                doubtful=None, reason="", regions=[], find_map=lambda: heat, size=one.size, part=None, seconds={},
            )
        ]  # fmt: skip


def load(folder: Path, runtime: str, *, precision: str, threads: int) -> Peer:
    """As `Inspector.load`."""
    return Peer(folder, threads)


# Workers import this script too, and then call this.
Inspector.load = load  # type: ignore[method-assign,assignment]

if __name__ == "__main__":
    cv2.setNumThreads(1)
    bundle, os.environ["GRAPH"], hint, workers = sys.argv[1:]
    os.environ["HINT"] = "" if hint == "default" else hint
    sys.exit(serve(Options(bundles=(bundle,), port=0, workers=int(workers), timeout=120)))
