"""Helpers only: photographs, labels and outlines of a data set, as inputs and flags of jobs."""


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
