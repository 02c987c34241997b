"""The rendered demo data set: layout, labels, masks and polygons, and that two runs are byte-identical."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import UserError
from defectflow.demo import defect_kinds, moulded_part, render_demo
from defectflow.images.read_write import read_mask, read_rgb
from pycocotools import mask as rle

SIZE, VIEWS, DEFECTS = 128, 8, 6


def run(out: Path, **changes) -> Path:
    values = {"out": str(out), "views": VIEWS, "defects": DEFECTS, "size": SIZE, "seed": 3} | changes
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    render_demo.main(render_demo.build_parser().parse_args(words))
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("demo") / "data")


def labels(data: Path) -> pd.DataFrame:
    return pd.read_csv(data / "labels.csv", dtype=str, keep_default_na=False)


def test_layout_and_labels(data):
    table = labels(data)
    assert list(table.columns) == ["filename", "label", "defect_type", "group", "mask"]
    assert len(table) == VIEWS + DEFECTS
    assert sorted(p.name for p in (data / "images").iterdir()) == list(table["filename"])
    bad = table[table["label"] == "1"]
    assert sorted(bad["defect_type"]) == sorted(defect_kinds.KINDS[:6])
    rest = table[table["label"] != "1"]
    assert (rest["label"] == "0").sum() == round(render_demo.LABELLED * VIEWS)
    assert set(rest["defect_type"]) == set(rest["mask"]) == {""}
    for name in table["filename"]:
        assert read_rgb(data / "images" / name).shape == (SIZE, SIZE, 3)


def test_defect_masks_lie_on_the_part(data):
    table = labels(data)
    bad = table[table["label"] == "1"]
    assert sorted(p.name for p in (data / "ground_truth").iterdir()) == sorted(Path(m).name for m in bad["mask"])
    for _, row in bad.iterrows():
        mask = read_mask(data / row["mask"])
        assert mask.shape == (SIZE, SIZE)
        assert Path(row["mask"]).stem == Path(row["filename"]).stem
        assert 1 <= mask.sum() < 0.03 * SIZE**2


def test_annotations_are_the_part(data):
    coco = json.loads((data / "annotations.json").read_text())
    assert [i["file_name"] for i in coco["images"]] == list(labels(data)["filename"])
    assert len(coco["annotations"]) == round(render_demo.ANNOTATED * (VIEWS + DEFECTS))
    for entry in coco["annotations"]:
        mask = rle.decode(rle.merge(rle.frPyObjects(entry["segmentation"], SIZE, SIZE))).astype(bool)
        assert mask.mean() == pytest.approx(0.194, abs=0.03)
        assert mask.sum() == pytest.approx(entry["area"], rel=0.02)
        assert mask[SIZE // 2 - 3 : SIZE // 2 + 3, SIZE // 2].all()  # the arm crosses the frame's middle


def test_more_kinds_take_turns():
    plan = render_demo.plan(6, 16, 0, 8)
    assert sorted(view.kind for view in plan if view.kind) == sorted(defect_kinds.KINDS * 2)
    assert {view.kind for view in render_demo.plan(6, 16, 0, 2) if view.kind} == {"scratch", "crack"}


def test_two_runs_are_byte_identical_and_the_seed_matters(data, tmp_path):
    def content(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    again = content(run(tmp_path / "again"))
    assert again == content(data)
    other = content(run(tmp_path / "other", seed=4, views=1, defects=0))
    assert other["images/view_0001.jpg"] != again["images/view_0001.jpg"]


@pytest.mark.parametrize("seed", [0, 1])
def test_plan_of_the_default_session(seed):
    plan = render_demo.plan(57, 24, seed)
    good = [v for v in plan if not v.kind]
    assert (len(good), sum(v.label == "0" for v in good), sum(v.label == "1" for v in plan)) == (57, 40, 24)
    annotated = [v for v in plan if v.annotated]
    assert len(annotated) == 40 and sum(bool(v.kind) for v in annotated) == 6
    bursts = pd.Series([v.burst for v in plan])
    assert bursts.is_monotonic_increasing
    assert bursts.value_counts()[: bursts.max()].between(3, 6).all()
    mixed = [b for b in set(bursts) if len({bool(v.kind) for v in plan if v.burst == b}) == 2]
    assert mixed
    assert len({v.burst for v in good if v.label == "0"}) >= 5
    assert [v.name for v in plan] == sorted(v.name for v in plan)


@pytest.mark.parametrize("kind", defect_kinds.KINDS)
def test_a_defect_changes_the_part_where_its_mask_says(kind):
    sound = moulded_part.mould(192, 0)
    white = np.ones(3, np.float32)
    light = moulded_part.Light(-2.0, 0.8, 2 * white, white)
    before = moulded_part.shade(sound, light) * moulded_part.coverage(sound)[..., None]
    bad = defect_kinds.spoil(sound, kind, 0.7, np.random.default_rng(5))
    after = moulded_part.shade(bad, light) * moulded_part.coverage(bad)[..., None]
    change = np.abs(after - before).mean(2)
    assert bad.defect.any() and not sound.defect.any()
    assert change[bad.defect].mean() > 0.01
    assert change[bad.defect].mean() > 20 * change[~bad.defect].mean()
    if kind in ("hole", "missing_piece"):
        assert moulded_part.coverage(bad)[bad.defect].mean() < 0.3


def test_polygons_keep_the_area():
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:70] = True
    mask[10:20, 20:30] = False
    decoded = rle.decode(rle.merge(rle.frPyObjects(render_demo.polygons(mask), 60, 80))).astype(bool)
    assert (decoded ^ mask).sum() <= 12


@pytest.mark.parametrize("changes", [{"size": 10}, {"views": 0}, {"defects": -1}, {"kinds": 9}])
def test_wrong_arguments_are_told_and_leave_nothing(tmp_path, changes):
    with pytest.raises(UserError, match=f"--{next(iter(changes))}"):
        run(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
