"""The detection methods by the name that `method:` of an entry of `detectors:` gives."""

from defectflow.detector import Detector
from defectflow.patchcore import PatchCore
from defectflow.pixel_difference import PixelDifference

METHODS: dict[str, type[Detector]] = {"patchcore": PatchCore, "pixel_difference": PixelDifference}
