"""A tiny real run from photographs to report, and what an edit, a touch or a new photograph re-runs afterwards."""

import csv
import json
import shutil
from copy import copy

import cv2
import numpy as np
import pytest
from conftest import Workflow, draw_part, make_coco_set, make_mvtec_set
from defectflow.inspection.inspector import Inspector

pytestmark = pytest.mark.slow
CONFIG = {
    "shards": 2,
    "dataset": "mine",
    "datasets": {"mine": {"path": "data/mine"}},
    "compare": [],
    "device": "cpu",
    "keep_features": "all",
    "detectors": {"patchcore": {"image_size": 96}},
}
RUN = "results/mine/template/crop/patchcore"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workflow:
    """A workflow that has run once, to the report; every test leaves it as it found it."""
    workflow = Workflow(tmp_path_factory.mktemp("e2e"))
    make_coco_set(workflow.folder / "data/mine")
    result = workflow.snakemake("--cores", "2", config=CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    last = result.stderr[result.stderr.rindex("Verdict:") :]
    assert f"python -m defectflow.reporting.summary {RUN}\n" in last and f"Report:   {RUN}/report.html\n" in last
    assert "Compare:  results/mine/leaderboard.html\n" in last and f"inspect {RUN}/bundle new/*.jpg\n" in last
    assert "Bundle:   snakemake --cores all bundle --config " in last and "dataset=mine" in last
    return workflow


def read_predictions(workflow: Workflow, run: str = RUN) -> list[dict]:
    with open(workflow.folder / run / "predictions.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_everything_promised_is_there_and_the_blots_are_found(finished):
    folder = finished.folder / RUN
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"accuracy", "precision", "recall", "f1", "auroc", "n_samples", "threshold"} <= metrics.keys()
    assert metrics["n_samples"] == 12 and metrics["auroc"] > 0.9
    rows = read_predictions(finished)
    assert len(rows) == 14 and [row["filename"] for row in rows] == sorted(row["filename"] for row in rows)
    for row in rows:
        assert (float(row["pred_score"]) >= 0.5) == (row["predicted_label"] == "1")
        stem = row["filename"].removesuffix(".png")
        for picture in (f"heatmaps/{stem}.png", f"overlays/{stem}.jpg"):
            assert cv2.imread(str(folder / picture)) is not None, picture
    assert (finished.folder / "results/mine/leaderboard.csv").read_text().count("\n") == 2


def test_nothing_is_left_to_do(finished):
    assert finished.jobs(config=CONFIG) == {}


def test_touching_every_photograph_re_runs_nothing(finished):
    for path in (finished.folder / "data/mine/images").iterdir():
        path.touch()
    (finished.folder / "data/mine/annotations.json").touch()
    (finished.folder / "data/mine/labels.csv").touch()
    assert finished.jobs(config=CONFIG) == {}


def test_another_coreset_ratio_re_runs_the_fit_and_what_follows(finished):
    config = CONFIG | {"detectors": {"patchcore": {"image_size": 96, "coreset_ratio": 0.5}}}
    assert finished.jobs(config=config) == {
        "fit": 1,
        "score": 2,
        "calibrate": 1,
        "keep_features": 1,
        "evaluate": 1,
        "next_to_label": 1,
        "boxes": 1,
        "render": 1,
        "report": 1,
        "leaderboard": 1,
    }


def test_another_threshold_re_runs_the_evaluation_only(finished):
    jobs = finished.jobs(config=CONFIG | {"threshold": "youden", "threshold_options": {"max_fpr": 0.1}})
    assert jobs == {"evaluate": 1, "next_to_label": 1, "boxes": 1, "render": 1, "report": 1, "leaderboard": 1}


@pytest.mark.parametrize(
    ("module", "first", "spared"),
    [
        ("isolate", "isolate", {"ingest", "prior", "masks"}),
        ("score", "score", {"features", "fit"}),
        ("render", "render", {"evaluate", "score", "leaderboard"}),
    ],
)
def test_an_edit_re_runs_that_stage_and_what_follows(finished, module, first, spared):
    path = finished.packaged(f"{module}.py")
    text = path.read_text()
    try:
        path.write_text(text + "\nCHANGED = 1\n")
        jobs = finished.jobs(config=CONFIG)
    finally:
        path.write_text(text)
    assert first in jobs and "render" in jobs and not spared & jobs.keys()
    assert finished.jobs(config=CONFIG) == {}


def test_what_follows_an_edit_that_changes_no_bytes_is_not_stale_once_that_stage_has_run(finished):
    path = finished.packaged("split.py")
    text = path.read_text()
    steps = ("--cores", "1", "--until", "split")
    try:
        path.write_text(text + "\nCHANGED = 1\n")
        assert {"split", "fit", "evaluate"} <= finished.jobs(config=CONFIG).keys()
        before = (finished.folder / "results/mine/splits.csv").stat().st_mtime_ns
        result = finished.snakemake(*steps, config=CONFIG)
        assert result.returncode == 0, result.stdout + result.stderr
        assert (finished.folder / "results/mine/splits.csv").stat().st_mtime_ns > before
        assert finished.jobs(config=CONFIG) == {}
    finally:
        path.write_text(text)
    assert finished.snakemake(*steps, config=CONFIG).returncode == 0 and finished.jobs(config=CONFIG) == {}


def test_an_edited_template_re_runs_the_pages_alone(finished):
    path = finished.packaged("style.css")
    text = path.read_text()
    try:
        path.write_text(text + "\n/* a change */\n")
        jobs = finished.jobs(config=CONFIG)
    finally:
        path.write_text(text)
    assert jobs == {"report": 1, "leaderboard": 1}


def test_one_new_photograph_re_runs_one_shard_of_each_stage_and_the_fit(finished):
    path = finished.folder / "data/mine/images/new.png"
    try:
        cv2.imwrite(str(path), draw_part(np.random.default_rng(99))[0])
        jobs = finished.jobs(config=CONFIG)
    finally:
        path.unlink()
    assert (jobs["survey"], jobs["masks"], jobs["isolate"], jobs["features"], jobs["fit"]) == (1, 1, 1, 1, 1)
    assert not {"sam_pairs", "split_annotated", "prior"} & jobs.keys()


def test_a_second_run_with_the_same_seed_is_byte_identical(finished, tmp_path):
    again = Workflow(tmp_path)
    shutil.copytree(finished.folder / "data", tmp_path / "data")
    result = again.snakemake("--cores", "2", config=CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("metrics.json", "predictions.csv", "report.html"):
        assert (finished.folder / RUN / name).read_bytes() == (tmp_path / RUN / name).read_bytes(), name


def test_a_new_photograph_alone_runs_through_the_network(finished, tmp_path):
    again = copy(finished)
    again.folder = shutil.copytree(finished.folder, tmp_path / "copy")
    cv2.imwrite(str(again.folder / "data/mine/images/new.png"), draw_part(np.random.default_rng(99))[0])
    result = again.snakemake("--cores", "2", "--until", "features", config=CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    logs = again.folder.glob("results/logs/mine/template/crop/patchcore/features-*.log")
    assert sum("features: 1 of " in log.read_text() for log in logs) == 1


def test_features_are_freed_and_computed_again_for_the_same_figures(finished, tmp_path):
    again = copy(finished)
    again.folder = shutil.copytree(finished.folder, tmp_path / "copy")
    assert len(list((again.folder / RUN / "features").glob("*.safetensors"))) == 2
    result = again.snakemake("--cores", "1", "clean_features", config=CONFIG)
    assert result.returncode == 0 and "3 files of features and banks of folds" in result.stdout + result.stderr
    assert not list((again.folder / RUN / "features").glob("*.safetensors"))
    assert not (again.folder / RUN / "fold_banks.safetensors").exists()
    assert again.jobs(config=CONFIG) == {}
    banks = again.folder / RUN / "banks.safetensors"
    before = banks.read_bytes()
    banks.unlink()
    config = CONFIG | {"keep_features": "none"}
    result = again.snakemake("--cores", "2", f"{RUN}/features.json", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert banks.read_bytes() == before and not list((again.folder / RUN / "features").glob("*.safetensors"))


def test_the_whole_frame_is_judged_with_the_masks_that_the_crop_had(finished, tmp_path):
    again, config = copy(finished), CONFIG | {"isolation": "zero_out"}
    again.folder = shutil.copytree(finished.folder, tmp_path / "copy")
    metrics = RUN.replace("crop", "zero_out") + "/metrics.json"
    assert "masks" not in again.jobs(metrics, config=config)
    result = again.snakemake("--cores", "2", metrics, config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((again.folder / metrics).read_text())["auroc"] > 0.9


def test_a_bundle_judges_new_photographs_as_the_workflow_does(finished, tmp_path):
    before = read_predictions(finished)
    kinds = "results/mine/template/crop/kinds/kinds.csv"
    config = CONFIG | {"kinds": {"image_size": 96, "join": True}}
    other = finished.snakemake("-n", "bundle", config=config | {"kinds": {"image_size": 128, "join": True}})
    assert "error: bundle: image_size is 128 for kinds and 96 for detector patchcore" in other.stdout + other.stderr
    targets = ("bundle", f"{RUN}/report.html")
    result = finished.snakemake("--cores", "2", *targets, config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert finished.jobs(*targets, config=config) == {}
    rows = read_predictions(finished)
    assert [{key: row[key] for key in before[0]} for row in rows] == before
    assert {row["kind"] for row in rows if row["predicted_label"] == "1"} <= {"bad", "unknown kind"}
    assert {row["kind"] for row in rows if row["predicted_label"] == "0"} == {""}
    assert 'id="kinds"' in (finished.folder / RUN / "report.html").read_text()
    with open(finished.folder / kinds, newline="") as stream:
        said = {row["filename"]: row for row in csv.DictReader(stream)}
    folder = shutil.copytree(finished.folder / RUN / "bundle", tmp_path / "another place")
    new = [row for row in read_predictions(finished) if not row["label"]]
    assert len(new) == 2
    for runtime, tolerance in (("torch", 1e-6), ("openvino", 1e-4)):
        inspector = Inspector.load(folder, runtime)
        for row in new:
            verdict = inspector(finished.folder / "data/mine/images" / row["filename"])
            assert verdict.raw_score == pytest.approx(float(row["raw_score"]), rel=tolerance)
            assert verdict.score == pytest.approx(float(row["pred_score"]), abs=10 * tolerance)
            assert int(verdict.bad) == int(row["predicted_label"]) and verdict.threshold == float(row["threshold"])
            assert int(verdict.present) == int(row["mask_present"]) and verdict.reason == row["mask_reason"]
            own = next(one for name, one in said.items() if name.endswith(row["filename"]))
            named, chance = inspector.kind_of(finished.folder / "data/mine/images" / row["filename"])
            assert named == own["kind_if_bad"]
            assert chance == pytest.approx(float(own["kind_if_bad_probability"]), abs=tolerance + 1e-6)
            assert verdict.kind == (named if verdict.bad else "")
    assert finished.snakemake("--cores", "2", f"{RUN}/report.html", config=CONFIG).returncode == 0
    assert read_predictions(finished) == before and finished.jobs(config=CONFIG) == {}
    shutil.rmtree(finished.folder / RUN / "bundle")


def test_the_report_can_be_sent_to_a_colleague(finished):
    result = finished.snakemake("--report", "report.html", config=CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    report = (finished.folder / "report.html").read_text()
    assert all(name in report for name in ("metrics.json", "leaderboard.csv", "leaderboard.html", "report.html"))


def test_kinds_are_told_apart_and_a_study_compares_heads(finished):
    config = CONFIG | {"kinds": {"image_size": 96, "study": {"head": ["nearest"]}}}
    before = read_predictions(finished)
    assert finished.snakemake("--cores", "2", "kinds", "study", "imbalance", config=config).returncode == 0
    folder = finished.folder / "results/mine/template/crop"
    told = json.loads((folder / "kinds/kinds.json").read_text())
    assert told["n"] == 12 and told["accuracy"] > 0.8 > told["majority"]["accuracy"]
    assert [row["name"] for row in told["classes"]] == ["good", "bad"]
    assert (folder / "kinds/kinds.csv").read_text().count("\n") == 15
    assert (folder / "kind_study/study.csv").read_text().count("\n") == 3
    rare = (folder / "kind_imbalance/imbalance.csv").read_text().splitlines()
    assert len(rare) == 13 and rare[0].startswith("imbalance,reached,balance,accuracy,")
    tuned = CONFIG | {"kinds": {"image_size": 64, "training": "finetune", "epochs": 2}}
    assert finished.snakemake("--cores", "2", "kinds", config=tuned).returncode == 0
    assert json.loads((folder / "kinds/kinds.json").read_text())["network"]["backbone"] == "patch-nano"
    assert finished.jobs("kinds", config=tuned) == {}
    assert finished.jobs("study", "imbalance", config=config) == {} and read_predictions(finished) == before


def test_the_card_of_the_data_set_shows_the_regions_of_the_run(finished):
    assert finished.snakemake("--cores", "2", "card", config=CONFIG).returncode == 0
    folder = finished.folder / "results/mine/card"
    assert {path.suffix for path in folder.iterdir()} >= {".md", ".html", ".json", ".csv", ".jpg"}
    text = (folder / "card.md").read_text()
    assert "14 photographs: 8 good, 4 bad, 2 without a label; 7 sessions." in text
    assert "regions that the detector found in 4 of 4 bad photographs" in text
    assert 'href="../../../card/card.html"' in (finished.folder / RUN / "report.html").read_text()
    assert finished.jobs("card", config=CONFIG) == {}


def test_a_broken_photograph_stops_the_run_with_its_name_or_is_left_out(finished):
    path = finished.folder / "data/mine/images/torn.jpg"
    config = CONFIG | {"shards": 1}
    try:
        whole = cv2.imencode(".jpg", draw_part(np.random.default_rng(7))[0])[1].tobytes()
        path.write_bytes(whole[: len(whole) // 2])
        before = (finished.folder / "results/mine/manifest.csv").read_bytes()
        stopped = finished.snakemake("--cores", "1", "results/mine/manifest.csv", config=config)
        output = stopped.stdout + stopped.stderr
        assert stopped.returncode != 0 and "torn.jpg" in output and "Traceback" not in output
    finally:
        path.unlink()
    assert finished.snakemake("--cores", "1", "results/mine/manifest.csv", config=CONFIG).returncode == 0
    assert (finished.folder / "results/mine/manifest.csv").read_bytes() == before


def test_the_mvtec_layout_runs_without_masks_of_the_part_and_what_is_broken_is_left_out(workflow):
    good = make_mvtec_set(workflow.folder / "data/mvtec") / "train/good"
    shutil.copy(good / "000.png", good / "copy.png")
    (good / "torn.png").write_bytes((good / "001.png").read_bytes()[:900])
    whole = {"path": "data/mvtec", "part": "whole"}
    config = CONFIG | {"dataset": "mvtec", "datasets": {"mvtec": whole}, "on_problem": "leave_out"}
    # Detectors that train a network on pictures, in the same run.
    config["compare"] = [{"detector": "vae"}, {"detector": "stfpm"}]
    config["detectors"] = CONFIG["detectors"] | {name: {"steps": 2, "image_size": 64} for name in ("vae", "stfpm")}
    result = workflow.snakemake("--cores", "2", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = read_predictions(workflow, "results/mvtec/none/none/patchcore")
    assert {row["split"] for row in rows} >= {"test"}
    for detector in ("patchcore", "vae", "stfpm"):
        run = workflow.folder / "results/mvtec/none/none" / detector
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["n_samples"] == 6 and metrics["pixel"] is not None, detector
        assert not list(run.glob("*.training")), detector
    assert workflow.jobs(config=config) == {}
    problems = json.loads((workflow.folder / "results/mvtec/ingest_report.json").read_text())["problems"]
    assert sorted(problem["file"] for problem in problems) == ["train/good/copy.png", "train/good/torn.png"]


def test_photographs_that_nobody_has_labelled_are_judged_and_it_says_what_was_assumed(workflow):
    folder = workflow.folder / "data/plain"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(16):
        picture = draw_part(rng, defect=number in (4, 11))[0]
        cv2.imwrite(str(folder / f"{number:03}.png"), picture[20:80, 20:80, ::-1])
    entry = {"path": "data/plain", "part": "whole"}
    config = CONFIG | {"shards": 1, "dataset": "plain", "datasets": {"plain": entry}}
    config["compare"] = [{"detector": "pixel_difference"}]
    result = workflow.snakemake("--cores", "2", "all", "bundle", "next", config=config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING: plain: photographs without a label are taken as mostly good" in result.stderr
    run = workflow.folder / "results/plain/none/none/patchcore"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["auroc"] is None and metrics["assumed"]["n_photographs"] == 16
    assert metrics["assumed"]["said"] in (run / "report.html").read_text()
    with open(run / "candidates.csv", newline="") as stream:
        candidates = [row["image_id"] for row in csv.DictReader(stream)]
    assert set(candidates[:2]) == {"004", "011"} and len(candidates) < 8
    bad = {row["image_id"] for row in read_predictions(workflow, "results/plain/none/none/patchcore") if
           row["predicted_label"] == "1"}  # fmt: skip
    assert {"004", "011"} <= bad
    fitted = json.loads((run / "fit.json").read_text())
    assert fitted["good_images"] == 16 - len(candidates)
    verdict = Inspector.load(run / "bundle")(folder / "004.png")
    assert verdict.bad and verdict.threshold == pytest.approx(metrics["threshold"]["value"])
    assert "from low to high scores" in result.stdout
    assert (run / "next_to_label.csv").read_text().count("\n") == 17
    assert workflow.jobs(config=config) == {}
    (folder / "labels of march.csv").write_text("file;result\n")
    stopped = workflow.plan(config=config)
    assert stopped[0] != 0 and "it may hold the labels" in stopped[1]
