"""Backbones: networks that turn an image into feature maps, from which PatchCore's patch features are made.

As a command it checks that timm can build the chosen backbone, early, before a workflow masks all pictures.

`patch-nano` is our own (`defectflow.backbones.patch_nano`), registered here with timm as `patch_nano` and `patch-nano`;
every other name is timm's.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn
from torch.overrides import TorchFunctionMode

from defectflow.backbones.backbone_names import PATCH_NANO, is_patch_nano
from defectflow.backbones.checkpoint_names import converted
from defectflow.backbones.patch_nano import (
    PATCH_NANO_WEIGHTS,
    PatchNano,
    check_layers,
)
from defectflow.backbones.state_dicts import load_state, read_state, refuse_deeper
from defectflow.core.files import UserError, stage


def _cfg() -> dict[str, Any]:
    return {
        "file": str(PATCH_NANO_WEIGHTS),
        "num_classes": 0,
        "input_size": (3, 256, 256),
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0.conv",
        "classifier": None,
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs({"patch_nano": _cfg(), "patch-nano": _cfg()})


@register_model
def patch_nano(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PatchNano with the packaged weights if `pretrained`; see `PatchNano`."""
    feature_cfg = {"out_indices": (0, 1), "flatten_sequential": False}
    return build_model_with_cfg(PatchNano, "patch_nano", pretrained, feature_cfg=feature_cfg, **kwargs)


def _alias(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return patch_nano(pretrained, **kwargs)


_alias.__name__ = PATCH_NANO  # timm registers a function under its name, and a def cannot hold a hyphen
register_model(_alias)
__all__ = ["create_backbone"]  # not its


class _NothingDrawn(TorchFunctionMode):
    """Leaves the weights of new modules as they are: drawing those that a file will replace takes up to a second."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in (torch.Tensor.uniform_, torch.Tensor.normal_, nn.init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def _known(
    name: str, layers: Sequence[str], weights: str | Path | None, allow_download: bool
) -> tuple[str, dict[str, Any], list[int]]:
    """timm's name of a network, what it is to be made with, and the indices of its layers; see `create_backbone`."""
    arch = name.split(".")[0]
    if not timm.is_model(arch):
        near = ", ".join(get_close_matches(arch, timm.list_models(), 3))
        raise UserError(f"backbone '{name}': timm has no model '{arch}'{near and f' (did you mean {near}?)'}")
    download = weights is None and allow_download and not is_patch_nano(name)
    if download and "." not in name:
        tags = timm.list_pretrained(f"{arch}.*")
        if not tags:
            raise UserError(f"backbone '{name}': timm offers no weights to download")
        raise UserError(f"backbone '{name}' does not say which weights: name one of {', '.join(tags)}")
    if download and name not in timm.list_pretrained(f"{arch}.*"):
        raise UserError(f"backbone '{name}': timm offers no such weights")
    with torch.device("meta"):  # the names alone: no memory, no time
        options = _any_size(timm.create_model(arch))
        known = [info["module"] for info in timm.create_model(arch, features_only=True, **options).feature_info.info]
    check_layers(name, layers, known)
    return arch, options, [known.index(layer) for layer in layers]


def _any_size(network: nn.Module) -> dict[str, bool]:
    """Options that let a transformer take pictures of other sizes than its own: it interpolates its positions."""
    takes = inspect.signature(type(network).__init__).parameters
    wanted = {"dynamic_img_size": True, "strict_img_size": False}
    return {name: value for name, value in wanted.items() if name in takes}


def create_backbone(
    name: str,
    layers: Sequence[str],
    weights: str | Path | None = None,
    *,
    allow_download: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Build a frozen feature extractor.

    Args:
        name: `patch-nano`, or a timm name with its tag (`resnet18.tv_in1k`).
        layers: Feature modules to return, lowest first, e.g. `("layer2", "layer3")`.
        weights: A .safetensors, .pth, .pt or .bin state dict of the whole network or of its lower part, with the
            names of timm, of the network's original code or of torchvision. Loaded without executing anything.
            Position embeddings of another grid are interpolated. None: the packaged weights for `patch-nano`, else
            see `allow_download`.
        allow_download: Let timm fetch the weights that the tag names when no file is given.
        seed: Seed of the untrained weights when there is neither a file nor a download.

    Returns:
        timm `features_only` network in eval mode without gradients. It maps (B, 3, H, W) float, normalised with
        the mean and standard deviation of `input_statistics.input_statistics`, to a list of (B, C, H/stride, W/stride),
        one per layer.
        `.trained` is False for the untrained network. It can be given to anomalib's `PatchcoreModel` as `backbone`.

    Raises:
        UserError: Unknown name, layer or file, weights that do not fit, or a download asked for without a tag.
    """
    arch, options, indices = _known(name, layers, weights, allow_download)
    if weights is None and is_patch_nano(name):
        weights = PATCH_NANO_WEIGHTS
    download = weights is None and allow_download
    with torch.random.fork_rng(devices=[]), _NothingDrawn() if weights is not None else nullcontext():
        torch.manual_seed(seed)
        given = dict(options)
        options |= {"features_only": True, "out_indices": indices}
        try:
            model = timm.create_model(name if download else arch, pretrained=download, **options)
        except OSError as error:  # what all of timm's ways of fetching raise without a connection
            raise UserError(f"backbone '{name}': its weights could not be downloaded; give a local file") from error
    if weights is not None:
        give_weights(model, name, weights, given)
    model.trained = weights is not None or download
    # convolutions in this layout are up to half as fast again on CPUs and pass it on, whatever the input has
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def give_weights(
    model: nn.Module, name: str, weights: str | Path, options: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Give a network of timm, or the lower part of one, the weights of a file.

    Args:
        model: the network.
        name: its name with timm; a tag is ignored.
        weights: see `create_backbone`.
        options: what the whole network is made with.

    Raises:
        UserError: they do not fit.
    """
    state, whole, arch = read_state(weights, name), None, name.split(".")[0]
    if not is_patch_nano(name):
        with torch.device("meta"):
            whole = timm.create_model(arch, **options)
        if not model.state_dict().keys() <= state.keys():
            state = converted(state, arch, whole)
    load_state(model, state, weights, name)
    if whole is not None:
        refuse_deeper(state, whole, weights, name)


def main(args: argparse.Namespace) -> None:
    """Refuse what `create_backbone` would refuse, without a download, and a size that the network does not take."""
    arch, options, indices = _known(args.name, args.layers, args.weights, args.allow_downloads)
    if args.weights:
        create_backbone(args.name, args.layers, args.weights)
    with torch.device("meta"):
        network = timm.create_model(arch, features_only=True, out_indices=indices, **options).eval()
        for size in args.size:
            try:
                network(torch.empty(1, 3, size, size))
            except AssertionError as error:  # timm's word for a size that is no multiple of a transformer's patch
                raise UserError(f"backbone '{args.name}' does not take pictures of {size} pixels: {error}") from None


def build_parser() -> argparse.ArgumentParser:
    """Command line of the check."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.backbones.networks", description=__doc__)
    parser.add_argument("name", help="patch-nano or a timm name with its tag")
    parser.add_argument("--layers", nargs="+", required=True, help="layer names, lowest first")
    parser.add_argument("--size", type=int, nargs="+", required=True, help="sides of the input image, in pixels")
    parser.add_argument("--weights", help="local .safetensors, .pth, .pt or .bin file")
    parser.add_argument("--allow-downloads", action="store_true", help="timm may download the weights of the tag")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
