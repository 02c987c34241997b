"""patch-nano, our own backbone, distilled from a ResNet-18 by `pretraining.pretrain_backbone` and shipped here.

Nothing but torch is imported: timm and torchvision take two seconds of every process that loads them, which need not
be those that use this network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from defectflow.backbones.backbone_names import PATCH_NANO
from defectflow.backbones.state_dicts import load_state, read_state
from defectflow.core.files import UserError

PATCH_NANO_WEIGHTS = Path(__file__).parent / "weights" / "patch-nano.safetensors"
LAYERS = ("layer2", "layer3")


class ConvNorm(nn.Module):
    """Convolution and batch norm; the norm exists only while training and is folded into the bias for use."""

    def __init__(self, cin: int, cout: int, stride: int = 1, norm: bool = False, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, stride, dilation, dilation, bias=not norm)
        self.norm = nn.BatchNorm2d(cout, momentum=0.03) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Block(nn.Module):
    """Residual pair of dense 3x3 convolutions through `mid` channels, followed by a ReLU."""

    def __init__(self, channels: int, mid: int, norm: bool = False, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, mid, norm=norm, dilation=dilation)
        self.conv2 = ConvNorm(mid, channels, norm=norm)
        self.act = nn.ReLU(inplace=True)
        if norm:
            nn.init.zeros_(self.conv2.norm.weight)  # every block starts as the identity

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv2(self.act(self.conv1(x))) + x)


class PatchNano(nn.Module):
    """Small stand-in for the first three stages of a ResNet-18.

    `layer2` gives (B, 128, H/8, W/8) and `layer3` (B, 256, H/16, W/16), float, non-negative, in the teacher's own
    channels and scale, so a descriptor of the one can be compared with a descriptor of the other.
    Dense convolutions throughout: on a CPU they reach several times the arithmetic rate of depthwise ones. One dilated
    convolution in each stage widens the receptive field to 95 and 207 px (the teacher's: 99 and 211) at no cost.

    Args:
        stem: Channels at stride 2 and 4.
        mid2: Inner channels of each block at stride 8.
        mid3: Inner channels of each block at stride 16.
        norm: Build with batch norms (training); `fold_norms` removes them.
    """

    def __init__(
        self,
        stem: Sequence[int] = (24, 48),
        mid2: Sequence[int] = (48, 48),
        mid3: Sequence[int] = (128,),
        norm: bool = False,
        **_: object,  # timm hands every model its classifier's arguments
    ) -> None:
        super().__init__()

        def down(cin: int, cout: int) -> list[nn.Module]:
            return [ConvNorm(cin, cout, 2, norm), nn.ReLU(inplace=True)]

        self.stem = nn.Sequential(*down(3, stem[0]), *down(stem[0], stem[1]))

        def blocks(channels: int, mids: Sequence[int]) -> list[nn.Module]:
            return [Block(channels, mid, norm, dilation=2 if i == 0 else 1) for i, mid in enumerate(mids)]

        self.layer2 = nn.Sequential(*down(stem[1], 128), *blocks(128, mid2))
        self.layer3 = nn.Sequential(*down(128, 256), *blocks(256, mid3))
        if norm:
            for layer in (self.layer2, self.layer3):
                nn.init.constant_(layer[0].norm.weight, 0.2)  # about the spread of the teacher's maps
        self.num_classes = 0
        self.num_features = 256
        self.feature_info = [
            {"num_chs": 128, "reduction": 8, "module": "layer2"},
            {"num_chs": 256, "reduction": 16, "module": "layer3"},
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer3(self.layer2(self.stem(x)))


def fold_norms(model: nn.Module) -> nn.Module:
    """Fold every batch norm of `model` (eval mode) into its convolution, in place; outputs stay the same."""
    for module in model.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return model


@torch.no_grad()
def unfold_norms(folded: PatchNano, x: torch.Tensor) -> PatchNano:
    """A network to go on training: `folded` with batch norms again, the same function on the batch ``x`` (B, 3, H, W).

    The norms take their statistics from ``x``. Every filter starts with the norm that a new one has, since the step of
    an optimizer is measured against it; the batch norm after it makes up for the change.
    """
    network = PatchNano(norm=True)
    outputs: dict[str, torch.Tensor] = {}
    convolutions = {name: module.conv for name, module in folded.named_modules() if isinstance(module, ConvNorm)}
    hooks = [
        conv.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output.clone()))
        for name, conv in convolutions.items()
    ]
    folded(x)
    for hook in hooks:
        hook.remove()
    for name, conv in convolutions.items():
        new = network.get_submodule(name)
        usual, own = (c.weight.flatten(1).norm(dim=1) for c in (new.conv, conv))
        scale = usual.mean() / own.clamp_min(1e-6)
        new.conv.weight.copy_(conv.weight * scale[:, None, None, None])
        output = (outputs[name] - conv.bias[:, None, None]) * scale[:, None, None]
        variance, mean = torch.var_mean(output, (0, 2, 3), correction=0)
        new.norm.running_mean.copy_(mean)
        new.norm.running_var.copy_(variance)
        new.norm.weight.copy_((variance + new.norm.eps).sqrt() / scale)
        new.norm.bias.copy_(conv.bias + mean / scale)
    return network


class FeatureMaps(nn.Module):
    """The maps of some of `LAYERS`, lowest first, by name; nothing above the highest is computed."""

    def __init__(self, network: PatchNano, layers: Sequence[str]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.stem, self.layer2 = network.stem, network.layer2
        if "layer3" in layers:
            self.layer3 = network.layer3

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = {"layer2": self.layer2(self.stem(x))}
        if "layer3" in self.layers:
            maps["layer3"] = self.layer3(maps["layer2"])
        return {layer: maps[layer] for layer in self.layers}


def feature_maps(layers: Sequence[str], weights: str | Path | None = None) -> fx.GraphModule:
    """The trained network up to its highest of ``layers``, frozen and traced.

    Args:
        layers: names out of `LAYERS`, lowest first.
        weights: as for `networks.create_backbone`.

    Returns:
        Maps (B, 3, H, W) float32, normalised with ImageNet's mean and standard deviation, to {layer: (B, C, h, w)}.

    Raises:
        UserError: as `networks.create_backbone` does.
    """
    check_layers(PATCH_NANO, layers, LAYERS)
    with torch.random.fork_rng(devices=[]):  # numbers drawn for weights that are replaced
        network = FeatureMaps(PatchNano(), layers)
    load_weights(network, weights or PATCH_NANO_WEIGHTS, PATCH_NANO)
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return fx.symbolic_trace(network)


def check_layers(name: str, layers: Sequence[str], known: Sequence[str]) -> None:
    """Raise a UserError unless ``layers`` are some of those that the network knows, lowest first."""
    if missing := [layer for layer in layers if layer not in known]:
        raise UserError(f"backbone '{name}' has no layer {', '.join(missing)}; it has {', '.join(known)}")
    indices = [known.index(layer) for layer in layers]
    if not indices or indices != sorted(set(indices)):
        raise UserError(f"backbone '{name}': layers must be listed once each, lowest first")


def load_weights(model: nn.Module, path: str | Path, name: str) -> None:
    """Load a state dict into an extractor. Keys above its top layer may be in the file or not; all others must be.

    Raises:
        UserError: The file is absent or unreadable, or a tensor that the extractor needs is missing or misshapen.
    """
    load_state(model, read_state(path, name), path, name)
