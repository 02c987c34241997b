"""The command line: run the workflow on a folder; use, pack, export and time the resulting inspector."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectflow.core.files import UNWRITABLE, UserError

if TYPE_CHECKING:
    from defectflow.inspection.judge_files import Judged

GOOD, ERROR, FLAGGED = 0, 2, 3
EXAMPLES = """\
in the order of use:
  defectflow run data/mine -n                  what would be done with the photographs of this folder
  defectflow run data/mine                     do it: find the part, learn what is good, judge, report
  defectflow run data/mine --bundle            the same, and pack the inspector into the folder bundle/
  defectflow inspect BUNDLE new/               judge the photographs of a folder with it
  defectflow inspect BUNDLE new/ --csv verdicts.csv --out pictures/     with a table, heatmaps and overlays
  defectflow inspect BUNDLE new/ --log inspections.db   keep what light, focus and place of the part were
  defectflow learn BUNDLE --feedback feedback.csv       teach it where it was wrong
  defectflow drift BUNDLE inspections.db       has the light, the focus or the camera changed since the run?
  defectflow pack BUNDLE                       one .zip of it, to send to another computer
  defectflow export BUNDLE --format openvino --images new/*.jpg         a graph for a faster runtime
  defectflow bench BUNDLE new/*.jpg            how long a photograph takes
  defectflow serve BUNDLE                      judge photographs that other programs send over HTTP
  defectflow desk data/mine                    do all of it in a browser

`defectflow run` names the BUNDLE of a run in its last lines. How photographs are laid out: data/README.md; every
setting: config.yaml; each option: defectflow COMMAND --help. The exit status is 0 if all is well, 3 if a photograph
was flagged, 2 after an error.
"""


def inspect(args: argparse.Namespace) -> int:
    """Judge every photograph; the exit status is 0 where all are good, 3 if one is flagged, 2 if one was not judged.

    Files in the folders that are not read as photographs are named; those that look like pictures count as not judged.
    """
    from defectflow.core.kept_memory import INSPECTION, keep_memory, uncollected

    if bool(args.paths) == bool(args.watch):
        raise UserError("give photographs, folders or globs, or --watch FOLDER")
    if args.triptychs and not args.out:
        raise UserError("--triptychs: needs --out FOLDER")
    keep_memory(INSPECTION)
    with uncollected():
        from defectflow.core.counted import counted
        from defectflow.inspection.inspector import Inspector
        from defectflow.inspection.outputs import PassedOverFiles, Pictures, line_of, open_report
        from defectflow.inspection.photo_sources import count, photographs, watch

        inspector = load(Inspector, args)
    if outdated(args.bundle):
        print(
            f"note: {args.bundle} is older than the run next to it (`snakemake bundle` makes it again)", file=sys.stderr
        )
    settings = inspector.settings
    pictures = Pictures(args.out, settings["scale"], settings["look"], args.triptychs) if args.out else None
    quiet = not sys.stderr.isatty() or sys.stdout.isatty() or args.watch
    total = None if quiet else count(args.paths)
    flagged = errors = judged = 0
    inspector.measuring = args.log is not None
    with open_report(args.csv, args.jsonl, inspector.names_kinds) as report, ExitStack() as ended:
        log = None
        if args.log:
            from defectflow.monitoring.inspection_log import open_log

            log = ended.enter_context(open_log(args.log, settings))
        if args.watch:
            ended.enter_context(suppress(KeyboardInterrupt))  # the way to end a watch
        passed = PassedOverFiles(report)
        found = (
            watch(args.watch, idle=args.idle, on_passed_over=passed) if args.watch else photographs(args.paths, passed)
        )
        paths = ended.enter_context(closing(found))  # so that a watch reports the remaining files before the last line
        for path, verdict, problem in progress(judge_all(inspector, paths, pictures, args), total, quiet):
            judged += verdict is not None  # before printing: a reader of the line may interrupt the watch immediately
            errors += verdict is None
            flagged += verdict is not None and verdict.flagged
            report.add(path, verdict, problem)
            if log and verdict:
                log.add(path, verdict)
            print(line_of(path, verdict, problem), flush=True)
    not_judged = f", {errors} not judged" if errors else ""
    summary = f"{counted(judged, 'photograph')} judged, {flagged} flagged{not_judged}{passed.summary()}"
    taught = f"; taught, version {settings['taught']['version']}" if "taught" in settings else ""
    print(f"{summary}; {inspector.runtime}{taught}", file=sys.stderr)
    return ERROR if errors or passed.pictures else FLAGGED if flagged else GOOD


def outdated(bundle: Path) -> bool:
    """Whether the run around a bundle was evaluated again after the bundle was made; False outside of a run."""
    from defectflow.inspection.bundle_files import made_at

    try:
        return bundle.with_name("metrics.json").stat().st_mtime_ns > made_at(bundle)
    except (OSError, ValueError):  # it lies elsewhere, or is a .zip
        return False


def load(kind: Any, args: argparse.Namespace) -> Any:
    """The inspector, with as many threads as asked for.

    Raises:
        UserError: as `Inspector.load`, or a batch is requested from a runtime that takes one photograph.
    """
    from defectflow.core.parallel import can_fork

    many = {"threads": args.threads, "streams": args.streams}
    # One photograph per core: by forks, each with a single thread, where nothing speaks against it.
    forks = can_fork() and args.threads == args.streams and args.device == "cpu" and args.batch == 1 and not args.watch
    one = {"threads": 1, "streams": 1} if forks else many
    load = partial(kind.load, args.bundle, args.runtime, precision=args.precision, device=args.device)
    inspector = load(**one)
    if one != many and not inspector.can_fork:
        inspector = load(**many)
    if args.batch > 1 and inspector.runtime != "torch":
        raise UserError(
            f"--batch {args.batch}: the graph of runtime {inspector.runtime} takes one photograph at a time, and would "
            "gain nothing from several (use --streams to process several at once, or --runtime torch)"
        )
    return inspector


def judge_all(inspector: Any, paths: Iterable[Path], pictures: Any, args: argparse.Namespace) -> Iterator["Judged"]:
    """Yield (path, verdict or None, problem) in order, with ``args.streams`` photographs processed at a time.

    With ``args.batch`` above 1, that many are read in parallel and then go through the network together.
    """
    from defectflow.core.parallel import in_forks, in_order
    from defectflow.inspection.judge_files import begin, end, judge_one

    one = partial(judge_one, inspector, pictures)
    if (
        args.watch or args.streams == args.batch == 1
    ):  # each arrival is reported immediately, not when the next one comes
        yield from map(one, paths)
    elif args.batch == 1 and inspector.can_fork:
        yield from in_forks(one, paths, args.streams)
    elif args.batch == 1:
        yield from in_order(one, paths, args.streams)
    else:
        begun = in_order(partial(begin, inspector, pictures), paths, args.streams, 1 + args.batch // args.streams)
        while batch := list(islice(begun, args.batch)):
            yield from end(inspector, pictures, batch)


def progress(results: "Iterable[Judged]", total: int | None, quiet: bool) -> "Iterable[Judged]":
    """Show a progress bar if stderr is a terminal and the lines go elsewhere."""
    if quiet:
        return results
    from tqdm import tqdm

    return tqdm(results, total=total, unit="image", desc="inspect")


def export(args: argparse.Namespace) -> int:
    """Export network and search, if they agree with PyTorch; prints the parity report."""
    from defectflow.bundling.export import export_bundle
    from defectflow.inspection.photo_sources import photographs

    print(export_bundle(args.bundle, args.format, args.precision, photographs(args.images), args.labels))
    return GOOD


def pack(args: argparse.Namespace) -> int:
    """Write a bundle as one .zip, which `inspect` takes as well; the same bundle gives the same bytes."""
    from defectflow.inspection.bundle_files import pack

    whole = args.bundle.resolve()
    target = args.file or whole.parent / f"{whole.name}.zip"
    pack(args.bundle, target)
    print(target)
    return GOOD


def bench(args: argparse.Namespace) -> int:
    """Print how long every runtime takes, by step."""
    from defectflow.inspection.latency import measure
    from defectflow.inspection.photo_sources import photographs

    print(measure(args.bundle, photographs(args.paths), args.runtimes, args.precision, args.threads, args.repeat))
    return GOOD


def build_parser(own: bool = False) -> argparse.ArgumentParser:
    """The command line; ``own``: only the commands of this module, without importing what the others need."""
    lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="defectflow",
        description="From photographs of one part to an inspector that tells good from bad, and shows where.",
        epilog=EXAMPLES,
        formatter_class=lines,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def common(command: argparse.ArgumentParser) -> None:
        command.add_argument("bundle", type=Path, help="folder that `defectflow run DATA --bundle` made, or a .zip")
        command.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="(%(default)s)")
        command.add_argument("--threads", type=int, default=cores, help="computing threads (%(default)s)")

    if not own:
        from defectflow.commands.afterwards import add_commands as add_afterwards
        from defectflow.commands.desk import add_command as add_desk
        from defectflow.commands.run_workflow import add_command as add_run
        from defectflow.commands.serve import add_commands as add_serve

        add_run(commands)
    one = commands.add_parser("inspect", help="judge new photographs by a bundle", description=inspect.__doc__)
    common(one)
    one.add_argument("paths", nargs="*", metavar="PATH", help="files, folders (with subfolders) and globs")
    one.add_argument("--runtime", choices=("auto", "openvino", "onnx", "torch"), default="auto", help="(%(default)s)")
    one.add_argument("--streams", type=int, help="photographs processed at the same time (default: as many as threads)")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of runtime torch (%(default)s)")
    one.add_argument(
        "--batch", type=int, default=1, metavar="N", help="photographs in one call of runtime torch (%(default)s)"
    )
    one.add_argument("--csv", type=Path, metavar="FILE", help="table to write")
    one.add_argument(
        "--jsonl", type=Path, metavar="FILE", help="the same as JSON lines, with damaged regions and times"
    )
    one.add_argument("--out", type=Path, metavar="FOLDER", help="heatmaps/ and overlays/ with damage boxes go here")
    one.add_argument("--triptychs", action="store_true", help="and triptychs/: photograph, mask, heatmap")
    one.add_argument("--log", type=Path, metavar="FILE", help="append to it, for `defectflow drift` (SQLite)")
    one.add_argument("--watch", type=Path, metavar="FOLDER", help="inspect photographs as they arrive there")
    one.add_argument(
        "--idle", type=float, metavar="SECONDS", help="stop watching after this long without a new photograph"
    )
    one.set_defaults(run=inspect)

    if not own:
        add_afterwards(commands)
    four = commands.add_parser("pack", help="make one .zip of a bundle", description=pack.__doc__)
    four.add_argument("bundle", type=Path, help="folder of the bundle")
    four.add_argument(
        "file", type=Path, nargs="?", help="file to write (default: next to the folder, its name with .zip)"
    )
    four.set_defaults(run=pack)

    two = commands.add_parser("export", help="make graphs of a bundle for faster runtimes", description=export.__doc__)
    two.add_argument("bundle", type=Path, help="folder of the bundle; exports/ is written into it")
    two.add_argument("--format", choices=("onnx", "openvino"), required=True)
    two.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="(%(default)s)")
    two.add_argument("--images", nargs="+", required=True, metavar="PATH", help="photographs to compare on")
    two.add_argument("--labels", type=Path, help="labels.csv of these photographs, to report the change in AUROC")
    two.set_defaults(run=export)

    three = commands.add_parser("bench", help="measure how long a photograph takes", description=bench.__doc__)
    common(three)
    three.add_argument("paths", nargs="+", metavar="PATH", help="photographs")
    three.add_argument(
        "--runtimes", nargs="+", default=["openvino", "onnx", "torch"], help="(default: all that are installed)"
    )
    three.add_argument("--repeat", type=int, default=1, help="passes over the photographs (%(default)s)")
    three.set_defaults(run=bench)
    if not own:
        add_serve(commands)
        add_desk(commands)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a UserError becomes one line on stderr. Exits with 0, 2 (error) or 3 (something flagged)."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = build_parser(own=words[:1] == ["inspect"])
    if not words:
        parser.print_help(sys.stderr)
        sys.exit(ERROR)
    args, rest = parser.parse_known_args(arguments)
    if rest and ("paths" not in args or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse takes no second group of paths, behind options
        args.paths += rest
    if getattr(args, "streams", 1) is None:
        args.streams = args.threads
    # One photograph per core, computed by one thread: libraries with several threads each would slow each other down.
    own = str(max(1, getattr(args, "threads", 1) // max(1, getattr(args, "streams", 1))))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", own)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the signal with which a service manager ends a watch
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if min(getattr(args, name, 1) for name in ("threads", "streams", "batch")) < 1:
            raise UserError("--threads, --streams, --batch: must be 1 or more")
        import cv2

        cv2.setNumThreads(int(own))
        sys.exit(args.run(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        print(": ".join(["stopped", *map(str, interrupt.args)]), file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in (*UNWRITABLE, errno.EEXIST, errno.ENOTDIR):  # the last two: a file where a folder goes
            raise
        print(f"error: {error.filename or 'output'}: {error.strerror} (make room, or write elsewhere)", file=sys.stderr)
    sys.exit(ERROR)


if __name__ == "__main__":
    main()
