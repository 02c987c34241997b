"""Make a model of anomalib from the options of the config: checked first, and without a download."""

from __future__ import annotations

import inspect
import logging
import socket
import tempfile
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any
from unittest.mock import patch

import anomalib.models
import timm
import torchvision
from anomalib.models.components.base import AnomalibModule
from anomalib.pre_processing import PreProcessor
from anomalib.utils.path import get_pretrained_weights_dir
from torch import nn
from torchvision.transforms.v2 import CenterCrop, Compose

from defectflow.backbones.backbone_names import is_patch_nano
from defectflow.backbones.networks import give_weights
from defectflow.backbones.state_dicts import read_state
from defectflow.config.values import choices_of, nearest, problem_of, typed
from defectflow.core.files import UserError

# What a workflow sets itself: pictures are prepared, scores judged and drawn as those of all other methods.
COMPONENTS = {"self", "pre_processor", "post_processor", "evaluator", "visualizer"}
PLAIN = {int, float, bool, str, NoneType, typing.Literal}
NO_LIMITS = {"pattern": "", "unit": "", "minimum": None, "above": None, "maximum": None, "below": None}
FOLDERS = ("_dir", "_source_path")  # ends of options: of other pictures, for the training alone
OTHER_INPUT = {
    "AiVad": "it judges videos",
    "Fuvas": "it judges videos",
    "CFM": "it needs depth maps",
    "VlmAd": "it asks a language model",
}
logging.getLogger("anomalib").setLevel(logging.ERROR)


def model_class(name: str, where: str) -> type[AnomalibModule]:
    """The class of a model.

    Raises:
        UserError: anomalib has none of that name, or it does not judge photographs.
    """
    found = {key: value for key, value in vars(anomalib.models).items() if _is_model(value)}
    known = sorted(found.keys() - OTHER_INPUT.keys())
    if name in OTHER_INPUT:
        raise UserError(f"{where}: model {name}: {OTHER_INPUT[name]} (choose one of {', '.join(known)})")
    if name not in found:
        raise UserError(f"{where}: anomalib has no model {name!r} ({nearest(name, known)})")
    cls: type[AnomalibModule] = found[name]
    return cls


def _is_model(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, AnomalibModule) and value is not AnomalibModule


