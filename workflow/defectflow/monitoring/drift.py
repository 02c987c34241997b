"""Compare a log of inspections with the good photographs of the run: what has changed, since when, and what to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from defectflow.core.files import UserError, read_json
from defectflow.inspection.bundle_files import Bundle
from defectflow.inspection.held_out import HeldOut, read_held_out
from defectflow.inspection.measures import Measures
from defectflow.monitoring.control_chart import (
    BLOCK,
    FEWEST,
    Difference,
    Excursion,
    differing,
    ewma,
    excursions,
    limit,
    normal_scores,
)
from defectflow.monitoring.inspection_log import Logged, identity

WEEK = 7 * 24 * 3600


class Watched(NamedTuple):
    """One thing that is charted: its name, the words for more and for less of it, and what to do about it."""

    name: str
    more: str
    less: str
    remedy: str


WATCHED = {
    "exposure": Watched("exposure", "brighter", "darker", "clean or replace the lamp, check the exposure time"),
    "sharpness": Watched("sharpness", "sharper or noisier", "blurred", "clean the lens, focus, look for motion blur"),
    "area": Watched("size of the part", "larger", "smaller", "check the distance and the zoom of the camera"),
    "x": Watched("place of the part (across)", "further right", "further left", "put the camera or the fixture back"),
    "y": Watched("place of the part (down)", "further down", "further up", "put the camera or the fixture back"),
    "grain": Watched(
        "grain", "grainier", "smoother",
        "look at the surface: a new lot or finish, or dust? else check the gain of the camera",
    ),
    "raw_score": Watched(
        "score of photographs called good", "stranger to the inspector", "more usual to the inspector",
        "look at some of them: a new lot or a worn tool? teach it what is good (defectflow learn)",
    ),
}  # fmt: skip
SUBJECT, OTHERWISE = {"x": "the part lies", "y": "the part lies", "area": "the part is"}, "photographs are"
AGAIN = "or run again with photographs as they are now"


@dataclass(frozen=True)
class Chart:
    """One measure of a log beside that of the run's good photographs.

    Attributes:
        key: of WATCHED.
        rows: int64 (m,), rows of the log that have it.
        values: float64 (m,).
        reference: float64 (n,), of the good photographs of the run.
        path: float64 (m,), the control chart.
        limit: what the chart must not pass, up or down.
        alarms: where it did.
        blocks: blocks that are distributed otherwise.
    """

    key: str
    rows: np.ndarray
    values: np.ndarray
    reference: np.ndarray
    path: np.ndarray
    limit: float
    alarms: list[Excursion]
    blocks: list[Difference]


def reference_of(bundle: Bundle) -> dict[str, np.ndarray]:
    """Each measure of the run's good photographs, float64 (n,); scores only of those that it calls good.

    Raises:
        UserError: there are too few.
    """
    held = read_held_out(bundle)
    good = held.label == 0
    scores = run_scores(bundle, held)
    found = {name: held.measures[good, column] for column, name in enumerate(Measures._fields)}
    found["raw_score"] = scores[good & (scores < bundle.settings["threshold"]["value"])]
    found = {key: values[~np.isnan(values)] for key, values in found.items()}
    if good.sum() < FEWEST:
        raise UserError(
            f"{bundle.folder}: {good.sum()} good photographs to compare with, and it takes {FEWEST} (label more, run "
            "again and make the bundle again)"
        )
    return {key: values for key, values in found.items() if len(values) >= FEWEST}


def run_scores(bundle: Bundle, held: HeldOut) -> np.ndarray:
    """Raw scores of the run's photographs, float64 (n,), in a taught bundle with what it was taught."""
    taught = bundle.settings.get("taught")
    if not taught:
        return held.score
    return np.array(read_json(bundle.path(f"taught-{taught['version']}/learned.json"))["scores_of_the_run"])


def compare(bundle: Bundle, log: Logged) -> list[Chart]:
    """A chart for each measure that log and run have.

    Raises:
        UserError: see `reference_of`.
    """
    reference = reference_of(bundle)
    mine = log.bundle == identity(bundle.settings)
    columns = dict(zip(Measures._fields, log.measures.T, strict=True))
    # Scores of other bundles have another scale, and defects have scores of their own.
    columns["raw_score"] = np.where(mine & ~log.bad, log.raw_score, np.nan)
    usable = {key: np.flatnonzero(~np.isnan(columns[key])) for key in WATCHED if key in reference}
    usable = {key: rows for key, rows in usable.items() if len(rows)}
    charts = []
    for key, rows in usable.items():
        values, known = columns[key][rows], reference[key]
        path, height = ewma(normal_scores(values, known)), limit(len(known), len(usable))
        blocks = differing(values, known, len(usable))
        charts.append(Chart(key, rows, values, known, path, height, excursions(path, height), blocks))
    return charts


