"""Names of weights: those of a network's original code or of torchvision to timm's, by timm's own converters."""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from timm.models import model_entrypoint
from torch import Tensor, nn

CONVERTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")  # as timm calls them


def converted(state: Mapping[str, Tensor], arch: str, whole: nn.Module) -> dict[str, Tensor]:
    """A state dict with timm's names, position embeddings interpolated to the network's grid.

    Args:
        state: as the file has it; names that are timm's already stay.
        arch: timm's name of the network, without a tag.
        whole: the whole network, of any weights, also on the meta device.

    Returns:
        As ``state`` where no converter takes it: what does not fit is told with the names of the file then.
    """
    state = dict(state)
    if "features.0.0.weight" in state and hasattr(whole, "stages"):
        state = _torchvision_convnext(state)
    convert = _converter(arch, whole)
    if convert is None:
        return state
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(convert).parameters else {}
    try:
        return dict(convert(dict(state), whole, **options))
    except Exception:  # of a file for another network: whatever a missing key or a wrong shape raises
        return state


def _converter(arch: str, whole: nn.Module) -> Callable[..., Any] | None:
    """timm's converter of a network: it stands beside the function that makes it, or beside the class."""
    for module in (model_entrypoint(arch).__module__, type(whole).__module__):
        for name in CONVERTERS:
            found: Callable[..., Any] | None = getattr(sys.modules[module], name, None)
            if found:
                return found
    return None


def _torchvision_convnext(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's ConvNeXt: stages and the steps down between them are numbered in one list."""
    inner = {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}
    ends = {"classifier.0": "head.norm", "classifier.2": "head.fc"}
    result = {}
    for key, value in state.items():
        if match := re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.(\w+)", key):
            stage, block, step, kind = match.groups()
            result[f"stages.{(int(stage) - 1) // 2}.blocks.{block}.{inner[step]}.{kind}"] = value
        elif match := re.fullmatch(r"features\.(\d+)\.(\d+)\.layer_scale", key):
            result[f"stages.{(int(match[1]) - 1) // 2}.blocks.{match[2]}.gamma"] = value.flatten()
        elif match := re.fullmatch(r"features\.(\d+)\.(\d+)\.(\w+)", key):
            place = "stem" if match[1] == "0" else f"stages.{int(match[1]) // 2}.downsample"
            result[f"{place}.{match[2]}.{match[3]}"] = value
        else:
            start = next((start for start in ends if key.startswith(start)), "")
            result[ends.get(start, "") + key[len(start) :]] = value
    return result
