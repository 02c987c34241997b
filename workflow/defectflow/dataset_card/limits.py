"""What is missing in a data set for an honest figure, in plain sentences, what weighs most first."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from defectflow.core.counted import counted
from defectflow.data.equal_copies import EQUAL
from defectflow.data.near_copies import NEAR
from defectflow.dataset_card.defect_places import Places
from defectflow.dataset_card.photographs import BAD, NO_KIND, judged, shows_bursts
from defectflow.dataset_card.shortcuts import TOGETHER, Shortcut
from defectflow.evaluation.claims import percent
from defectflow.evaluation.image_metrics import ENOUGH_GROUPS
from defectflow.metrics.intervals import text as ends
from defectflow.metrics.metrics import wilson

WIDE = 0.05  # half the width of an interval from which it is told
RATE = 0.9  # recall that is assumed to say how well it would be known
FEW = 10  # photographs of a kind of defect
BLOWN, NIGHT = 0.1, 20.0  # share of overexposed pixels, mean grey level: photographs beyond these are counted


def missing(
    table: pd.DataFrame, report: Mapping[str, Any], defects: Places | None, told_apart: Sequence[Shortcut]
) -> list[str]:
    """The sentences.

    Args:
        table: see `photographs.photographs`.
        report: content of ingest_report.json.
        defects: what marks them, or None.
        told_apart: see `shortcuts.shortcuts`.
    """
    return [
        *_labels(table),
        *_shortcuts(told_apart),
        *_sessions(table),
        *_intervals(table),
        *_kinds(table),
        *_masks(table, defects),
        *_copies(report),
        *_light(table),
        *_outlines(report),
        *_unlabelled(table),
    ]


def _labels(table: pd.DataFrame) -> Iterator[str]:
    labels = table["label"]
    good, bad = int(labels.eq(0).sum()), int(labels.eq(1).sum())
    if not good + bad:
        yield (
            "No photograph is labelled: a run with five or more assumes that most are good, and nothing can be "
            "measured before some good and some bad ones are labelled (folders good/ and bad/, or labels.csv)."
        )
        return
    if not good:
        yield (
            "No good photograph is labelled: nothing can be learned, and how often a good part raises an alarm is "
            "unknown."
        )
    if not bad:
        yield (
            "No bad photograph is labelled: how many defects are found cannot be measured, only how often a good part "
            "raises an alarm."
        )
    held = judged(table)["label"]
    for side, name, had in ((0, "good", good), (1, "bad", bad)):
        if had and not held.eq(side).any():
            yield f"All {name} photographs are in the training split: none is left to measure with."


def _unlabelled(table: pd.DataFrame) -> Iterator[str]:
    labels = table["label"]
    if labels.notna().any() and (unknown := int(labels.isna().sum())):
        yield f"{counted(unknown, 'photograph')} without a label {'counts' if unknown == 1 else 'count'} in no figure."


def _shortcuts(found: Sequence[Shortcut]) -> Iterator[str]:
    alone = [one for one in found if one.name != TOGETHER and one.tells]
    if alone:
        first = alone[0]
        low, high = ends(first.interval)
        yield (
            f"Good and bad photographs differ in {_property(first.name)} before anything else: bad ones are "
            f"{first.how}, and by this alone a bad one is told from a good one in {percent(first.auroc)} of the pairs "
            f"(AUROC {first.auroc:.2f}, {low} to {high}). Unless the defect itself causes it, a verdict may judge how "
            "the photograph was taken."
        )
        if others := [f"{_property(one.name)} ({one.auroc:.2f})" for one in alone[1:]]:
            yield f"They also differ in {_list(others)}."
    together = next((one for one in found if one.name == TOGETHER), None)
    if together and together.tells and not (alone and together.auroc <= alone[0].auroc):
        low, high = ends(together.interval)
        yield (
            f"Brightness, sharpness, size and format together, and nothing of the part, tell bad from good photographs "
            f"with a held-out AUROC of {together.auroc:.2f} ({low} to {high}): a detector has to beat that."
        )


def _sessions(table: pd.DataFrame) -> Iterator[str]:
    known = table[table["label"].notna()]
    if known.empty:
        return
    if not shows_bursts(known):
        yield (
            "Nothing says which photographs were taken together (column group of labels.csv): photographs of one "
            "session may judge each other, and no figure says how well a new session is judged."
        )
        return
    group = known["group"].where(known["group"] != "", known["image_id"])
    good, bad = (set(group[known["label"] == side]) for side in (0, 1))
    count = int((known["label"] == 1).sum())
    if len(bad) == 1 and count > 1:
        yield f"All {count} bad photographs come from one session ({next(iter(bad))}): a verdict may judge the session."
    if good and bad and not good & bad:
        yield "No session has both good and bad photographs: a verdict may judge the session and not the part."
    elif good and (lonely := sorted(bad - good)):
        n = int(group[known["label"] == 1].isin(lonely).sum())
        yield (
            f"{n} of {count} bad photographs {'comes from a session' if n == 1 else 'come from sessions'} without a "
            f"good one ({_list(lonely)}): there a verdict may judge the session."
        )
    if good and len(good) < ENOUGH_GROUPS:
        yield (
            f"The good photographs come from {'one session' if len(good) == 1 else f'{len(good)} sessions'}: how much "
            f"the next one differs is hardly known ({ENOUGH_GROUPS} or more are better)."
        )
    sides = known[(known["split"] != "") & (known["group"] != "")].groupby("group")["split"].nunique()
    if both := sides.index[sides > 1].tolist():
        yield (
            f"{counted(len(both), 'session')} on both sides of the split ({_list(both)}): the test is easier than a "
            "new session."
        )


def _intervals(table: pd.DataFrame) -> Iterator[str]:
    held = judged(table)["label"]
    sides = ((1, "bad", "recall", "were found"), (0, "good", "share of good parts that pass", "passed"))
    for side, what, of, done in sides:
        n = int(held.eq(side).sum())
        if not n:
            continue
        right = round(RATE * n)
        low, high = interval(right, n)
        if (high - low) / 2 <= WIDE:
            continue
        some = "it" if n == 1 else f"{right} of them"
        first, last = ends([low, high])
        yield (
            f"{counted(n, f'{what} photograph')} to measure with: the {of} is known to about ±{(high - low) / 2:.2f}. "
            f"If {some} {done}, it might be anything from {first} to {last}; ±{WIDE:.2f} takes {enough()} photographs."
        )


def interval(right: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``n`` > 0 photographs."""
    span = wilson(right, n)
    assert span is not None, "n is above 0"
    return span[0], span[1]


