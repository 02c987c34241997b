"""Stage refine: held-out outlines of regions, on a microscopic SAM 2.1 and a made-up set."""

import json
from pathlib import Path
from types import SimpleNamespace

import inspection_set
import numpy as np
import pandas as pd
import pytest
import torch
from defectflow.annotations.coco import decode, encode
from defectflow.core.files import UserError
from defectflow.core.tables import MANIFEST, REGIONS, read_table, write_table
from defectflow.decision.region_settings import LEAST_MARKED, RegionSettings
from defectflow.evaluation import boxes, evaluate
from defectflow.refinement import outline_network, refine
from defectflow.refinement.outline_network import OutlineNetwork
from defectflow.segmentation import sam_model, sam_training
from micro_sam import write_checkpoint, write_micro


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A set with its regions by the map, and a microscopic network with a checkpoint."""
    folder = tmp_path_factory.mktemp("refine")
    made = inspection_set.make(folder / "set", good=5, bad=8, unlabelled=1)
    evaluate.main(evaluate.build_parser().parse_args(made.evaluate_args(folder / "out")))
    boxes.main(boxes.build_parser().parse_args(made.boxes_args(folder / "out")))
    config = write_micro(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sam_model.CONFIGS, "nano", Path(config))
        patch.setattr(sam_model, "PACKAGED", {})
        patch.setattr(outline_network, "STEPS", 2)
        patch.setattr(outline_network, "COPIES", 1)
        start = str(write_checkpoint(folder, config))
        yield SimpleNamespace(set=made, out=folder / "out", manifest=made.manifest, start=start)


def run(data, folder: Path, manifest: Path | None = None) -> SimpleNamespace:
    """Run the stage into a folder; what it wrote."""
    args = ["--regions", str(data.out / "regions.csv"), str(data.out / "regions.json"), "--threads", "1"]
    args += ["--predictions", str(data.out / "predictions.csv"), "--manifest", str(manifest or data.manifest)]
    args += ["--maps", *map(str, data.set.maps), "--settings", '{"refine": "sam"}', "--device", "cpu"]
    args += ["--checkpoint", data.start]
    args += [
        "--table",
        str(folder / "r.csv"),
        "--coco",
        str(folder / "r.json"),
        "--report",
        str(folder / "report.json"),
    ]
    refine.main(refine.build_parser().parse_args(args))
    return SimpleNamespace(
        table=read_table(folder / "r.csv", REGIONS),
        coco=json.loads((folder / "r.json").read_text()),
        report=json.loads((folder / "report.json").read_text()),
    )


@pytest.fixture(scope="module")
def better(data, tmp_path_factory):
    """A run whose network outlines each region as the mask has it, so that it is better than the map."""
    manifest = read_table(data.manifest, MANIFEST).set_index("image_id")
    masks = [refine.read_mask(path) for path in manifest["mask"] if path]
    photos = [refine.read_rgb(path, None) for path in manifest["path"][manifest["mask"] != ""]]

    def perfect(network, seen, regions, choices):
        own = [mask for mask, photo in zip(masks, photos, strict=True) if np.array_equal(photo, seen.image)]
        kept = refine.outlines_of(regions, seen.size)
        return {name: [own[0] if own else one for one in kept] for name in choices}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine, "refined", perfect)
        return run(data, tmp_path_factory.mktemp("better"))


def test_better_outlines_replace_those_of_the_map_with_their_boxes(data, better):
    report, before = better.report, read_table(data.out / "regions.csv", REGIONS)
    assert report["use"] == "sam" and report["difference"]["interval"][0] > 0
    assert report["iou"]["sam"]["mean"] > report["iou"]["map"]["mean"] > 0.1
    assert "outlined by SAM 2.1" in report["told"] and report["marked"] == 8
    same = ["image_id", "region", "score", "mark"]
    assert better.table[same].equals(before[same]) and not better.table["area"].equals(before["area"])
    for row, result in zip(better.table.itertuples(), better.coco, strict=True):
        pixels = decode(result["segmentation"], 128, 96)
        rows, columns = np.nonzero(pixels)
        assert result["bbox"] == [row.x, row.y, row.width, row.height] and pixels.sum() == row.area
        assert row.x == columns.min() and row.width == np.ptp(columns) + 1 and row.height == np.ptp(rows) + 1


def test_where_the_network_is_worse_the_regions_stay_and_the_report_says_so(data, tmp_path):
    found = run(data, tmp_path)  # random weights
    assert found.report["use"] == "map" and found.report["difference"]["mean"] <= 0
    assert "SAM 2.1 is not better" in found.report["told"]
    assert (tmp_path / "r.json").read_bytes() == (data.out / "regions.json").read_bytes()
    assert found.table.equals(read_table(data.out / "regions.csv", REGIONS))
    assert len(found.report["photographs"]) == 8 and found.report["held_out"] == "groups"
    again = run(data, tmp_path)
    assert again.report == found.report


def test_regions_that_become_one_are_one():
    network = SimpleNamespace(  # all of each window is damage to it
        case=lambda image, soft: SimpleNamespace(image=image, soft=soft),
        look=lambda image: None,
        outline=lambda seen, soft, tuned, size: np.ones(size, bool),
    )
    seen = refine.Seen(np.zeros((100, 200, 3), np.uint8), np.zeros((100, 200), np.float32), 0.5)
    regions = []
    for number, (x, y, side) in enumerate(((40, 40, 40), (64, 70, 4), (120, 40, 4), (150, 40, 4)), 1):
        pixels = np.zeros(seen.size, bool)
        pixels[y : y + side, x : x + side] = True
        row = dict.fromkeys(REGIONS, "") | {"region": number, "x": x, "y": y, "width": side, "height": side}
        regions.append((SimpleNamespace(**row), {"segmentation": encode(pixels)}))
    outlines = refine.refined(network, seen, regions, {"sam": []})["sam"]
    rows = [row for row, _ in refine.with_outlines(regions, outlines)]
    assert [row[REGIONS.index("region")] for row in rows] == [1, 2, 3]  # the second is within the first
    assert np.sum(outlines, axis=0).max() == 1
    assert sum(row[REGIONS.index("area")] for row in rows) == np.any(outlines, axis=0).sum()


def test_with_too_few_marked_defects_nothing_is_learned(data, tmp_path):
    manifest = read_table(data.manifest, MANIFEST)
    marked = manifest.index[manifest["mask"] != ""]
    manifest.loc[marked[LEAST_MARKED - 1 :], "mask"] = ""
    manifest["label"] = manifest["label"].astype("Int64")
    write_table(tmp_path / "manifest.csv", manifest, MANIFEST)
    found = run(data, tmp_path, tmp_path / "manifest.csv")
    assert found.report["use"] == "map" and "iou" not in found.report
    assert f"it takes {LEAST_MARKED}" in found.report["told"]
    assert (tmp_path / "r.json").read_bytes() == (data.out / "regions.json").read_bytes()


def test_what_cannot_be_refined_is_refused_before_the_first_job():
    official = {"refine": "sam", "sam_model": "sam2.1_hiera_t", "sam_checkpoint": "no.pt"}
    for given, marked, message in (
        ({"refine": "sam"}, LEAST_MARKED - 1, f"masks of {LEAST_MARKED} or more .* and data set mine has 4"),
        (official, LEAST_MARKED, "no.pt: no such file"),
    ):
        with pytest.raises(UserError, match=message):
            RegionSettings.from_dict(given, "regions").check_refinable({"mine": marked})
    RegionSettings.from_dict({}, "regions").check_refinable({"mine": 0})
    RegionSettings.from_dict({"refine": "sam"}, "regions").check_refinable({"mine": LEAST_MARKED})
    for given, message in (
        ({"sam_model": "sam2.1_hiera_t"}, "with refine: sam only"),
        ({"refine": "sam", "sam_model": "sam2.1_hiera_t"}, "set both, or neither"),
    ):
        with pytest.raises(UserError, match=message):
            RegionSettings.from_dict(given, "regions")


def test_no_window_of_the_fold_or_of_the_one_that_chooses_is_trained_on(data, tmp_path, monkeypatch):
    network = OutlineNetwork("nano", data.start, "cpu", 0)
    rng = np.random.default_rng(0)
    folds = np.array([0, 0, 1, 2, 2, 3])
    cases = [
        network.case(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), np.full((64, 64), 0.6, np.float32))
        for _ in folds
    ]
    for fold, case in zip(folds, cases, strict=True):
        case.truth[:] = fold  # a sign that is seen in the batch
    seen = []

    def spy(model, plan, batch_at, validate, state, resume, title):
        batches = [batch_at(step, np.random.default_rng(step)) for step in range(12)]
        seen.append({round(float(value)) for batch in batches for value in batch.truth.max(axis=(1, 2))})

    monkeypatch.setattr(outline_network, "train", spy)
    assert len(network.tune(cases, folds, tmp_path)) == 4
    assert seen == [{2, 3}, {0, 3}, {0, 1}, {1, 2}]


def test_a_run_that_is_killed_goes_on_and_ends_as_if_nothing_had_happened(data, tmp_path, monkeypatch):
    monkeypatch.setattr(outline_network, "STEPS", 4)
    monkeypatch.setattr(outline_network, "CHECK_EVERY", 2)
    rng, made = np.random.default_rng(0), OutlineNetwork("nano", data.start, "cpu", 0)
    cases = [
        made.case(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), np.full((64, 64), 0.6, np.float32), np.eye(64) > 0)
        for _ in range(3)
    ]
    folds, decode, steps = np.arange(3), sam_training.decode, []
    whole = made.tune(cases, folds, tmp_path)

    def counted(*args):
        steps.append(1)
        if len(steps) == 8:  # the last step of the second of three folds
            raise KeyboardInterrupt
        return decode(*args)

    monkeypatch.setattr(sam_training, "decode", counted)
    with pytest.raises(KeyboardInterrupt):
        made.tune(cases, folds, tmp_path, tmp_path / "kept")
    again = OutlineNetwork("nano", data.start, "cpu", 0).tune(cases, folds, tmp_path, tmp_path / "kept")
    assert len(steps) == 8 + 2 + 4  # two steps of the second fold had been kept, and all of the first
    for first, second in zip(whole, again, strict=True):
        assert first.map_weight == second.map_weight and first.weights.keys() == second.weights.keys()
        assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_groups_are_held_out_together_where_there_are_three(data):
    table = pd.DataFrame({"group": ["a", "a", "b", "b", "c", ""]}, index=list("uvwxyz"))
    folds, count, unit = refine.deal(table, 0)
    assert unit == "groups" and count == 4
    assert folds["u"] == folds["v"] != folds["w"] == folds["x"]
    folds, count, unit = refine.deal(table.assign(group="a"), 0)
    assert unit == "photographs" and sorted(folds)[:5] == [0, 0, 1, 2, 3] and count == 5
