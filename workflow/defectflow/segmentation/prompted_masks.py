"""The mask of the part in one photograph by a promptable network: box, proposals, their scores, doubts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from defectflow.core.files import UserError
from defectflow.parts.part_model import clean_mask
from defectflow.parts.registration_frame import iou
from defectflow.segmentation.edge_box import BLANK, Box, edge_box, edge_strength, small_grey
from defectflow.segmentation.promptable_network import Network, Proposals, load_network

PREDICTED_IOU = 0.7  # predicted IoU below which a mask is doubtful
STABLE = 0.8  # IoU with the mask for its own box below which it is doubtful
WIDER = 0.25  # share of the box added on each side for the second prompt
OWN_MARGIN = 0.02  # share of the mask's box added on each side
OUTSIDE = 0.1  # share of a mask outside the box from which it is doubtful
FLAT = 0.3  # share of its outline on no edge from which it is doubtful
AT_BORDER = 0.05  # share of its outline at the border of the photograph from which it is doubtful
# Penalties, subtracted from the predicted IoU: for the share of a proposal outside the box, of its outline on no edge,
# of its outline at the border, of its area outside the largest piece, and of the inset left free; and for wrong
# polarity.
COSTS = {"outside": 1.0, "flat": 1.0, "border": 0.5, "pieces": 0.5, "inset": 0.25, "polarity": 0.5}
NEAR = 5  # pixels across, of a picture of `edge_box.SIDE`: an outline within is on an edge


class View(NamedTuple):
    """A photograph as used for scoring proposals.

    Attributes:
        seen: its encoding by the network.
        grey: uint8 (h, w), see `edge_box.small_grey`.
        edge: bool (h, w), on or near an edge.
    """

    seen: Any
    grey: np.ndarray
    edge: np.ndarray


class Judged(NamedTuple):
    """A cleaned proposal, bool (h, w) in the frame of the proposals: its score, predicted IoU, and flaws."""

    mask: np.ndarray
    points: float
    rated: float
    flaws: dict[str, float]


class PromptedFinder:
    """Finds the part in each photograph separately."""

    def __init__(self, network: Network, settings: Any) -> None:
        """``settings``: a `prompted_segmenter.Prompted`."""
        self.network, self.settings = network, settings

    @classmethod
    def load(cls, settings: Any, files: Mapping[str, str | Path], device: str = "cpu") -> "PromptedFinder":
        """With the network of ``files``, see `promptable_network.load_network`.

        Raises:
            UserError: a file is of the wrong kind, or a library is not installed.
        """
        for name in ("encoder", "decoder") if settings.name == "sam_onnx" else ():
            if name not in files:
                raise UserError(f"segmenter {settings.name} needs its {name} (--{name} FILE)")
        return cls(load_network(files, None if "encoder" in files else settings.model, device), settings)

    def find(self, image: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """The mask of the part, bool (height, width), and its row of the MASKS table except image_id and mask.

        The network is prompted with the box, and if no proposal is usable, with a wider one. If still none is, the
        largest piece of a proposal is used, then the box itself; both are doubtful. Without any proposal, or without
        edges in the photograph, the part is absent.

        Args:
            image: uint8 RGB (height, width, 3).
        """
        empty = np.zeros(image.shape[:2], bool)
        box = self._box(image)
        if box is None:
            return empty, self._row(empty, "blank photograph: it has no edges", present=False)
        grey = small_grey(image)
        edge = cv2.dilate((edge_strength(grey) >= BLANK).astype(np.uint8), np.ones((NEAR, NEAR), np.uint8)) > 0
        view, passed_over = View(self.network.look(image), grey, edge), []
        for number, asked in enumerate((box, wider(box, WIDER))):
            judged = self._ask(view, asked)
            fit = [one for one in judged if self._fits(one.mask)]
            if fit:
                best = max(fit, key=lambda one: one.points)
                reasons = ["found only in a wider box"] * number + self._doubts(view, asked, best)
                mask = _enlarged(best.mask, image.shape[:2])
                return mask, self._row(mask, "; ".join(reasons), best.rated)
            passed_over += judged
        if not any(one.mask.any() for one in passed_over):
            return empty, self._row(empty, "empty mask, also in a wider box", present=False)
        return self._fallback(image, box, passed_over)

    def _box(self, image: np.ndarray) -> Box | None:
        found = edge_box(image, self.settings.recentre, self.settings.padding)
        return (0.0, 0.0, 1.0, 1.0) if found and self.settings.box == "frame" else found

    def _ask(self, view: View, box: Box) -> list[Judged]:
        """All proposals for a box, and for the box with a point in its middle, scored."""
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        asked = [self.network.propose(view.seen, box, point) for point in (None, middle)]
        return [one for proposals in asked for one in self._judge(view, box, proposals)]

    def _judge(self, view: View, box: Box, proposals: Proposals) -> list[Judged]:
        judged = []
        for logits, rated in zip(proposals.logits, proposals.rated, strict=True):
            raw = logits > 0
            flaws = flaws_of(raw, box, view, self.settings)
            points = float(rated) - sum(COSTS[name] * value for name, value in flaws.items())
            judged.append(Judged(cleaned(raw, box, self.settings), points, float(rated), flaws))
        return judged

    def _fits(self, mask: np.ndarray) -> bool:
        least, most = self.settings.area
        return bool(mask.any()) and least <= float(mask.mean()) <= most

    def _doubts(self, view: View, box: Box, best: Judged) -> list[str]:
        told = []
        if best.rated < PREDICTED_IOU:
            told.append(f"predicted IoU {best.rated:.2f} < {PREDICTED_IOU}")
        if best.flaws["polarity"]:
            told.append("its brightness relative to its surroundings contradicts polarity")
        if best.flaws["border"] > AT_BORDER and not self.settings.drop_border:
            told.append(f"{best.flaws['border']:.0%} of its outline is at the border of the photograph")
        if best.flaws["flat"] > FLAT:
            told.append(f"{best.flaws['flat']:.0%} of its outline is on no edge")
        if best.flaws["outside"] > OUTSIDE and not self.settings.within_box:
            told.append(f"{best.flaws['outside']:.0%} of it is outside the box")
        own = wider(box_of(best.mask), OWN_MARGIN)
        again = max(self._ask(view, own), key=lambda one: one.points)
        if (same := iou(again.mask, best.mask)) < STABLE:
            told.append(f"prompted with its own box, the network gives a different mask (IoU {same:.2f} < {STABLE})")
        return told

    def _fallback(self, image: np.ndarray, box: Box, judged: list[Judged]) -> tuple[np.ndarray, dict[str, Any]]:
        for one in sorted(judged, key=lambda one: -one.points):
            piece = clean_mask(one.mask, 1, self.settings.fill_holes)
            if self._fits(piece):
                mask = _enlarged(piece, image.shape[:2])
                return mask, self._row(mask, "no usable proposal: the largest piece of the best one is used", one.rated)
        mask = np.zeros(image.shape[:2], bool)
        x0, y0, x1, y1 = pixels(box, mask.shape)
        mask[y0:y1, x0:x1] = True
        return mask, self._row(mask, f"no proposal has an area within {self.settings.area}: the box is used")

    def _row(self, mask: np.ndarray, reason: str, rated: float | None = None, present: bool = True) -> dict[str, Any]:
        values = {"source": self.settings.name, "present": int(present), "doubtful": int(present and bool(reason))}
        values |= {"reason": reason, "predicted_iou": rated, "prior_iou": None, "area": float(mask.mean())}
        return values | {"area_z": None, "registration_score": None}


def pixels(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box in shares of width and height as x0, y0, x1, y1 in pixels of ``shape`` (height, width), not empty."""
    height, width = shape
    x0, y0 = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
    return x0, y0, max(x0 + 1, min(width, round(box[2] * width))), max(y0 + 1, min(height, round(box[3] * height)))