def enough() -> int:
    """How many photographs tell a share of RATE to ±WIDE."""
    n = 1
    while (span := interval(RATE * n, n))[1] - span[0] > 2 * WIDE:
        n += 1
    return n


def _kinds(table: pd.DataFrame) -> Iterator[str]:
    bad = table.loc[table["label"] == 1, "class"]
    counts = bad.value_counts()
    unknown = int(counts.get(NO_KIND, 0))
    kinds = counts.drop([NO_KIND, BAD], errors="ignore")
    if few := sorted(kinds.index[kinds < FEW]):
        all_of_them = len(few) == len(kinds) > 1
        who = f"Each of the {len(few)} kinds of defect" if all_of_them else _list(few)
        has = "has" if all_of_them or len(few) == 1 else "have"
        yield f"{who} {has} fewer than {FEW} photographs: too few to say how well that kind is found."
    if unknown:
        count = "counts" if unknown == 1 else "count"
        yield f"{counted(unknown, 'bad photograph')} of no named kind {count} for no kind of defect."
    if len(bad) and kinds.empty and not unknown:
        yield "Nothing says which kind of defect a photograph shows: no figure says which ones are missed."


def _masks(table: pd.DataFrame, defects: Places | None) -> Iterator[str]:
    bad = table[table["label"] == 1]
    without = int((bad["mask"] == "").sum())
    if len(bad) and without == len(bad):
        yield (
            "No bad photograph has a ground-truth mask: pixel metrics are not computed, and nothing measures whether "
            "the heat lies on the defect."
        )
    elif without:
        yield (
            f"{without} of {len(bad)} bad photographs {'has' if without == 1 else 'have'} no ground-truth mask and "
            "count in no pixel metric."
        )
    marked = defects.marked if defects and defects.source == "ground truth" else 0
    if (empty := len(bad) - without - marked) > 0:
        yield f"{counted(empty, 'ground-truth mask')} of bad photographs {'is' if empty == 1 else 'are'} empty."


def copies(report: Mapping[str, Any]) -> dict[str, int]:
    """What ingest found: equal files that were left out, and pairs that hardly differ where that matters."""
    equal = sum(one["text"].startswith(EQUAL) for one in report.get("problems", []))
    near = sum(one["text"].startswith(NEAR) for one in report.get("warnings", []))
    return {"equal_files": equal, "near_copies": near}


def _copies(report: Mapping[str, Any]) -> Iterator[str]:
    near = copies(report)["near_copies"]
    if near:
        yield (
            f"{counted(near, 'pair')} of photographs hardly {'differs' if near == 1 else 'differ'}, and one judges the "
            "other or has another label: delete one of each, or give both the same group."
        )


def _light(table: pd.DataFrame) -> Iterator[str]:
    white, black = int((table["clipped"] > BLOWN).sum()), int((table["luminance"] < NIGHT).sum())
    if white:
        are = "is" if white == 1 else "are"
        of = "white" if 2 * white > len(table) else "overexposed"  # most are: by intent, as before a white wall
        yield (
            f"{white} of {len(table)} photographs {are} {of} in more than {percent(BLOWN)} of the frame: no detector "
            "sees a defect there."
        )
    if black:
        yield (
            f"{black} of {len(table)} photographs {'is' if black == 1 else 'are'} nearly black (mean grey level below "
            f"{NIGHT:g} of 255): no detector sees a defect there."
        )
    ratios = (table["width"] / table["height"]).round(2).nunique()
    if ratios > 1:
        yield (f"The photographs have {ratios} different proportions of width to height: not all were taken as in use.")


def _outlines(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["annotated"]:
        yield (
            "No outline of the part: it is looked for, and no held-out figure says how exact its masks are (one to "
            "three outlines are enough to begin with: docs/parts.md)."
        )


def _property(name: str) -> str:
    return f"file format ({name[7:]})" if name.startswith("format ") else name


def _list(names: Sequence[str], most: int = 6) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
