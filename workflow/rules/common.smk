"""Helpers only: the config checked, the runs it asks for, and the hashes that decide what is stale."""

import hashlib
import json
import re
import shlex
import sys
from pathlib import Path

# Of this checkout, also where another workflow imports this one as a module.
WORKFLOW = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
sys.path.insert(0, str(WORKFLOW))

from snakemake.settings.types import DeploymentMethod

from defectflow.sources import preflight
from defectflow.sources.annotation_kinds import FEW_OUTLINES
from defectflow.reporting.next_commands import closing_lines, config_options
from defectflow.config.code_hash import code_hash, remember
from defectflow.config.configuration import (
    Run,
    checked,
    labels_needed,
    rendered_labels,
    resolve_runs,
    shard_count,
    shown_settings,
    threshold_of,
    threshold_settings,
)
from defectflow.sources.dataset import categories
from defectflow.sources.depth_lookup import depth_of_set
from defectflow.sources.weight_checks import check_files, check_network, is_url
from defectflow.core.files import UserError

# Jobs run with the package of this checkout and the Python that runs Snakemake, also where .venv is not activated; a
# conda environment brings its own. Progress bars are for terminals; in a log file a line every ten seconds is enough.
# Libraries that warn of each other's deprecated names tell the user nothing.
OWN_PYTHON = DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method
PYTHON = f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; ' if OWN_PYTHON else ""
shell.prefix(
    "set -euo pipefail; export PYTHONWARNINGS=ignore::FutureWarning; [ -t 2 ] || export TQDM_MININTERVAL=10; "
    f"{PYTHON}export PYTHONPATH={shlex.quote(str(WORKFLOW))}; "
)


pathvars:
    logs="results/logs",
    benchmarks="results/benchmarks",


def prepare() -> tuple:
    """Check everything that can be known before a job runs; one line and exit status 1 if something is wrong."""
    try:
        complete, settings = checked(config)
        config.update(complete)
        datasets = categories(config["dataset"], config["datasets"].get(config["dataset"], {}))
        config["datasets"] |= {name: entry for name, entry in datasets.items() if entry}
        if len(datasets) > 1 and threshold_of(config, config["detector"])[0] == "fixed":
            raise UserError("config.yaml: threshold: fixed is one value, and each category needs its own (set auto)")
        sources, runs, images, marked = {}, [], 0, {}
        for name, entry in datasets.items():
            rendered = entry.get("rendered")
            annotated = bool(rendered)
            if rendered:
                preflight.check_labels(f"data set {name}", rendered_labels(entry), labels_needed(config))
                images, marked[name] = max(images, rendered["views"] + rendered["defects"]), rendered["defects"]
            elif entry:
                sources[name] = preflight.resolve(entry)
                preflight.check(sources[name], config["on_problem"], cache_file(name))
                annotated = preflight.outlined(sources[name], cache_file(name)) > 0
                images, marked[name] = max(images, preflight.count(sources[name])), preflight.marked(sources[name])
            runs.append(resolve_runs(config | {"dataset": name}, annotated))
        config["shards"] = shard_count(config["shards"], images)
        for run in [run for of_one in runs for run in of_one]:
            check_files(run, settings, config["allow_downloads"], cache_file("weights"))
        settings["regions"].check_refinable(marked)
        return sources, runs, settings
    except UserError as error:
        sys.exit(f"error: {error}")


def cache_file(name: str) -> str:
    """Where content hashes of unchanged files are remembered between invocations."""
    return f".snakemake/defectflow/{name}.json"


remember(cache_file("code"))

# Of each data set: where it lies, and its runs, the one that the config asks for first. And the settings by section.
SOURCES, RUNS_BY_DATASET, SETTINGS = prepare()
RUNS = [run for runs in RUNS_BY_DATASET for run in runs]
MAIN_RUNS = [runs[0] for runs in RUNS_BY_DATASET]
HAS_CATEGORIES = MAIN_RUNS[0].dataset != config["dataset"]
# What sets the runs, or the categories, of the config beside each other.
BOARD = "results/{}.csv" if HAS_CATEGORIES else "results/{}/leaderboard.csv"
BOARD = BOARD.format(config["dataset"])
SHARDS = [str(k) for k in range(config["shards"])]
# Photographs of a set that the part is looked for in where there is no outline.
FIND_AMONG = 60
# Of the classifier of kinds: what its study compares, and the networks for that by name.
try:
    KIND_VARIANTS = SETTINGS["kinds"].variants()
    KIND_NETWORKS = SETTINGS["kinds"].networks()
