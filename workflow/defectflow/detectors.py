"""Registry of the detection methods, by the name in `method:` of an entry of `detectors:`."""

from defectflow.centroid import Centroid
from defectflow.detector import Detector
from defectflow.padim import Padim
from defectflow.patchcore import PatchCore
from defectflow.pixel_difference import PixelDifference

METHODS: dict[str, type[Detector]] = {
    "patchcore": PatchCore,
    "padim": Padim,
    "centroid": Centroid,
    "pixel_difference": PixelDifference,
}
