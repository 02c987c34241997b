"""What another value of each config key makes stale: exactly these rules re-run, no more and no less.

A new config key needs a line in KEYS, a new rule one in AFTER (tests/staleness.py).
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Literal

import pytest
from defectflow.config.configuration import sections
from defectflow.config.run_settings import RunSettings
from defectflow.config.settings import Family, types_of
from defectflow.config.values import choices_of
from defectflow.methods.patchcore.settings import PatchCoreSettings
from made import Made
from staleness import AFTER, ALL, ALL_OF_DEMO, CARD, CONFIG, DEMO, ELSEWHERE, closure, edited, sheet

# For every key of the schema (* is any name): another value, and the rules it changes first. A tuple is a whole set:
# where a key names other files, what follows is not the same set.
JUDGED = "fit score calibrate keep_features evaluate boxes report leaderboard"
SHOWN = "check_labels next_to_label render"
NEW_RUN = (f"isolate picture_shape augment features {JUDGED} {SHOWN}",)
FINDING = "candidates find_part learn_found part_sheet"
KEYS = {
    "dataset": ("twin", (f"survey ingest sam_pairs split_annotated split prior segment masks {FINDING}", *NEW_RUN)),
    "segmenter": ("constant", ("masks", *NEW_RUN)),
    "isolation": ("zero_out", NEW_RUN),
    "detector": ("other", (f"features {JUDGED} {SHOWN}",)),
    "compare[].segmenter": ("constant", (f"masks isolate picture_shape augment features {JUDGED}",)),
    "compare[].isolation": ("mean_fill", (f"isolate picture_shape augment features {JUDGED}",)),
    "compare[].detector": ("other", (f"features {JUDGED}",)),
    "threshold": ("youden", "evaluate"),
    "threshold_options.max_fpr": (0.2, "evaluate"),
    "threshold_options.max_fnr": (0.2, "evaluate"),
    "threshold_options.recall": (0.7, "evaluate"),
    "threshold_options.percentile": (90, "evaluate"),
    "threshold_options.sigma": (2, "evaluate"),
    "threshold_options.alpha": (0.3, "evaluate"),
    "threshold_options.miss": (100, "evaluate"),
    "threshold_options.false_alarm": (3, "evaluate"),
    "threshold_options.bad_share": (0.2, "evaluate"),
    "threshold_options.value": (0.7, "evaluate"),
    "review.max_fpr": (0.2, "evaluate"),
    "review.max_fnr": (0.2, "evaluate"),
    "folds": ("leave_one_out", "split"),
    "seed": (1, "split_annotated split prior segment candidates augment features fit calibrate evaluate"),
    "shards": (3, "survey"),
    "device": ("cpu", "segment masks features fit score calibrate"),
    "on_problem": ("leave_out", "ingest"),
    "keep_features": ("all", "keep_features"),
    "label_format": ("yolo_segment", ""),  # of an export that is asked for by name
    "allow_downloads": (True, (f"features {JUDGED}",)),
    "datasets.*.path": ("data/moved", "survey sam_pairs"),
    "datasets.*.images": ("data/moved/images", "survey sam_pairs"),
    "datasets.*.annotations": ("data/moved/annotations.json", "ingest sam_pairs"),
    "datasets.*.labels": ("data/moved/labels.csv", "ingest sam_pairs"),
    "datasets.*.feedback": ("data/feedback.csv", "ingest"),
    "datasets.*.good": (["fine"], "survey sam_pairs"),
    "datasets.*.links": (["data"], "survey sam_pairs"),
    "datasets.*.category": ("part", "ingest sam_pairs"),
    "datasets.*.unlabelled": ("learn", (f"split screen {JUDGED} next_to_label render",)),
    "datasets.*.part": ("whole", ""),  # where the segmenter is auto: tests/dag/test_dag.py
    "datasets.*.bit_depth": (12, ""),  # of use to 16-bit photographs: tests/dag/test_dag.py
    "datasets.*.about.license": ("https://spdx.org/licenses/CC0-1.0", ""),  # of a card: tests/dag/test_dag.py
    "datasets.*.about.creator": ("we", ""),
    "datasets.*.about.url": ("https://example.org", ""),
    "datasets.*.about.published": ("2026-11-30", ""),
    "datasets.*.rendered.views": (20, "render_demo"),
    "datasets.*.rendered.defects": (9, "render_demo"),
    "datasets.*.rendered.kinds": (8, "render_demo"),
    "datasets.*.rendered.size": (256, "render_demo"),
    "segmenters.*.method": (
        "template",
        (f"masks isolate picture_shape augment features {JUDGED} {SHOWN}",),
    ),
    "segmenters.*.model": ("sam2.1_hiera_t", "segment"),
    "segmenters.*.checkpoint": ("data/other.pt", "segment"),
    "segmenters.*.sha256": ("2584c2e546d3836061ed1acb794ebc33d7ed57714d847276ad84dacb6254896e", "report"),
    "segmenters.*.bytes": (13, "report"),
    "segmenters.*.engine": ("official", "segment"),
    "segmenters.*.trainable": ("all", "segment"),
    "segmenters.*.steps": (10, "segment"),
    "segmenters.*.batch_size": (2, "segment"),
    "segmenters.*.augmentations": (1, "segment"),
    "segmenters.*.learning_rate": (0.01, "segment"),
    "segmenters.*.patience": (9, "segment"),
    "isolations.*.background": ("mean", "isolate"),
    "isolations.*.normalise": (["clahe"], "isolate"),
    "isolations.*.crop": (False, "isolate"),
    "isolations.*.margin": (0.1, "isolate"),
    "isolations.*.tight": (256, (f"isolate picture_shape augment features {JUDGED}",)),
    "isolations.*.upright": (True, (f"isolate picture_shape augment features {JUDGED}",)),
    "isolations.*.dilate": (3, "isolate"),
    "augmentation.copies": (2, "augment"),
    "augmentation.robustness": ([1], "augment"),
    "augmentation.synthetic": (1, "augment"),
    "augmentation.rotate": (7, "augment"),
    "augmentation.translate": (0.1, "augment"),
    "augmentation.brightness": (0.2, "augment"),
    "augmentation.contrast": (0.2, "augment"),
    "augmentation.blur": (5, "augment"),
    "detectors.*.method": ("pixel_difference", (f"features {JUDGED}",)),
    "detectors.*.backbone": ("resnet18.tv_in1k", "features"),
    "detectors.*.weights": ("data/other.safetensors", "features"),
    "detectors.*.layers": (["layer2"], "features"),
    "detectors.*.image_size": (256, "features"),
    "detectors.*.foreground_only": (False, "features"),
    "detectors.*.max_patches": (1000, "fit calibrate"),
    "detectors.*.coreset_ratio": (0.5, "fit calibrate"),
    "detectors.*.coreset_max": (100, "fit calibrate"),
    "detectors.*.bank_dtype": ("float16", "fit calibrate"),
    "detectors.*.neighbours": (3, "score calibrate"),
    "detectors.*.score": ("percentile", "score calibrate"),
    "detectors.*.top_fraction": (0.05, "score calibrate"),
    "detectors.*.density_neighbours": (3, "fit calibrate"),
    "detectors.*.center_crop": (224, "features"),
    "detectors.*.tiles.size": (256, "features"),
    "detectors.*.tiles.overlap": (32, "features"),
    "detectors.*.precision": ("bfloat16", "features"),
    "detectors.*.batch_size": (8, "features"),
    "detectors.*.distance": ("cosine", "fit calibrate"),
    "detectors.*.dimensions": (50, (JUDGED,)),
    "detectors.*.steps": (9, (JUDGED,)),
    "detectors.*.train_batch_size": (2, (JUDGED,)),
    "detectors.*.latent": (9, (JUDGED,)),
    "detectors.*.width": (8, (JUDGED,)),
    "detectors.*.ssim": (0, (JUDGED,)),
    "detectors.*.kl": (2, (JUDGED,)),
    "detectors.*.learning_rate": (0.01, (JUDGED,)),
    "detectors.*.model": ("Dsr", (JUDGED,)),
    "detectors.*.options": ({"n_features": 9}, (JUDGED,)),
    "detectors.*.threshold": ("youden", "evaluate"),
    "regions.min_area": (0.01, "boxes"),
    "regions.max_area": (0.2, "boxes"),
    "regions.merge": (0.1, "boxes"),
    "regions.max_aspect": (3, "boxes"),
    "regions.refine": ("sam", ("boxes refine render report",)),
    "drawing.colours": ("magma", "render report"),
    "drawing.vmax_quantile": (0.9, "render report"),
    "drawing.gamma": (2, "render report"),
    "drawing.blur": (3, "render report"),
    "drawing.alpha_mode": ("constant", "render report"),
    "drawing.alpha_min": (0.1, "render report"),
    "drawing.alpha_max": (0.9, "render report"),
    "drawing.opacity": (0.7, "render report"),
    "drawing.triptychs": (True, ("triptychs report",)),
    # Of `snakemake kinds`, which is asked for by name: see below.
    "kinds.training": ("finetune", ""),
    "kinds.backbone": ("resnet18.tv_in1k", ""),
    "kinds.weights": ("data/net.safetensors", ""),
    "kinds.layers": (["layer2"], ""),
    "kinds.image_size": (256, ""),
    "kinds.center_crop": (224, ""),
    "kinds.precision": ("bfloat16", ""),
    "kinds.batch_size": (8, ""),
    "kinds.foreground_only": (False, ""),
    "kinds.head": ("nearest", ""),
    "kinds.strength": (0.1, ""),
    "kinds.neighbours": (5, ""),
    "kinds.balance": ("reslt", ""),
    "kinds.rejected": (0.1, ""),
    "kinds.join": (True, ("evaluate next_to_label boxes render report leaderboard kind_features describe classify",)),
    "kinds.epochs": (50, ""),
    "kinds.learning_rate": (0.01, ""),
    "kinds.optimizer": ("sgd", ""),
    "kinds.study.backbone": (["resnet18.tv_in1k"], ""),
    "kinds.study.image_size": ([256], ""),
    "kinds.study.head": (["nearest"], ""),
    "kinds.study.balance": (["none"], ""),
    "kinds.study.strength": ([0.1], ""),
    "kinds.study.epochs": ([50], ""),
    "kinds.study.learning_rate": ([0.01], ""),
    "kinds.study.optimizer": (["sgd"], ""),
    "kinds.study.networks": ({}, ""),
    "pretrain.pool": ("data/moved", "pretrain_backbone pretrain_sam pretrain_part"),
    "pretrain.photographs": ("data/moved", "pretrain_sam pretrain_part"),
    "pretrain.figure_teacher": ("data/moved", "pretrain_part"),
    "pretrain.teacher_name": ("resnet34.tv_in1k", "pretrain_backbone"),
    "pretrain.teacher_weights": ("data/other.safetensors", "pretrain_backbone"),
    "pretrain.minutes": (1, "pretrain_backbone pretrain_sam pretrain_part"),
}
# Of which entry of detectors a key is changed that patchcore does not read.
OF_ENTRY = {"method": "untrained", "dimensions": "untrained", "model": "named", "options": "named"}
OF_ENTRY |= dict.fromkeys(("steps", "train_batch_size", "latent", "width", "ssim", "kl", "learning_rate"), "drawn")
# What else has to be set for a key to be allowed or to matter.
WITH = {
    "compare[].segmenter": {"isolation": "zero_out", "detector": "pixel_difference"},
    "compare[].isolation": {"segmenter": "template", "detector": "pixel_difference"},
    "compare[].detector": {"segmenter": "none", "isolation": "none"},
}
# What another value does not allow beside it.
NOT_WITH = {
    "segmenters.*.method": ["model", "checkpoint"],
    "isolations.*.crop": ["margin"],
    "detectors.*.method": ["backbone"],
}
STRATEGY = {
    "threshold_options.max_fpr": "max_fpr",
    "threshold_options.max_fnr": "max_fnr",
    "threshold_options.recall": "target_recall",
    "threshold_options.percentile": "normal_percentile",
    "threshold_options.sigma": "normal_sigma",
    "threshold_options.alpha": "conformal",
    "threshold_options.miss": "cost",
    "threshold_options.false_alarm": "cost",
    "threshold_options.bad_share": "cost",
    "threshold_options.value": "fixed",
}
KEYS |= {f"detectors.*.{key}": KEYS[key] for key in STRATEGY}
STRATEGY |= {f"detectors.*.{key}": strategy for key, strategy in STRATEGY.items()}
# Other keys without which a key would be refused.
BESIDE = {"detectors.*.top_fraction": {"score": "percentile"}, "detectors.*.density_neighbours": {"density": 0.9}}
# A new option of PatchCore needs no row: it makes stale what follows the stages that it names.
OF_STAGE = {"features": "features", "fit": "fit calibrate", "score": "score calibrate"}


def another(field: dataclasses.Field, hint: object) -> object:
    """A value of an option that is allowed and not its default."""
    about = field.metadata
    for kind, of in choices_of(hint):
        limits = [about[key] for key in ("maximum", "minimum") if about[key] is not None]
        values = {bool: [True, False], Literal: of, int: [*limits, 1, 2], float: [*limits, 0.5, 0.25]}.get(kind, ())
        for value in values:
            if value != about["default"]:
                return value
    raise AssertionError(f"give {field.name} a row in KEYS")


for _field in dataclasses.fields(PatchCoreSettings):
    if f"detectors.*.{_field.name}" not in KEYS and set(_field.metadata["stages"]) & set(OF_STAGE):
        if _field.metadata["nested"]:
            continue  # its own keys have rows
        _value = another(_field, types_of(PatchCoreSettings)[_field.name])
        KEYS[f"detectors.*.{_field.name}"] = _value, " ".join(OF_STAGE[stage] for stage in _field.metadata["stages"])
# A network that is prompted in each photograph by itself, with the least that asks for its masks. What another value of
# a key re-runs of it: all masks, or nothing, where it is the checksum of a file that stays the same.
PROMPTED = CONFIG | {
    "segmenter": "asked",
    "isolation": "zero_out",
    "isolations": {},
    "compare": [],
    "segmenters": {"asked": {"method": "sam_onnx", "encoder": "data/start.pt", "decoder": "data/start.pt"}},
}
OF_PROMPTED = {
    "box": "frame", "recentre": False, "padding": 0.2, "polarity": "auto", "fg_inset": 0.5, "within_box": True,
    "centre_band": 0.2, "height_band": 0.2, "bridge": 0.1, "fill_holes": True, "scraps": 0.1, "drop_border": True,
    "area": [0.1, 0.8], "encoder": "data/other.pt", "decoder": "data/other.pt",
}  # fmt: skip
SUMS = ("encoder_sha256", "decoder_sha256")
OTHERWISE = {
    "datasets.*.categories",  # several data sets at once: tests/dag/test_dag.py
    "detectors.*.patches",  # of spade, which this config does not use: tests/unit/methods/spade
    "detectors.*.nearest_images",
    *(f"detectors.*.{key}" for key in ("axis", "smooth", "certain")),  # of profile: tests/unit/methods/profile
}
OTHERWISE |= {"regions.sam_model", "regions.sam_checkpoint"}  # of use with refine: tests/dag/test_dag.py
OTHERWISE |= {"segmenters.*.candidates.onnx", "segmenters.*.candidates.sha256"}  # of found, see below
OTHERWISE |= {f"segmenters.*.{key}" for key in (*OF_PROMPTED, *SUMS)}
OF_THE_DEMO = ("datasets.*.rendered", "pretrain", "regions.refine")


def leaves() -> list[str]:
    """Dotted names of all keys that a config may have."""

    def keys(cls: type, name: str) -> list[str]:
        found = []
        for field in dataclasses.fields(cls):
            of, where = field.metadata["nested"], f"{name}{field.name}"
            items = "[]" if field.name == "compare" else ""
            if field.name in cls.own_keys() and field.name != "threshold_options":
                found += keys(of, f"{where}{items}.") if of else [where]
        return found

    named = {"datasets", "segmenters", "isolations", "detectors"}
    found = keys(RunSettings, "")
    for section, kind in sections().items():
        for cls in kind.classes.values() if isinstance(kind, Family) else [kind]:
            found += keys(cls, f"{section}.*." if section in named else f"{section}.")
    found += [f"{section}.*.method" for section in ("segmenters", "detectors")]
    options = {key for key in found if key.startswith("threshold_options.")}
    return sorted({*found, *(f"detectors.*.{option}" for option in options)})


def test_every_config_key_and_every_rule_has_a_row(site):
    assert set(KEYS) | OTHERWISE == set(leaves()), "give a new key a row in KEYS"
    listed = {line.split()[0] for line in site.snakemake("--list").stdout.splitlines()}
    assert set(AFTER) | ELSEWHERE == listed, "give a new rule a row in AFTER"


def test_when_nothing_has_changed_nothing_is_stale(site, demo):
    assert site.stale() == demo.stale() == {}


def changed(key: str, value: object) -> dict:
    """CONFIG with another value of ``key``; a ``*`` is the entry in use."""
    config = json.loads(json.dumps(DEMO if key.startswith(OF_THE_DEMO) else CONFIG))
    config["detectors"] = {"other": {"method": "pixel_difference"}} | config.get("detectors", {})
    if key.startswith("compare[]."):
        config["compare"].append(WITH[key] | {key.partition(".")[2]: value})
        return config
    if key == "dataset":
        config["datasets"]["twin"] = {"path": "data/twin"}
    if key in STRATEGY:
        place = config["detectors"]["patchcore"] if key.startswith("detectors") else config
        place["threshold"] = STRATEGY[key]
        if STRATEGY[key] == "cost":
            place["threshold_options"] = {"miss": 10, "false_alarm": 1, "bad_share": 0.1}
    if key.startswith("review"):
        config["review"] = {"max_fpr": 0.1, "max_fnr": 0.1}
    entry = {"datasets": "demo" if "rendered" in key else "mine", "segmenters": "own", "isolations": "crop",
             "detectors": "patchcore"}  # fmt: skip
    if key.startswith("detectors."):
        entry["detectors"] = OF_ENTRY.get(key.rpartition(".")[2], "patchcore")
    if key in ("isolations.*.tight", "isolations.*.upright"):  # the entry in use is a crop
        entry["isolations"] = "zero_out"
        config["isolations"]["zero_out"] = {"tight": 128}
    for name in NOT_WITH.get(key, []):
        config[key.partition(".")[0]][entry[key.partition(".")[0]]].pop(name)
    *folders, last = key.replace("*", entry.get(key.partition(".")[0], "*")).split(".")
    node = config
    for folder in folders:
        node = node.setdefault(folder, {})
    node[last] = value
    node |= BESIDE.get(key, {})
    return config


@pytest.mark.parametrize("key", KEYS)
def test_a_config_key_re_runs_what_it_changes(site, demo, key):
    value, first = KEYS[key]
    place, present = (demo, ALL_OF_DEMO) if key.startswith(OF_THE_DEMO) else (site, ALL)
    stale = place.stale(changed(key, value))
    assert set(stale) == closure(first, present) | sheet(stale)
    if key.startswith("drawing") and key != "drawing.triptychs":
        assert stale["report"] == 6  # of the run too whose pictures are drawn


def test_features_of_other_settings_follow_also_where_the_shape_of_pictures_is_made_anew(site):
    # Of a job behind a planned one Snakemake asks for no reason of its own, and none follows from an `ancient` file.
    reports = [file.with_suffix(".json") for file in features_of(site) if file.parts[-3] == "patchcore"]
    before = [(file.stat().st_mtime_ns, file) for file in reports]
    try:
        for time, file in before:
            file.write_text('{"made_with": "other settings"}')
            os.utime(file, ns=(time, time))
        stale = site.stale(changed("detectors.*.image_size", "auto"))
        assert stale["features"] == 2 and {"picture_shape", "fit", "report"} <= set(stale)
    finally:
        for time, file in before:
            file.write_text("")
            os.utime(file, ns=(time, time))


def test_a_network_of_the_user_makes_what_was_found_anew(site):
    network = {"method": "found", "candidates": [{"onnx": "data/start.pt"}]}
    stale = site.stale(CONFIG | {"segmenters": CONFIG["segmenters"] | {"found": network}})
    assert set(stale) == closure("candidates", ALL) | sheet(stale)


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("asked"), PROMPTED, "parts")


@pytest.mark.parametrize("key", ["nothing", *OF_PROMPTED, *SUMS])
def test_a_key_of_a_prompted_network_makes_its_masks_anew(asked, key):
    start = hashlib.sha256(b"start weights").hexdigest()
    value = {"nothing": {}} | {one: {one: start} for one in SUMS} | {k: {k: v} for k, v in OF_PROMPTED.items()}
    changed = PROMPTED | {"segmenters": {"asked": PROMPTED["segmenters"]["asked"] | value[key]}}
    stale = asked.stale(changed)
    assert stale == ({"masks": 2, "part_sheet": 1, "parts": 1} if key in OF_PROMPTED else {})


def test_features_are_stale_where_the_shape_of_long_pictures_is_another_and_not_otherwise(site):
    path = site.folder / "results/mine/own/crop/picture_shape.json"
    try:
        path.write_text('{"height": 504, "width": 760, "long": false}')
        assert site.stale() == {}
        path.write_text('{"height": 504, "width": 1256, "long": true}')
        assert set(site.stale()) == closure("features", ALL)
        config = json.loads(json.dumps(CONFIG))
        config["detectors"]["patchcore"]["input_shape"] = "square"
        assert set(site.stale(config)) == closure("features", ALL)  # because the config is another
    finally:
        path.write_text("")


# --- Features that are gone -------------------------------------------------------------------------------------------
def features_of(site: Made) -> list[Path]:
    return sorted((site.folder / "results").glob("*/*/*/*/features/*.safetensors"))


@pytest.fixture
def freed(site):
    """A site whose patch features and banks of folds have been removed."""
    files = features_of(site) + sorted((site.folder / "results").glob("*/*/*/*/fold_banks.safetensors"))
    assert len(files) == 18  # six runs, two shards
    for file in files:
        file.rename(file.with_suffix(".aside"))
    yield site
    for file in files:
        file.with_suffix(".aside").rename(file)


def test_without_features_nothing_is_stale_and_nothing_computes_them(freed):
    assert freed.stale() == {}
    assert set(freed.stale(changed("threshold", "youden"))) == closure("evaluate", ALL)


@pytest.mark.parametrize("key", ["detectors.*.neighbours", "detectors.*.coreset_max", "detectors.*.image_size"])
def test_a_change_that_needs_features_computes_those_of_its_run_again(freed, key):
    stale = freed.stale(changed(key, KEYS[key][0]))
    assert set(stale) == closure("features", ALL) and (stale["features"], stale["fit"], stale["score"]) == (2, 1, 2)


def test_other_features_make_the_fit_stale_also_after_they_are_freed(site):
    """A run that stops after its features, and whose features are then removed, does not pass for the one before."""
    reports = [file.with_suffix(".json") for file in features_of(site) if file.parts[-3] == "patchcore"]
    before = [(file.stat().st_mtime_ns, file) for file in reports]
    aside = [file.rename(file.with_suffix(".aside")) for file in features_of(site)]
    try:
        reports[0].write_text("made from others")
        stale = site.stale()
        assert {"features", "fit", "score", "calibrate"} <= set(stale) and stale["fit"] == 1
    finally:
        for time, file in before:
            file.write_text("")
            os.utime(file, ns=(time, time))
        for file in aside:
            file.rename(file.with_suffix(".safetensors"))
    assert site.stale() == {}


# --- Kinds of defects ------------------------------------------------------------------------------------------------
LEARNED = {"classify": 1, "kinds": 1}
DESCRIBED = {"describe": 1, "kind_features": 2} | LEARNED


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("kinds"), CARD, "kinds")


def test_kinds_are_stale_after_what_they_are_made_from_and_nothing_else(kinds):
    assert kinds.stale() == {}
    assert kinds.stale(CARD | {"threshold": "youden", "detector": "padim", "folds": "leave_one_out"}) == {}
    for key in (key for key in KEYS if key.startswith("kinds.") and not key.startswith("kinds.study")):
        name = key.removeprefix("kinds.")
        unread = name in ("join", "neighbours", "epochs", "learning_rate", "optimizer")  # of other heads
        if name == "training":
            assert kinds.stale(CARD | {"kinds": {name: KEYS[key][0]}}) == {"finetune": 1} | LEARNED
            continue
        of_head = name in ("head", "strength", "balance", "rejected")
        stale = kinds.stale(CARD | {"kinds": {name: KEYS[key][0]}})
        assert stale == ({} if unread else LEARNED if of_head else DESCRIBED), key
    assert kinds.stale(CARD | {"kinds": {"head": "nearest", "neighbours": 5}}) == LEARNED
    assert kinds.stale(CARD | {"kinds": {"study": {"head": ["nearest"], "backbone": ["resnet18.tv_in1k"]}}}) == {}
    assert edited(kinds, "kinds.html", lambda text: text + "<p>") == LEARNED
    assert edited(kinds, "describe.py", lambda text: text + "\nCHANGED = 1\n") == DESCRIBED
    assert edited(kinds, "data/mine/labels.csv", lambda text: text.replace(",1,", ",,", 1)) == DESCRIBED | {"ingest": 1}
