"""From pictures to patches: the vectors that detectors learn from and score, computed as in anomalib's PatchCore."""

from __future__ import annotations

import importlib.util
import operator
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn
from torch.backends import mkldnn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from defectflow.backbones.backbone_names import OUTLINE, PICTURE, PICTURE_CELL, WITHOUT_NETWORK, is_patch_nano
from defectflow.backbones.input_statistics import input_statistics
from defectflow.backbones.network_settings import OPENVINO_BFLOAT16
from defectflow.backbones.patch_nano import feature_maps
from defectflow.core.device import has_onednn
from defectflow.core.files import UserError

PIXEL_CELL = 8  # of the pixel difference, in pixels
PRECISIONS = ("float32", "bfloat16", OPENVINO_BFLOAT16)


def has_bfloat16() -> bool:
    """Whether torch can compute convolutions in bfloat16 on this processor (slowly, if it has no matrix units)."""
    return bool(mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def feature_network(
    backbone: str,
    layers: Sequence[str],
    weights: str | Path | None = None,
    *,
    allow_download: bool = False,
    seed: int = 0,
) -> nn.Module:
    """The backbone up to its highest layer, traced, batch norms folded into the convolutions before them.

    Arguments as for `networks.create_backbone`. It maps normalised float32 images (batch, 3, h, w) to a dict of
    feature maps (batch, c, h, w) by layer; ``trained`` says whether it has trained weights.

    Raises:
        UserError: as `networks.create_backbone`.
    """
    if is_patch_nano(backbone):
        traced = feature_maps(layers, weights)
        traced.trained = True
        return traced
    # Two seconds of processor time, which our own network does without.
    from torchvision.models.feature_extraction import create_feature_extractor

    from defectflow.backbones.networks import create_backbone

    network = create_backbone(backbone, layers, weights, allow_download=allow_download, seed=seed)
    modules = dict(network.named_modules())  # of ConvNeXt and others timm makes one list: stages.1 becomes stages_1
    nodes = {layer if layer in modules else layer.replace(".", "_"): layer for layer in layers}
    try:
        traced = create_feature_extractor(network, return_nodes=nodes)
    except (ValueError, TypeError, fx.proxy.TraceError):  # control flow, or no output of its own: transformers
        traced = None
    if traced is None or getattr(network, "output_fmt", None) == "NHWC":
        traced = _Maps(network, layers)
    else:
        _fold_norms(traced.eval())
    traced.trained = bool(network.trained)
    return traced.eval().requires_grad_(False)


class _Maps(nn.Module):
    """An extractor of timm as it is, its list of maps as a dict by layer, channels before rows."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.network, self._layers = network, list(layers)
        self._last = getattr(network, "output_fmt", None) == "NHWC"

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = [m.permute(0, 3, 1, 2) if self._last else m for m in self.network(x)]
        return dict(zip(self._layers, maps, strict=True))


class PatchEmbedder:
    """Turns images into patch vectors as anomalib's `PatchcoreModel` does, without its seven seconds of imports.

    A test holds the two against each other. Features are averaged over 3 x 3 cells and enlarged to the grid of the
    first layer (K. Roth et al., Towards total recall in industrial anomaly detection, 2022, section 3.1).

    Args:
        backbone: name for `networks.create_backbone`, or "pixels", or "picture": the patches of a picture are then the
            pixels of its cells, and `picture_of` puts them together again; "outline": the same of its first channel.
        layers: layers whose features are concatenated, lowest first; the grid is that of the first.
        weights: local file of weights or None.
        allow_download: let timm download the weights that the name's tag stands for.
        seed: seed of the untrained network when there are no weights.
        device: where to compute.
        precision: of the network's numbers, one of PRECISIONS; with "bfloat16" patches are made of its features in
            float32. On a CPU with matrix units for bfloat16 that is four to five times as fast, and patches differ by a
            hundredth. OPENVINO_BFLOAT16 always computes on the CPU, by the same graph as a bundle has.
        reductions: what the sides of a picture are divided by for `scales`, whole numbers, 1 first.

    Attributes:
        trained: whether the backbone has trained weights.

    Raises:
        UserError: as `networks.create_backbone`, there is no bfloat16 on this processor, or no OpenVINO.
    """

    def __init__(
        self,
        backbone: str,
        layers: Sequence[str],
        weights: str | Path | None = None,
        *,
        allow_download: bool = False,
        seed: int = 0,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        reductions: Sequence[int] = (1,),
    ) -> None:
        by_openvino = precision == OPENVINO_BFLOAT16
        self.device = torch.device("cpu" if by_openvino else device)
        self._reductions = reductions
        self.trained = False
        self.network = None
        self._channels = {PICTURE: 3, OUTLINE: 1}.get(backbone, 0)
        if backbone in WITHOUT_NETWORK:
            return
        if precision == "bfloat16" and self.device.type == "cpu" and not has_bfloat16():
            raise UserError("precision bfloat16: torch does not support it on this processor (use float32)")
        self._graph: _Graph | None = None
        self.network = feature_network(backbone, layers, weights, allow_download=allow_download, seed=seed)
        self.trained = self.network.trained
        if by_openvino:
            self._graph = _Graph(self.network, backbone, reductions)
            return
        self._dtype = getattr(torch, precision)
        self.network.to(self.device, self._dtype, memory_format=torch.channels_last)
        if self.device.type == "cpu" and has_onednn() and isinstance(self.network, fx.GraphModule):
            _fuse(self.network)
        mean, std = input_statistics(backbone)
        self._mean = torch.tensor(mean, device=self.device) * 255
        self._std = torch.tensor(std, device=self.device) * 255

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """Embed uint8 RGB images (batch, height, width, 3) of one size as float32 (batch, grid h, grid w, d)."""
        return self.scales(images)[0]

    @torch.inference_mode()
    def scales(self, images: np.ndarray) -> list[torch.Tensor]:
        """Patches as of a call, of the images as they are and of each reduction of them."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device).float()
        if self._channels:
            shown = pixels.permute(0, 3, 1, 2)[:, : self._channels]
            cells = nn.functional.pixel_unshuffle(shown / 255, PICTURE_CELL)
            return [cells.permute(0, 2, 3, 1)]
        if self.network is None:
            colours = nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2) / 255, PIXEL_CELL, ceil_mode=True)
            return [colours.permute(0, 2, 3, 1)]
        if self._graph:
            return self._graph(images)
        # Rows of all three channels: four times as fast as pixels of three.
        batch, height, width, _ = pixels.shape
        pixels.view(batch, height, -1).sub_(self._mean.repeat(width)).div_(self._std.repeat(width))
        whole, found = pixels.permute(0, 3, 1, 2), []  # channels last in memory
        for reduction in self._reductions:
            features = self.network(reduced(whole, reduction).to(self._dtype))
            found.append(descriptors({layer: feature.float() for layer, feature in features.items()}))
        return found


