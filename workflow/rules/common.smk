"""Helpers only: the config checked, the runs it asks for, and the hashes that decide what is stale."""

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
        sources, runs, images = {}, [], 0
        for name, entry in datasets.items():
            rendered = entry.get("rendered")
            annotated = bool(rendered)
            if rendered:
                preflight.check_labels(f"data set {name}", rendered_labels(entry), labels_needed(config))
                images = max(images, rendered["views"] + rendered["defects"])
            elif entry:
                sources[name] = preflight.resolve(entry)
                preflight.check(sources[name], config["on_problem"], cache_file(name))
                annotated = preflight.outlined(sources[name], cache_file(name)) > 0
                images = max(images, preflight.count(sources[name]))
            runs.append(resolve_runs(config | {"dataset": name}, annotated))
        config["shards"] = shard_count(config["shards"], images)
        for run in [run for of_one in runs for run in of_one]:
            check_files(run, settings, config["allow_downloads"], cache_file("weights"))
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
    bundled = not any(detector_of(run).not_bundled for run in MAIN_RUNS)
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


def source_of(wildcards) -> dict:
    """Layout and paths of a data set, as preflight.resolve gives them."""
    if not is_rendered(wildcards):
        return SOURCES[wildcards.dataset]
    root = f"results/{wildcards.dataset}/source"
    files = {"annotations": f"{root}/annotations.json", "labels": f"{root}/labels.csv"}
    return {"layout": "coco", "images": f"{root}/images", "category": None} | files


def manifest_to_learn_from(wildcards) -> str:
    """The table of images, where enough are labelled; what only looks at a data set does without labels."""
    if not is_rendered(wildcards):
        try:
            preflight.check_learnable(SOURCES[wildcards.dataset], labels_needed(config))
        except UserError as error:
            sys.exit(f"error: {error}")
    return f"results/{wildcards.dataset}/manifest.csv"


def is_annotated(wildcards) -> bool:
    return is_rendered(wildcards) or preflight.outlined(SOURCES[wildcards.dataset], cache_file(wildcards.dataset)) > 0


def has_few_outlines(wildcards) -> bool:
    name = wildcards.dataset
    return not is_rendered(wildcards) and 0 < preflight.outlined(SOURCES[name], cache_file(name)) <= FEW_OUTLINES


def photographs_of_few(wildcards) -> list[str]:
    """Tables of all photographs where so few are outlined that the outlines are carried over to the others."""
    return (
        [f"results/{wildcards.dataset}/shards/{shard}.csv" for shard in SHARDS] if has_few_outlines(wildcards) else []
    )


def extent_file(wildcards) -> dict:
    """What tells the size of the window of a crop: the outlines, or where these are few what they find."""
    if not isolation_of(wildcards).crop:
        return {}
    if segmenter_of(wildcards).finds:
        return {"pairs": "results/{dataset}/{segmenter}/found.csv"}
    few = has_few_outlines(wildcards)
    return {"prior": "results/{dataset}/prior.safetensors"} if few else {"pairs": "results/{dataset}/pairs.csv"}


def source_folder(wildcards) -> list | str:
    """The rendered photographs and the list of them with checksums; a user's own are no inputs, see content().

    The folder itself is `ancient`: Snakemake compares folders by time alone, which a copy of the results changes.
    """
    if not is_rendered(wildcards):
        return []
    return [f"results/{wildcards.dataset}/source.sha256", ancient(f"results/{wildcards.dataset}/source")]


def source_files(wildcards) -> dict:
    """A user's annotations and labels; whether they changed is told by their content, see content()."""
    if is_rendered(wildcards):
        return {}
    source = source_of(wildcards)
    return {key: ancient(source[key]) for key in ("annotations", "labels") if source[key]}


def images_flag(wildcards) -> str:
    source = source_of(wildcards)
    others = [option(f"--{key}", source.get(key)) for key in ("path", "links", "good")]
    return " ".join((option("--mvtec" if source["layout"] == "mvtec" else "--images", source["images"]), *others))


def depth_flag(wildcards) -> str:
    """`--depth BITS` of a data set with 16-bit photographs; "" for all others."""
    if is_rendered(wildcards):
        return ""
    asked = config["datasets"][wildcards.dataset].get("bit_depth", "auto")
    try:
        found = depth_of_set(SOURCES[wildcards.dataset], asked, cache_file(wildcards.dataset))
    except UserError as error:
        sys.exit(f"error: {error}")
    return option("--depth", found or None)


