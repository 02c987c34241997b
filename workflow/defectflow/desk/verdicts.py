"""The page Verdicts: the effect of each threshold, and the photographs it judges wrongly."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response

from defectflow.core.files import UserError, atomic
from defectflow.decision.decisions import is_evaluated
from defectflow.decision.threshold_strategies import strategy_of
from defectflow.desk import config_file
from defectflow.desk.pages import render
from defectflow.desk.project import ROOT, Project
from defectflow.desk.records.results import LAYERS, Run, last_run, need_run, picture, pictures_of, table_of
from defectflow.evaluation.threshold_costs import Costs, Known, at_threshold, band_shares, known_of, of_strategy

# Strategies and their options that the page offers besides the threshold of the run.
STRATEGIES: tuple[tuple[str, dict[str, float]], ...] = (
    ("auto", {}),
    ("cost", {}),
    ("f1_adaptive", {}),
    ("youden", {}),
    ("max_fpr", {"max_fpr": 0.05}),
    ("max_fnr", {"max_fnr": 0.05}),
    ("tail", {"alpha": 0.05}),
    ("conformal", {"alpha": 0.05}),
)
DEFAULT = Costs()
CACHED = {"Cache-Control": "private, max-age=3600"}


def costs_asked(
    miss: float = DEFAULT.miss,
    false_alarm: float = DEFAULT.false_alarm,
    look: float = DEFAULT.look,
    bad_share: float = DEFAULT.bad_share,
) -> Costs:
    """The costs in the query of a request."""
    costs = Costs(miss, false_alarm, look, bad_share)
    costs.check()
    return costs


Asked = Annotated[Costs, Depends(costs_asked)]
Stamp = Annotated[str, Query(max_length=100)]


def router(project: Project) -> APIRouter:
    """The page and its API.

    Requests name the run that the page shows (``stamp`` of `overview`); one that was evaluated since is 409: its scores
    are others, and a threshold of the old ones means nothing on them.
    """
    routes = APIRouter()

    def the_run(stamp: str) -> Run:
        run = need_run(project)
        if stamp and stamp != stamp_of(run):
            raise HTTPException(409, "there are results of a newer run (load the page again)")
        return run

    @routes.get("/verdicts")
    def page(request: Request) -> HTMLResponse:
        return render(request, project, "verdicts", run=last_run(project), costs=costs_of(project))

    @routes.get("/api/verdicts")
    def all_of_it() -> dict[str, Any]:
        return overview(project, need_run(project))

    @routes.get("/api/verdicts/evaluated")
    def evaluated(costs: Asked, stamp: Stamp = "") -> dict[str, Any]:
        return as_evaluated(the_run(stamp), costs)

    @routes.get("/api/verdicts/figures")
    def figures(
        costs: Asked, threshold: float, low: float | None = None, high: float | None = None, stamp: Stamp = ""
    ) -> dict[str, Any]:
        band = None if low is None or high is None else (low, high)
        if not np.isfinite([threshold, *(band or ())]).all() or (band and not band[0] <= threshold <= band[1]):
            raise UserError("the threshold must be between the two limits of the review band (move them)")
        return at_threshold(_known(the_run(stamp)), threshold, costs, band)

    @routes.get("/api/verdicts/strategies")
    def strategies(costs: Asked, stamp: Stamp = "") -> list[dict[str, Any]]:
        return _strategies(the_run(stamp), costs)

    @routes.put("/api/verdicts/costs")
    def keep_costs(costs: Annotated[dict[str, float], Body()]) -> dict[str, float]:
        return write_costs(project, costs)

    @routes.post("/api/verdicts/setting")
    def choose(chosen: Annotated[dict[str, Any], Body()], stamp: Stamp = "") -> dict[str, Any]:
        return write_setting(project, the_run(stamp), chosen)

    @routes.get("/api/verdicts/photograph")
    def one(image_id: str = Query(max_length=1000), stamp: Stamp = "") -> dict[str, Any]:
        return photograph(project, the_run(stamp), image_id)

    @routes.get("/api/verdicts/picture/{layer}")
    def pixels(layer: str, image_id: str = Query(max_length=1000), side: int = 480) -> Response:
        content, kind = picture(project, need_run(project), image_id, layer, side)
        return Response(content, media_type=kind, headers=CACHED)

    return routes


@functools.lru_cache(maxsize=4)
def _known(run: Run) -> Known:
    return known_of(table_of(run))


@functools.lru_cache(maxsize=16)
def _strategies(run: Run, costs: Costs) -> list[dict[str, Any]]:
    table = table_of(run)
    given = {"miss": costs.miss, "false_alarm": costs.false_alarm, "bad_share": costs.bad_share}
    found = []
    for name, options in STRATEGIES:
        own = given if name == "cost" else options
        found.append({"strategy": name, "options": own, **of_strategy(table, _known(run), costs, name, own)})
    return found


def overview(project: Project, run: Run) -> dict[str, Any]:
    """All photographs of a run with their scores and verdicts, and its settings.

    Returns:
        run: its names; stamp: changes with its results.
        photographs: id, name, score (float or None), label (0, 1 or None), kind, group, held_out (bool:
        part of the figures), called (0, 1 or None), review (bool), close (distance from its threshold); threshold,
        strategy, options, band, review; setting: the current one of config.yaml; n_good, n_bad, unit.
    """
    table, metrics, known = table_of(run), run.metrics(), _known(run)
    held_out = is_evaluated(table)
    photographs = [
        {
            "id": row.image_id,
            "name": row.filename,
            "score": _number(row.raw_score),
            "label": _number(row.label),
            "kind": row.defect_type,
            "group": "" if row.group == row.image_id else row.group,
            "held_out": bool(own),
            "called": _number(row.predicted_label),
            "review": row.review == 1,
            "threshold": _number(row.threshold),
        }
        for row, own in zip(table.itertuples(), held_out, strict=True)
    ]
    threshold, review = metrics["threshold"], metrics["review"]
    return {
        "run": run.recipe[1:],
        "stamp": stamp_of(run),
        "photographs": photographs,
        "threshold": threshold["value"],
        "strategy": threshold["strategy"],
        "options": threshold["options"],
        "folds": threshold["folds"],
        "band": [review["low"], review["high"]] if review else None,
        "review": {key: review[key] for key in ("max_fpr", "max_fnr")} if review else None,
        "assumed": (metrics.get("assumed") or {}).get("said", ""),
        "setting": setting_of(project, run),
        "n_good": int((~known.bad).sum()),
        "n_bad": int(known.bad.sum()),
        "unit": known.unit,
    }


def stamp_of(run: Run) -> str:
    """A text that changes with the run and with its results."""
    return hashlib.sha256("\0".join([*run.recipe, *map(str, run.stamp)]).encode()).hexdigest()[:16]


def as_evaluated(run: Run, costs: Costs) -> dict[str, Any]:
    """The figures of the run as evaluated, with the threshold and band of each fold.

    Without labels (photographs assumed to be good), the figures of the threshold for new photographs.
    """
    metrics = run.metrics()
    threshold, review = metrics["threshold"], metrics["review"]
    limits = {key: review[key] for key in ("max_fpr", "max_fnr")} if review else None
    found = of_strategy(table_of(run), _known(run), costs, threshold["strategy"], threshold["options"], limits)
    if "problem" in found or "assumed" in metrics:
        band = (review["low"], review["high"]) if review else None
        return at_threshold(_known(run), threshold["value"], costs, band)
    return found


def _number(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def photograph(project: Project, run: Run, image_id: str) -> dict[str, Any]:
    """Details of one photograph that are not in `overview`: size, boxes, layers, why its mask is doubtful.

    Raises:
        UserError: there is no such photograph.
    """
    known = pictures_of(run)
    if image_id not in known.photographs:
        raise UserError(f"{image_id[:100]!r}: not a photograph of the last run")
    files = {
        "part": known.parts.get(image_id),
        "mask": known.masks.get(image_id),
        **dict.fromkeys(("heatmap", "heat"), f"{run.folder}/heatmaps/{image_id}.png"),
    }
    layers = ["photograph", *(name for name, path in files.items() if path and (project.folder / path).is_file())]
    height, width = known.size[image_id]
    return {
        "id": image_id,
        "width": width,
        "height": height,
        "boxes": known.boxes.get(image_id, []),
        "layers": [name for name in LAYERS if name in layers],
        "reason": known.reasons.get(image_id, ""),
    }


def costs_of(project: Project) -> dict[str, float]:
    """The costs of errors as entered on the page."""
    try:
        told = json.loads((project.state / "costs.json").read_text(encoding="utf-8"))
        costs = Costs(**{name: float(told[name]) for name in Costs._fields})
        costs.check()
    except (OSError, ValueError, KeyError, TypeError, UserError):
        costs = Costs()
    return costs._asdict()


def write_costs(project: Project, told: Mapping[str, float]) -> dict[str, float]:
    """Store the costs of errors.

    Raises:
        UserError: a cost is missing or not a valid number.
    """
    try:
        costs = Costs(**told)
    except TypeError:
        raise UserError(f"costs needs the keys {', '.join(Costs._fields)}") from None
    costs.check()
    with project.lock, atomic(project.state / "costs.json") as temporary:
        temporary.write_text(json.dumps(costs._asdict()), encoding="utf-8")
    return costs._asdict()


def setting_of(project: Project, run: Run) -> dict[str, Any]:
    """The current threshold of config.yaml: strategy, options, review."""
    own, base = project.settings(), config_file.read(ROOT / "config.yaml")
    entry = _entry(own, base, run)
    chosen = entry if "threshold" in entry else {**base, **own}
    # Mappings of both config.yaml are merged; the workflow's has none here.
    return {
        "strategy": chosen.get("threshold", "auto"),
        "options": chosen.get("threshold_options") or {},
        "review": {**base, **own}.get("review"),
    }


def _entry(own: Mapping[str, Any], base: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The detector's entry, merged from both files."""
    name = run.recipe[3]
    return {**(base.get("detectors") or {}).get(name, {}), **((own.get("detectors") or {}).get(name) or {})}


