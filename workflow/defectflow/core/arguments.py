"""Command-line options that many stages share."""

import argparse
import os

DEVICES = ("auto", "cpu", "cuda")


def add_threads(
    parser: argparse.ArgumentParser, default: int | None = None, what: str = "threads that compute"
) -> None:
    """The option --threads; ``default`` None: one for each core."""
    default = default or os.cpu_count()
    parser.add_argument("--threads", type=int, default=default, help=f"{what} (default: %(default)s)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option --device, for `device.pick_device`."""
    what = "where networks and searches run; auto: a GPU where there is one (default: %(default)s)"
    parser.add_argument("--device", choices=DEVICES, default="auto", help=what)


def add_seed(parser: argparse.ArgumentParser, what: str = "seed of everything random") -> None:
    """The option --seed."""
    parser.add_argument("--seed", type=int, default=0, help=f"{what} (default: %(default)s)")