def depth_given(wildcards) -> str:
    """Whether the config names the bits."""
    given = config["datasets"][wildcards.dataset].get("bit_depth", "auto") != "auto"
    return option("--depth-given", given and bool(depth_flag(wildcards)))


def source_flags(wildcards) -> str:
    source = source_of(wildcards)
    others = [option(f"--{key}", source[key]) for key in ("annotations", "labels", "category")]
    return " ".join((images_flag(wildcards), *others))


def checkpoint_file(wildcards) -> list | str:
    """The checkpoint to start from: a local file, one to be fetched, or none."""
    start = segmenter_of(wildcards).checkpoint
    if not start:
        return []
    return f"results/checkpoints/{wildcards.segmenter}.pt" if is_url(start) else ancient(start)


def start_hash(wildcards) -> str | None:
    """Content hash of the weights that a fine-tuning starts from; those to be fetched are named by their sha256."""
    entry = segmenter_of(wildcards)
    start = entry.checkpoint
    if start and is_url(start):
        return entry.sha256
    return weights_hash(start, "sam2.1-nano.safetensors") if start or entry.model == "nano" else None


def candidate_networks(wildcards) -> list[str]:
    """ONNX files of the user that say where the part may be, beside what `found` looks at by itself."""
    return [one["onnx"] for one in segmenter_of(wildcards).candidates or []]


def asks_sam(wildcards) -> bool:
    """Whether masks come from SAM 2.1, which computes with torch."""
    return segmenter_of(wildcards).trains or segmenter_of(wildcards).name == "prompted"


def network_files(wildcards) -> dict:
    """Files of the user that a prompted network is made of; none where its weights are packaged."""
    segmenter = segmenter_of(wildcards)
    if not segmenter.prompts:
        return {}
    if segmenter.name == "sam_onnx":
        return {key: ancient(getattr(segmenter, key)) for key in ("encoder", "decoder")}
    return {"checkpoint": checkpoint_file(wildcards)} if segmenter.checkpoint else {}


def network_hash(wildcards) -> list | str | None:
    """Content hash of what a prompted network is made of; Snakemake compares times of large files."""
    segmenter = segmenter_of(wildcards)
    if segmenter.name == "sam_onnx":
        return [weights_hash(path, "") for path in (segmenter.encoder, segmenter.decoder)]
    return start_hash(wildcards) if segmenter.prompts else None


def segmenter_files(wildcards) -> dict:
    """What mask generation reads: the prior, and the fine-tuned model where the segmenter is a network."""
    finds = segmenter_of(wildcards).finds
    if segmenter_of(wildcards).prompts:
        return {}
    files = {
        "prior": "results/{dataset}/{segmenter}/prior.safetensors" if finds else "results/{dataset}/prior.safetensors"
    }
    if segmenter_of(wildcards).trains:
        folder = "results/{dataset}/{segmenter}"
        files |= {"model": f"{folder}/model.pt", "train_json": f"{folder}/train.json"}
    return files


def network_start(wildcards) -> str:
    """What an untrained network starts from; patch-nano and weights from a file depend neither on seed nor on the net."""
    return start_of(detector_of(wildcards))


def kind_network(wildcards):
    """Settings of the classifier of kinds with one of the networks of its study."""
    return KIND_NETWORKS[wildcards.network]


def kind_descriptors(wildcards) -> str:
    """What the classifier of kinds learns from."""
    folder = "kind_finetuned" if SETTINGS["kinds"].training == "finetune" else "kind_descriptors"
    return f"results/{{dataset}}/{{segmenter}}/{{isolation}}/{folder}/own.safetensors"


def frozen_descriptors(wildcards) -> str:
    """The same for what thins photographs out, of which a trained network has seen too many."""
    if SETTINGS["kinds"].training == "finetune":
        sys.exit("error: config.yaml: imbalance thins out what a head learns from (set kinds: {training: frozen})")
    return kind_descriptors(wildcards)


def kind_studies(wildcards) -> list[str]:
    """Folders of the study of each data set."""
    if len(KIND_VARIANTS) < 2:
        sys.exit("error: config.yaml: kinds.study varies nothing (set e.g. kinds: {study: {head: [linear, nearest]}})")
    return [f"results/{run.dataset}/{run.segmenter}/{run.isolation}/kind_study" for run in MAIN_RUNS]