def wider(box: Box, share: float) -> Box:
    """A box that is larger by this share of its sides on each side, within the frame."""
    dx, dy = share * (box[2] - box[0]), share * (box[3] - box[1])
    return max(0.0, box[0] - dx), max(0.0, box[1] - dy), min(1.0, box[2] + dx), min(1.0, box[3] + dy)


def box_of(mask: np.ndarray) -> Box:
    """The box of a bool mask (h, w) that is not empty, in shares of its sides."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x / mask.shape[1], y / mask.shape[0], (x + width) / mask.shape[1], (y + height) / mask.shape[0]


def inset_of(box: Box, share: float) -> Box:
    """The middle of a box, ``share`` of its width and height."""
    return wider(box, (share - 1) / 2)


def cleaned(mask: np.ndarray, box: Box, settings: Any) -> np.ndarray:
    """Clean a proposal, a bool mask (h, w) over the photograph, by the settings; ``box``: of the prompt."""
    x0, y0, x1, y1 = pixels(box, mask.shape)
    if settings.within_box:
        inside = np.zeros_like(mask)
        inside[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
        mask = inside
    if settings.drop_border or settings.centre_band or settings.height_band:
        mask = _kept_pieces(mask, box, settings)
    if settings.bridge and (gap := round(settings.bridge * (y1 - y0))) > 0:
        mask = _closed(mask, gap)
    if settings.fill_holes:
        mask = clean_mask(mask, mask.size, True)
    return _without_scraps(mask, settings.scraps)


def _kept_pieces(mask: np.ndarray, box: Box, settings: Any) -> np.ndarray:
    """The pieces of a mask that touch no border and cross both bands, as far as the settings require it."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8))
    keep = np.ones(count, bool)
    keep[0] = False
    if settings.drop_border:
        keep[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = False
    left, _, right, _ = inset_of(box, settings.centre_band)
    _, top, _, bottom = inset_of(box, settings.height_band)
    columns, rows = (left, 0.0, right, 1.0), (0.0, top, 1.0, bottom)
    for share, band in ((settings.centre_band, columns), (settings.height_band, rows)):
        if share:
            x0, y0, x1, y1 = pixels(band, mask.shape)
            crosses = np.zeros(count, bool)
            crosses[labels[y0:y1, x0:x1]] = True
            keep &= crosses
    kept: np.ndarray = keep[labels]
    return kept


def _closed(mask: np.ndarray, gap: int) -> np.ndarray:
    """A mask with vertical gaps of up to ``gap`` pixels closed."""
    line = np.ones((gap + 1, 1), np.uint8)
    padded = np.pad(mask.view(np.uint8), ((gap + 1, gap + 1), (0, 0)))
    closed: np.ndarray = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, line)[gap + 1 : -gap - 1]
    return closed > 0


