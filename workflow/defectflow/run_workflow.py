"""Run the whole workflow on one folder of photographs, with a short summary of Snakemake's messages."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from defectflow.files import UserError

ROOT = Path(__file__).parents[2]  # of the checkout
STEPS = re.compile(r"(\d+) of (\d+) steps \(\d+%\) done")
MESSAGE = re.compile(r"Job \d+: (.+)")


def dataset_of(data: str, name: str | None, known: Iterable[str]) -> tuple[str, Path | None]:
    """Name of a data set and its folder; None: it is an entry of config.yaml.

    Args:
        data: a folder, or the name of an entry.
        name: what the user calls it; None: the name of the folder.
        known: entries of ``datasets:`` in config.yaml.

    Raises:
        UserError: there is no such folder or entry, or the name can be no name of a folder of results.
    """
    known, folder = sorted(known), Path(data).expanduser()
    if data in known and not folder.exists():
        return data, None
    if not folder.exists():
        raise UserError(f"{data}: no such folder, and no data set of config.yaml (it has: {', '.join(known)})")
    chosen = name or re.sub(r"[^A-Za-z0-9_.+-]", "_", folder.resolve().name).lstrip("_.+-") or "photographs"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", chosen):
        raise UserError(f"--name {chosen}: becomes a folder of results (use letters, digits, - and _)")
    if chosen in known:
        raise UserError(f"{data}: config.yaml has a data set {chosen!r} already (give this one a --name)")
    return chosen, folder.resolve()


def command_of(dataset: str, folder: Path | None, settings: Sequence[str], cores: str, *more: str) -> list[str]:
    """The Snakemake command of a run; ``settings`` are KEY=VALUE of config.yaml, ``more`` further arguments.

    Raises:
        UserError: a setting is not KEY=VALUE.
    """
    for setting in settings:
        if not re.match(r"[a-z_]+=", setting):
            raise UserError(f"--set {setting}: must be KEY=VALUE, a key of config.yaml (e.g. isolation=zero_out)")
    data = [] if folder is None else [f"datasets={json.dumps({dataset: {'path': str(folder)}})}"]
    return ["snakemake", "--cores", cores, *more, "--config", f"dataset={dataset}", *data, *settings]


def run(args: argparse.Namespace) -> int:
    """Run the workflow and print the verdict, or with --dry-run what would be done; returns the exit status."""
    if not (ROOT / "Snakefile").is_file():
        raise UserError(f"{ROOT}: no Snakefile (defectflow run works in a checkout, installed by `make setup`)")
    dataset, folder = dataset_of(args.data, args.name, _datasets())
    targets = ["all", "bundle"] if args.bundle else []
    command = command_of(dataset, folder, args.set, args.cores, *targets, *(["--dry-run"] if args.dry_run else []))
    print(f"in {ROOT}: {shlex.join(command)}", file=sys.stderr)
    log = ROOT / "results/logs" / f"run-{dataset}.log"
    status, lines = _execute([sys.executable, "-m", *command], log, args.verbose, bar=not args.dry_run)
    if status:
        errors = list(dict.fromkeys(line for line in lines if line.startswith("error: ")))
        for line in errors or ["error: Snakemake stopped without a reason that is known here"]:
            print(line, file=sys.stderr)
        print(f"all that was printed: {log}", file=sys.stderr)
        return status
    if args.dry_run:
        print("\n".join(planned(lines)))
        return 0
    board = ROOT / "results" / dataset / "leaderboard.csv"
    told = [sys.executable, "-m", "defectflow.verdict", "--leaderboard", str(board.relative_to(ROOT))]
    return subprocess.run(told, cwd=ROOT).returncode


def planned(lines: Iterable[str]) -> list[str]:
    """What a dry run says, a line for each kind of job, with how often."""
    messages = [found[1] for line in lines if (found := MESSAGE.match(line))]
    if not messages:
        return ["Nothing to do: the results are up to date."]
    return [f"{len(messages)} jobs:", *(f"  {message}" for message in messages)]


def _datasets() -> list[str]:
    import yaml

    return list(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["datasets"])


def _execute(command: Sequence[str], log: Path, verbose: bool, bar: bool) -> tuple[int, list[str]]:
    """Run a command, its output in ``log``, a bar or all lines on the terminal; its exit status and its lines."""
    from tqdm import tqdm

    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with (
        open(log, "w", encoding="utf-8") as kept,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
        tqdm(desc="defectflow", unit="job", disable=verbose or not bar) as progress,
    ):
        for line in _lines(process.stdout):
            kept.write(line + "\n")
            lines.append(line)
            if verbose:
                print(line, file=sys.stderr)
            elif found := STEPS.match(line):
                progress.total, progress.n = int(found[2]), int(found[1])
                progress.refresh()
            elif found := MESSAGE.match(line):
                progress.set_postfix_str(found[1])
    return process.returncode, lines


def _lines(stream: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\n") for line in stream)


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `defectflow run` to the command line."""
    parser = commands.add_parser("run", help="photographs to verdict: run the whole workflow", description=__doc__)
    parser.add_argument("data", metavar="DATA", help="folder of photographs (data/README.md), or a name in config.yaml")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of config.yaml")
    parser.add_argument("--name", help="of the data set, and of its folder below results/ (that of the folder)")
    parser.add_argument("--cores", default="all", help="(%(default)s)")
    parser.add_argument("--bundle", action="store_true", help="also pack the inspector for new photographs")
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--verbose", action="store_true", help="show all that Snakemake prints")
    parser.set_defaults(run=run)
