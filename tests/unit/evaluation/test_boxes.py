import contextlib
import io
import json

import cv2
import inspection_set
import numpy as np
import pytest
from defectflow.core.tables import MANIFEST, PREDICTIONS, REGIONS, read_table, write_table
from defectflow.evaluation import boxes, evaluate
from defectflow.images.read_write import read_mask

MARKS = ("above the image threshold only", "left out by size or shape")


def run(data, out, *more):
    boxes.main(boxes.build_parser().parse_args(data.boxes_args(out, *more)))
    return read_table(out / "regions.csv", REGIONS), json.loads((out / "regions.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("boxes")
    data = inspection_set.make(root / "set", size=(240, 320))
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(root / "out")))
    return data, root / "out", *run(data, root / "out")


def ground_truth(data) -> dict:
    """The marked defects of the set as a COCO file, image ids by name."""
    from pycocotools import mask as coco_mask

    manifest = read_table(data.manifest, MANIFEST).sort_values("image_id").reset_index(drop=True)
    truth = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "anomaly"}]}
    for number, row in enumerate(manifest.itertuples(), 1):
        name = row.path.split("/images/")[1]
        truth["images"].append({"id": number, "file_name": name, "width": row.width, "height": row.height})
        if row.mask:
            pixels = np.asfortranarray(read_mask(row.mask).astype(np.uint8))
            runs = coco_mask.encode(pixels)
            entry = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": int(pixels.sum())}
            entry |= {"bbox": list(cv2.boundingRect(pixels))}
            truth["annotations"].append(entry | {"segmentation": runs | {"counts": runs["counts"].decode()}})
    return truth


def test_regions_are_where_the_defects_are(found):
    data, _, table, _ = found
    truth = read_table(data.manifest, MANIFEST).set_index("image_id")["mask"]
    hits = {
        row.image_id: read_mask(truth[row.image_id])[row.y : row.y + row.height, row.x : row.x + row.width].any()
        for row in table[table["region"] == 1].itertuples()
        if truth[row.image_id]
    }
    assert len(hits) >= 3 and all(hits.values())
    assert table["image_id"].str.startswith("odd").mean() > 0.5
    for _, rows in table.groupby("image_id"):
        assert rows["region"].tolist() == list(range(1, len(rows) + 1))
        assert rows["score"].is_monotonic_decreasing


def test_a_region_is_above_the_threshold_that_was_chosen_without_its_image(found):
    _, out, table, _ = found
    predictions = read_table(out / "predictions.csv", PREDICTIONS).set_index("image_id")
    regions = table[table["mark"] == ""]
    assert (regions["score"] >= predictions.loc[regions["image_id"], "map_threshold"].to_numpy()).all()
    metrics = json.loads((out / "metrics.json").read_text())["pixel"]["map_threshold"]
    new = predictions[predictions["label"].isna()]
    assert new["map_threshold"].to_numpy() == pytest.approx(metrics["value"], rel=1e-8)
    known = predictions["map_threshold"][predictions["label"].notna()]
    assert metrics["folds"] == {"n": 4, "min": pytest.approx(known.min()), "max": pytest.approx(known.max())}


def test_the_results_load_beside_the_ground_truth_and_are_evaluated(found, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data, out, table, results = found
    (tmp_path / "truth.json").write_text(json.dumps(ground_truth(data)))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        loaded = truth.loadRes(str(out / "regions.json"))
        scores = COCOeval(truth, loaded, "segm")
        scores.params.iouThrs = np.array([0.1])  # heat is wider than the crack it is about
        scores.evaluate()
        scores.accumulate()
    assert len(loaded.anns) == len(table) == len(results)
    best = scores.eval["precision"].max(axis=(2, 3, 4))[0]
    assert best[50] > 0.5  # at a recall of one half
    for row, result in zip(table.itertuples(), results, strict=True):
        assert result["bbox"] == [row.x, row.y, row.width, row.height]
        assert loaded.annToMask(loaded.loadAnns([results.index(result) + 1])[0]).sum() == row.area


def test_ids_are_those_of_the_coco_file(found, tmp_path):
    coco = {
        "images": [{"id": 40, "file_name": "odd/001.png"}, {"id": 7, "file_name": "good/000.png"}],
        "annotations": [{"image_id": 40}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    names = ["good/000.png", "good/001.png", "odd/001.png", "odd/002.png"]
    known = boxes.coco_ids(names, tmp_path / "coco.json")
    assert known == {"odd/001.png": 40, "good/000.png": 7}
    assert list(map(boxes.numbering(known), names)) == [7, 41, 40, 42]
    assert list(map(boxes.numbering(boxes.coco_ids(names, None)), names)) == [1, 2, 3, 4]


def test_options_and_threads(found):
    data, out, table, _ = found
    text = (out / "regions.csv").read_bytes(), (out / "regions.json").read_bytes()
    run(data, out, "--threads", "2")
    assert text == ((out / "regions.csv").read_bytes(), (out / "regions.json").read_bytes())
    fewer, _ = run(data, out, "--min-area", "0.005")
    regions, peaks = fewer[fewer["mark"] == ""], fewer[fewer["mark"] != ""]
    assert (regions["area"] >= 0.005 * 240 * 320).all() and len(regions) < len(table)
    assert set(peaks["mark"]) <= set(MARKS) and not set(peaks["image_id"]) & set(regions["image_id"])
    none, _ = run(data, out, "--min-area", "0.9")
    assert "left out by size or shape" in set(none["mark"]) <= set(MARKS)


def test_every_bad_photograph_has_a_box_and_one_below_the_pixel_threshold_is_marked(found, tmp_path):
    data, out, table, _ = found
    predictions = read_table(out / "predictions.csv", PREDICTIONS)
    bad = set(predictions.loc[predictions["predicted_label"] == 1, "image_id"])
    assert bad and bad <= set(table["image_id"])
    # With a pixel threshold that nothing reaches, or none, all that is left are the peaks of the bad ones.
    for level in (1000.0, np.nan):
        (tmp_path / "predictions.csv").unlink(missing_ok=True)
        write_table(tmp_path / "predictions.csv", predictions.assign(map_threshold=level), PREDICTIONS)
        peaks, results = run(data, tmp_path)
        assert set(peaks["image_id"]) == bad and len(peaks) == len(bad) == len(results)
        assert set(peaks["mark"]) == {"above the image threshold only"} == {r["mark"] for r in results}
    kept = peaks.set_index("image_id")["score"]
    assert (kept > 0).all() and (peaks[["width", "height"]] > 0).all(axis=None)


def test_without_a_threshold_there_are_no_regions(tmp_path):
    data = inspection_set.make(tmp_path / "set", good=0, bad=0, unlabelled=3)
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(tmp_path / "out")))
    table, results = run(data, tmp_path / "out")
    assert table.empty and results == []
