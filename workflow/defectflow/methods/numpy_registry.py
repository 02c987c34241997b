"""Detectors of a bundle in numpy: the exact search that `detector.Detector` does with torch, without torch."""

from defectflow.methods.centroid.centroid_in_numpy import Centroid
from defectflow.methods.padim.gaussians_in_numpy import Padim
from defectflow.methods.patchcore.bank_in_numpy import PatchCore

METHODS = {"patchcore": PatchCore, "padim": Padim, "centroid": Centroid}
