"""The stages of a run in plain words, and the progress of a run, read from Snakemake's output."""

from __future__ import annotations

import csv
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from defectflow.desk.project import ROOT

# {room: words} of each room with rules, in the order of the Snakefile
WORDS = {
    "demo": "Render photographs",
    "data": "Read and check the photographs",
    "parts": "Learn the part from its outlines",
    "finding": "Find the part",
    "segmentation": "Make masks of the part",
    "isolation": "Cut out the part",
    "detection": "Learn what is good and compare",
    "labelling": "Check the labels",
    "evaluation": "Choose the threshold and judge",
    "refinement": "Outline the damage by SAM",
    "reporting": "Draw the pictures and the report",
    "label_export": "Export the labels",
    "dataset_card": "Describe the data set",
    "classification": "Classify the kinds of defects",
    "bundling": "Pack the inspector",
    "pretraining": "Train the included networks",
}
STATISTICS = re.compile(r"(\w+) +(\d+)$")
STARTED = re.compile(r"(?:Job (\d+): (.+)|    jobid: (\d+))$")
FINISHED = re.compile(r"Finished jobid: (\d+)(?: \(Rule: (\w+)\))?")
INSIDE = re.compile(r"([\w-]+): +(\d+)%\|")  # a bar of tqdm


class Rule(NamedTuple):
    """A rule of the workflow: its room, and a pattern of its message."""

    room: str
    message: re.Pattern[str]


class Stage(NamedTuple):
    """Progress of a stage.

    Attributes:
        room: of its rules.
        words: what it does.
        total, done: jobs.
        running: messages of the running jobs.
    """

    room: str
    words: str
    total: int
    done: int
    running: list[str]


class Progress(NamedTuple):
    """Progress of a run.

    Attributes:
        stages: of this run, in order; none before Snakemake has made its plan.
        total, done: jobs.
        inside: progress of the running job in [0, 1], from its own progress bar; None: it has none.
        seconds: remaining, estimated from earlier runs; None: unknown.
    """

    stages: list[Stage]
    total: int
    done: int
    inside: float | None
    seconds: float | None


@functools.cache
def rules() -> dict[str, Rule]:
    """The rules of the workflow by their names."""
    found = {}
    for room in WORDS:
        path = ROOT / "workflow/rules" / f"{room}.smk"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        # Some rules are indented: they exist if the config asks for them.
        for name, body in re.findall(r"^ *rule (\w+):\n((?:(?! *rule )(?: +.*)?\n)*)", text, re.MULTILINE):
            message = re.search(r'message:\s*"(.*)"', body)
            pattern = re.sub(r"\\\{.*?\\\}", ".+", re.escape(message[1])) if message else "(?!)"
            found[name] = Rule(room, re.compile(pattern))
    return found


def counts(lines: Iterable[str]) -> Counter[str]:
    """Jobs by rule, from the table that Snakemake prints at the start; without `all`, which does nothing."""
    found: Counter[str] = Counter()
    inside = False
    for line in lines:
        if line == "Job stats:":
            inside = True
            found.clear()
        elif inside and (told := STATISTICS.match(line)):
            if told[1] == "total":
                break
            if told[1] in rules():
                found[told[1]] = int(told[2])
    return found


def progress(lines: Sequence[str], seconds: dict[str, float] | None = None) -> Progress:
    """Progress of a run, by the lines that it has printed.

    Args:
        lines: all lines.
        seconds: duration of a job of each rule.
    """
    planned = counts(lines)
    done: Counter[str] = Counter()
    running: dict[str, tuple[str, str]] = {}  # by number of the job: rule, message
    inside = None
    for line in lines:
        if (told := STARTED.match(line)) and told[1]:
            rule = next((name for name, rule in rules().items() if rule.message.fullmatch(told[2])), "")
            running[told[1]] = rule, told[2]
            inside = None
        elif told := FINISHED.match(line):
            rule, _ = running.pop(told[1], (told[2] or "", ""))
            done[told[2] or rule] += 1
            inside = None
        elif bars := INSIDE.findall(line):
            inside = int(bars[-1][1]) / 100
    stages = []
    for room, words in WORDS.items():
        own = [name for name in planned if rules()[name].room == room]
        if own:
            messages = [message for rule, message in running.values() if rule in own]
            stages.append(Stage(room, words, sum(planned[n] for n in own), sum(done[n] for n in own), messages))
    left: float | None = None
    if planned and seconds and all(name in seconds for name in planned):
        left = sum(seconds[name] * (planned[name] - done[name]) for name in planned)
        if inside is not None and len(running) == 1:
            ((rule, _),) = running.values()
            left -= inside * seconds.get(rule, 0)
    total = sum(planned.values())
    return Progress(stages, total, min(total, sum(done[name] for name in planned)), inside if running else None, left)


def untouched(planned: Iterable[str], results: Path) -> list[str]:
    """Rooms that have results and in which none of the planned rules would run."""
    changed = {rules()[name].room for name in planned if name in rules()}
    known = durations(results)
    return [room for room in WORDS if room not in changed and any(rules()[name].room == room for name in known)]


def durations(results: Path) -> dict[str, float]:
    """Mean seconds of a job of each rule in its last run, from the benchmark files of the results."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for path in (results / "benchmarks").rglob("*.tsv"):
        name = re.sub(r"-\d+$", "", path.stem)
        if name not in rules():
            continue
        try:
            with open(path, encoding="utf-8", newline="") as stream:
                found[name] += [float(row["s"]) for row in csv.DictReader(stream, delimiter="\t")]
        except (OSError, KeyError, ValueError):
            continue
    return {name: sum(times) / len(times) for name, times in found.items() if times}
