"""A fitted inspector, loaded from its bundle: gives the same verdict on a photograph as the workflow.

Needs numpy, OpenCV and a runtime for the network; torch is imported only if the runtime or the segmenter uses it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from defectflow.backbones.network_input import Loaded, fit_picture, scales_of
from defectflow.classification.kind_namer import KindNamer
from defectflow.core.anomaly_maps import AnomalyMap, grid_map, reduced_resolution, smooth_map
from defectflow.core.files import UserError
from defectflow.decision.damaged_regions import Region, find_damage
from defectflow.decision.outcomes import is_flagged
from defectflow.decision.pred_score import normalise
from defectflow.decision.verdict_rule import decide
from defectflow.images.read_write import read_photograph
from defectflow.inspection.bundle_files import Bundle, read_bundle, unpacked
from defectflow.inspection.held_out import reference_picture
from defectflow.inspection.mask_and_score import (
    Located,
    check_known,
    make_locator,
    make_scorer,
    settings_of,
)
from defectflow.inspection.measures import Measures, measure
from defectflow.inspection.runtimes import load_network, pick
from defectflow.isolation.crop_and_background import isolate_part

KINDS = "kinds.safetensors"  # in a bundle that names kinds of defects
MAP_SIDE = 4096  # pixels, longest side of the maps that boxes are found on: 100 megapixels of float would take 400 MB
ROUNDING = 1e-5  # by which sums and interpolation of float32 may raise a map, as a share of it


@dataclass(frozen=True)
class Verdict:
    """What an inspector says about one photograph.

    Attributes:
        bad: ``raw_score >= threshold``.
        score: for people, in [0, 1], the threshold at 0.5.
        raw_score: anomaly score, the higher the more anomalous.
        threshold: that of the bundle.
        review: whether the score lies in the review band, where a person decides; None without a band.
        present, doubtful: whether the part was found, and whether its mask is doubtful; None without masks.
        reason: why the mask is doubtful or absent, or "".
        regions: damaged regions, the most anomalous first, in pixels of `heat`; where a bad one has none, its peak,
            with a ``mark`` (see `Region`).
        find_map: function that computes `map`; without effect on the verdict, so that it is left until it is needed.
            Until then it holds the patches of the part.
        size: (height, width) of the upright photograph.
        part: bool (height, width), mask of the part, or None.
        seconds: time of each step, by `Inspector.clock`.
        measures: light, focus and place of the part, if `Inspector.measuring`.
        kind, kind_probability: of the defect, where it is bad; "" and None where it is good, both None in a bundle that
            names no kinds.
    """

    bad: bool
    score: float
    raw_score: float
    threshold: float
    review: bool | None
    present: bool | None
    doubtful: bool | None
    reason: str
    regions: list[Region]
    find_map: Callable[[], AnomalyMap] = field(repr=False, compare=False)
    size: tuple[int, int]
    part: np.ndarray | None = field(repr=False)
    seconds: dict[str, float] = field(repr=False, compare=False)
    measures: Measures | None = field(default=None, compare=False)
    kind: str | None = None
    kind_probability: float | None = None

    @property
    def flagged(self) -> bool:
        """Whether a person should look: bad, in the review band, no part found, or a doubtful mask."""
        return self.bad or bool(self.review) or is_flagged(self.present, self.doubtful)

    def without_part(self) -> Verdict:
        """The same for keeping: without the mask of the part, and without `map` and `heat`, which hold the patches."""
        return replace(self, part=None, find_map=_dropped)

    @cached_property
    def map(self) -> AnomalyMap:
        """Distances on the grid, computed when asked."""
        return self.find_map()

    @cached_property
    def heat(self) -> np.ndarray:
        """Anomaly map of the photograph, float32, of its size or reduced to MAP_SIDE pixels; computed when asked."""
        return reduced_resolution(self.map, self.size, MAP_SIDE)


def _dropped() -> AnomalyMap:
    raise ValueError("the anomaly map of this verdict was dropped (ask for `heat` before `without_part`)")


class Ready(NamedTuple):
    """A photograph prepared for the network: size (height, width), the part or None, the network's input, measures."""

    size: tuple[int, int]
    part: Located | None
    item: Loaded
    seconds: dict[str, float]
    measures: Measures | None = None


