"""Promptable networks used without training, prompted with a box or clicks: SAM 2.1, and SAM 1 as two ONNX files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from defectflow.core.files import UserError
from defectflow.parts.training_cases import MEAN, STD, to_square

FRAME = 1024  # pixels, longest side of the frame in which SAM 2.1's proposals are compared, and SAM 1's input
DECODER_INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")
NEITHER, NEGATIVE, POSITIVE, BOX_CORNERS = -1, 0, 1, (2, 3)  # labels of SAM's prompt encoder
LOW = 256  # side of SAM 1's mask prompt
LOGIT = 6.0  # of a certain pixel in a mask prompt

Point = tuple[float, float]


class Proposals(NamedTuple):
    """Proposals of a network: mask logits, float32 (n, h, w) over the whole photograph, and predicted IoU (n,)."""

    logits: np.ndarray
    rated: np.ndarray

    def best(self, inside: Sequence[Point] = (), outside: Sequence[Point] = ()) -> np.ndarray:
        """Logits (h, w) of the proposal that contradicts the fewest points (x, y as shares), then is rated best."""
        height, width = self.logits.shape[1:]

        def at(index: int, point: Point) -> bool:
            x, y = (min(int(share * side), side - 1) for share, side in zip(point, (width, height), strict=True))
            return bool(self.logits[index, y, x] > 0)

        def rank(index: int) -> tuple[int, float]:
            right = sum(at(index, one) for one in inside) + sum(not at(index, one) for one in outside)
            return right, float(self.rated[index])

        best: np.ndarray = self.logits[max(range(len(self.rated)), key=rank)]
        return best


class Network(Protocol):
    """A network that encodes a photograph once and is then prompted with boxes or clicks."""

    def look(self, image: np.ndarray) -> Any:
        """Encode a photograph, uint8 RGB (height, width, 3), for `propose`."""

    def propose(self, seen: Any, box: Sequence[float], point: Point | None = None) -> Proposals:
        """All proposals for a box (x0, y0, x1, y1 as shares of width and height), and a point (x, y) on the part."""

    def clicked(
        self,
        seen: Any,
        inside: Sequence[Point],
        outside: Sequence[Point],
        soft: np.ndarray | None = None,
        box: Sequence[float] | None = None,
    ) -> Proposals:
        """All proposals for clicks.

        Args:
            seen: from `look`.
            inside, outside: points (x, y) on the part and on the background, as shares of width and height.
            soft: float in [0, 1] (h, w) over the whole photograph, the part as it was predicted so far; None: unknown.
            box: as for `propose`, around the part; None: unknown.
        """


def load_network(files: Mapping[str, str | Path], model: str | None = None, device: str = "cpu") -> Network:
    """A network from its files: `encoder` and `decoder` of SAM 1, or `checkpoint` of a SAM 2.1 `model`.

    Raises:
        UserError: a file is missing, damaged or of the wrong kind, or the library is not installed.
    """
    if "encoder" in files:
        return OnnxPair(files["encoder"], files["decoder"])
    assert model is not None, "SAM 2.1 has a configuration"
    return Sam(model, files.get("checkpoint"), device)


class Sam:
    """SAM 2.1; computes with torch."""

    def __init__(self, model: str, checkpoint: str | Path | None, device: str) -> None:
        """``checkpoint`` None: the packaged weights of ``model``."""
        from defectflow.core.device import pick_device
        from defectflow.segmentation import sam_model

        start = checkpoint or sam_model.PACKAGED.get(model)
        if start is None:
            raise UserError(f"model {model} needs its checkpoint (--checkpoint FILE)")
        self.device = pick_device(device)
        self.model = sam_model.build(model, start).to(self.device)

    def look(self, image: np.ndarray) -> Any:
        """Features of the encoder, and (height, width) of the frame of the proposals."""
        import torch

        from defectflow.core.device import autocast
        from defectflow.segmentation import sam_model

        square = to_square(image, self.model.image_size)[None]
        with torch.inference_mode(), autocast(self.device):
            return sam_model.encode(self.model, sam_model.to_tensor(square, self.device)), _frame(image, FRAME)

    def propose(self, seen: Any, box: Sequence[float], point: Point | None = None) -> Proposals:
        """The four masks of the decoder: one for an unambiguous prompt, three for an ambiguous one."""
        return self._asked(seen, *_prompt(box, point, (self.model.image_size, self.model.image_size)), None)

    def clicked(
        self,
        seen: Any,
        inside: Sequence[Point],
        outside: Sequence[Point],
        soft: np.ndarray | None = None,
        box: Sequence[float] | None = None,
    ) -> Proposals:
        """The four masks of the decoder."""
        side = self.model.image_size
        low = None
        if soft is not None:
            small = cv2.resize(soft.astype(np.float32), (side // 4, side // 4), interpolation=cv2.INTER_LINEAR)
            low = (2 * small - 1) * np.float32(LOGIT)
        return self._asked(seen, *_clicks(inside, outside, box, (side, side)), low)

    def _asked(self, seen: Any, points: np.ndarray, labels: np.ndarray, mask: np.ndarray | None) -> Proposals:
        import torch

        from defectflow.core.device import autocast
        from defectflow.segmentation import sam_model

        features, shape = seen
        with torch.inference_mode(), autocast(self.device):
            logits, rated, _ = sam_model.propose(self.model, features, [sam_model.Prompt(points, labels, mask)])
        enlarged = [cv2.resize(one, shape[::-1], interpolation=cv2.INTER_LINEAR) for one in logits[0].cpu().numpy()]
        return Proposals(np.stack(enlarged), rated[0].cpu().numpy())


class OnnxPair:
    """SAM 1 (Kirillov et al. 2023; MobileSAM: Zhang et al. 2023): an encoder and a decoder of the official export."""

    def __init__(self, encoder: str | Path, decoder: str | Path) -> None:
        """Open both files on one thread.

        Raises:
            UserError: a file is missing or of the wrong kind, or onnxruntime is not installed.
        """
        self.encoder, self.decoder = _session(encoder), _session(decoder)
        entries = self.encoder.get_inputs()
        shape = entries[0].shape
        if len(entries) != 1 or len(shape) != 4 or shape[1] != 3:
            raise UserError(
                f"{encoder}: not an encoder of SAM 1 (it takes {_told(entries)}, not one picture (1, 3, h, w))"
            )
        self.input, self.side = entries[0].name, shape[3] if isinstance(shape[3], int) else FRAME
        if missing := set(DECODER_INPUTS) - {entry.name for entry in self.decoder.get_inputs()}:
            raise UserError(
                f"{decoder}: not a decoder of SAM 1 from its export script (no input {sorted(missing)[0]!r})"
            )
        self.outputs = [entry.name for entry in self.decoder.get_outputs()]
        if "low_res_masks" not in self.outputs or "iou_predictions" not in self.outputs:
            raise UserError(f"{decoder}: not a decoder of SAM 1 (no outputs 'iou_predictions' and 'low_res_masks')")

    def look(self, image: np.ndarray) -> Any:
        """Embedding, and (height, width) of the photograph inside the padded square."""
        height, width = _frame(image, self.side)
        padded = np.zeros((self.side, self.side, 3), np.float32)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        padded[:height, :width] = (small / np.float32(255) - MEAN) / STD
        return self.encoder.run(None, {self.input: padded.transpose(2, 0, 1)[None]})[0], (height, width)

    def propose(self, seen: Any, box: Sequence[float], point: Point | None = None) -> Proposals:
        """All masks of the decoder; a decoder that returns a single mask is prompted twice.

        For two points (the corners), such an export returns the best of three masks, and for more points the mask of an
        unambiguous prompt: a third, empty point yields that one too.
        """
        embedding, shape = seen
        points, labels = _prompt(box, point, shape)
        found = self._asked(embedding, shape, points, labels)
        if len(found.rated) == 1 and point is None:
            points, labels = np.vstack([points, [[0, 0]]]), np.append(labels, NEITHER)
            other = self._asked(embedding, shape, points, labels)
            found = Proposals(*(np.concatenate(pair) for pair in zip(found, other, strict=True)))
        return found

    def clicked(
        self,
        seen: Any,
        inside: Sequence[Point],
        outside: Sequence[Point],
        soft: np.ndarray | None = None,
        box: Sequence[float] | None = None,
    ) -> Proposals:
        """The mask of the decoder for so many points; without a box, it takes an empty point in its place."""
        embedding, (height, width) = seen
        points, labels = _clicks(inside, outside, box, (height, width))
        low = None
        if soft is not None:
            size = max(1, round(width * LOW / self.side)), max(1, round(height * LOW / self.side))
            low = np.full((LOW, LOW), -LOGIT, np.float32)
            low[: size[1], : size[0]] = (2 * cv2.resize(soft.astype(np.float32), size) - 1) * LOGIT
        if box is None:
            points, labels = np.vstack([points, [[0, 0]]]), np.append(labels, NEITHER)
        return self._asked(embedding, (height, width), points, labels, low)

    def _asked(
        self,
        embedding: np.ndarray,
        shape: tuple[int, int],
        points: np.ndarray,
        labels: np.ndarray,
        low: np.ndarray | None = None,
    ) -> Proposals:
        given = {
            "image_embeddings": embedding,
            "point_coords": points[None].astype(np.float32),
            "point_labels": labels[None].astype(np.float32),
            "mask_input": np.zeros((1, 1, LOW, LOW), np.float32) if low is None else low[None, None],
            "has_mask_input": np.full(1, low is not None, np.float32),
            "orig_im_size": np.array(shape, np.float32),
        }
        rated, masks = self.decoder.run(["iou_predictions", "low_res_masks"], given)
        square = (self.side, self.side)
        whole = [cv2.resize(one, square, interpolation=cv2.INTER_LINEAR)[: shape[0], : shape[1]] for one in masks[0]]
        return Proposals(np.stack(whole), np.asarray(rated[0], np.float32))


def _frame(image: np.ndarray, longest: int) -> tuple[int, int]:
    """(height, width) of a photograph whose longer side becomes ``longest``."""
    scale = longest / max(image.shape[:2])
    return max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))


def _prompt(box: Sequence[float], point: Point | None, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Points float32 (n, 2) as (x, y) in pixels of ``shape`` (height, width), and their labels."""
    size = np.array(shape[::-1], np.float32)
    points, labels = [box[:2], box[2:]], list(BOX_CORNERS)
    if point is not None:
        points, labels = [*points, point], [*labels, POSITIVE]
    return np.array(points, np.float32) * size, np.array(labels)


def _clicks(
    inside: Sequence[Point], outside: Sequence[Point], box: Sequence[float] | None, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A box and clicks as `_prompt` has them."""
    corners = [tuple(box[:2]), tuple(box[2:])] if box is not None else []
    labels = [*BOX_CORNERS[: len(corners)], *[POSITIVE] * len(inside), *[NEGATIVE] * len(outside)]
    points = np.array([*corners, *inside, *outside], np.float32)
    return points * np.array(shape[::-1], np.float32), np.array(labels)


def _session(path: str | Path) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(f"{path}: needs onnxruntime, which is not installed (pip install onnxruntime)") from None
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same sums on every machine
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises many kinds of errors for an unreadable file
        raise UserError(f"{path}: not an ONNX file that onnxruntime reads ({type(error).__name__})") from None


def _told(entries: Sequence[Any]) -> str:
    return ", ".join(f"{entry.name} {tuple(entry.shape)}" for entry in entries)
