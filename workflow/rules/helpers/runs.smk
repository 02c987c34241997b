"""Helpers only: what the jobs of a run read of each other, and what a run has to make."""

# What the stage boxes writes: the regions of a run, or those that a network outlines anew.
MAP_REGIONS = "map_regions" if SETTINGS["regions"].refine else "regions"


def picture_tables(wildcards) -> list[str]:
    """Tables of the pictures of one shard: the isolated ones, and the copies where the config asks for any."""
    wants_copies = any(config["augmentation"][key] for key in ("copies", "robustness", "synthetic"))
    folder = "results/{dataset}/{segmenter}/{isolation}"
    return [f"{folder}/{kind}/{{shard}}.csv" for kind in ("images", *(("copies",) if wants_copies else ()))]


def known_shape(wildcards) -> tuple[str, dict]:
    """Path of the shape of the pictures of a set, and its content; {} before it is made."""
    path = "results/{dataset}/{segmenter}/{isolation}/picture_shape.json".format(**wildcards)
    return path, json.loads((Path(path).read_text() if Path(path).is_file() else "") or "{}")


def shape_that_counts(wildcards, network) -> str:
    """The shape of the pictures of a set, where the network's input follows it; Snakemake asks before the job again.

    ``network``: settings of the detector, or of another network that looks at these pictures.
    """
    shape = known_shape(wildcards)[1]
    long = shape.get("long") and network.input_shape == "auto" and not network.center_crop
    size = f" at {shape.get('auto')}" if network.image_size == "auto" else ""
    return (f"{shape['width']} x {shape['height']}" if shape and (long or network.tiles is not None) else "") + size


def made_with(wildcards, network) -> str:
    """Hash of all that decides the features of a shard beside its pictures; it is kept in their report.

    ``network``: as for `shape_that_counts`.
    """
    read = [network.read_by("features"), weights_hash(network.weights, "patch-nano.safetensors"), start_of(network)]
    read += [shape_that_counts(wildcards, network), config["device"], code_hash("detection.features")]
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16]


def is_of_before(wildcards, network, tables: list[str], written: str) -> bool:
    """Whether the features of a shard were made with other settings, or of other pictures, than there are now.

    ``tables``: of their pictures; ``written``: their report. The names of both have wildcards.
    """
    path = Path(written.format(**wildcards))
    try:
        known = json.loads((path.read_text() if path.is_file() else "") or "null")
    except ValueError:
        return True
    paths = [Path(table.format(**wildcards)) for table in tables]
    now = [hashlib.sha256(one.read_bytes()).hexdigest() for one in paths if one.is_file()]
    before = [known.get(key) for key in ("made_with", "tables")] if known else []
    return known is not None and before != [made_with(wildcards, network), now]


def shape_file(wildcards):
    """`shape_unless_of_before` for the features of a run."""
    written = "results/{dataset}/{segmenter}/{isolation}/{detector}/features/{shard}.json"
    return shape_unless_of_before(wildcards, detector_of(wildcards), picture_tables(wildcards), written)


def shape_of_kinds(wildcards):
    """`shape_unless_of_before` for the features that kinds are described from."""
    folder = "results/{dataset}/{segmenter}/{isolation}"
    tables, written = [f"{folder}/images/{{shard}}.csv"], f"{folder}/kind_features/{{network}}/{{shard}}.json"
    return shape_unless_of_before(wildcards, kind_network(wildcards), tables, written)


def shape_unless_of_before(wildcards, network, tables: list[str], written: str):
    """The shape of the pictures of a set; `ancient` unless it may become another by what changed of the photographs.

    It is made anew with every photograph, and hardly ever another: its content is a param of the job. But a job that
    this invocation does not plan would keep the shape of before. Nor is it `ancient` where the features are of before:
    of a job behind a planned one Snakemake asks for no reason of its own, and none follows from an `ancient` file.
    """
    path, shape = known_shape(wildcards)
    holds = [shape[key] for key in ("long_holds", "sides_hold") if key in shape]
    if shape and not shape["long"] and network.tiles is None:
        holds = holds[:1]  # its sides do not count
    counts = network.tiles is not None or (network.input_shape == "auto" and not network.center_crop)
    holds = [0] if holds and network.image_size == "auto" else holds  # the part is measured in some photographs
    if is_of_before(wildcards, network, tables, written):
        return path
    if not holds or not counts or is_rendered(wildcards):
        return ancient(path)
    name = wildcards.dataset
    surveyed = [f"results/{name}/shards/{shard}.csv" for shard in SHARDS]
    changed = preflight.changed_since(SOURCES[name], cache_file(name), surveyed)
    return path if changed > min(holds) else ancient(path)


def all_picture_tables(wildcards) -> list[str]:
    """Tables of the pictures of all shards, each beside its folder of pictures."""
    return [table.replace("{shard}", shard) for table in picture_tables(wildcards) for shard in SHARDS]


def drawn(wildcards) -> list[str]:
    """Empty files beside the pictures that are drawn of a run: of those that the config asks for, not of those beside.

    Not the folders: Snakemake compares these by time alone, which a copy of the results changes.
    """
    folder = "results/{dataset}/{segmenter}/{isolation}/{detector}".format(**wildcards)
    kinds = ["drawn", *(["triptychs"] if config["drawing"]["triptychs"] else [])]
    return [f"{folder}/{kind}.done" for kind in kinds] if folder in {run.folder for run in MAIN_RUNS} else []


def disk_flags(wildcards, input) -> str:
    """What the report tells the size of, by kind."""
    files = {
        "isolated_pictures": [table.removesuffix(".csv") for table in input.isolated],
        "masks": [table.removesuffix(".csv") for table in input.get("masks", [])],
        "memory_banks": [input.banks],
        "anomaly_maps": [*input.maps, input.calibration],
        "drawn_pictures": [
            f"{Path(path).parent}/{kind}"
            for path in input.drawn
            for kind in (["triptychs"] if path.endswith("triptychs.done") else ["heatmaps", "overlays", "sheets"])
        ],
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


def features_with_outlines(wildcards) -> list[str]:
    """Features of the pictures whose outlines the detector measures."""
    detector = detector_of(wildcards)
    if not detector.measures_outlines:
        sys.exit(f"error: profiles: method {detector.name} measures no outlines (profile does)")
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
    judged += [f"{MAP_REGIONS}.csv"] if SETTINGS["regions"].refine else []
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
    if SETTINGS["regions"].refine:
        sys.exit(
            "error: bundle: an inspector outlines regions by the anomaly map, without SAM 2.1 (set regions: {refine: null})"
        )
    files = segmenter_files(wildcards) if segmenter_of(wildcards).makes_masks else {}
    return files | network_files(wildcards) | extent_file(wildcards)


def refinement_of(wildcards) -> str | list:
    """Where the outlines of SAM 2.1 are compared with those of the anomaly map, if the config asks for them."""
    folder = "results/{dataset}/{segmenter}/{isolation}/{detector}"
    return f"{folder}/refinement.json" if SETTINGS["regions"].refine else []


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
    regions = {key: value for key, value in config["regions"].items() if key in SETTINGS["regions"].read_by("boxes")}
    return json.dumps(entries | {"regions": regions, "look": look})