def write_setting(project: Project, run: Run, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Write the chosen threshold into config.yaml, as the setting of the next evaluation.

    Args:
        chosen: strategy and options; band: [low, high] of raw scores, or None for no review band.

    Returns:
        The setting as it is now. A band is written as the error rates that it allows.

    Raises:
        UserError: there is no such strategy, an option is wrong, or the band cannot be used.
    """
    name, options = str(chosen.get("strategy", "")), chosen.get("options") or {}
    if not isinstance(options, Mapping):
        raise UserError("options are a mapping of names to numbers")
    options = {str(key): value for key, value in options.items()}
    strategy_of(name, options)
    band, review = chosen.get("band"), None
    if band is not None:
        try:
            low, high = (float(edge) for edge in band)
        except (TypeError, ValueError):
            raise UserError("a review band is [low, high]") from None
        review = band_shares(_known(run), (low, high))
    with project.lock:
        own, base = project.settings(), config_file.read(ROOT / "config.yaml")
        if "threshold" in _entry(own, base, run):  # the detector's entry takes precedence over the global one
            fixed = (base.get("detectors") or {}).get(run.recipe[3], {}).get("threshold_options") or {}
            if not set(fixed) <= set(options):  # Snakemake merges the two files and removes no key
                raise UserError(
                    f"detector {run.recipe[3]} has {', '.join(fixed)} of its own in {ROOT / 'config.yaml'} "
                    "(change it there)"
                )
            entries = dict(own.get("detectors") or {})
            entries[run.recipe[3]] = {
                **(entries.get(run.recipe[3]) or {}),
                "threshold": name,
                "threshold_options": options,
            }
            project.change_settings({"detectors": entries, "review": review})
        else:
            project.change_settings({"threshold": name, "threshold_options": options, "review": review})
    return setting_of(project, run)
