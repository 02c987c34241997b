"""HTML pages from the templates of this package: one self-contained file each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from defectflow.core.files import atomic
from defectflow.decision.outcomes import FALSE_ALARM, MISSED, NO_PART
from defectflow.decision.pred_score import two_digits
from defectflow.evaluation.claims import percent
from defectflow.metrics import intervals

TEMPLATES = Path(__file__).parent / "templates"


def number(value: float | None) -> str:
    """A figure with three decimals; a dash for None."""
    return "–" if value is None or value != value else f"{value:.3f}"


def score(value: float | None) -> str:
    """A score for people with two decimals, see `two_digits`; a dash for None."""
    return "–" if value is None or value != value else two_digits(value)


def short(value: float | None) -> str:
    """A raw score with four significant digits; a dash for None."""
    return "–" if value is None or value != value else f"{value:#.4g}".removesuffix(".")


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, rounded; the minus is as wide as the plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def span(interval: Sequence[float] | None) -> str:
    """An interval: 0.82 to 0.99; empty for None."""
    return "" if interval is None else " to ".join(intervals.text(interval))


def rule(strategy: str, options: Mapping[str, float]) -> str:
    """A threshold strategy and its options in one line."""
    return ", ".join([strategy, *(f"{name} {value:g}" for name, value in options.items())])


def environment(folder: Path, escape: bool) -> Any:
    """A jinja2.Environment for the templates in ``folder``.

    Lines with nothing but a tag leave no empty line; a missing variable is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def write_page(path: str | Path, template: str, **content: Any) -> None:
    """Fill a template and write the page, atomically.

    Every text is escaped; only charts are inserted unescaped (``| safe`` in the templates).
    """
    _write(path, template, True, content)


def write_text(path: str | Path, template: str, **content: Any) -> None:
    """Fill a template of a text file, such as Markdown, and write it, atomically."""
    _write(path, template, False, content)


def _write(path: str | Path, template: str, escape: bool, content: Mapping[str, Any]) -> None:
    pages = environment(TEMPLATES, escape=escape)
    pages.filters |= {f.__name__: f for f in (number, score, short, signed, span, percent)}
    pages.globals["rule"] = rule
    pages.globals |= {"MISSED": MISSED, "FALSE_ALARM": FALSE_ALARM, "NO_PART": NO_PART}
    with atomic(path) as temporary:
        temporary.write_text(pages.get_template(template).render(content), encoding="utf-8", errors="replace")
