"""Pictures of an inspector are those of the workflow: what regions.csv lists is outlined, in both."""

import time
from pathlib import Path

import cv2
import inspection_set
import numpy as np
import pytest
from defectflow.backbones.network_input import Loaded
from defectflow.bundling.bundle import map_settings, verdict_settings
from defectflow.core.anomaly_maps import load_maps, save_maps
from defectflow.core.files import read_json
from defectflow.core.tables import PREDICTIONS, REGIONS, SCORES, read_table
from defectflow.drawing import overlay_images
from defectflow.drawing.heat_settings import Look
from defectflow.evaluation import boxes, evaluate
from defectflow.images.read_write import read_mask, read_rgb
from defectflow.inspection.inspector import Inspector, Ready
from defectflow.inspection.mask_and_score import Located
from defectflow.inspection.outputs import Pictures, picture_name
from defectflow.methods.numpy_detector import Scored
from defectflow.reporting import render

SIZE = (240, 320)
OPTIONS = {"min_area": 0.002, "max_area": 1.0, "merge": 0.01, "max_aspect": None}  # leaves small spots out
NAMES = ("new__000", "new__001")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A set with heat off the part, a spot that is too small, and a region, on photographs without a label; drawn."""
    root = tmp_path_factory.mktemp("outputs")
    data = inspection_set.make(root / "set", size=SIZE)
    for path in data.maps:
        maps = load_maps([path])
        changed = {name: (maps[name].grid_map.copy(), maps[name].affine) for name in maps}
        for name in set(NAMES) & set(changed):
            grid = changed[name][0]
            grid[3:5, 0:2] = 12  # off the part: the frame shows rows 2 to 13
            grid[7, 9] = 5.5
            if name == NAMES[0]:
                grid[9:11, 6:9] = 8
        save_maps(path, changed, (inspection_set.INPUT, inspection_set.INPUT))
    out = root / "out"
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(out)))
    boxes.main(boxes.build_parser().parse_args(data.boxes_args(out, "--min-area", str(OPTIONS["min_area"]))))
    render.main(render.build_parser().parse_args(data.render_args(out, "--triptychs", str(out / "triptychs"))))
    return data, out


def verdict_on(data, out, name):
    """What an inspector of this run says of a photograph of which the detector gives the map of the workflow."""
    metrics, predictions = read_json(out / "metrics.json"), read_table(out / "predictions.csv", PREDICTIONS)
    entry = load_maps(data.maps)[name]
    scores = {row.image_id: row.raw_score for path in data.scores for row in read_table(path, SCORES).itertuples()}
    inspector = Inspector.__new__(Inspector)
    inspector.clock, inspector._namer = time.perf_counter, None
    distances = entry.grid_map.ravel()
    inspector._scorer = lambda patches, cells: Scored(scores[name], distances, lambda: distances)
    inspector._network = lambda pictures: np.ones((len(pictures), entry.grid_map.size, 1), np.float32)
    inspector.settings = {
        "network": {"grid": list(entry.grid_map.shape), "input_size": list(entry.input_size)},
        "regions": OPTIONS,
        **verdict_settings(metrics, predictions[predictions["label"].notna()]),
        **map_settings(out / "predictions.csv", load_maps(data.maps), metrics, Look().vmax_quantile),
    }
    part = Located(read_mask(data.root / f"masks/{name}.png"), {"present": 1, "doubtful": 0, "reason": ""})
    item = Loaded(np.zeros((1, 1, 3), np.uint8), np.arange(entry.grid_map.size), True, entry.affine)
    return inspector, inspector.finish([Ready(SIZE, part, item, {})])[0]


@pytest.mark.parametrize("name", NAMES)
def test_overlays_of_workflow_and_inspector_are_equal(drawn, tmp_path, name):
    data, out = drawn
    inspector, verdict = verdict_on(data, out, name)
    path = Path(data.root / "images" / f"{name.replace('__', '/')}.png")
    Pictures(tmp_path, inspector.settings["scale"], vars(Look()), True).write(path, read_rgb(path), verdict)
    for kind in ("overlays", "triptychs"):
        expected = read_rgb(out / kind / f"{name}.jpg")[: SIZE[0]]
        found = read_rgb(tmp_path / kind / f"{picture_name(path)}.jpg")[: SIZE[0]]
        np.testing.assert_array_equal(found, expected)
    heat = (tmp_path / "heatmaps" / f"{picture_name(path)}.png").read_bytes()
    assert heat == (out / "heatmaps" / f"{name}.png").read_bytes()
    listed = read_table(out / "regions.csv", REGIONS)
    listed = listed[listed["image_id"] == name]
    assert [region.box for region in verdict.regions] == list(
        listed[["x", "y", "width", "height"]].itertuples(index=False, name=None)
    )


def test_only_kept_regions_are_outlined(drawn):
    data, out = drawn
    listed = read_table(out / "regions.csv", REGIONS)
    assert (listed["image_id"] == NAMES[0]).sum() == 1
    (box,) = listed.loc[listed["image_id"] == NAMES[0], ["x", "y", "width", "height"]].to_numpy().tolist()
    _, verdict = verdict_on(data, out, NAMES[0])
    level = read_json(out / "metrics.json")["pixel"]["map_threshold"]["value"]
    above, part = verdict.heat >= level, read_mask(data.root / f"masks/{NAMES[0]}.png")
    assert (above & ~part).sum() > 50  # so that a whole frame would have more outlines than the region
    masks = read_rgb(out / "triptychs" / f"{NAMES[0]}.jpg")[: SIZE[0], SIZE[1] + 4 : 2 * SIZE[1] + 4]
    orange = np.abs(masks.astype(int) - overlay_images.FOUND).max(axis=2) < 100
    assert orange.sum() == pytest.approx(listed.loc[listed["image_id"] == NAMES[0], "area"].item(), rel=0.05)
    assert np.abs(np.array(cv2.boundingRect(orange.astype(np.uint8))) - box).max() <= 1
