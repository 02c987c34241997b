"""What comes after a bundle is in use: `defectflow learn` from its mistakes, and `defectflow drift` of what arrives."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from defectflow.core.files import UserError

GOOD, FLAGGED = 0, 3


def learn(args: argparse.Namespace) -> int:
    """Teach a bundle what people said about its verdicts; always by the whole table, from what it was first.

    The columns of the table: filename, said (good: a false alarm; bad: missed), and optional: x0, y0, x1, y1 (a box
    around the damage, in pixels) or mask (a picture of it), time, who.
    """
    from defectflow.learning import learn as learning

    if bool(args.feedback) == args.forget:
        raise UserError("give --feedback TABLE, or --forget to take all back")
    if args.forget:
        print(learning.forget(args.bundle))
        return GOOD

    def progress(rows: list[Any]) -> Iterable[Any]:
        from tqdm import tqdm

        return tqdm(rows, desc="learn", unit="image", disable=not sys.stderr.isatty())

    learning.learn(args.bundle, args.feedback, args.force, progress)
    return GOOD


def drift(args: argparse.Namespace) -> int:
    """Compare a log of inspections with the good photographs of the run; the exit status is 3 if something has changed.

    Light, focus, size and place of the part, and the scores of what is called good. Prints what has changed and since
    when, and writes control charts: drift.png, drift.html and drift.json.
    """
    from defectflow.core.files import write_json
    from defectflow.inspection.bundle_files import read_bundle, unpacked
    from defectflow.monitoring import drift as drifting
    from defectflow.monitoring.control_chart import BLOCK
    from defectflow.monitoring.drift_page import write_page, write_picture
    from defectflow.monitoring.inspection_log import read_log

    since = drifting.parse_time(args.since, "--since") if args.since else float("-inf")
    log = read_log(args.log, since)
    with unpacked(args.bundle) as folder:
        charts = drifting.compare(read_bundle(folder), log)
    if not charts:
        raise UserError(f"{args.log}: nothing in it that can be compared with {args.bundle} (was it another bundle?)")
    told, line = drifting.sentences(charts, log), drifting.summary(charts, log)
    out = args.out or drifting.log_beside(args.log)
    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "drift.png", charts, log)
    write_page(out / "drift.html", out / "drift.png", charts, told, line)
    write_json(out / "drift.json", drifting.as_record(charts, told, log))
    count = len(log.time)
    few = f" yet: {count} photographs are few, a small change shows after {BLOCK} or so" if count < BLOCK else ""
    print("\n".join(told) if told else f"no drift{few}")
    print(f"{line}; {out / 'drift.html'}", file=sys.stderr)
    return FLAGGED if told else GOOD


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both to the command line."""
    one = commands.add_parser("learn", help="teach a bundle by its mistakes", description=learn.__doc__)
    one.add_argument("bundle", type=Path, help="folder of the bundle, which is changed")
    one.add_argument("--feedback", type=Path, metavar="TABLE", help="all that people said so far (.csv)")
    one.add_argument("--force", action="store_true", help="also where held-out photographs are judged worse by it")
    one.add_argument("--forget", action="store_true", help="make it what it was before it was taught")
    one.set_defaults(run=learn)

    two = commands.add_parser("drift", help="has the light or the camera changed?", description=drift.__doc__)
    two.add_argument("bundle", type=Path, help="folder of the bundle, or a .zip")
    two.add_argument("log", type=Path, help="what `defectflow inspect BUNDLE ... --log LOG` has written")
    two.add_argument("--since", metavar="TIME", help="only what was judged since, e.g. a repair: '2025-03-31 14:00'")
    two.add_argument("--out", type=Path, metavar="FOLDER", help="for the charts (default: beside the log)")
    two.set_defaults(run=drift)
