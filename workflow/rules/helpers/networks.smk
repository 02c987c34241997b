"""Helpers only: networks that find the part, compute features or name kinds: their files, hashes and flags."""


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
    if network.backbone in ("pixels", "picture", "outline", "patch-nano") or network.weights:
        return ""
    return f"--seed {config['seed']} {option('--allow-downloads', config['allow_downloads'])}"