def start_of(network) -> str:
    """As `network_start`, of the settings of a network."""
    if network.backbone in ("pixels", "picture", "patch-nano") or network.weights:
        return ""
    return f"--seed {config['seed']} {option('--allow-downloads', config['allow_downloads'])}"


def picture_tables(wildcards) -> list[str]:
    """Tables of the pictures of one shard: the isolated ones, and the copies where the config asks for any."""
    wants_copies = config["augmentation"]["copies"] or config["augmentation"]["robustness"]
    folder = "results/{dataset}/{segmenter}/{isolation}"
    return [f"{folder}/{kind}/{{shard}}.csv" for kind in ("images", *(("copies",) if wants_copies else ()))]


def shape_that_counts(wildcards, network) -> str:
    """The shape of the pictures of a set, where the network's input follows it; Snakemake asks before the job again.

    ``network``: settings of the detector, or of another network that looks at these pictures.
    """
    path = Path("results/{dataset}/{segmenter}/{isolation}/picture_shape.json".format(**wildcards))
    shape = json.loads((path.read_text() if path.is_file() else "") or "{}")
    long = shape.get("long") and network.input_shape == "auto" and not network.center_crop
    return f"{shape['width']} x {shape['height']}" if shape and (long or network.tiles is not None) else ""


def all_picture_tables(wildcards) -> list[str]:
    """Tables of the pictures of all shards, each beside its folder of pictures."""
    return [table.replace("{shard}", shard) for table in picture_tables(wildcards) for shard in SHARDS]


def drawn_folders(wildcards) -> list[str]:
    """Folders of pictures that are drawn of a run: of those that the config asks for, and not of those beside them.

    They are `ancient`: Snakemake compares folders by time alone, which a copy of the results changes.
    """
    folder = "results/{dataset}/{segmenter}/{isolation}/{detector}".format(**wildcards)
    kinds = ["heatmaps", "overlays", "sheets", *(["triptychs"] if config["drawing"]["triptychs"] else [])]
    return [ancient(f"{folder}/{kind}") for kind in kinds] if folder in {run.folder for run in MAIN_RUNS} else []


def disk_flags(wildcards, input) -> str:
    """What the report tells the size of, by kind."""
    files = {
        "isolated_pictures": [table.removesuffix(".csv") for table in input.isolated],
        "masks": [table.removesuffix(".csv") for table in input.get("masks", [])],
        "memory_banks": [input.banks],
        "anomaly_maps": [*input.maps, input.calibration],
        "drawn_pictures": list(input.drawn),
    }
    return " ".join(f"--disk {kind} {' '.join(paths)}" for kind, paths in files.items() if paths)


def segmentation_report(wildcards) -> str | list:
    """Where the held-out IoU of this run's masks is told."""
    if not segmenter_of(wildcards).makes_masks or segmenter_of(wildcards).prompts:
        return []
    if segmenter_of(wildcards).finds:
        return "results/{dataset}/{segmenter}/found.json"
    return (
        "results/{dataset}/{segmenter}/train.json" if segmenter_of(wildcards).trains else "results/{dataset}/prior.json"
    )


def per_shard(pattern: str) -> list[str]:
    """One file per shard of a run; ``pattern`` is relative to the run's folder and names {shard}."""
    folder = "results/{dataset}/{segmenter}/{isolation}/{detector}"
    return [f"{folder}/{pattern}".replace("{shard}", shard) for shard in SHARDS]


def features_to_draw(wildcards) -> list[str]:
    """Features of the pictures that the detector reconstructs."""
    detector = detector_of(wildcards)
    if not getattr(detector, "reconstructs", False):
        sys.exit(f"error: reconstructions: method {detector.name} draws no pictures (vae does)")
    return per_shard("features/{shard}.safetensors")


def label_lists(wildcards) -> list[str]:
    """Tables of photographs whose label a person should look at, of the runs that the config asks for first."""
    folder = "results/{dataset}/{segmenter}/{isolation}/{detector}"
    main = any(tuple(run) == tuple(wildcards[key] for key in run._fields) for run in MAIN_RUNS)
    listed = ["labels_to_check", "next_to_label", *(["candidates"] if learns_unlabelled(wildcards) else [])]
    return [f"{folder}/{name}.csv" for name in listed] if main else []


