"""The detector of a method, by the name in `method:` of an entry of `detectors:`."""

from importlib import import_module

from defectflow.methods.detector import Detector
from defectflow.methods.method_settings import METHODS


def detector_class(method: str) -> type[Detector]:
    """The class that `MethodSettings.detector` names, imported now: no other method's code is."""
    module, _, name = METHODS.classes[method].detector.rpartition(".")
    found: type[Detector] = getattr(import_module(module), name)
    return found
