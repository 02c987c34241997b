"""Control charts of a log as a PNG and as a page of HTML with that picture in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from defectflow.core.files import atomic
from defectflow.drawing.chart_files import DOTS_PER_INCH, LIGHT, styled
from defectflow.monitoring.control_chart import PER_ALARM, WEIGHT
from defectflow.monitoring.drift import WATCHED, Chart
from defectflow.monitoring.inspection_log import Logged

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Drift: {title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1c1f}}
img{{width:100%}} li.drift{{color:#a33c00;font-weight:600}} table{{border-collapse:collapse}}
td,th{{text-align:left;padding:.2rem 1rem .2rem 0;border-bottom:1px solid #e2e2dc}} p.small{{color:#676c74}}
</style>
</head><body>
<h1>{heading}</h1>
<p>{summary}</p>
<ul>{changes}</ul>
<img alt="Control charts" src="data:image/png;base64,{picture}">
<table><tr><th>measure</th><th>good photographs of the run</th><th>median there</th><th>median of the last 50</th>
<th>chart now</th><th>limit</th></tr>{rows}</table>
<p class="small">Each chart is the moving average (weight {weight} for the newest) of ranks among the good photographs
of the run, as normal scores. Limits and tests together give one false alarm in {per_alarm} photographs, if these are
like those of the run and independent of each other.</p>
</body></html>
"""


def write_picture(path: Path, charts: Sequence[Chart], log: Logged) -> None:
    """Draw all charts below each other, from the first photograph to the last, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with styled(LIGHT), atomic(path) as temporary:
        figure = Figure(figsize=(8, 0.4 + 1.35 * len(charts)), layout="constrained", facecolor=LIGHT.paper)
        FigureCanvasAgg(figure)
        axes = np.atleast_1d(figure.subplots(len(charts), sharex=True))
        for chart, axis in zip(charts, axes, strict=True):
            axis.axhspan(-chart.limit, chart.limit, color=LIGHT.line, alpha=0.5, linewidth=0)
            for height in (-chart.limit, chart.limit):
                axis.axhline(height, color=LIGHT.dim, linewidth=0.8, linestyle="--")
            axis.plot(chart.rows, chart.path, color=LIGHT.good, linewidth=1.2)
            for alarm in chart.alarms:
                part = slice(alarm.first, alarm.last + 1)
                axis.plot(chart.rows[part], chart.path[part], color=LIGHT.bad, linewidth=2)
                axis.axvline(chart.rows[alarm.first], color=LIGHT.bad, linewidth=0.8, linestyle=":")
            axis.set_title(WATCHED[chart.key].name, loc="left", fontsize=9)
            reach = 1.1 * max(chart.limit, float(np.abs(chart.path).max()))
            axis.set_ylim(-reach, reach)
        axes[-1].set_xlabel(f"photographs in the order they were judged ({len(log.time)})")
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata={"Software": None})


def write_page(path: Path, picture: Path, charts: Sequence[Chart], told: Sequence[str], summary: str) -> None:
    """Write the page, with the picture inside: one file."""
    rows = []
    for chart in charts:
        cells = [
            WATCHED[chart.key].name, str(len(chart.reference)), f"{np.median(chart.reference):.4g}",
            f"{np.median(chart.values[-50:]):.4g}", f"{chart.path[-1]:+.2f}", f"± {chart.limit:.2f}",
        ]  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    changes = [f'<li class="drift">{html.escape(text)}</li>' for text in told] or ["<li>no change</li>"]
    text = PAGE.format(
        title=html.escape(path.parent.name),
        heading="Something has changed" if told else "No drift",
        summary=html.escape(summary),
        changes="".join(changes),
        picture=base64.b64encode(picture.read_bytes()).decode(),
        rows="".join(rows),
        weight=WEIGHT,
        per_alarm=f"{PER_ALARM:,}",
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
