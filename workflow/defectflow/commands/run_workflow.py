"""Run the whole workflow on one folder of photographs, with a short summary of Snakemake's messages."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from defectflow.config.values import nearest
from defectflow.core.files import UserError, nearest_path
from defectflow.listing.archives import is_archive
from defectflow.reporting.snakemake_lines import MESSAGE, STEPS, errors_of, planned

ROOT = Path(__file__).parents[3]  # of the checkout
PATIENCE = 10  # seconds for Snakemake to end its jobs and clean up


def dataset_of(data: str, name: str | None, known: Iterable[str]) -> tuple[str, Path | None]:
    """Name of a data set and its folder; None: it is an entry of config.yaml.

    Args:
        data: a folder, or the name of an entry.
        name: name chosen by the user; None: the name of the folder.
        known: entries of ``datasets:`` in config.yaml.

    Raises:
        UserError: there is no such folder or entry, or the name cannot be used for a folder of results.
    """
    from defectflow.config.run_settings import name_of  # the other commands start sooner without it

    known, folder = sorted(known), Path(data).expanduser()
    if data in known and not folder.exists():
        if name:
            raise UserError(
                f"--name {name}: {data} is a data set of config.yaml and has its name there (leave out --name)"
            )
        return data, None
    if not folder.exists():
        close = nearest_path(folder).removeprefix("; ") or nearest(data, known)
        raise UserError(f"{data}: no such folder, and no data set of that name in config.yaml ({close})")
    if folder.is_file() and not is_archive(data):
        raise UserError(f"{data}: a file (give the folder of the photographs: {folder.parent})")
    chosen = name or name_of(folder.resolve().name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", chosen):
        raise UserError(f"--name {chosen}: becomes a folder of results (use letters A to Z, digits, - and _)")
    if chosen in known:
        raise UserError(f"{data}: config.yaml has a data set {chosen!r} already (give this one a --name)")
    return chosen, folder.resolve()


def command_of(dataset: str, folder: Path | None, settings: Sequence[str], cores: str, *more: str) -> list[str]:
    """The Snakemake command of a run; ``settings`` are KEY=VALUE of config.yaml, ``more`` further arguments.

    Raises:
        UserError: a setting is not KEY=VALUE, or the number of cores is invalid.
    """
    if cores != "all" and not re.fullmatch(r"[1-9]\d*", cores):
        raise UserError(f"--cores {cores}: must be a number from 1 on, or all")
    for setting in settings:
        if not re.match(r"[a-z_]+=.", setting):
            raise UserError(f"--set {setting}: must be KEY=VALUE, a key of config.yaml (e.g. isolation=zero_out)")
        if re.match("datasets?=", setting):
            raise UserError(f"--set {setting}: the data set is what stands behind `defectflow run` (leave this out)")
    entry = json.dumps({dataset: {"path": str(folder)}}, ensure_ascii=False)
    data = [] if folder is None else [f"datasets={entry}"]
    # Files left half-written by a killed run are made again.
    options = ["--cores", cores, "--rerun-incomplete"]
    return ["snakemake", *options, *more, "--config", f"dataset={dataset}", *data, *settings]


def run(args: argparse.Namespace) -> int:
    """Run the workflow and print the verdict, or with --dry-run what would be done; returns the exit status."""
    if not (ROOT / "Snakefile").is_file():
        raise UserError(f"{ROOT}: no Snakefile (defectflow run works in a checkout, installed by `make setup`)")
    dataset, folder = dataset_of(args.data, args.name, _datasets())
    targets = ["all", "bundle"] if args.bundle else []
    settings = [setting for group in args.set for setting in group]
    command = command_of(dataset, folder, settings, args.cores, *targets, *(["--dry-run"] if args.dry_run else []))
    print(f"in {ROOT}: {shlex.join(command)}", file=sys.stderr)
    log = ROOT / "results/logs" / f"run-{dataset}.log"
    status, lines = _execute([sys.executable, "-m", *command], log, args.verbose, quiet=args.dry_run)
    if status:
        for line in errors_of(lines, ROOT):
            print(line, file=sys.stderr)
        print(f"all that was printed: {log}", file=sys.stderr)
        return 2
    if args.dry_run:
        print("\n".join(planned(lines)))
        return 0
    board = ROOT / "results" / dataset / "leaderboard.csv"
    if not board.is_file():  # a data set with categories has none
        print("\n".join(line for line in lines if re.match("(Verdict|Report|Compare|Bundle|Inspect): ", line)))
        return 0
    again = ["defectflow", "run", args.data, *(["--name", args.name] if args.name else [])]
    again += [*(["--set", *settings] if settings else []), "--bundle"]
    shown = board.relative_to(ROOT) if Path.cwd() == ROOT else board
    told = [
        sys.executable,
        "-m",
        "defectflow.reporting.summary",
        "--leaderboard",
        str(shown),
        "--bundle",
        shlex.join(again),
    ]
    if not any(STEPS.match(line) for line in lines):
        print("Nothing to do: the results are up to date.", file=sys.stderr)
    return subprocess.run(told).returncode


def _datasets() -> list[str]:
    import yaml

    return list(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["datasets"])


def _execute(command: Sequence[str], log: Path, verbose: bool, quiet: bool) -> tuple[int, list[str]]:
    """Run a command, its output in ``log``; its exit status and its lines.

    Prints a progress bar on a terminal, otherwise a line for each started job; all lines with ``verbose``, none with
    ``quiet``.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty() and not quiet and not verbose
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with (
        open(log, "w", encoding="utf-8") as kept,
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C comes here alone, and is handed on once to all that was started
        ) as process,
        tqdm(desc="defectflow", unit="job", disable=not terminal, leave=False, dynamic_ncols=True) as progress,
    ):
        try:
            for line in _lines(process.stdout or ()):
                kept.write(line + "\n")
                lines.append(line)
                if verbose:
                    print(line, file=sys.stderr)
                elif found := STEPS.match(line):
                    progress.total, progress.n = int(found[2]), int(found[1])
                    progress.refresh()
                elif (found := MESSAGE.match(line)) and not quiet:
                    progress.set_postfix_str(found[1])
                    if not terminal:
                        print(found[1], file=sys.stderr, flush=True)
        except BaseException as error:
            progress.leave = True
            stop(process)
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt("the same command goes on from here") from None
            raise
    return process.returncode, lines


def stop(process: subprocess.Popen[str]) -> None:
    """End a process that leads its own session, and its children: first by a signal, killed after `PATIENCE` s."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave the half of it running
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
    with suppress(ProcessLookupError):  # remaining children
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(stream: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\n") for line in stream)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `defectflow run` to the command line."""
    parser = commands.add_parser(
        "run", help="learn from a folder of photographs and judge them: the whole workflow", description=__doc__
    )
    parser.add_argument("data", metavar="DATA", help="folder of photographs (data/README.md), or a name in config.yaml")
    parser.add_argument(
        "--set", nargs="+", action="append", default=[], metavar="KEY=VALUE", help="settings of config.yaml"
    )
    parser.add_argument("--name", help="what to call the data set and its folder of results (as DATA is called)")
    parser.add_argument("--cores", default="all", help="how many to use (%(default)s)")
    parser.add_argument("--bundle", action="store_true", help="also pack the inspector, for `defectflow inspect`")
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--verbose", action="store_true", help="show all that Snakemake prints")
    parser.set_defaults(run=run)
