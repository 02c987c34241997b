"""Detectors of a bundle in numpy: the exact search that `detector.Detector` does with torch, without torch."""

from defectflow.config.settings import discover
from defectflow.methods.numpy_detector import NumpyDetector

# By the name of the method; one without such a class makes no bundles.
DETECTORS: dict[str, type[NumpyDetector]] = {
    cls.name: cls
    for cls in discover("defectflow.methods.*in_numpy", NumpyDetector)  # type: ignore[type-abstract]  # compared only
}