def _without_scraps(mask: np.ndarray, share: float) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    if count <= 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    kept: np.ndarray = ((areas >= share * areas.max()) & (areas > 0))[labels]
    return kept


def flaws_of(mask: np.ndarray, box: Box, view: View, settings: Any) -> dict[str, float]:
    """Flaws of a proposal, each in [0, 1]; see COSTS.

    Args:
        mask: bool (height, width) over the whole photograph, as the network proposes it.
        box: of the prompt.
        view: the photograph.
        settings: of the segmenter.
    """
    small = cv2.resize(mask.view(np.uint8), view.grey.shape[::-1], interpolation=cv2.INTER_NEAREST)
    area = np.count_nonzero(small)
    if not area:
        return dict.fromkeys(COSTS, 0.0)
    x0, y0, x1, y1 = pixels(box, small.shape)
    left, top, right, bottom = pixels(inset_of(box, settings.fg_inset), small.shape)
    outlines, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate(outlines)[:, 0]
    at_border = ((points == 0) | (points == np.array(small.shape[::-1]) - 1)).any(axis=1)
    on_edge = view.edge[points[:, 1], points[:, 0]]
    _, _, stats, _ = cv2.connectedComponentsWithStats(small)
    return {
        "outside": 1 - np.count_nonzero(small[y0:y1, x0:x1]) / area,
        "flat": float((~on_edge & ~at_border).mean()),
        "border": float(at_border.mean()),
        "pieces": 1 - int(stats[1:, cv2.CC_STAT_AREA].max()) / area,
        "inset": 1 - float(small[top:bottom, left:right].mean()),
        "polarity": float(_contradicts(small > 0, box, view.grey, settings)),
    }


def _contradicts(mask: np.ndarray, box: Box, grey: np.ndarray, settings: Any) -> bool:
    """Whether the brightness of a mask, relative to its surroundings in the wider box, contradicts the polarity."""
    if settings.polarity == "any":
        return False
    x0, y0, x1, y1 = pixels(wider(box, WIDER), mask.shape)
    inside, here = mask[y0:y1, x0:x1], grey[y0:y1, x0:x1]
    if not inside.any() or inside.all():
        return True
    brighter = float(np.median(here[inside])) > float(np.median(here[~inside]))
    return brighter != {"brighter": True, "darker": False}.get(
        settings.polarity, _inset_is_brighter(box, grey, settings)
    )


def _inset_is_brighter(box: Box, grey: np.ndarray, settings: Any) -> bool:
    """Whether the middle of a box is brighter than the surroundings of the box."""
    left, top, right, bottom = pixels(inset_of(box, settings.fg_inset), grey.shape)
    x0, y0, x1, y1 = pixels(wider(box, WIDER), grey.shape)
    around = np.ones(grey.shape, bool)
    around[slice(*pixels(box, grey.shape)[1::2]), slice(*pixels(box, grey.shape)[::2])] = False
    ring = grey[y0:y1, x0:x1][around[y0:y1, x0:x1]]
    if not ring.size:  # the box is the frame
        ring = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return float(np.median(grey[top:bottom, left:right])) > float(np.median(ring))


def _enlarged(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A bool mask at another size (height, width)."""
    soft = cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    enlarged: np.ndarray = soft >= 0.5
    return enlarged
