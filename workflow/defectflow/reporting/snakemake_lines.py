"""What Snakemake prints in a run, for people: errors, the plan of a dry run, steps done.

Standard library only: the command line imports this module.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

STEPS = re.compile(r"(\d+) of (\d+) steps \(\d+%\) done")
MESSAGE = re.compile(r"Job \d+: (.+)")


def errors_of(lines: Sequence[str], folder: Path) -> list[str]:
    """The error messages of Snakemake or a stage, with the list of problems if there is one; at least one line.

    Args:
        lines: all that was printed.
        folder: that the run works in.
    """
    told: list[str] = []
    for line in lines:
        if not line.startswith("error: ") or line in told:
            continue
        if "listed above" in line:
            told += listed(lines)
        told.append(line)
    if any("LockException" in line or "cannot be locked" in line for line in lines):
        unlock = f"cd {shlex.quote(str(folder))} && snakemake --unlock"
        told.append(f"error: {folder}: another run is at work there, or was killed (wait for it, or: {unlock})")
    if any("on_problem: leave_out" in line for line in told):
        told.append("on_problem: leave_out is `--set on_problem=leave_out` behind `defectflow run`")
    if Path.cwd() != folder:  # paths of results are those of the checkout
        told = [re.sub(r"(?<![\w/.-])results/", f"{folder}/results/", line) for line in told]
    return told or ["error: Snakemake stopped without a reason that is known here (--verbose shows all it says)"]


def listed(lines: Sequence[str]) -> list[str]:
    """The list of problems that the first stage prints before it stops: its heading and the indented lines below it."""
    heads = [k for k, line in enumerate(lines) if re.match(r"\d+ problems? in .*:$", line)]
    return [*lines[heads[-1] : heads[-1] + 1], *takewhile(_indented, lines[heads[-1] + 1 :])] if heads else []


def _indented(line: str) -> bool:
    return line.startswith("  ")


def planned(lines: Iterable[str]) -> list[str]:
    """Summary of a dry run: one line for each kind of job, with its number."""
    messages = [found[1] for line in lines if (found := MESSAGE.match(line))]
    if not messages:
        return ["Nothing to do: the results are up to date."]
    return [f"{len(messages)} jobs:", *(f"  {message}" for message in messages)]