def list_flags(tables) -> list[str]:
    """`--labels-to-check FILE` and the like, named as the files."""
    return [option(f"--{Path(path).stem.replace('_', '-')}", path) for path in tables]


def learns_unlabelled(wildcards) -> bool:
    """Whether photographs without a label are taken as mostly good and learned from."""
    return not is_rendered(wildcards) and preflight.learns_unlabelled(SOURCES[wildcards.dataset])


def candidates(wildcards) -> list | str:
    """The table of photographs that are not learned from, where those without a label are."""
    folder = "results/{dataset}/{segmenter}/{isolation}/{detector}"
    return f"{folder}/candidates.csv" if learns_unlabelled(wildcards) else []


def mask_tables(wildcards) -> list[str]:
    return (
        [f"results/{{dataset}}/{{segmenter}}/masks/{k}.csv" for k in SHARDS]
        if segmenter_of(wildcards).makes_masks
        else []
    )


def regions_of_card(wildcards) -> dict:
    """Regions of the main run for the card, where that run has been made: they stand in where there are no masks."""
    folder = next(run.folder for run in MAIN_RUNS if run.dataset == wildcards.dataset)
    files = [f"{folder}/regions.csv", f"{folder}/regions.json"]
    return {"regions": files} if all(Path(file).is_file() for file in files) else {}


def steps_of(run) -> list[str]:
    """A file of every step between the photographs and the verdicts of one run.

    `all` asks for each. Snakemake records a job that failed with its new settings and removes its outputs, and a
    missing file that no job waits for is no reason to run: what stands after it would keep the state of before.
    """
    data = ["source.sha256"] if is_rendered(run) else []
    data += [f"shards/{k}.csv" for k in SHARDS] + ["manifest.csv", "splits.csv"]
    data += ["pairs.csv", "annotated.csv"] if is_annotated(run) else []
    masks = [*segmenter_files(run).values(), *mask_tables(run)] if segmenter_of(run).makes_masks else []
    if segmenter_of(run).finds:
        names = [*(f"candidates/{k}.safetensors" for k in SHARDS), "found.csv", "parts.png"]
        masks += [f"results/{{dataset}}/{{segmenter}}/{name}" for name in names]
    masks += ["results/{dataset}/{segmenter}/parts.png"] if segmenter_of(run).prompts else []
    pictures = [*all_picture_tables(run), "results/{dataset}/{segmenter}/{isolation}/picture_shape.json"]
    judged = ["banks.safetensors", "calibration.csv", "metrics.json", "regions.csv"]
    judged += ["features.json"]  # not the features themselves, which need not stay
    if run in MAIN_RUNS:
        judged += ["labels_to_check.csv", "next_to_label.csv"]
        judged += ["candidates.csv"] if learns_unlabelled(run) else []
    judged += [f"{kind}/{k}.{end}" for kind, end in (("features", "json"), ("scores", "csv")) for k in SHARDS]
    folders = [f"results/{run.dataset}/{name}" for name in data] + [f"{run.folder}/{name}" for name in judged]
    return sorted({*folders, *(path.format(**run._asdict()) for path in (*masks, *pictures))})


def bundle_files(wildcards) -> dict:
    """What a bundle holds of the segmenter, and the annotated parts that the window of a crop was made from."""
    detector = detector_of(wildcards)
    if detector.not_bundled:
        sys.exit(f"error: bundle: {detector.name} {detector.not_bundled} (bundle another detector)")
    files = segmenter_files(wildcards) if segmenter_of(wildcards).makes_masks else {}
    return files | network_files(wildcards) | extent_file(wildcards)


def kinds_to_bundle(wildcards) -> str | list:
    """The classifier of kinds where the config joins it, if the inspector's network can serve it."""
    if not SETTINGS["kinds"].join:
        return []
    reason = SETTINGS["kinds"].not_carried_with(detector_of(wildcards))
    if reason:
        sys.exit(f"error: bundle: {reason}")
    return "results/{dataset}/{segmenter}/{isolation}/kinds"


def bundled(wildcards) -> str:
    """What a bundle is told of the config: the entries of its run, and how regions and heat are made; as JSON."""
    entries = {kind: config[f"{kind}s"][wildcards[kind]] for kind in ("segmenter", "isolation", "detector")}
    look = {key: value for key, value in config["drawing"].items() if key != "triptychs"}
    return json.dumps(entries | {"regions": config["regions"], "look": look})
