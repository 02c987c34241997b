"""Registry of the detection methods, by the name in `method:` of an entry of `detectors:`."""

from defectflow.methods.centroid.centroid import Centroid
from defectflow.methods.detector import Detector
from defectflow.methods.padim.gaussians import Padim
from defectflow.methods.patchcore.memory_bank import PatchCore
from defectflow.methods.pixel_difference import PixelDifference

METHODS: dict[str, type[Detector]] = {
    "patchcore": PatchCore,
    "padim": Padim,
    "centroid": Centroid,
    "pixel_difference": PixelDifference,
}