class _Graph:
    """The network as a graph that OpenVINO computes in bfloat16, compiled for the size of the first pictures.

    Args:
        model: see `feature_network`.
        backbone: its name.
        reductions: see `PatchEmbedder`.

    Raises:
        UserError: OpenVINO is not installed.
    """

    def __init__(self, model: nn.Module, backbone: str, reductions: Sequence[int]) -> None:
        if importlib.util.find_spec("openvino") is None:
            raise UserError(f"precision {OPENVINO_BFLOAT16}: openvino is not installed (pip install openvino)")
        from defectflow.backbones.network_as_graph import Network

        self._network = Network(model, input_statistics(backbone), reductions)
        self._threads, self._lock = torch.get_num_threads(), threading.Lock()
        self._size: tuple[int, int] | None = None
        self._run: Callable[[np.ndarray], np.ndarray]
        self._grids: list[tuple[int, int]]

    def __call__(self, images: np.ndarray) -> list[torch.Tensor]:
        """As `PatchEmbedder.scales`."""
        with self._lock:
            if self._size != images.shape[1:3]:
                self._compile(images)
        patches = torch.stack([torch.from_numpy(self._run(np.ascontiguousarray(image))) for image in images])
        scales = patches.split([height * width for height, width in self._grids], dim=1)
        return [own.unflatten(1, grid) for own, grid in zip(scales, self._grids, strict=True)]

    def _compile(self, images: np.ndarray) -> None:
        from defectflow.backbones.network_as_graph import export_network
        from defectflow.backbones.openvino_network import compiled

        size = (images.shape[1], images.shape[2])
        found = self._network.scales(torch.from_numpy(images[:1]))  # says so if it does not take this size
        self._grids = [(of_scale.shape[1], of_scale.shape[2]) for of_scale in found]
        with tempfile.TemporaryDirectory(prefix="defectflow-") as folder:
            try:
                export_network(self._network, size, f"{folder}/network.onnx")
            except UserError:
                raise
            except Exception as error:  # the exporter raises many kinds for a network that is no graph
                raise UserError(
                    f"precision {OPENVINO_BFLOAT16}: the network cannot be exported to ONNX "
                    f"({type(error).__name__}; use float32)"
                ) from None
            # One thread a picture, so that patches do not depend on their number.
            self._run = compiled(f"{folder}/network.onnx", OPENVINO_BFLOAT16, self._threads, self._threads)
        self._size = size


