"""The outlines of a data set, settled: which reading is taken of each image, what was put right, what is wrong.

The sizes decide first (`outline_frames`). Where two readings fit, the edges of the photograph decide if they do so
clearly, and at last every outline is compared with its alternatives (`outline_check`). Stages that decode outlines all
ask here, so that they decode the same masks.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from defectflow.coco import annotations_by_image, listed_image, part_mask
from defectflow.dataset import Notice, Problem
from defectflow.files import UserError
from defectflow.images import UNREADABLE, read_rgb
from defectflow.outline_check import SUSPICIOUS, WRONG, Fit, fit
from defectflow.outline_edges import SIDE, Outline, edge_maps, moved, outline_of, reduced_size
from defectflow.outline_frames import Choice, Reading, settle
from defectflow.outline_kinds import is_box
from defectflow.pictures import Picture

CHECKED = 500  # photographs that are looked at, at most
SMALLEST = 64  # pixels, longer side: smaller ones are not looked at
OTHERS = 12  # outlines of other photographs that an outline is compared with
ELSEWHERE = 60  # photographs on which a wrong outline is laid, to find its own
SHEET = 24  # suspicious outlines that are drawn
CLEAR = (0.07, 2.0)  # by how much one of two readings must lie better: mean strength, spreads
CONFIRMED = 3.5  # spreads: an outline that lies this far above those that lie anywhere is right


class Suspect(NamedTuple):
    """An outline that does not seem to lie on its photograph; outlines are in pixels of the reduced picture."""

    name: str
    path: str
    text: str
    outline: Outline
    better: Outline | None


class Settled(NamedTuple):
    """What was found out about the outlines of a data set.

    Attributes:
        readings: {name: reading} of the images whose outlines are to be used.
        outlines: {name: annotations that have an outline}, of the images that have one.
        problems: of single images; `readings` lacks these.
        notices: what was put right or passed over, one for each kind.
        suspects: outlines to draw, the wrong ones first.
    """

    readings: dict[str, Reading]
    outlines: dict[str, list[dict]]
    problems: list[Problem]
    notices: list[Notice]
    suspects: list[Suspect]

    def mask(self, name: str, entry: Mapping[str, Any], picture: Picture) -> tuple[np.ndarray | None, int, list[str]]:
        """What `coco.part_mask` returns for an image; nothing for one whose outlines are not to be used."""
        if name not in self.readings:
            return None, 0, []
        return part_mask(entry, self.outlines[name], picture.raw_size, picture.orientation, self.readings[name])


def settle_outlines(
    resolved: Mapping[str, str | None],
    coco: Mapping[str, list],
    entries: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, Picture],
    threads: int = 1,
) -> Settled:
    """Settle frame, size and unit of the outlines of a data set, and look whether they lie on their photographs.

    Args:
        resolved: the data set: images, annotations, category.
        coco: its COCO file, as ``dataset.read_coco`` returned it.
        entries: {name: image in the COCO file}, as ``coco.entries_by_name`` finds them.
        pictures: what is known of each image.
        threads: photographs to look at at a time.
    """
    source, folder = str(resolved["annotations"]), str(resolved["images"])
    by_image, shared = annotations_by_image(coco, resolved["category"]), shared_ids(coco)
    problems: list[Problem] = []
    outlines, listed, boxed = {}, {}, []
    for name, entry in entries.items():
        annotations, picture = by_image.get(entry["id"], []), pictures[name]
        if annotations and entry["id"] in shared:
            others = ", ".join(shared[entry["id"]])
            text = f"its annotations may be those of another image: id {entry['id']} is that of {others}"
            problems.append(Problem(source, f"{name}: {text} (give each image an id of its own)", "annotation"))
            continue
        drawn = [annotation for annotation in annotations if not is_box(annotation)]
        if len(drawn) < len(annotations):
            boxed.append((name, bool(drawn)))
        if drawn and not picture.problem:
            outlines[name] = drawn
            listed[name] = listed_image(entry, drawn, picture.raw_size, picture.orientation)
    told: dict[str, list[str]] = defaultdict(list)
    for name, drawn in boxed:
        also = "; their outlines are used" if drawn else ": box only, no mask is learned from it (export polygons)"
        told[f"boxes without an outline{also}"].append(name)
    choices = settle(listed)
    looker = _Looker(folder, entries, outlines, pictures, threads)
    looker.read({name: choice for name, choice in choices.items() if choice.readings})
    readings = {}
    for name, choice in choices.items():
        reading, doubt = looker.decide(name, choice)
        if reading is None:
            problems.append(Problem(source, f"{name}: {choice.problem}", "annotation"))
            continue
        readings[name] = reading
        for note in (reading.note, doubt):
            if note:
                told[note].append(name)
    suspects = looker.look(readings)
    for name, text, wrong, _ in suspects:
        if wrong:
            del readings[name]
            problems.append(Problem(source, f"{name}: {text}", "annotation"))
        else:
            told[f"perhaps not on the part, look at the sheet of outlines: {text}"].append(name)
    notices = [Notice(source, f"{among(names)}: {text}", "masks") for text, names in told.items()]
    if looker.left:
        text = f"{looker.left} outlines were not compared with their photographs, {CHECKED} others were"
        notices.append(Notice(source, text, "masks"))
    drawn = sorted(suspects, key=lambda one: not one[2])[:SHEET]
    return Settled(readings, outlines, problems, notices, [suspect for *_, suspect in drawn])


def shared_ids(coco: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[Any, list[str]]:
    """{id: file names} of ids that several images of a COCO file have: nobody knows whose the annotations are."""
    names = defaultdict(list)
    for entry in coco["images"]:
        names[entry["id"]].append(str(entry["file_name"]))
    return {number: found for number, found in names.items() if len(set(found)) > 1}


def among(names: Sequence[str]) -> str:
    """A few names and how many there are: `12 images (a.jpg, b.jpg, c.jpg, ...)`."""
    if len(names) == 1:
        return names[0]
    return f"{len(names)} images ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


class _Looker:
    """Looks at the photographs: chooses between readings, and finds outlines that lie beside the part."""

    def __init__(
        self,
        folder: str,
        entries: Mapping[str, Mapping[str, Any]],
        outlines: Mapping[str, list[dict]],
        pictures: Mapping[str, Picture],
        threads: int,
    ):
        self._folder, self._entries = folder, entries
        self._outlines, self._pictures, self._threads = outlines, pictures, threads
        self._drawn: dict[tuple[str, Reading], Outline] = {}
        self._fits: dict[str, list[Fit | None]] = {}
        self._votes: dict[tuple, Counter[int]] = defaultdict(Counter)
        self._choices: Mapping[str, Choice] = {}
        self.left = 0

    def read(self, choices: Mapping[str, Choice]) -> None:
        """Look at the images whose readings the sizes do not settle, and let images of one kind vote."""
        self._choices = choices
        large = [name for name in choices if max(self._pictures[name].raw_size) >= SMALLEST]
        step = max(1.0, len(large) / CHECKED)
        self._checked = [large[int(k * step)] for k in range(min(len(large), CHECKED))]
        self.left = len(large) - len(self._checked)
        pairs = [(name, reading) for name in self._checked for reading in choices[name].readings]
        self._drawn = dict(zip(pairs, self._map(self._outline, pairs, "decode"), strict=True))
        open_ones = [name for name in self._checked if len(choices[name].readings) > 1 or choices[name].confirm]
        for name, fits in zip(open_ones, self._map(self._fits_of, open_ones, "readings"), strict=True):
            self._fits[name] = fits
            if (vote := self._vote(name)) is not None:
                self._votes[_kind(choices[name])][vote] += 1

    def decide(self, name: str, choice: Choice) -> tuple[Reading | None, str]:
        """The reading to take (None: none can be) and what to tell of it in doubt."""
        if not choice.readings:
            return None, ""
        if len(choice.readings) == 1 and not choice.confirm:
            return choice.readings[0], ""
        vote = self._vote(name) if name in self._fits else None
        votes = self._votes[_kind(choice)]
        if vote is None and len(votes) == 1:  # all images of this kind that show it agree
            (vote,) = votes
        if vote is not None:
            return choice.readings[vote], ""
        return (None, "") if choice.problem else (choice.readings[0], choice.doubt)

    def look(self, readings: Mapping[str, Reading]) -> list[tuple[str, str, bool, Suspect]]:
        """Compare outlines with their alternatives: (name, what is wrong, whether it surely is, what to draw)."""
        checked = [name for name in self._checked if name in readings]
        own = {name: self._drawn[name, readings[name]] for name in checked}
        by_size = defaultdict(list)
        for name in checked:
            by_size[own[name].size].append(name)

        def compare(name: str) -> tuple[Fit | None, list[str]]:
            alike = by_size[own[name].size]
            step = max(1, len(alike) // OTHERS)
            others = [other for other in alike[::step] if other != name][:OTHERS]
            maps = self._maps(name)
            return None if maps is None else fit(maps, own[name], [own[other] for other in others]), others

        found = []
        for name, (result, others) in zip(checked, self._map(compare, checked, "outlines"), strict=True):
            if result and result.within(SUSPICIOUS):
                found.append((name, result, others))
        homes = self._homes([name for name, *_ in found], own, checked)
        suspects = []
        for name, result, others in found:
            other = others[int(result.change.split()[1])] if result.change.startswith("other") else None
            better = moved(own[other or name], result.matrix)
            text = f"its outline does not lie on the part: {self._told(name, result, other)}"
            if home := homes.get(name):
                text += f"; it lies better on {home}"
            path = os.path.join(self._folder, name)
            suspects.append((name, text, result.within(WRONG), Suspect(name, path, text, own[name], better)))
        return suspects

    def _told(self, name: str, result: Fit, other: str | None) -> str:
        if other:
            return f"that of {other} lies better on this picture"
        if result.change != "shifted":
            return f"{result.change} it lies better"
        scale = max(self._pictures[name].size) / max(reduced_size(self._pictures[name].size))
        x, y = (result.matrix[:, 2] * scale).round().astype(int)
        return f"shifted by {x:+d}, {y:+d} pixels (right, down) it lies better"

    def _homes(self, suspects: Sequence[str], own: Mapping[str, Outline], checked: Sequence[str]) -> dict[str, str]:
        """Photographs that wrong outlines lie on far better than on their own."""
        step = max(1, len(checked) // ELSEWHERE)
        best: dict[str, tuple[float, str]] = {}
        for place in checked[::step] if suspects else ():
            mine = [name for name in suspects[:SHEET] if own[name].size == own[place].size]
            maps = self._maps(place) if mine else None
            for name in mine if maps is not None else ():
                result = fit(maps, own[name])
                if result and not result.within(SUSPICIOUS):
                    best[name] = max(best.get(name, (CONFIRMED, "")), (result.lead, place))
        return {name: place for name, (_, place) in best.items() if place and place != name}

    def _vote(self, name: str) -> int | None:
        """Number of the reading that lies on the edges clearly better than the others; None where none does."""
        fits, choice = self._fits[name], self._choices[name]
        known = [(one.own, k) for k, one in enumerate(fits) if one]
        if not known:
            return None
        strength, first = max(known)
        winner = fits[first]
        assert winner is not None
        if len(choice.readings) == 1:
            return first if winner.lead >= CONFIRMED else None
        rest = max((own for own, k in known if k != first), default=winner.usual)
        gain, spreads = CLEAR
        clear = strength - rest >= max(gain, spreads * winner.spread) and winner.lead >= CONFIRMED
        return first if clear else None

    def _fits_of(self, name: str) -> list[Fit | None]:
        maps = self._maps(name)
        readings = self._choices[name].readings
        return [None if maps is None else fit(maps, self._drawn[name, reading]) for reading in readings]

    def _outline(self, pair: tuple[str, Reading]) -> Outline:
        name, reading = pair
        picture = self._pictures[name]
        annotations = self._outlines[name]
        mask, _, _ = part_mask(self._entries[name], annotations, picture.raw_size, picture.orientation, reading)
        return outline_of(np.zeros(picture.size[::-1], bool) if mask is None else mask)

    def _maps(self, name: str) -> np.ndarray | None:
        try:
            return edge_maps(read_small(os.path.join(self._folder, name)), reduced_size(self._pictures[name].size))
        except UserError:
            return None

    def _map(self, function: Callable, items: Sequence, what: str) -> Iterable:
        with ThreadPoolExecutor(max(1, self._threads)) as pool:
            yield from tqdm(pool.map(function, items), desc=f"outlines: {what}", total=len(items), unit="image")


def read_small(path: str) -> np.ndarray:
    """Read a photograph upright as uint8 RGB, at least twice as large as the reduced picture; JPEG decodes smaller.

    Raises:
        UserError: it is not readable.
    """
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                image.draft("RGB", (2 * SIDE, 2 * SIDE))
                ImageOps.exif_transpose(image, in_place=True)
                return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: not a readable image ({error})") from None
    return read_rgb(path)


def _kind(choice: Choice) -> tuple:
    """What makes the readings of two images alternatives of one kind."""
    first = choice.readings[0]
    readings = tuple((r.frame, r.unit == first.unit, r.note) for r in choice.readings)
    return readings, choice.confirm, choice.doubt

