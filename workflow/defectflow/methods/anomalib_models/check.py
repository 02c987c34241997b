"""Check that a model of anomalib can be made as the config says, early, before a workflow masks all pictures."""

from __future__ import annotations

import argparse

from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.core.files import stage
from defectflow.methods.anomalib_models.construction import create
from defectflow.methods.anomalib_models.settings import AnomalibSettings


def main(args: argparse.Namespace) -> None:
    """Make the model, with its weights."""
    settings = read_settings(args.settings, AnomalibSettings, "features", "fit", "score")
    create(settings.model, settings.options, settings.sizes[0], settings.weights, where=args.where)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the check."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.methods.anomalib_models.check", description=__doc__)
    add_settings(parser, AnomalibSettings, "features", "fit", "score")
    parser.add_argument("--where", default="--settings", help="beginning of a message")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