def sentences(charts: Sequence[Chart], log: Logged) -> list[str]:
    """What has changed, in words, one sentence for each; none where nothing has."""
    told = []
    for chart in charts:
        watched, when = WATCHED[chart.key], log.time[chart.rows]
        for alarm in chart.alarms:
            span = when_text(when[alarm.first], None if alarm.last == len(when) - 1 else when[alarm.last], log.time[-1])
            values = chart.values[alarm.first : alarm.last + 1]
            change = amount(chart.key, float(np.median(values)), float(np.median(chart.reference)))
            what = watched.more if alarm.up else watched.less
            told.append(f"{span} {SUBJECT.get(chart.key, OTHERWISE)} {what}{change}: {watched.remedy}, {AGAIN}")
        noticed = [row for alarm in chart.alarms for row in range(alarm.first, alarm.last + 1)]
        rest = [block for block in chart.blocks if not set(range(block.first, block.last + 1)) & set(noticed)]
        if rest:
            span = when_text(when[rest[0].first], when[rest[-1].last], log.time[-1])
            many = f"in {len(rest)} of {len(chart.values) // BLOCK} blocks of {BLOCK} photographs"
            told.append(
                f"{span} the {watched.name} is distributed otherwise than in the run, though about the same on average "
                f"({many}; smallest p {min(block.p for block in rest):.1g}): does it vary more than before?"
            )
    return told


def amount(key: str, now: float, before: float) -> str:
    """How much a measure has changed, as text behind "darker"."""
    if key in ("x", "y"):
        share = abs(now - before)
        return f" by {share:.1%} of the {'width' if key == 'x' else 'height'}"
    if before <= 0:
        return ""
    ratio = now / before
    if key == "raw_score":
        return f" (median score {now:.4g}, was {before:.4g})"
    if abs(ratio - 1) < 0.005:
        return " by less than 1 %"
    return f" by {abs(ratio - 1):.0%}" if ratio < 2 else f" ({ratio:.1f} times)"


def when_text(begin: float, end: float | None, now: float) -> str:
    """A span of time in words, seconds since 1970; ``end`` None: it lasts. Within a week by the weekday."""
    if end is None:
        return f"since {moment(begin, now)}"
    return f"from {moment(begin, now)} to {moment(end, now)}"


def moment(seconds: float, now: float) -> str:
    """A point in time of this time zone, as text."""
    local = time.localtime(seconds)
    return time.strftime("%A %H:%M" if now - seconds < WEEK - 12 * 3600 else "%Y-%m-%d %H:%M", local)


def summary(charts: Sequence[Chart], log: Logged) -> str:
    """What was compared, in one line."""
    first, last = (time.strftime("%Y-%m-%d %H:%M", time.localtime(t)) for t in (log.time[0], log.time[-1]))
    names = ", ".join(WATCHED[chart.key].name for chart in charts)
    bad = int(log.bad.sum())
    return f"{len(log.time)} photographs from {first} to {last}, {bad} of them called bad; compared: {names}"


def as_record(charts: Sequence[Chart], told: Sequence[str], log: Logged) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "photographs": len(log.time),
        "changes": list(told),
        "charts": {
            chart.key: {
                "limit": chart.limit,
                "last": float(chart.path[-1]),
                "alarms": [alarm._asdict() for alarm in chart.alarms],
                "differing_blocks": [block._asdict() for block in chart.blocks],
                "good_photographs_of_the_run": len(chart.reference),
            }
            for chart in charts
        },
    }


def parse_time(text: str, where: str) -> float:
    """Seconds since 1970 of a date, or date and time, in this time zone.

    Raises:
        UserError: it is neither.
    """
    for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"):
        try:
            return time.mktime(time.strptime(text, form))
        except ValueError:
            continue
    raise UserError(f"{where} {text!r}: not a time (write e.g. 2025-03-31 or '2025-03-31 14:00')")


def log_beside(path: Path) -> Path:
    """Where pictures of a log go that was given no folder."""
    return path.with_name(f"{path.stem}-drift")