def picture_of(patches: torch.Tensor, position: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The picture whose patches were made with the backbone "picture" or "outline".

    Args:
        patches: float32 (p, channels * PICTURE_CELL ** 2), values in [0, 1].
        position: int64 (p,), their flat indices in the grid; cells without a patch are black.
        grid: (height, width) of the grid.

    Returns:
        float32 (channels, PICTURE_CELL * grid height, PICTURE_CELL * grid width).
    """
    cells = patches.new_zeros(grid[0] * grid[1], patches.shape[1])
    cells[position] = patches
    return nn.functional.pixel_shuffle(cells.T.reshape(-1, *grid), PICTURE_CELL)


def reduced(pictures: torch.Tensor, reduction: int) -> torch.Tensor:
    """Pictures (batch, c, h, w) with sides divided by ``reduction``: each pixel is the mean of those it covers."""
    return nn.functional.avg_pool2d(pictures, reduction) if reduction > 1 else pictures


def in_one_list(scales: Sequence[torch.Tensor]) -> torch.Tensor:
    """Patches of several scales, (batch, grid h, grid w, d) each, as (batch, cells of all, d), in that order."""
    return torch.cat([scale.flatten(1, 2) for scale in scales], dim=1)


def descriptors(features: dict[str, torch.Tensor]) -> torch.Tensor:
    """Feature maps (batch, c, h, w) by layer, finest first, as patch vectors, (batch, grid h, grid w, sum of c)."""
    pooled = [nn.functional.avg_pool2d(feature, 3, stride=1, padding=1) for feature in features.values()]
    size = pooled[0].shape[-2:]
    enlarged = [nn.functional.interpolate(feature, size, mode="bilinear") for feature in pooled[1:]]
    return torch.cat([pooled[0], *enlarged], dim=1).permute(0, 2, 3, 1)


def _fold_norms(network: nn.Module) -> None:
    """Fold each batch norm of a traced network in eval mode into the convolution before it, in place."""
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        source = node.args[0] if node.args else None
        if not (isinstance(source, fx.Node) and node.op == source.op == "call_module"):
            continue
        convolution, norm = modules[source.target], modules[node.target]
        if type(norm) is nn.BatchNorm2d and isinstance(convolution, nn.Conv2d) and len(source.users) == 1:
            network.set_submodule(source.target, fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(node.target, nn.Identity())


class _Convolution(nn.Module):
    """A convolution as oneDNN computes it at its best: weights laid out once, sum and ReLU in the same pass.

    These are the calls that `torch.compile` makes of the modules, without the minute it takes to start. The numbers
    are the modules' own.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self._settings = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
        self._kernel, self._weight, self._bias = convolution.kernel_size, convolution.weight, convolution.bias

    def forward(self, x: torch.Tensor, other: torch.Tensor | None, rectify: bool) -> torch.Tensor:
        """Convolution of x, plus ``other`` if there is one, then a ReLU if ``rectify``."""
        if other is not None and other.shape != self._shape(x):  # a number for each channel, say
            total = self(x, None, False) + other
            return total.relu_() if rectify else total
        weight = self._weight
        if not weight.is_mkldnn:  # the best layout depends on the input's size; another size only takes longer
            weight = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *self._settings, x.shape)
            self._weight = nn.Parameter(weight, requires_grad=False)
        operands, run = (weight, self._bias, *self._settings), torch.ops.mkldnn._convolution_pointwise
        if other is None:
            return run(x, *operands, "relu" if rectify else "none", [], "")
        return run.binary(x, other, *operands, "add", 1.0, "relu" if rectify else None, [], None)

    def _shape(self, x: torch.Tensor) -> tuple[int, ...]:
        """Shape of the convolution of x."""
        padding, stride, dilation, _ = self._settings
        sides = zip(x.shape[2:], self._kernel, padding, stride, dilation, strict=True)
        return len(x), self._weight.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, p, s, d in sides)


def _fuse(network: fx.GraphModule) -> None:
    """Make each plain convolution of a traced network a `_Convolution`, with the sum and ReLU right after it."""
    graph, modules = network.graph, dict(network.named_modules())

    def calls(node: fx.Node, kind: type[nn.Module]) -> bool:
        return node.op == "call_module" and type(modules[node.target]) is kind

    for node in list(graph.nodes):
        if calls(node, nn.Identity):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in list(graph.nodes):
        if not calls(node, nn.Conv2d):
            continue
        convolution = modules[node.target]
        if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
            continue
        last, other = node, None
        add = node.next
        if add.op == "call_function" and add.target in (operator.add, torch.add) and not add.kwargs:
            others = [term for term in add.args if term is not node]
            if list(node.users) == [add] and len(others) == 1 and isinstance(others[0], fx.Node):
                last, other = add, others[0]
        rectify = calls(last.next, nn.ReLU) and list(last.users) == [last.next]
        if rectify:
            last = last.next
        network.set_submodule(node.target, _Convolution(convolution))
        with graph.inserting_after(last):
            fused = graph.call_module(node.target, (*node.args, other, rectify))
        last.replace_all_uses_with(fused)
        before = node.prev
        while fused.prev is not before:
            graph.erase_node(fused.prev)
    network.recompile()
