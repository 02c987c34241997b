"""The output of an inspection: a line, a row of CSV, a line of JSON and pictures for each photograph."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from defectflow.classification.kind_namer import UNKNOWN
from defectflow.core.anomaly_maps import reduced_size
from defectflow.core.counted import counted
from defectflow.core.files import UserError, atomic
from defectflow.decision.damaged_regions import region_mask
from defectflow.decision.outcomes import TO_A_PERSON, is_flagged
from defectflow.decision.pred_score import two_digits
from defectflow.drawing.heat_settings import SUFFIX, Look
from defectflow.images.formats import PassedOver
from defectflow.images.read_write import write_jpeg
from defectflow.inspection.inspector import MAP_SIDE, Verdict

COLUMNS = [
    "path", "verdict", "score", "raw_score", "threshold", "review", "mask_present", "mask_doubtful", "reason",
    "regions", "mark",
]  # fmt: skip
KIND_COLUMNS = ["kind", "kind_probability"]  # behind these, of a bundle that names kinds
LONGEST_NAME = 180  # bytes; file systems allow 255


def word(verdict: Verdict) -> str:
    """The verdict as a word."""
    return "bad" if verdict.bad else "good"


def row_of(path: Path, verdict: Verdict | None, problem: str = "") -> dict[str, Any]:
    """A row of the CSV; ``regions`` as "x y width height" in pixels, separated by semicolons.

    ``mark`` is empty if they exceed the pixel threshold, or says why the only box is the peak.
    """
    if verdict is None:
        return {"path": str(path), "verdict": "error", "reason": problem}
    boxes = ["{} {} {} {}".format(*box) for box in boxes_of(verdict)]
    return {
        "path": str(path),
        "verdict": word(verdict),
        # Nine digits like thresholds: with fewer, a row could contradict its verdict.
        "score": f"{verdict.score:.9g}",
        "raw_score": f"{verdict.raw_score:.9g}",
        "threshold": f"{verdict.threshold:.9g}",
        "review": "" if verdict.review is None else int(verdict.review),
        "mask_present": "" if verdict.present is None else int(verdict.present),
        "mask_doubtful": "" if verdict.doubtful is None else int(verdict.doubtful),
        "reason": reason_of(verdict, problem),
        "regions": "; ".join(boxes),
        "mark": mark_of(verdict),
        **({} if verdict.kind is None else {"kind": verdict.kind}),
        **({} if verdict.kind_probability is None else {"kind_probability": f"{verdict.kind_probability:.6f}"}),
    }


def json_of(path: Path, verdict: Verdict | None, problem: str = "") -> dict[str, Any]:
    """The same as a JSON object, with the score and the area of each damaged region, and seconds by step."""
    if verdict is None:
        return {"path": str(path), "verdict": "error", "reason": problem}
    regions = [
        {"box": list(box), "score": region.score, "pixels": region.area, "mark": region.mark}
        for box, region in zip(boxes_of(verdict), verdict.regions, strict=True)
    ]
    return {
        "path": str(path),
        "verdict": word(verdict),
        "score": verdict.score,
        "raw_score": verdict.raw_score,
        "threshold": verdict.threshold,
        "review": verdict.review,
        "mask_present": verdict.present,
        "mask_doubtful": verdict.doubtful,
        "reason": reason_of(verdict, problem),
        "size": list(verdict.size[::-1]),
        "regions": regions,
        **({} if verdict.kind is None else {key: getattr(verdict, key) for key in KIND_COLUMNS}),
        "seconds": {step: round(value, 5) for step, value in verdict.seconds.items()},
    }


def reason_of(verdict: Verdict, note: str) -> str:
    """Why the mask is doubtful, and other notes on a verdict."""
    return "; ".join(filter(None, [verdict.reason, note]))


def boxes_of(verdict: Verdict) -> list[tuple[int, int, int, int]]:
    """(x, y, width, height) of the damaged regions in pixels of the photograph; maps of large ones are reduced."""
    height, width = verdict.size
    reduced = reduced_size(verdict.size, MAP_SIDE)
    sy, sx = height / reduced[0], width / reduced[1]
    result = []
    for region in verdict.regions:
        x0, y0 = int(region.x * sx), int(region.y * sy)
        x1, y1 = round((region.x + region.width) * sx), round((region.y + region.height) * sy)
        result.append((x0, y0, x1 - x0, y1 - y0))
    return result


def line_of(path: Path, verdict: Verdict | None, problem: str = "") -> str:
    """One line for a terminal; control characters in the name are escaped."""
    name = printable(str(path))
    if verdict is None:
        return f"ERROR  {printable(problem)}"
    notes = [*notices(verdict), *filter(None, [kind_text(verdict), regions_text(verdict), problem])]
    return f"{verdict_text(verdict)}  {name}" + (f"  ({'; '.join(notes)})" if notes else "")


def verdict_text(verdict: Verdict) -> str:
    """Verdict and score as text of constant width."""
    return f"{'BAD ' if verdict.bad else 'good'}  {two_digits(verdict.score)}"


def kind_text(verdict: Verdict) -> str:
    """The kind of a defect with its probability, "" without one."""
    if not verdict.kind:
        return ""
    return verdict.kind if verdict.kind == UNKNOWN else f"{verdict.kind} {100 * (verdict.kind_probability or 0):.0f} %"


def notices(verdict: Verdict) -> list[str]:
    """Reasons for a person to look besides a bad verdict: the review band, or a doubtful mask."""
    why = [TO_A_PERSON] if verdict.review else []
    return why + ([verdict.reason] if is_flagged(verdict.present, verdict.doubtful) else [])


def mark_of(verdict: Verdict) -> str:
    """Why the only box is the peak; "" if it is a region above the pixel threshold."""
    return verdict.regions[0].mark if verdict.regions else ""


def regions_text(verdict: Verdict) -> str:
    """Number of regions and what they mean; "" for none.

    In a photograph that is called good, regions above the pixel threshold do not count as damage.
    """
    count = len(verdict.regions)
    if not count:
        return ""
    if mark_of(verdict):
        return f"no damaged region, box at the peak: {mark_of(verdict)}"
    regions = f"region{'s' if count > 1 else ''}"
    return f"{count} damaged {regions}" if verdict.bad else f"{count} {regions} above the pixel threshold only"


def printable(text: str) -> str:
    """Text with line breaks and other control characters, which a file name may contain, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class Pictures:
    """Heatmaps, overlays and triptychs below a folder, one file each, named after the photograph.

    Args:
        folder: to write below.
        scale, look: of the bundle.
        triptychs: whether to write these too: photograph, mask, heatmap.
    """

    def __init__(self, folder: Path, scale: dict[str, float], look: dict[str, Any], triptychs: bool) -> None:
        from defectflow.drawing.overlay_images import Scale  # with its fonts, which only pictures need

        self._folder, self._scale, self._look = folder, Scale(**scale), Look(**look)
        self._triptychs = triptychs
        folder.mkdir(parents=True, exist_ok=True)  # fails here, before anything is judged, if it cannot be made

    def write(self, path: Path, photo: np.ndarray, verdict: Verdict) -> None:
        """Draw one photograph, uint8 RGB (height, width, 3) of any size."""
        from defectflow.drawing import overlay_images

        heat = verdict.heat
        size = heat.shape[::-1]
        photo = photo if photo.shape[:2] == heat.shape else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        part = verdict.part
        if part is not None and part.shape != heat.shape:
            part = cv2.resize(part.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        found = region_mask(verdict.regions, heat.shape)
        with atomic(picture_path(self._folder, "heatmaps", path)) as temporary:
            overlay_images.write_heatmap(temporary, heat, self._scale, self._look)
        legend = overlay_images.legend(found, None, part, mark_of(verdict))
        pictures = {"overlays": overlay_images.overlay(photo, heat, self._scale, found, None, part, self._look)}
        overlay_images.boxes(
            pictures["overlays"], [region.box for region in verdict.regions], dashed=bool(mark_of(verdict))
        )
        if self._triptychs:
            pictures["triptychs"] = overlay_images.triptych(photo, heat, self._scale, found, None, part, self._look)
        for kind, picture in pictures.items():
            strip = overlay_images.caption_strip(
                picture.shape[1], printable(path.name), verdict_text(verdict).upper(),
                overlay_images.BAD if verdict.bad else overlay_images.GOOD, "; ".join(notices(verdict)),
                "; ".join(filter(None, [kind_text(verdict), regions_text(verdict)])), legend, size[0],
            )  # fmt: skip
            write_jpeg(picture_path(self._folder, kind, path), np.vstack([picture, strip]))


def picture_path(folder: Path, kind: str, path: Path) -> Path:
    """File below ``folder`` for a picture of a photograph, of one of the kinds in SUFFIX."""
    return folder / kind / f"{picture_name(path)}{SUFFIX[kind]}"


def picture_name(path: Path) -> str:
    """File name for the pictures of a photograph, unique for each path: its own name and a hash of the path."""
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    plain = re.sub(r"[^\w.+-]", "_", path.stem.encode("utf-8", "ignore").decode())
    return f"{plain.encode()[:LONGEST_NAME].decode('utf-8', 'ignore')}-{digest}"


class Report:
    """Writes rows immediately to a CSV and a file of JSON lines; made by `open_report`.

    Attributes:
        begun: whether what the files held before has been replaced.
    """

    def __init__(self, table: TextIO | None, lines: TextIO | None, columns: Sequence[str] = COLUMNS) -> None:
        self._table, self._lines, self.begun = table, lines, False
        self._writer = csv.DictWriter(table, columns, restval="", lineterminator="\n") if table else None

    def begin(self) -> None:
        """Replace what the files hold, the first time."""
        if self.begun:
            return
        self.begun = True
        for file in filter(None, (self._table, self._lines)):
            if file.seekable():  # not so a pipe
                file.truncate(0)
        if self._writer:
            self._writer.writeheader()

    def add(self, path: Path, verdict: Verdict | None, problem: str = "") -> None:
        """Write the row of one photograph and flush, so that readers of the files see it."""
        self.begin()
        if self._table and self._writer:
            self._writer.writerow(row_of(path, verdict, problem))
            self._table.flush()
        if self._lines:
            self._lines.write(json.dumps(json_of(path, verdict, problem), allow_nan=False) + "\n")
            self._lines.flush()


class PassedOverFiles:
    """Prints each file that is passed over, and counts them.

    Attributes:
        pictures: how many of them look like pictures; these get a row in the report, like unreadable files.
    """

    def __init__(self, report: Report) -> None:
        self._report, self._files, self.pictures = report, 0, 0

    def __call__(self, found: PassedOver) -> None:
        text = f"{found.path}: {found.reason}"
        self._files += found.files
        if found.picture:
            self.pictures += found.files
            self._report.add(found.path, None, text)
        print(f"passed over  {printable(text)}", flush=True)

    def summary(self) -> str:
        """The end of a line that counts photographs; "" where nothing was passed over."""
        return f", {counted(self._files, 'file')} passed over (see above)" if self._files else ""


@contextmanager
def open_report(table: Path | None, lines: Path | None, kinds: bool = False) -> Iterator[Report]:
    """Open the requested files; file names that are not valid Unicode are written unchanged.

    What they held is replaced by the first row, or at the end: an error before that loses nothing.

    Args:
        table, lines: the CSV and the file of JSON lines.
        kinds: whether there are columns for kinds of defects.

    Raises:
        UserError: they are one file.
    """
    if table and lines and table.resolve() == lines.resolve():
        raise UserError(f"{table}: --csv and --jsonl name the same file (give each its own)")
    new = [path for path in (table, lines) if path and not path.exists()]

    def opened(path: Path | None) -> TextIO | None:
        if path is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(path.open("a", encoding="utf-8", errors="surrogateescape", newline=""))

    with ExitStack() as stack:
        report = Report(opened(table), opened(lines), [*COLUMNS, *(KIND_COLUMNS if kinds else ())])
        try:
            yield report
        except BaseException:
            for path in new if not report.begun else ():
                path.unlink(missing_ok=True)
            raise
        report.begin()
