"""The rules and what follows from each: shared by the tests of what a change makes stale."""

from collections.abc import Callable

from made import Made

# Which rules read what a rule writes.
AFTER = {
    "render_demo": "survey ingest sam_pairs",
    "survey": "ingest candidates masks isolate part_sheet",
    "ingest": "split augment check_labels evaluate boxes render report",
    "sam_pairs": "split_annotated prior segment isolate",
    "split_annotated": "split prior segment",
    "split": "fit score calibrate evaluate leaderboard",
    "prior": "segment masks evaluate",
    "candidates": "find_part",
    "find_part": "learn_found isolate",
    "learn_found": "masks evaluate part_sheet",
    "part_sheet": "",
    "fetch_checkpoint": "segment",
    "segment": "masks evaluate",
    "masks": "isolate evaluate boxes render report",
    "isolate": "picture_shape augment features report",
    "picture_shape": "",  # its content counts, see `shape_that_counts`
    "augment": "features report",
    "features": "fit score calibrate keep_features check_labels",
    "check_labels": "next_to_label keep_features report",
    "next_to_label": "report",
    "fit": "score evaluate keep_features report",
    "calibrate": "evaluate leaderboard keep_features report",
    "score": "evaluate boxes render report keep_features",
    "keep_features": "report",
    "evaluate": "next_to_label boxes render report leaderboard",
    "boxes": "render report",
    "render": "report",  # counts the disk of what is drawn
    "report": "",
    "leaderboard": "",
    "pretrain": "",
    "pretrain_backbone": "pretrain",
    "pretrain_sam": "pretrain",
    "pretrain_part": "pretrain",
    "all": "",
}
# They run for a run beside the main one, whose pictures alone are rendered and whose labels alone are checked.
OF_THE_MAIN_RUN = {"render", "check_labels", "next_to_label"}
OF_THE_FOUND_RUN = {"candidates", "find_part", "learn_found", "part_sheet"}
# Made for other configurations or asked for by name.
ELSEWHERE = {
    "parts", "triptychs", "normal_embed", "clean_features", "categories", "bundle", "write_bundle", "export_labels",
    "write_labels", "card", "reconstructions", "draw_reconstructions", "write_card", "screen", "next",
    "kinds", "kind_features", "describe", "classify", "study", "vary", "imbalance", "thin_out", "finetune",
    "class_maps", "draw_class_maps", "profiles", "draw_profiles",
}  # fmt: skip
# Every rule of `all` has work in this configuration but render_demo and fetch_checkpoint.
CONFIG = {
    "shards": 2,
    "dataset": "mine",
    "datasets": {"mine": {"path": "data/mine"}},
    "segmenter": "own",
    "isolation": "crop",
    "compare": [
        {"segmenter": "template", "isolation": "zero_out", "detector": "pixel_difference"},
        {"segmenter": "none", "isolation": "none", "detector": "untrained"},
        {"segmenter": "found", "isolation": "crop", "detector": "pixel_difference"},
        {"segmenter": "none", "isolation": "none", "detector": "drawn"},
        {"segmenter": "none", "isolation": "none", "detector": "named"},
    ],
    "segmenters": {"own": {"method": "sam2.1", "model": "nano", "checkpoint": "data/start.pt"}},
    "isolations": {"crop": {"margin": 0.02}},
    "augmentation": {"copies": 1},
    "detectors": {
        "patchcore": {"weights": "data/net.safetensors"},
        "untrained": {"method": "padim", "backbone": "resnet18.tv_in1k", "score": "top_k_mean"},
        "drawn": {"method": "vae"},
        "named": {"method": "anomalib", "model": "Ganomaly", "options": {"n_features": 8}, "image_size": 64},
    },
}
# The demo, and the making of our own weights.
DEMO = {"shards": 2, "compare": [], "pretrain": {"pool": "data/pool", "teacher_weights": "data/net.safetensors"}}
# One that asks for the card of a data set, or its kinds of defects.
CARD = {"shards": 2, "dataset": "mine", "datasets": {"mine": {"path": "data/mine"}}, "compare": []}


def closure(first: str | tuple, present: set[str]) -> set[str]:
    """Rules of ``present`` that follow from those named; a tuple is a whole set already.

    The sheet shows the masks of the finder: it is not in the set where ``first`` has masks, see `sheet`.
    """
    if isinstance(first, tuple):
        return set(" ".join(first).split())
    todo, found = first.split(), set()
    compared = set(todo) & present <= OF_THE_FOUND_RUN
    while todo:
        rule = todo.pop()
        if rule in present and rule not in found:
            found.add(rule)
            todo += AFTER[rule].split()
    return found - OF_THE_MAIN_RUN if compared else found


def sheet(stale: dict[str, int]) -> set[str]:
    """The sheet of found parts, where the masks of all three segmenters with shards of their own are stale."""
    return {"part_sheet"} if stale.get("masks") == 6 else set()


ALL = set(AFTER) - {
    "all",
    "render_demo",
    "fetch_checkpoint",
    "pretrain",
    "pretrain_backbone",
    "pretrain_sam",
    "pretrain_part",
}
ALL_OF_DEMO = set(AFTER) - {"all", "segment", "fetch_checkpoint", "augment", *OF_THE_FOUND_RUN}


def edited(site: Made, path: str, edit: Callable[[str], str]) -> dict[str, int]:
    """What is stale while a file reads otherwise: a path from the root of the copy, or a name in the package."""
    file = site.folder / path if "/" in path or (site.folder / path).exists() else site.packaged(path)
    content = file.read_bytes()
    try:
        file.write_text(edit(content.decode(errors="replace")))  # not all files are text
        return site.stale()
    finally:
        file.write_bytes(content)
