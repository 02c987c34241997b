"""Compare outlines with their photographs: choose between readings, and find outlines that miss the part."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from defectflow.annotations.coco import part_mask
from defectflow.annotations.outline_check import SCALES, SUSPICIOUS, WRONG, Fit, fit, lead_of
from defectflow.annotations.outline_edges import SIDE, Outline, edge_maps, moved, outline_of, reduced_size
from defectflow.annotations.outline_orientation_and_size import STORED, UPRIGHT, Choice, Listed, Reading, fits
from defectflow.core.files import UserError
from defectflow.core.records import CocoAnnotation, CocoImage
from defectflow.images.decoders import UNREADABLE
from defectflow.images.image_checks import Picture
from defectflow.images.read_write import read_rgb

if TYPE_CHECKING:
    from defectflow.core.parallel import Item, Result

CHECKED = 500  # most photographs that are examined
SMALLEST = 64  # pixels, longer side: smaller photographs are not examined
OTHERS = 12  # outlines of other photographs that an outline is compared with
ELSEWHERE = 150  # photographs on which a wrong outline is tried, to find its own
HINTED = 24  # outlines without a fitting reading for which the message suggests one
SHEET = 24  # suspicious outlines that are drawn
CLEAR = (0.07, 2.0)  # by how much one of two readings must fit better: mean strength, spreads
PASTED = 0.06  # mean strength: another outline is better here by this much, and this one better elsewhere
ENOUGH = 5  # fewest outlines that show what is usual
NOWHERE, SURELY_NOWHERE = 1.5, 0.5  # spreads: outlines hardly stronger than shifted ones
EDGES = 0.1  # mean strength along any line above which a photograph has edges
CONFIRMED = 3.5  # spreads: an outline this much stronger than shifted ones is correct
BY_EDGES = {
    UPRIGHT: "drawn on the upright picture, as its edges show: read accordingly",
    STORED: "drawn on the pixels as stored, before the EXIF rotation, as its edges show: rotated with it",
}


class Suspect(NamedTuple):
    """An outline that does not seem to match its photograph; outlines are in pixels of the reduced picture."""

    name: str
    path: str
    text: str
    outline: Outline
    better: Outline | None


Kind = tuple[object, ...]  # of readings, see _kind


class Looker:
    """Examines the photographs: chooses between readings, and finds outlines that miss the part."""

    def __init__(
        self,
        folder: str,
        entries: Mapping[str, CocoImage],
        outlines: Mapping[str, list[CocoAnnotation]],
        listed: Mapping[str, Listed],
        pictures: Mapping[str, Picture],
        threads: int,
        depth: str | None = None,
    ):
        self._folder, self._entries, self._depth = folder, entries, depth
        self._outlines, self._listed, self._pictures, self._threads = outlines, listed, pictures, threads
        self._hinted = set(list(listed)[:HINTED])
        self.notes: dict[str, list[str]] = defaultdict(list)
        self._drawn: dict[tuple[str, Reading], Outline] = {}
        self._fits: dict[str, list[Fit | None]] = {}
        self._votes: dict[Kind, Counter[int]] = defaultdict(Counter)
        self._choices: Mapping[str, Choice] = {}
        self.left = 0

    def read(self, choices: Mapping[str, Choice]) -> None:
        """Examine the images for which the sizes are not conclusive; images of one kind vote together."""
        self._choices = choices
        large = [name for name in choices if max(self._pictures[name].raw_size) >= SMALLEST]
        step = max(1.0, len(large) / CHECKED)
        self._checked = [large[int(k * step)] for k in range(min(len(large), CHECKED))]
        self.left = len(large) - len(self._checked)
        pairs = [(name, reading) for name in self._checked for reading in choices[name].readings]
        self._drawn = dict(zip(pairs, self._map(self._outline, pairs, "decode"), strict=True))
        open_ones = [name for name in self._checked if len(choices[name].readings) > 1 or choices[name].confirm]
        for name, found in zip(open_ones, self._map(self._fits_of, open_ones, "readings"), strict=True):
            self._fits[name] = found
            if (vote := self._vote(name)) is not None:
                self._votes[_kind(choices[name])][vote] += 1

    def decide(self, name: str, choice: Choice) -> tuple[Reading | None, str]:
        """The reading to use (None: none is usable), and a notice if it is in doubt."""
        if not choice.readings:
            return None, ""
        if len(choice.readings) == 1 and not choice.confirm:
            return choice.readings[0], ""
        vote = self._vote(name) if name in self._fits else None
        votes = self._votes[_kind(choice)]
        if vote is None and len(votes) == 1:  # all images of this kind that show it agree
            (vote,) = votes
        if vote is not None:
            taken, first = choice.readings[vote], choice.readings[0]
            return taken, BY_EDGES[taken.frame] if taken.frame != first.frame and not taken.note else ""
        return (None, "") if choice.problem else (choice.readings[0], choice.doubt)

    def hint(self, name: str) -> str:
        """A hint how an outline would fit the part, if the photograph shows it and the sizes do not."""
        one = self._listed[name]
        width, height = one.upright_size
        if name not in self._hinted or one.extent is None or max(one.raw_size) < SMALLEST:
            return ""
        units = [(width / scale, height / scale) for scale in (1.0, *SCALES)] + [(1, 1), (100, 100), (1000, 1000)]
        maps = self._maps(name)
        found = []
        for unit in units:
            if (
                maps is not None
                and fits(one.extent, unit)
                and (result := fit(maps, self._outline((name, Reading(UPRIGHT, unit)))))
            ):
                found.append((result.lead, result.own, unit))
        lead, _, unit = max(found, default=(0.0, 0.0, (width, height)))
        if lead < CONFIRMED or unit == (width, height):
            return ""
        return f"; scaled by {width / unit[0]:.3g} they lie on edges"

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

        found = dict(zip(checked, self._map(compare, checked, "edges"), strict=True))
        fits_of = {name: result for name, (result, _) in found.items() if result}
        usual_lead = float(np.median([result.lead for result in fits_of.values()])) if len(fits_of) >= ENOUGH else 0.0
        nowhere = {
            name: result
            for name, result in fits_of.items()
            if result.lead < NOWHERE and usual_lead >= CONFIRMED and result.usual >= EDGES
        }
        rivalled = {name: result for name, result in fits_of.items() if result.other - result.own >= PASTED}
        homes = self._homes(rivalled | nowhere, own, checked)
        suspects = []
        for name, result in fits_of.items():
            others = found[name][1]
            from_whom, surely = name, result.within(WRONG)
            matrix: np.ndarray | None = result.matrix
            named = result.within(SUSPICIOUS) and not result.change.startswith("other")
            if name in homes and name in rivalled and not named:
                from_whom, surely, matrix = others[result.other_index], True, np.eye(2, 3)
                text = f"that of {from_whom} fits better on this picture, and it fits better on {homes[name]}"
            elif result.within(SUSPICIOUS):
                if result.change.startswith("other"):
                    from_whom = others[int(result.change.split()[1])]
                text, surely = self._told(name, result, from_whom), surely or (name in homes and name in rivalled)
            elif name in nowhere:
                surely, matrix = result.lead < SURELY_NOWHERE, None
                text = "it matches the edges of the picture no better than by chance, unlike the others"
                text += f", and it fits better on {homes[name]}" if name in homes else ""
            else:
                continue
            path = os.path.join(self._folder, name)
            better = None if matrix is None else moved(own[from_whom], matrix)
            suspects.append((name, text, surely, Suspect(name, path, text, own[name], better)))
        return suspects

    def _told(self, name: str, result: Fit, from_whom: str) -> str:
        if from_whom != name:
            return f"that of {from_whom} fits better on this picture"
        if result.change != "shifted":
            return f"{result.change} it fits better"
        scale = max(self._pictures[name].size) / max(reduced_size(self._pictures[name].size))
        x, y = (result.matrix[:, 2] * scale).round().astype(int)
        return f"shifted by {x:+d}, {y:+d} pixels (right, down) it fits better"

    def _homes(self, fits_of: Mapping[str, Fit], own: Mapping[str, Outline], checked: Sequence[str]) -> dict[str, str]:
        """For outlines that another one beats on their own photograph: the photograph that they fit better.

        An outline that is only imprecise fits no other photograph better.
        """
        step = max(1, len(checked) // ELSEWHERE)
        examined = list(fits_of)[:SHEET]
        best: dict[str, tuple[float, str]] = {}

        def try_on(place: str) -> list[tuple[str, float]]:
            mine = [name for name in examined if name != place and own[name].size == own[place].size]
            maps = self._maps(place) if mine else None
            return [] if maps is None else [(name, lead_of(maps, own[name])[0]) for name in mine]

        places = checked[::step] if examined else []
        for place, leads in zip(places, self._map(try_on, places, "of others"), strict=True):
            for name, above in leads:
                best[name] = max(best.get(name, (0.0, "")), (above, place))
        found = {n: place for n, (above, place) in best.items() if above - fits_of[n].own + fits_of[n].usual >= PASTED}
        if len(found) > len(examined) / 2:  # then the rest, which was not examined, is hardly better
            found |= dict.fromkeys(list(fits_of)[SHEET:], "another")
        return found

    def _vote(self, name: str) -> int | None:
        """Number of the reading that fits the edges clearly better than the others; None if none does."""
        found, choice = self._fits[name], self._choices[name]
        known = [(one.own, k) for k, one in enumerate(found) if one]
        if not known:
            return None
        strength, first = max(known)
        winner = found[first]
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
        size = picture.raw_size, picture.orientation
        mask, _, _ = part_mask(self._entries[name], annotations, *size, reading, self.notes[name])
        return outline_of(np.zeros(picture.size[::-1], bool) if mask is None else mask)

    def _maps(self, name: str) -> np.ndarray | None:
        try:
            photograph = read_small(os.path.join(self._folder, name), self._depth)
            return edge_maps(photograph, reduced_size(self._pictures[name].size))
        except UserError:
            return None

    def _map(self, function: Callable[[Item], Result], items: Sequence[Item], what: str) -> Iterator[Result]:
        with ThreadPoolExecutor(max(1, self._threads)) as pool:
            yield from tqdm(pool.map(function, items), desc=f"outlines: {what}", total=len(items), unit="image")


def read_small(path: str, depth: str | None = None) -> np.ndarray:
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
    return read_rgb(path, depth)


def _kind(choice: Choice) -> Kind:
    """What makes the readings of two images alternatives of one kind."""
    first = choice.readings[0]
    readings = tuple((r.frame, r.unit == first.unit, r.note) for r in choice.readings)
    return readings, choice.confirm, choice.doubt