except UserError as error:
    sys.exit(f"error: {error}")
# How many GPUs a job may ask for; on a CPU it must not wait for its turn on one.
GPU = int(config["device"] != "cpu")


# Before the first job; a dry run may look at results that are read-only.
onstart:
    try:
        preflight.check_writable(["results", *(f"results/{run.dataset}" for run in MAIN_RUNS)])
        new = {run.detector for run in RUNS if not Path(run.folder, "features").exists()}
        for name in sorted(new) if OWN_PYTHON else []:
            check_network(name, SETTINGS["detectors"][name], config["allow_downloads"])
    except UserError as error:
        sys.exit(f"error: {error}")
    for run in [run for run in MAIN_RUNS if learns_unlabelled(run)]:
        text = "photographs without a label are taken as mostly good and learned from; how many defects are missed will be"
        print(
            f"WARNING: {run.dataset}: {text} unknown. Are there labels? Put them into labels.csv.", file=sys.stderr
        )


# Also where there was nothing to do: the paths are what a user looks for then.
onsuccess:
    given = workflow.config_settings
    options = config_options(given.configfiles, given.config)
    refined = bool(SETTINGS["regions"].refine)
    bundled = not refined and not any(detector_of(run).not_bundled for run in MAIN_RUNS)
    lines = closing_lines([run.folder for run in MAIN_RUNS], BOARD, options, bundled)
    print("", *lines, sep="\n", file=sys.stderr)


def one_of(section: str) -> str:
    """Pattern of the names of a section of the config."""
    return "|".join(re.escape(name) for name in config[section])


# A target that names no entry of config.yaml is refused as such.
wildcard_constraints:
    dataset=one_of("datasets"),
    segmenter=one_of("segmenters"),
    isolation=one_of("isolations"),
    detector=one_of("detectors"),
    shard=r"\d+",
    network="|".join(re.escape(name) for name in KIND_NETWORKS),


def is_main(wildcards) -> bool:
    """Whether a job is about the run that the config asks for first."""
    return tuple(getattr(wildcards, name) for name in Run._fields) in MAIN_RUNS


def entry_of(section: str):
    """A function of the wildcards: settings of the entry of a section that a job is about."""
    return lambda wildcards: SETTINGS[section][getattr(wildcards, section.removesuffix("s"))]


segmenter_of, isolation_of, detector_of = (entry_of(name) for name in ("segmenters", "isolations", "detectors"))


def settings_for(section: str, *stages: str):
    """A params function: what these stages read of a section, as JSON; another value re-runs them and no others."""
    named = {"segmenters": "masks", "detectors": "fit score"}.get(section, "")  # the other stages are for one method

    def text(wildcards) -> str:
        settings = entry_of(section)(wildcards)
        method = {"method": settings.name} if set(stages) & set(named.split()) else {}
        return json.dumps(method | settings.read_by(*stages))

    return text


def is_rendered(wildcards) -> bool:
    return "rendered" in config["datasets"][wildcards.dataset]


def content(**selection):
    """A params function: hash of the photographs (and labels, annotations) that a job depends on.

    Photographs are no inputs of rules: a DAG of 100,000 files is slow, and `touch` would re-run everything. A rendered
    data set has no photographs before its first run; the list of its files is an input of what reads it.
    """

    def digest(wildcards):
        if is_rendered(wildcards):
            return None
        shard = (int(wildcards.shard), config["shards"]) if "shard" in wildcards.keys() else None
        return preflight.images_digest(
            SOURCES[wildcards.dataset], cache_file(wildcards.dataset), shard=shard, **selection
        )

    return digest


def memory(megabytes: int):
    """Memory of a job: about twice the peak that was measured (docs/scale.md), and as much again for every retry."""
    return lambda wildcards, attempt: megabytes * attempt


def option(flag: str, value) -> str:
    """`--flag value`, or nothing where the value is None, False or an empty input; True gives the bare flag."""
    if value is None or value is False or value == []:
        return ""
    values = value if isinstance(value, list) else [value]
    return flag if value is True else f"{flag} {shlex.join(map(str, values))}"


def weights_hash(path: str | None, packaged: str) -> str:
    """Content hash of a weight file, or of the packaged one if there is none: Snakemake compares times of large files."""
    path = path or str(next((WORKFLOW / "defectflow").glob(f"*/weights/{packaged}")))
    return preflight.file_digests([path], cache_file("weights"))[path]


include: "helpers/sources.smk"
include: "helpers/networks.smk"
include: "helpers/runs.smk"