def checked_options(cls: type[AnomalibModule], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options as the class takes them.

    Raises:
        UserError: one is not in the signature of the class, or has another type.
    """
    signature = inspect.signature(cls.__init__).parameters
    known = [key for key in signature if key not in COMPONENTS]
    try:
        hints = typing.get_type_hints(cls.__init__)
    except NameError:  # of names that are imported for type checkers alone
        hints = {}
    options = {}
    for key, value in given.items():
        if key not in known:
            raise UserError(f"{where}: anomalib's {cls.__name__} has no option {key!r} ({nearest(key, known)})")
        hint = hints.get(key, Any)
        if {kind for kind, _ in choices_of(hint)} <= PLAIN:
            value = typed(value, hint)
            if problem := problem_of(value, hint, NO_LIMITS):
                raise UserError(f"{where}.{key}: {problem}")
        options[key] = value
    return options


def create(
    name: str,
    given: Mapping[str, Any] | None,
    size: int | tuple[int, int],
    weights: str | None = None,
    *,
    trained: bool = True,
    where: str = "anomalib",
) -> AnomalibModule:
    """Make a model for pictures of a size, without any post-processing.

    Args:
        name: of the class.
        given: its options.
        size: side of the pictures in pixels, or (height, width).
        weights: file of weights for its backbone.
        trained: False: all weights will be replaced, so that none are loaded.
        where: beginning of a message.

    Raises:
        UserError: one line: an unknown model or option, weights or data that are not here.
    """
    cls = model_class(name, where)
    options, told = checked_options(cls, given or {}, where), f"{where}: model {name}"
    with (
        without_downloads(told, "does not take these options or this image_size"),
        own_weights(weights, trained, told, takes_nano(cls)),
        tempfile.TemporaryDirectory(prefix="defectflow-") as empty,
    ):
        if trained:
            _check_folders(cls, options, told)
        else:  # folders of other pictures are for the training alone, and need not be there any more
            folders = [key for key in inspect.signature(cls.__init__).parameters if key.endswith(FOLDERS)]
            options |= dict.fromkeys(folders, empty)
        prepare = _pre_processor(cls, size)
        made = cls(**options, pre_processor=prepare, post_processor=False, evaluator=False, visualizer=False)
        if trained and hasattr(made, "prepare_pretrained_model"):  # EfficientAd and Dsr would ask when training starts
            made.prepare_pretrained_model()
        return made


def _check_folders(cls: type[AnomalibModule], options: Mapping[str, Any], where: str) -> None:
    """Refuse a folder of other pictures that is not there: the class would make it, and fill it from the network."""
    for key, parameter in inspect.signature(cls.__init__).parameters.items():
        folder = options.get(key, parameter.default)
        if key.endswith("_dir") and not (isinstance(folder, str | Path) and Path(folder).is_dir()):
            raise UserError(f"{where} needs a folder of other pictures: {folder}: none (options: {{{key}: FOLDER}})")


def takes_nano(cls: type[AnomalibModule]) -> bool:
    """Whether a class takes a backbone by name, and layers of it: then it may be ours."""
    return {"backbone", "layers"} <= inspect.signature(cls.__init__).parameters.keys()


def _pre_processor(cls: type[AnomalibModule], size: int | tuple[int, int]) -> Any:
    """What the class does to pictures, for those of ``size`` pixels; nothing is cut off, or maps would not fit."""
    image_size = (size, size) if isinstance(size, int) else size
    takes = inspect.signature(cls.configure_pre_processor).parameters
    more = {"crop_size": max(image_size)} if "crop_size" in takes else {}
    made = cls.configure_pre_processor(image_size=image_size, **more)
    steps = getattr(made.transform, "transforms", []) if made else []
    whole = [step for step in steps if not isinstance(step, CenterCrop)]
    return PreProcessor(Compose(whole)) if len(whole) < len(steps) else made


@contextmanager
def own_weights(weights: str | None, trained: bool, where: str, nano: bool) -> Iterator[None]:
    """Networks that ask for trained weights get those of a file; none, if they are not to be ``trained``."""
    create_model = timm.create_model

    def create(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if not pretrained or (is_patch_nano(name) and trained and not weights):
            return create_model(name, pretrained=pretrained, **kwargs)
        given = need(name) if trained else None
        made = create_model(name, pretrained=False, **kwargs)
        if given:
            give_weights(made, name, given)
        return made

    def state(enum: Any, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        name = type(enum).__name__.removesuffix("_Weights").lower()
        fresh: dict[str, Any] = torchvision.models.get_model(name).state_dict()
        if not trained:
            return fresh
        own = read_state(need(name), name)
        unused = ("fc.", "classifier.", "layer4.")  # by Cfa and UniNet, which alone take networks of torchvision
        missing = [key for key in fresh if key not in own and not key.startswith(unused) and "num_batches" not in key]
        if missing:
            raise UserError(f"{weights}: not of {name}: {len(missing)} tensors are missing, e.g. {missing[0]}")
        return {key: own.get(key, value) for key, value in fresh.items()}

    def need(name: str) -> str:
        if weights is None:
            other = "; or take the included network: options: {backbone: patch-nano, layers: [layer2, layer3]}"
            raise UserError(
                f"{where} starts from trained weights of {name!r}, which are not here (give a file of them as "
                f"`weights:`{other if nano and 'vit' not in name else ''})"
            )
        return weights

    with (
        patch.object(timm, "create_model", create),
        patch.object(torchvision.models._api.WeightsEnum, "get_state_dict", state),
    ):
        yield


@contextmanager
def without_downloads(where: str, failed: str) -> Iterator[None]:
    """Refuse whatever asks the network.

    Args:
        where: beginning of a message.
        failed: how it goes on where something else fails.

    Raises:
        UserError: anything failed; models of anomalib raise many kinds of errors.
    """
    hosts: list[str] = []

    def refuse(host: Any, *args: Any, **kwargs: Any) -> Any:
        hosts.append(str(host))
        raise OSError(f"{host}: nothing is downloaded here")

    try:
        with (
            patch.object(socket, "getaddrinfo", refuse),
            patch("huggingface_hub.constants.HF_HUB_OFFLINE", True),
        ):
            yield
    except UserError:
        raise
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        if type(error).__module__.startswith("huggingface_hub"):
            hosts.append("huggingface.co")
        if hosts:
            raise UserError(
                f"{where} wants to download from {hosts[0]}, and nothing is downloaded here (put its files into "
                f"{get_pretrained_weights_dir()}, or choose another model)"
            ) from error
        raise UserError(f"{where} {failed}: {told}") from error
