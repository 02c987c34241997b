"""The last lines of a finished run: where its verdict and report are, and the command that packs the inspector.

Standard library only: the Snakefile imports it.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def config_options(files: Iterable[str | Path], changes: Mapping[str, Any]) -> str:
    """The ``--configfile`` and ``--config`` options of a run as text to repeat them; "" for none."""
    words = [shlex.quote(str(path)) for path in files]
    words = ["--configfile", *words] if words else []
    changed = [shlex.quote(f"{key}={_argument(value)}") for key, value in changes.items()]
    return " ".join([*words, *(["--config", *changed] if changed else [])])


def closing_lines(folders: Sequence[str], board: str, options: str = "", bundled: bool = True) -> list[str]:
    """Last lines of a run, each with a path or a command that works; missing files are skipped.

    Args:
        folders: of the main runs, ``results/...``, one for each data set.
        board: the table that compares runs or categories.
        options: options of the snakemake command that affect its results, see `config_options`.
        bundled: whether an inspector can be made of the runs.
    """
    lines = []
    for folder in folders:
        if Path(folder, "metrics.json").is_file():
            lines.append(f"Verdict:  python -m defectflow.reporting.summary {shlex.quote(folder)}")
        if Path(folder, "report.html").is_file():
            lines.append(f"Report:   {folder}/report.html")
    if Path(board).is_file():
        page = Path(board).with_suffix(".html")
        lines.append(f"Compare:  {page if page.is_file() else board}")
    if bundled and any(line.startswith("Verdict") for line in lines):
        bundle = " ".join(filter(None, ["snakemake --cores all bundle", options]))
        lines += [f"Bundle:   {bundle}", *(f"Inspect:  {inspect_command(folder)}" for folder in folders)]
    return lines


def inspect_lines(folder: str | Path, bundle: str = "") -> list[str]:
    """Commands that judge new photographs, for the printed verdict; the first one only if there is no bundle.

    Args:
        folder: of the run.
        bundle: the command that packs the inspector; "": Snakemake's, without the settings of the run.
    """
    lines = [f"  {inspect_command(folder)}"]
    if not Path(folder, "bundle").exists():
        made = f"snakemake --cores all {shlex.quote(f'{folder}/bundle')}   with the --config of the run"
        lines.insert(0, f"  {bundle or made}")
    return lines


def inspect_command(folder: str | Path) -> str:
    """The command that judges new photographs with the bundle of a run."""
    return f"defectflow inspect {shlex.quote(f'{folder}/bundle')} new/*.jpg"


def _argument(value: Any) -> str:
    """A value as ``--config`` takes it: Snakemake removes quotes at its ends, but not those between spaces."""
    text = _value(value)
    return text if text == value or not isinstance(value, str) else f" {json.dumps(value, ensure_ascii=False)} "


def _value(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and (
        not value
        or value[0] in "{[&*!|>'\"%@`#- "
        or value[-1] in " '\""
        or any(c in value for c in ",:#{}[]\n")
        or _is_no_text(value)
    ):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def _is_no_text(value: str) -> bool:
    """Whether Snakemake or YAML take a text without quotes for a number, a truth value or null."""
    if value.lower() in ("true", "false", "yes", "no", "on", "off", "null", "~"):
        return True
    try:
        float(value)
    except ValueError:
        return False
    return True
