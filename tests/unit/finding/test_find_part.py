import cv2
import numpy as np
import pytest
from defectflow.core.files import read_json
from defectflow.core.tables import PAIRS, read_table, write_table
from defectflow.finding import find_part
from defectflow.finding.candidate_files import Candidates, write
from defectflow.images.read_write import read_mask, write_png
from defectflow.parts import prior
from defectflow.parts.part_model import Prior
from defectflow.parts.registration_frame import iou
from defectflow.segmentation.baseline_masks import WHOLE, chosen_source
from striped_discs import striped_discs


@pytest.fixture(scope="module")
def parts():
    return striped_discs()


def run(tmp_path, parts, surface: float, count: int = 5):
    squares, features, figure, _ = parts
    ids = [f"img_{k}" for k in range(count)]
    lists = (list(values)[:count] for values in (squares, features, figure))
    told = Candidates(ids, [f"{i}.png" for i in ids], [(384, 512)] * count, *lists, [0.05] * count, [surface] * count)
    write(tmp_path / "c", told, np.random.default_rng(0))
    names = {"out-dir": "found", "table": "found.csv", "finder": "finder.safetensors", "report": "finding.json"}
    options = [f"--{option}={tmp_path / name}" for option, name in names.items()]
    find_part.main(find_part.build_parser().parse_args(["--candidates", str(tmp_path / "c"), *options]))
    return read_table(tmp_path / "found.csv", PAIRS), read_json(tmp_path / "finding.json")


def test_masks_are_written_in_the_size_of_their_photographs(parts, tmp_path):
    table, report = run(tmp_path, parts, surface=0.1)
    assert report["use"] == "found" and report["trust"] > 0.5 and report["taught_by"] == len(table) == 5
    mask = read_mask(table["pair"][0])
    assert mask.shape == (384, 512)
    box = table.loc[0, ["bbox_x", "bbox_y", "bbox_width", "bbox_height"]].tolist()
    assert np.abs(np.array(box) - (90, 90, 221, 166)).max() < 8  # the disc at (200, 230), squashed to 384 rows
    assert iou(mask[:, :-1], mask[:, 1:]) > 0.9


@pytest.mark.parametrize(
    ("count", "surface", "why"), [(5, 0.9, "show a surface"), (2, 0.1, "2 photographs are too few")]
)
def test_where_there_is_no_part_the_photographs_are_taken_whole(parts, tmp_path, count, surface, why, capsys):
    table, report = run(tmp_path, parts, surface, count)
    assert report["use"] == "whole" and why in report["reason"] and table.empty
    names = ("table", "found.csv"), ("finder", "finder.safetensors"), ("found-report", "finding.json")
    options = [f"--{option}={tmp_path / name}" for option, name in (*names, ("out", "p"), ("report", "found.json"))]
    prior.main(prior.build_parser().parse_args(options))
    told = read_json(tmp_path / "found.json")["found"]
    assert (
        told["use"] == "whole" and f"Outline the part on one photograph, {report['outline_asked_for']}" in told["said"]
    )
    assert chosen_source("found", None, Prior.load(tmp_path / "p")) == WHOLE
    assert "The part was not found" in capsys.readouterr().err


def test_a_bite_is_filled_before_anything_learns_from_the_mask(parts, tmp_path):
    squares, features, figure, masks = parts
    rows, columns = np.mgrid[:512, :512]
    bite = (columns - 315) ** 2 + (rows - 230) ** 2 < 45**2
    cells = bite[4::8, 4::8]
    squares, features, figure = [s.copy() for s in squares], [f.copy() for f in features], figure.copy()
    squares[0][bite] = squares[0][0, 0]
    features[0][cells] = features[0][0, 0]
    figure[0][cells] = 0.1
    table, report = run(tmp_path, (squares, features, figure, masks), surface=0.1)
    assert report["shape"]["agreement"] > 0.95 and report["taught_by"] == 5
    truth = cv2.resize(masks[0].astype(np.float32), (512, 384)) >= 0.5
    holed = cv2.resize((masks[0] & ~bite).astype(np.float32), (512, 384)) >= 0.5
    assert iou(holed, truth) < 0.95 < iou(read_mask(table["pair"][0]), truth)
    names = ("table", "found.csv"), ("finder", "finder.safetensors"), ("found-report", "finding.json")
    options = [f"--{option}={tmp_path / name}" for option, name in (*names, ("out", "p"), ("report", "found.json"))]
    for k, square in enumerate(squares):
        write_png(tmp_path / f"img_{k}.png", cv2.resize(square, (512, 384)))
    table["path"] = [str(tmp_path / name) for name in table["path"]]
    write_table(tmp_path / "found.csv", table, PAIRS)
    prior.main(prior.build_parser().parse_args(options))
    learned = Prior.load(tmp_path / "p")
    assert learned.shape is not None and iou(learned.shape.complete(holed).mask, truth) > 0.95