class Inspector:
    """A bundle ready to judge; `Inspector.load` makes it. It may be called from several threads at a time.

    Attributes:
        settings: content of bundle.json.
        runtime: what the network runs on.
        clock: function that measures `Verdict.seconds`; use time.process_time for processor time.
        measuring: whether verdicts have `Verdict.measures`.
        can_fork: whether forks of this process can judge with it: no library in it computes in threads of its own.
    """

    def __init__(
        self, bundle: Bundle, runtime: str, precision: str, threads: int, streams: int, device: str = "cpu"
    ) -> None:
        self.settings, self.runtime, self.clock = bundle.settings, runtime, time.perf_counter
        self.measuring = False
        check_known(bundle)
        self._picture = reference_picture(bundle)
        self._isolation = settings_of(bundle, "isolation")
        self._network = load_network(bundle, runtime, precision, threads, streams, device)
        self._scorer = make_scorer(bundle, runtime, precision, threads, streams, device)
        self._locate = make_locator(bundle, device)
        # torch may have been imported for the segmenter; other networks than that of the detector have threads too.
        plain = bundle.settings["segmenter"]["source"] in ("none", "constant", "template")
        self.can_fork = threads == 1 and plain and "torch" not in sys.modules
        self._namer = KindNamer.load(bundle.path(KINDS)) if KINDS in bundle.settings["files"] else None

    @property
    def names_kinds(self) -> bool:
        """Whether verdicts have a kind."""
        return self._namer is not None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        runtime: str = "auto",
        *,
        precision: str = "fp32",
        threads: int = 1,
        streams: int = 1,
        device: str = "cpu",
    ) -> Inspector:
        """Open a bundle.

        Args:
            folder: the bundle, or a .zip of it.
            runtime: "openvino", "onnx", "torch", or "auto": the first of these that is installed.
            precision: "fp32", or "fp16" or "int8" if it was exported.
            threads: how many compute the network.
            streams: how many photographs will be judged at a time, from as many threads of the caller.
            device: "cpu", or "cuda" for the torch runtime, which "auto" then chooses.

        Raises:
            UserError: the bundle is damaged or of another version, the runtime is not installed, there is no such
                device, or the runtime does not compute there.
        """
        with unpacked(folder) as whole:  # everything is in memory after this
            bundle = read_bundle(whole)
            return cls(bundle, pick(runtime, bundle, device), precision, threads, streams, device)

    def __call__(self, image: np.ndarray | str | Path) -> Verdict:
        """Judge a photograph, a file or an upright uint8 RGB array (height, width, 3).

        Raises:
            UserError: the file is not a readable image, or the array has another shape or type.
        """
        return self.finish([self.ready(image)])[0]

    def judge(self, images: Sequence[np.ndarray | str | Path]) -> list[Verdict]:
        """Judge several photographs in one call of the network, where the runtime takes several: torch does.

        Args:
            images: as for a single one; the network's inputs of all are in memory together.

        Raises:
            UserError: as for a single one.
        """
        return self.finish([self.ready(image) for image in images]) if len(images) else []

    def ready(self, image: np.ndarray | str | Path) -> Ready:
        """Read a photograph and find the part in it: what comes before the network. Arguments and errors as above."""
        seconds: dict[str, float] = {}
        if not isinstance(image, np.ndarray):
            with self._timed(seconds, "read"):
                image = read_photograph(image, self.settings["depth"])
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UserError(f"an image must be uint8 RGB (height, width, 3), not {image.dtype} {image.shape}")
        with self._timed(seconds, "segment"):
            part = self._locate(image) if self._locate else None
        with self._timed(seconds, "isolate"):
            item = self._fitted(image, part.mask if part else None)
        measures = None
        if self.measuring:
            with self._timed(seconds, "measure"):
                measures = measure(image, part.mask if part else None, self._picture)
        return Ready(image.shape[:2], part, item, seconds, measures)

    def finish(self, photographs: Sequence[Ready]) -> list[Verdict]:
        """Verdicts on photographs that are ready, at least one, in one call of the network."""
        shared: dict[str, float] = {}
        with self._timed(shared, "network"):
            pictures = [_picture(one.item) for one in photographs]
            patches = self._network(np.stack(pictures) if len(pictures) > 1 else pictures[0][None])
        for one in photographs:
            one.seconds["network"] = shared["network"] / len(photographs)
        return [self._verdict(one, own) for one, own in zip(photographs, patches, strict=True)]

    def _verdict(self, photograph: Ready, patches: np.ndarray) -> Verdict:
        size, part, item, seconds, measures = photograph
        with self._timed(seconds, "search"):
            own = patches[item.cells] if len(item.cells) < len(patches) else patches
            scored = self._scorer(own, item.cells)
        cells, affine = item.cells, item.affine

        def find_map() -> AnomalyMap:
            return self._map(scored.distances(), cells, affine)

        threshold = self.settings["threshold"]
        band = self.settings["review"]
        decision = decide(scored.score, threshold["value"], tuple(band) if band else None)
        raw, bad = float(decision.raw_score), bool(decision.bad)
        regions: list[Region] = []
        with self._timed(seconds, "regions"):
            wanted = bad or self._may_exceed(self._map(scored.bounds, cells, affine))
        if wanted:
            with self._timed(seconds, "search"):
                anomaly = find_map()
            with self._timed(seconds, "regions"):
                regions = self._regions(anomaly, size, part.mask if part else None, bad)
        kind: tuple[str, float | None] | tuple[None, None] = ("", None) if self._namer else (None, None)
        if self._namer and bad:
            with self._timed(seconds, "kind"):
                kind = self._namer.name(own)
        record = part.record if part else {}
        return Verdict(
            bad=bad,
            score=float(normalise(raw, threshold["value"], threshold["low"], threshold["high"])),
            raw_score=raw,
            threshold=threshold["value"],
            review=bool(decision.review) if band else None,
            present=bool(record["present"]) if part else None,
            doubtful=bool(record["doubtful"]) if part else None,
            reason=record.get("reason", ""),
            regions=regions,
            find_map=(lambda: anomaly) if wanted else find_map,
            size=size,
            part=part.mask if part else None,
            seconds=seconds,
            measures=measures,
            kind=kind[0],
            kind_probability=kind[1],
        )

    def prepare(self, image: np.ndarray) -> Loaded:
        """What the network sees of a photograph, uint8 RGB (height, width, 3)."""
        part = self._locate(image) if self._locate else None
        return self._fitted(image, part.mask if part else None)

    def kind_of(self, image: np.ndarray | str | Path) -> tuple[str, float]:
        """Kind of the defect of a photograph, taken to be bad, and its probability.

        Raises:
            UserError: the bundle names no kinds, or as for a verdict.
        """
        if self._namer is None:
            raise UserError("the bundle names no kinds (make it with kinds: {join: true})")
        return self._namer.name(self.embed(self.ready(image).item))

    def score(self, item: Loaded) -> tuple[float, np.ndarray]:
        """Raw score of a prepared photograph and the distances of its cells, float32 (p,), see `Scored`."""
        scored = self._scorer(self.embed(item), item.cells)
        return scored.score, scored.distances()

    def embed(self, item: Loaded) -> np.ndarray:
        """Patches of a prepared photograph, float32 (p, d): those of its ``cells``."""
        patches: np.ndarray = self._network(_picture(item)[None])[0][item.cells]
        return patches

    @contextmanager
    def _timed(self, seconds: dict[str, float], step: str) -> Iterator[None]:
        start = self.clock()
        yield
        seconds[step] = seconds.get(step, 0.0) + self.clock() - start

    def _fitted(self, image: np.ndarray, mask: np.ndarray | None) -> Loaded:
        entry, network = self.settings["isolation"], self.settings["network"]
        window, turn = (0, 0, image.shape[1], image.shape[0]), 0.0
        if not self._isolation.keeps_all:
            whole = np.zeros(image.shape[:2], bool)
            image, grown, window, turn = isolate_part(
                image, whole if mask is None else mask, self._isolation, entry["size"], entry["centre"]
            )
            mask = None if mask is None else grown
        if not network["foreground_only"]:
            mask = None
        fitted, crop = (tuple(network[key]) for key in ("fitted_size", "input_size"))
        rim = network.get("rim")
        item = fit_picture(image, mask, window, fitted, scales_of(network), network["dilation"], crop, turn, rim)
        return item._replace(picture=np.ascontiguousarray(item.picture))  # it may be a view into a larger one

    def _map(self, distances: np.ndarray, cells: np.ndarray, affine: np.ndarray) -> AnomalyMap:
        network = self.settings["network"]
        grid, size = tuple(network["grid"]), tuple(network["input_size"])
        return AnomalyMap(grid_map(distances, cells, grid), affine, size, network.get("sigma"))

    def _may_exceed(self, highest: AnomalyMap) -> bool:
        """Whether a map that is nowhere above this one may have regions."""
        level = self.settings["pixel_threshold"]
        if level is None or highest.grid_map.max() < level:  # smoothing lowers peaks
            return False
        return bool(
            smooth_map(highest.grid_map, highest.input_size, sigma=highest.sigma).max() >= level * (1 - ROUNDING)
        )

    def _regions(self, anomaly: AnomalyMap, size: tuple[int, int], part: np.ndarray | None, bad: bool) -> list[Region]:
        level = self.settings["pixel_threshold"]
        heat = reduced_resolution(anomaly, size, MAP_SIDE)
        if part is not None and part.shape != heat.shape:
            part = cv2.resize(part.view(np.uint8), heat.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        return find_damage(heat, level, part, bad, **self.settings["regions"])


def _picture(item: Loaded) -> np.ndarray:
    assert item.picture is not None, "what is prepared is not embedded yet"
    return item.picture
