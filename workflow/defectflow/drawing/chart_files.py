"""Charts as PNG files, and as SVG that takes its colours and its font from the page. The same data, the same bytes."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from defectflow.core.files import atomic
from defectflow.drawing.histograms_and_curves import Chart, Colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

# Colours of the light theme (style.css); good and bad differ for any colour vision (after Okabe & Ito, 2008).
LIGHT = Colours("#1a1c1f", "#676c74", "#e2e2dc", "#ffffff", "#0072b2", "#c9500c", "#b4b8bf")
# Placeholders for the CSS variables of these names, so that charts follow the light or dark theme of the page.
STAND_IN = Colours("#010101", "#020202", "#030303", "#040404", "#050505", "#060606", "#070707")
DOTS_PER_INCH = 200
SVG = "http://www.w3.org/2000/svg"


def save_png(path: Path, chart: Chart) -> None:
    """Write a chart with its title, atomically and without date or version."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with _drawn(chart, LIGHT, facecolor=LIGHT.paper, dpi=DOTS_PER_INCH) as figure, atomic(path) as temporary:
        FigureCanvasAgg(figure)
        figure.suptitle(chart.title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        figure.savefig(temporary, metadata={"Software": None})


def svg(chart: Chart) -> str:
    """A chart as an element of a page; the page has its title."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    with _drawn(chart, STAND_IN, facecolor="none") as figure:
        FigureCanvasSVG(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue(), chart.title)


@contextmanager
def styled(colours: Colours) -> Iterator[None]:
    """The style of all charts, regardless of the user's matplotlibrc."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_style(colours))
        yield


@contextmanager
def _drawn(chart: Chart, colours: Colours, **options: Any) -> Iterator["Figure"]:
    """The chart as a matplotlib Figure, in the style of all."""
    import matplotlib
    from matplotlib.figure import Figure

    with styled(colours):
        matplotlib.rcParams["svg.hashsalt"] = chart.title
        figure = Figure(figsize=(chart.width, chart.height), layout="constrained", **options)
        chart.draw(figure.subplots(), colours)
        yield figure


def _style(colours: Colours) -> dict["RcKeyType", Any]:
    return {
        "svg.fonttype": "none",
        "text.parse_math": False,  # names of defect types are shown as they are
        "font.size": 9,
        "text.color": colours.ink,
        "axes.labelcolor": colours.dim,
        "axes.labelsize": 9,
        "axes.edgecolor": colours.line,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": colours.line,
        "grid.linewidth": 0.6,
        "xtick.color": colours.line,
        "ytick.color": colours.line,
        "xtick.labelcolor": colours.dim,
        "ytick.labelcolor": colours.dim,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "legend.handlelength": 1.4,
        "hatch.linewidth": 0.5,
        "hatch.color": colours.dim,
    }


def _inline(svg: str, label: str) -> str:
    """An SVG document as an element of a page: no header, ids or sizes of its own, colours as CSS variables."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(svg)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
        if parent.tag == f"{{{SVG}}}g":
            parent.attrib.pop("id", None)
    text = re.sub(r" font-family: [^;]*;", "", ElementTree.tostring(root, encoding="unicode"))
    text = re.sub(r">\s+<", "><", text)
    variables = {colour: f"var(--{name})" for name, colour in STAND_IN._asdict().items()}
    return re.sub("|".join(variables), lambda found: variables[found[0]], text)
