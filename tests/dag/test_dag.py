"""Dry runs over many configurations, on a few placeholder pictures: the cheapest test of a DAG."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from conftest import Workflow, make_coco_set, make_mvtec_set


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """One copy of the workflow with a COCO set and an MVTec set; nothing in it is ever run or edited."""
    folder = tmp_path_factory.mktemp("site")
    make_coco_set(folder / "coco")
    make_mvtec_set(folder / "mvtec")
    return Workflow(folder)


COCO = {"shards": 2, "dataset": "mine", "datasets": {"mine": {"path": "coco"}}}
MVTEC = {"shards": 2, "dataset": "mvtec", "datasets": {"mvtec": {"path": "mvtec"}}}
WHOLE = {"datasets": {"mvtec": {"path": "mvtec", "part": "whole"}}}
ALONE = {"compare": []}


def test_the_default_run_renders_the_demo_and_compares_with_the_baselines(site):
    assert site.jobs() == {
        "render_demo": 1, "survey": 1, "ingest": 1, "sam_pairs": 1, "split_annotated": 1, "split": 1, "prior": 1,
        "masks": 1, "isolate": 2, "picture_shape": 2,
        "features": 3, "fit": 3, "score": 3, "calibrate": 3, "keep_features": 3, "evaluate": 3, "boxes": 3, "report": 3,
        "render": 1, "leaderboard": 1, "check_labels": 1, "next_to_label": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (COCO | ALONE, {"prior": 1, "masks": 2, "isolate": 2, "features": 2, "fit": 1, "score": 2}),
        (COCO | ALONE | {"isolation": "crop"}, {"isolate": 2}),
        (COCO | ALONE | {"isolation": "mean_fill", "segmenter": "constant"}, {"segment": 0, "masks": 2}),
        (COCO | ALONE | {"segmenter": "sam2.1-nano"}, {"segment": 1, "masks": 2}),
        (COCO | ALONE | {"segmenter": "none"}, {"prior": 0, "masks": 0, "isolate": 2}),
        (COCO | ALONE | {"shards": 5, "threshold": "youden", "threshold_options": {"max_fpr": 0.1}}, {"score": 5}),
        (COCO | ALONE | {"shards": 5, "review": {"max_fpr": 0.1, "max_fnr": 0}}, {"masks": 5, "score": 5, "fit": 1}),
        (COCO | ALONE | {"augmentation": {"copies": 2}}, {"augment": 2}),
        (COCO | ALONE | {"augmentation": {"robustness": [0.5, 2]}, "folds": "holdout"}, {"augment": 2, "boxes": 1}),
        (COCO | ALONE | {"detector": "pixel_difference"}, {"features": 2, "normal_embed": 0}),
        (COCO | ALONE | {"detector": "centroid"}, {"fit": 1, "normal_embed": 1}),
        (COCO | ALONE | {"detector": "vae"}, {"features": 2, "fit": 1, "score": 2, "calibrate": 1}),
        (MVTEC | ALONE | {"detector": "padim"}, {"fit": 1, "evaluate": 1}),
        (COCO | {"folds": "leave_group_out", "device": "cpu", "on_problem": "leave_out"}, {"fit": 3}),
        (MVTEC | ALONE, {"sam_pairs": 0, "prior": 0, "candidates": 2, "find_part": 1, "learn_found": 1, "masks": 2}),
        (MVTEC | ALONE, {"isolate": 2, "part_sheet": 1, "evaluate": 1}),
        (MVTEC | ALONE | WHOLE, {"candidates": 0, "masks": 0, "isolate": 2, "evaluate": 1}),
        (MVTEC, {"evaluate": 3, "fit": 3, "masks": 2}),
    ],
)
def test_every_choice_gives_a_plan_with_just_the_jobs_it_needs(site, config, expected):
    jobs = site.jobs(config=config)
    assert {rule: jobs.get(rule, 0) for rule in expected} == expected
    assert "render_demo" not in jobs and jobs["render"] == 1


def test_regions_are_refined_by_a_network_where_defects_are_marked_and_the_bundle_is_refused(site):
    config = ALONE | {"regions": {"refine": "sam"}}
    official = {"refine": "sam", "sam_model": "sam2.1_hiera_t", "sam_checkpoint": "coco/annotations.json"}
    told = site.snakemake("-n", "-p", config=ALONE | {"regions": official})
    (line,) = (line for line in (told.stdout + told.stderr).splitlines() if "refinement.refine" in line)
    assert "--checkpoint coco/annotations.json" in line and '"sam_model": "sam2.1_hiera_t"' in line
    assert "--table results/demo/template/crop/patchcore/regions.csv" in line and "/map_regions.csv" in line
    for target, changed, message in (
        ("bundle", config, "an inspector outlines regions by the anomaly map"),
        ("all", MVTEC | config, "data set mvtec has 3"),
    ):
        status, output = site.plan(target, config=changed)
        assert status == 1 and message in output and "Traceback" not in output, message


def test_few_outlines_are_carried_over_to_all_photographs_and_tell_the_window(site):
    def commands(config):
        told = site.snakemake("-n", "-p", config=config | ALONE)
        found = [line for line in (told.stdout + told.stderr).splitlines() if "python -m defectflow." in line]
        return {re.search(r"defectflow\.\w+\.(\w+)", line)[1]: line for line in found}

    many = commands(COCO)
    assert "--photographs" not in many["prior"] and "--pairs results/mine/pairs.csv" in many["isolate"]
    if not (site.folder / "few").exists():
        shutil.copytree(site.folder / "coco", site.folder / "few")
        coco = json.loads((site.folder / "few/annotations.json").read_text())
        coco["annotations"] = coco["annotations"][:1]
        (site.folder / "few/annotations.json").write_text(json.dumps(coco))
    few = commands(COCO | {"datasets": {"mine": {"path": "few"}}})
    assert "--photographs results/mine/shards/0.csv results/mine/shards/1.csv" in few["prior"]
    assert "--prior results/mine/prior.safetensors" in few["isolate"] and "--pairs" not in few["isolate"]


def test_a_prompted_network_needs_neither_outlines_nor_other_photographs(site):
    for name in ("encoder", "decoder"):
        (site.folder / f"{name}.onnx").write_text(name)
    pair = {"method": "sam_onnx", "encoder": "encoder.onnx", "decoder": "decoder.onnx"}
    config = MVTEC | ALONE | {"segmenter": "asked", "segmenters": {"asked": pair}}
    expected = {"prior": 0, "candidates": 0, "find_part": 0, "masks": 2, "part_sheet": 1, "isolate": 2, "evaluate": 1}
    for changes in ({}, {"segmenters": {"asked": {"method": "prompted", "model": "nano"}}}, {"isolation": "tight"}):
        jobs = site.jobs(config=config | changes)
        assert {rule: jobs.get(rule, 0) for rule in expected} == expected
    assert site.jobs("parts", config=config) == {"survey": 2, "masks": 2, "part_sheet": 1, "parts": 1}
    told = site.snakemake("-n", "-p", "bundle", config=config)
    lines = [line for line in (told.stdout + told.stderr).splitlines() if "--encoder" in line]
    assert len(lines) == 3 and all("--encoder encoder.onnx --decoder decoder.onnx" in line for line in lines)
    assert not any("--prior" in line for line in lines)
    for change, message in (
        ({"isolation": "crop"}, "set isolation: zero_out, or tight"),
        ({"segmenters": {"asked": pair | {"encoder": "none.onnx"}}}, "none.onnx: no such file"),
        ({"segmenters": {"asked": pair | {"decoder_sha256": "0" * 64}}}, "decoder.onnx: wrong checksum"),
    ):
        refused = site.snakemake("-n", config=config | change)
        assert refused.returncode != 0 and message in refused.stdout + refused.stderr


def test_every_category_of_a_folder_is_a_data_set_and_one_table_has_them_all(site):
    for name in ("bottle", "cable", "grid"):
        if not (site.folder / "bench" / name).exists():
            make_mvtec_set(site.folder / "bench" / name)
    (site.folder / "bench/license").mkdir(exist_ok=True)
    config = {"dataset": "b", "datasets": {"b": {"path": "bench", "categories": "all"}}} | ALONE
    jobs = site.jobs(config=config)
    expected = {"ingest": 3, "fit": 3, "evaluate": 3, "render": 3, "categories": 1, "leaderboard": 0}
    assert {rule: jobs.get(rule, 0) for rule in expected} == expected
    assert site.jobs("bundle", config=config)["write_bundle"] == 3
    refused = site.snakemake("-n", config=config | {"threshold": "fixed", "threshold_options": {"value": 1}})
    assert refused.returncode != 0 and "error: config.yaml: threshold: fixed is one value" in refused.stderr
    config["datasets"]["b"]["categories"] = ["grid"]
    jobs = site.jobs(config=config)
    assert jobs["evaluate"] == jobs["categories"] == 1 and "leaderboard" not in jobs
    config["datasets"]["b"]["categories"] = ["gird"]
    refused = site.snakemake("-n", config=config)
    assert refused.returncode != 0 and "bench/gird: not in the MVTec layout" in refused.stderr


def test_a_checkpoint_by_url_is_fetched_only_where_downloads_are_allowed(site):
    config = COCO | ALONE | {"segmenter": "sam2.1-tiny"}
    refused = site.snakemake("-n", config=config)
    assert refused.returncode != 0 and "allow_downloads" in refused.stdout + refused.stderr
    assert site.jobs(config=config | {"allow_downloads": True})["fetch_checkpoint"] == 1


def test_the_weights_in_the_box_have_a_target_of_their_own(site):
    (site.folder / "teacher.safetensors").touch()
    config = {"pretrain": {"pool": "coco/images", "teacher_weights": "teacher.safetensors"}}
    assert site.jobs("--cores", "1", "pretrain", config=config) == {
        "pretrain": 1, "pretrain_backbone": 1, "pretrain_sam": 1, "pretrain_part": 1,
    }  # fmt: skip


def test_the_number_of_jobs_follows_from_the_shards_and_these_double_with_the_images(site):
    demo = {"datasets": {"demo": {"rendered": {"views": 100_000, "defects": 0}}}, "compare": []}
    jobs = site.jobs(config=demo)
    assert jobs["survey"] == jobs["score"] == 64 and sum(jobs.values()) == 5 * 64 + 17


def test_boxes_are_no_outlines_to_learn_masks_from(site, tmp_path):
    data = make_coco_set(tmp_path / "boxes")
    config = COCO | ALONE | {"datasets": {"mine": {"path": str(data)}}}
    assert {"sam_pairs", "masks"} <= site.jobs(config=config).keys()
    coco = json.loads((data / "annotations.json").read_text())
    for one in coco["annotations"]:
        one["segmentation"] = []
    (data / "annotations.json").write_text(json.dumps(coco))
    jobs = site.jobs(config=config)
    assert jobs["ingest"] == jobs["find_part"] == 1 and not {"sam_pairs", "split_annotated", "prior"} & jobs.keys()


def broken(folder, what: str) -> dict:
    """A COCO set with one thing wrong, and the configuration that runs it."""
    data = make_coco_set(folder / what.replace(" ", "_"))
    config = COCO | ALONE | {"datasets": {"mine": {"path": str(data)}}}
    labels = data / "labels.csv"
    if what == "no annotations in the file":
        (data / "annotations.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    elif what == "annotations not JSON":
        (data / "annotations.json").write_text("{")
    elif what == "several categories":
        coco = json.loads((data / "annotations.json").read_text())
        coco["categories"].append({"id": 2, "name": "scratch"})
        coco["annotations"].append(coco["annotations"][0] | {"id": 99, "category_id": 2})
        (data / "annotations.json").write_text(json.dumps(coco))
    elif what == "wrong column":
        labels.write_text(labels.read_text().replace("label", "lable", 1))
    elif what == "wrong label":
        labels.write_text(labels.read_text().replace(",0,", ",maybe,", 1))
    elif what == "no folder":
        shutil.rmtree(data)
    elif what == "no labels file":
        config["datasets"]["mine"] = {"images": str(data / "images"), "labels": str(data / "lable.csv")}
    elif what == "wrong checksum":
        (data / "model.pt").write_bytes(b"x" * 100)
        entry = {
            "method": "sam2.1",
            "model": "sam2.1_hiera_t",
            "checkpoint": str(data / "model.pt"),
            "sha256": "0" * 64,
        }
        config |= {"segmenter": "mine", "segmenters": {"mine": entry}}
    elif what == "no weights file":
        config["detectors"] = {"patchcore": {"weights": str(data / "absent.safetensors")}}
    return config


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("no annotations in the file", "annotations.json"),
        ("annotations not JSON", "annotations.json"),
        ("several categories", "`category: part`"),
        ("wrong column", "label"),
        ("wrong label", "maybe"),
        ("no folder", "no_folder"),
        ("no labels file", "lable.csv"),
        ("wrong checksum", "model.pt"),
        ("no weights file", "absent.safetensors"),
    ],
)
def test_broken_input_is_one_clear_line_already_in_a_dry_run(site, tmp_path, what, named):
    result = site.snakemake("-n", config=broken(tmp_path, what))
    errors = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("error: ")]
    assert result.returncode != 0 and len(errors) == 1 and named in errors[0], result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"segmentr": "none"}, "did you mean 'segmenter'?"),
        ({"segmenter": "templates"}, "did you mean 'template'?"),
        ({"threshold": "best"}, "f1_adaptive, youden"),
        ({"threshold": "conformal"}, "threshold_options: conformal needs alpha"),
        ({"detectors": {"patchcore": {"center_crop": 600}}}, "center_crop 600 is larger than image_size 512"),
        (
            {"detectors": {"patchcore": {"image_size": [512, 300]}}},
            "image_size 300 is no whole fraction of 512 (choose 256",
        ),
        ({"detectors": {"padim": {"image_size": [256, 128]}}}, "method padim takes one image_size, not [256, 128]"),
        (
            {"detectors": {"patchcore": {"weights": "no.pth"}}},
            "no.pth: no such file (config.yaml names it under detectors",
        ),
        (COCO | {"threshold": "conformal", "threshold_options": {"alpha": 0.05}}, "8 images to be judged"),
        ({"threshold": "conformal", "threshold_options": {"alpha": 0.02}}, "data set demo: 40 images to be judged"),
    ],
)
def test_a_mistake_in_the_config_is_one_clear_line(site, config, message):
    result = site.snakemake("-n", config=config)
    assert result.returncode != 0 and message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ({"backbone": "resnet_18"}, "timm has no model 'resnet_18' (did you mean resnet18, "),
        ({"backbone": "resnet18", "layers": ["layer2", "layer9"]}, "has no layer layer9; it has act1, layer1, layer2"),
        (
            {"backbone": "vit_tiny_patch16_224", "layers": ["blocks.7"], "image_size": 300},
            "does not take pictures of 300 pixels: Input height (300) should be divisible by patch size (16)",
        ),
        ({"layers": ["layer3", "layer2"]}, "'patch-nano': layers must be listed once each, lowest first"),
        ({"method": "anomalib", "model": "Pdim"}, "anomalib has no model 'Pdim' (did you mean 'Padim'?)"),
        (
            {"method": "anomalib", "model": "Padim", "options": {"backbon": "resnet18"}},
            "anomalib's Padim has no option 'backbon' (did you mean 'backbone'?)",
        ),
        ({"method": "anomalib", "model": "Stfpm"}, "model Stfpm starts from trained weights of 'resnet18'"),
    ],
)
def test_a_network_that_cannot_be_had_is_told_before_the_first_job(site, detector, message):
    config = COCO | ALONE | {"detector": "mine", "detectors": {"mine": {"method": "patchcore"} | detector}}
    done = site.snakemake("--cores", "1", "--quiet", "all", config=config)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: config.yaml: detectors.mine: ") and message in line
    assert not (site.folder / "results").exists()


def test_an_inspector_that_cannot_be_made_is_told_before_the_first_job(site):
    status, output = site.plan("bundle", config=COCO | ALONE | {"detector": "pixel_difference"})
    assert status == 1 and " is only a" in output and "(bundle another detector)" in output
    assert site.jobs("bundle", config=COCO | ALONE | {"detector": "vae"})["bundle"] == 1


def test_a_profile_needs_masks_and_surroundings_and_its_charts_a_profile(site):
    wanted = COCO | ALONE | {"detector": "profile"}
    for key, value, why in (
        ("segmenter", "none", "segmenter none makes no masks (choose found, or"),
        ("isolation", "crop", "isolation crop cuts that away (set isolation: none)"),
    ):
        status, output = site.plan(config=wanted | {key: value})
        assert status == 1 and why in output
    assert site.jobs("profiles", config=wanted).items() >= {"features": 2, "draw_profiles": 1}.items()
    status, output = site.plan("bundle", config=wanted)
    assert status == 1 and "bundle: profile measures outlines, which inspectors do not" in output
    status, output = site.plan("profiles", config=COCO | ALONE)
    assert status == 1 and "profiles: method patchcore measures no outlines (profile does)" in output


def test_reconstructions_are_drawn_on_request_of_what_draws(site):
    wanted = COCO | ALONE | {"detector": "vae"}
    assert site.jobs("reconstructions", config=wanted).items() >= {"features": 2, "draw_reconstructions": 1}.items()
    status, output = site.plan("reconstructions", config=COCO | ALONE)
    assert status == 1 and "reconstructions: method patchcore draws no pictures (vae does)" in output


@pytest.mark.parametrize("part", range(4))
def test_a_target_that_names_nothing_of_the_config_is_told_as_such(site, part):
    names = ["demo", "template", "zero_out", "patchcore"]
    names[part] += "s"
    status, output = site.plan("results/{}/{}/{}/{}/bundle".format(*names))
    assert status and "No rule to produce" in output and "Traceback" not in output and "KeyError" not in output


def test_the_workstation_profile_is_found(site):
    result = site.snakemake("-n", "--workflow-profile", "workflow/profiles/workstation")
    assert result.returncode == 0 and "workflow/profiles/workstation" in result.stdout + result.stderr


@pytest.mark.parametrize(("flag", "start"), [("--rulegraph", "digraph"), ("--d3dag", "{")])
def test_the_graph_can_be_drawn(site, flag, start):
    result = site.snakemake(flag)
    assert result.returncode == 0 and result.stdout.lstrip().startswith(start)


def test_the_list_of_rules_reads_like_a_table_of_contents(site):
    for line in site.snakemake("--list").stdout.splitlines():
        rule, _, text = line.partition(" ")
        assert 30 < len(text) < 110 and text.startswith("(") and text.endswith(".)"), rule


def test_too_few_shards_for_the_images_is_one_clear_line_with_the_right_number(site):
    config = {"shards": 1, "datasets": {"demo": {"rendered": {"views": 5000, "defects": 0}}}}
    result = site.snakemake("-n", config=config)
    assert result.returncode != 0 and "shards: 1 puts 5,000 images into a folder" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_stage_that_reads_photographs_is_told_the_depth_of_16_bit_ones(site):
    deep = make_coco_set(site.folder / "deep")
    for path in sorted((deep / "images").glob("*.png")):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) << 4)
    config = ALONE | {"dataset": "deep", "segmenter": "sam2.1-nano"}
    targets = ["-np", "--forceall", "all", "bundle"]

    def depths(**entry) -> dict[str, set[str]]:
        datasets = {"deep": {"path": "deep"} | entry}
        plan = site.snakemake(*targets, config=config | {"datasets": datasets}).stdout
        found = {}
        for stage, rest in re.findall(r"python -m defectflow\.(?:\w+\.)*(\w+)(.*)", plan):
            found.setdefault(stage, set()).update(re.findall(r"--depth (\S+)", rest) or [""])
        return found

    reading = {"survey", "ingest", "sam_pairs", "segment", "masks", "isolate", "evaluate", "render", "report", "bundle"}
    found = depths()
    assert {stage for stage, depth in found.items() if depth == {"12"}} == reading
    assert all(depth in ({"12"}, {""}) for depth in found.values())
    assert depths(bit_depth=14)["survey"] == {"14"}
    refused = site.snakemake("-n", config=config | {"datasets": {"deep": {"path": "deep", "bit_depth": 11}}})
    assert refused.returncode != 0 and "bit_depth" in refused.stderr + refused.stdout


def test_8_bit_photographs_have_no_depth(site):
    plan = site.snakemake("-np", "--forceall", config=COCO).stdout
    assert "defectflow.data.survey" in plan and "--depth" not in plan


@pytest.mark.parametrize("label_format", ["coco", "mvtec", "yolo_detect"])
def test_labels_are_exported_when_they_are_asked_for(site, label_format):
    jobs = site.jobs("export_labels", config=COCO | ALONE | {"label_format": label_format})
    assert {rule: jobs.get(rule) for rule in ("write_labels", "boxes", "evaluate", "render")} == {
        "write_labels": 1, "boxes": 1, "evaluate": 1, "render": None
    }  # fmt: skip


def test_the_card_of_a_data_set_is_made_from_its_photographs_alone(site):
    assert site.jobs("card", config=COCO | ALONE) == {"card": 1, "write_card": 1, "ingest": 1, "survey": 2}
    about = {"datasets": {"mine": {"path": "coco", "about": {"license": "https://spdx.org/licenses/MIT"}}}}
    plan = site.snakemake("-n", "-p", "card", config=COCO | ALONE | about).stdout
    assert "spdx.org/licenses/MIT" in plan and "--regions" not in plan
    wrong = site.snakemake("-n", "card", config=COCO | {"datasets": {"mine": {"path": "coco", "about": {"date": "x"}}}})
    assert wrong.returncode != 0 and "unknown key 'date'" in wrong.stderr + wrong.stdout


def test_kinds_are_learned_from_isolated_parts_when_they_are_asked_for(site):
    jobs = site.jobs("kinds", config=COCO | ALONE)
    asked = {
        rule: jobs.get(rule) for rule in ("kinds", "classify", "describe", "kind_features", "features", "evaluate")
    }
    assert asked == {
        "kinds": 1, "classify": 1, "describe": 1, "kind_features": jobs["isolate"], "features": None, "evaluate": None
    }  # fmt: skip
    assert not {"kinds", "classify", "describe"} & site.jobs(config=COCO | ALONE).keys()
    study = {"kinds": {"study": {"image_size": [128, 256], "head": ["linear", "nearest"]}}}
    jobs = site.jobs("study", config=COCO | ALONE | study)
    assert (jobs["study"], jobs["vary"], jobs["describe"], jobs["kind_features"]) == (1, 1, 3, 3 * jobs["isolate"])
    joined = site.snakemake("-n", "-p", config=COCO | ALONE | {"kinds": {"join": True}}).stdout
    assert "--kinds results/mine/template/crop/kinds/kinds.csv" in joined
    rare = site.jobs("imbalance", config=COCO | ALONE)
    assert (rare["imbalance"], rare["thin_out"], rare["describe"]) == (1, 1, 1) and "classify" not in rare
    maps = site.jobs("class_maps", config=COCO | ALONE)
    assert (maps["draw_class_maps"], maps["score"], maps["kind_features"]) == (1, maps["isolate"], maps["isolate"])
    tuned = COCO | ALONE | {"kinds": {"training": "finetune", "epochs": 2}}
    jobs = site.jobs("kinds", config=tuned)
    assert (jobs["finetune"], jobs["classify"]) == (1, 1) and "describe" not in jobs
    refused = site.snakemake("-n", "imbalance", config=tuned)
    assert refused.returncode != 0 and "imbalance thins out what a head learns from" in refused.stderr
    nothing = site.snakemake("-n", "study", config=COCO | ALONE)
    assert nothing.returncode != 0 and "kinds.study varies nothing" in nothing.stderr
    missing = site.snakemake("-n", "kinds", config=COCO | ALONE | {"kinds": {"weights": "no.pth"}})
    assert (
        missing.returncode != 0 and "no.pth: no such file (config.yaml names it under kinds.weights)" in missing.stderr
    )


def test_photographs_without_labels_have_a_card_and_no_run(site):
    (site.folder / "bare").mkdir(exist_ok=True)
    for path in sorted((site.folder / "coco/images").iterdir())[:3]:
        shutil.copy(path, site.folder / "bare")
    config = COCO | ALONE | {"datasets": {"mine": {"path": "bare"}}}
    assert site.jobs("card", config=config)["write_card"] == 1
    refused = site.snakemake("-n", config=config)
    assert refused.returncode != 0 and "bare: 0 images are labelled good" in refused.stderr + refused.stdout


def test_enough_photographs_without_labels_are_screened_before_anything_is_learned(site):
    (site.folder / "many").mkdir(exist_ok=True)
    for path in (site.folder / "coco/images").iterdir():
        shutil.copy(path, site.folder / "many")
    config = COCO | ALONE | {"datasets": {"mine": {"path": "many"}}}
    jobs = site.jobs(config=config)
    assert jobs["screen"] == jobs["fit"] == jobs["next_to_label"] == 1
    assert site.jobs("next", config=config)["next"] == 1
    plan = site.snakemake("-n", "-p", config=config).stdout
    assert "--learn-unlabelled" in plan and plan.count("--leave-out") == 2 and plan.count("--left-out") == 1
    assert "screen" not in site.jobs(config=COCO | ALONE)
    judged = {"datasets": {"mine": {"path": "many", "unlabelled": "judge"}}}
    assert "0 images are labelled good" in site.snakemake("-n", config=config | judged).stderr


def test_regions_of_a_run_are_on_its_card_once_they_are_there(site):
    folder = site.folder / "results/mvtec/none/none/patchcore"
    folder.mkdir(parents=True)
    try:
        for name in ("regions.csv", "regions.json"):
            (folder / name).touch()
        plan = site.snakemake("-n", "-p", "card", config=MVTEC | ALONE | WHOLE).stdout
        assert "--regions results/mvtec/none/none/patchcore/regions.csv" in plan
    finally:
        shutil.rmtree(site.folder / "results/mvtec")
