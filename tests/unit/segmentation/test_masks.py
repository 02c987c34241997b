"""Stage masks: good masks, flags for absent parts and doubtful masks, the choice of the segmenter, shards."""

import json
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import UserError
from defectflow.core.tables import MANIFEST, MASKS, read_table, write_table
from defectflow.images.read_write import read_mask
from defectflow.parts import prior as prior_stage
from defectflow.parts.common_shape import CommonShape
from defectflow.parts.part_model import Guess, Prior
from defectflow.parts.registration import Match
from defectflow.parts.registration_frame import iou
from defectflow.segmentation import masks as stage
from defectflow.segmentation.baseline_masks import baseline_mask, check_mask
from onnx_sam import write_pair
from part_set import arguments, scene, write_set


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    folder = write_set(
        tmp_path_factory.mktemp("set"),
        ["train"] * 6 + ["absent", ""],
        ["a"] * 3 + ["b"] * 3 + ["a", "b"],
        shift=(9, -6),
    )
    flags = [*arguments(folder), "--out", str(folder / "prior.safetensors"), "--report", str(folder / "prior.json")]
    prior_stage.main(prior_stage.build_parser().parse_args(flags))
    return folder


def run(folder, out, segmenter="template", images=None, *more) -> pd.DataFrame:
    """Run the stage on the whole manifest, or on its rows ``images``."""
    out.mkdir(exist_ok=True)
    manifest = read_table(folder / "manifest.csv", MANIFEST)
    write_table(out / "shard.csv", manifest if images is None else manifest.iloc[images], MANIFEST)
    flags = [
        "--manifest",
        str(out / "shard.csv"),
        "--settings",
        json.dumps({"method": segmenter} | ({"model": "nano"} if segmenter == "sam2.1" else {})),
    ]
    flags += [
        "--prior",
        str(folder / "prior.safetensors"),
        "--out-dir",
        str(out / "masks"),
        "--table",
        str(out / "t.csv"),
    ]
    stage.main(stage.build_parser().parse_args([*flags, *more]))
    return read_table(out / "t.csv", MASKS).set_index("image_id")


def test_template_masks_and_absent_part(small_set, tmp_path, capsys):
    table = run(small_set, tmp_path)
    assert len(table) == 8
    absent = table.loc["img_06"]
    assert (absent.present, absent.area) == (0, 0)
    assert "no part" in absent.reason
    assert not read_mask(absent["mask"]).any()
    assert "img_06" in capsys.readouterr().err
    rest = table.drop("img_06")
    assert (rest.present == 1).all()
    assert (rest.doubtful == 0).all(), rest.reason.tolist()
    assert (rest.source == "template").all()
    truth = scene(7, angle=0, shift=(9, -6))[1]
    mask = read_mask(rest.loc["img_07", "mask"])
    assert mask.shape == truth.shape
    assert mask.mean() == pytest.approx(rest.loc["img_07", "area"])
    assert iou(mask, truth) > 0.9


def test_masks_of_annotated_images_are_held_out(small_set, tmp_path):
    prior = Prior.load(small_set / "prior.safetensors")
    table = run(small_set, tmp_path)
    image = cv2.imread(str(small_set / "images/img_01.png"))[..., ::-1]
    expected, _ = baseline_mask(prior, "template", image, [0, 1, 2])
    np.testing.assert_array_equal(read_mask(table.loc["img_01", "mask"]), expected)


def test_constant_masks_carry_the_registration_check(small_set, tmp_path):
    table = run(small_set, tmp_path, "constant")
    assert table.loc["img_06", "present"] == 0
    moved = table.loc["img_07"]
    assert moved.prior_iou < table.drop(["img_06", "img_07"]).prior_iou.median()


def test_shard_gives_the_same_rows(small_set, tmp_path):
    whole, part = run(small_set, tmp_path / "all"), run(small_set, tmp_path / "part", "template", [2, 7])
    columns = [c for c in MASKS if c not in ("image_id", "mask")]
    pd.testing.assert_frame_equal(part[columns], whole.loc[["img_02", "img_07"], columns], check_dtype=False)


def test_empty_shard_writes_an_empty_table(small_set, tmp_path):
    assert len(run(small_set, tmp_path, "template", [])) == 0
    assert list((tmp_path / "masks").iterdir()) == []


def test_no_torch_for_the_baselines(small_set, tmp_path):
    code = (
        "import sys; from defectflow.segmentation import masks as s;"
        "s.main(s.build_parser().parse_args(sys.argv[1:])); assert 'torch' not in sys.modules"
    )
    flags = ["--manifest", str(small_set / "manifest.csv"), "--settings", '{"method": "template"}', "--prior"]
    flags += [
        str(small_set / "prior.safetensors"),
        "--out-dir",
        str(tmp_path / "m"),
        "--table",
        str(tmp_path / "t.csv"),
    ]
    subprocess.run([sys.executable, "-c", code, *flags], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def prior_with(registers: bool, heads: bool) -> Prior:
    info = {"score_threshold": 0.3, "score_doubtful": 0.5, "registers": registers, "area_mean": 0.25, "area_sd": 0.01}
    weights = {"0.mean": np.zeros(1)} if heads else {}
    return Prior([], [], np.zeros((0, 8, 8), bool), np.zeros(0, int), None, info, weights)


def verdict(score=0.9, registers=True, heads=False, found=True, area=0.25, **more) -> dict:
    mask = np.zeros((20, 20), bool)
    mask.ravel()[: int(400 * area)] = True
    more = {"source": "sam2.1", "prior_iou": 0.95} | more
    guess = Guess("appearance" if found else "constant", mask.astype(np.float32), 0.95, Match(score, [0], [], 1.0))
    return check_mask(prior_with(registers, heads), guess=guess, mask=mask, **more)


@pytest.mark.parametrize(
    ("case", "present", "doubtful", "reason"),
    [
        ({}, 1, 0, ""),
        ({"score": 0.2}, 0, 0, "no part found"),
        ({"score": 0.4}, 1, 1, "weak registration score"),
        ({"score": 0.2, "registers": False}, 1, 1, "position of the part is uncertain"),
        ({"score": 0.2, "registers": False, "object_score": -3.0}, 0, 0, "no part found"),
        ({"object_score": -3.0}, 1, 1, "SAM finds no part"),
        ({"predicted_iou": 0.4}, 1, 1, "predicted IoU 0.40"),
        ({"prior_iou": 0.5}, 1, 1, "IoU with the prior 0.50"),
        ({"area": 0.35}, 1, 1, "area off by +10.0"),
        ({"area": 0.0}, 0, 0, "empty mask"),
        ({"score": 0.2, "registers": False, "heads": True}, 1, 0, ""),
        ({"score": 0.2, "registers": False, "heads": True, "prior_iou": 0.5}, 1, 1, "IoU with the prior 0.50"),
        ({"score": 0.9, "registers": False, "heads": True, "found": False}, 0, 0, "nothing looks like the part"),
    ],
)
def test_judge(case, present, doubtful, reason):
    row = verdict(**case)
    assert (row["present"], row["doubtful"]) == (present, doubtful)
    assert reason in row["reason"]
    assert bool(row["reason"]) == bool(reason)


def test_worse_sam_gives_way_loudly(small_set, tmp_path, capsys):
    train = {"use": "template", "sam2.1": {"iou_mean": 0.8}, "template": {"iou_mean": 0.97}}
    (tmp_path / "train.json").write_text(json.dumps(train))
    more = ["--model", "absent.pt", "--train-json", str(tmp_path / "train.json")]
    table = run(small_set, tmp_path, "sam2.1", [0, 5], *more)
    assert (table.source == "template").all()
    assert "WARNING" in capsys.readouterr().err


def test_where_template_did_better_than_the_heads_it_makes_the_masks(small_set):
    prior, image = Prior.load(small_set / "prior.safetensors"), scene(1)[0]
    registered, row = baseline_mask(prior, "template", image, [])
    prior.heads = {"0.layers.0.bias": np.zeros(1, np.float32)}
    elsewhere = np.zeros(image.shape[:2], np.float32)
    elsewhere[:9, :9] = 1
    prior.__dict__["appearance"] = SimpleNamespace(locate=lambda image, leave_out: (elsewhere, 1.0))
    again, told = baseline_mask(prior, "template", image, [])
    assert np.array_equal(again, registered) and told["source"] == "template" and told["prior_iou"] == row["prior_iou"]
    assert baseline_mask(prior, "appearance", image, [])[0].sum() == 81


def test_sam_needs_a_model(small_set, tmp_path):
    with pytest.raises(UserError, match="--model"):
        run(small_set, tmp_path, "sam2.1")


def test_not_a_prior_is_told(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a readable safetensors"):
        Prior.load(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="no such file"):
        Prior.load(tmp_path / "y.safetensors")


def test_a_found_mask_is_completed_and_one_unlike_the_others_goes_to_a_person(small_set, monkeypatch, tmp_path):
    rows, columns = np.mgrid[:120, :160]
    disc = (rows - 60) ** 2 + (columns - 80) ** 2 < 40**2
    bitten = disc & ~((rows - 60) ** 2 + (columns - 122) ** 2 < 20**2)
    other = (np.abs(rows - 60) < 5) & (np.abs(columns - 80) < 70)
    prior = Prior.load(small_set / "prior.safetensors")
    prior.shape = CommonShape.fit([np.roll(disc, k, 1) for k in range(6)])
    prior.info |= {"area_mean": float(disc.mean()), "area_sd": 0.2, "found": {"usual_agreement": 0.6}}
    prior.save(tmp_path / "prior.safetensors")
    prior = Prior.load(tmp_path / "prior.safetensors")

    def judged(mask, agreement=0.7):
        match = Match(1.0, [0], [np.eye(2, 3)], 1.0)
        monkeypatch.setattr(prior, "guess", lambda *_: Guess("template", mask.astype(np.float32), agreement, match))
        return baseline_mask(prior, "template", np.zeros((120, 160, 3), np.uint8), None)

    mask, row = judged(bitten)
    assert iou(bitten, disc) < 0.92 < 0.97 < iou(mask, disc)
    assert not row["doubtful"] and row["area"] == mask.mean()
    mask, row = judged(other)
    np.testing.assert_array_equal(mask, other)
    assert row["doubtful"] and "its shape differs from the others" in row["reason"]
    _, row = judged(disc & (columns > 68))  # nearly a third is gone
    assert row["doubtful"] and "of its shape was missing" in row["reason"]
    assert "IoU with the prior 0.50 < 0.6" in judged(disc, 0.5)[1]["reason"]


def prompted(folder, out, settings, *more) -> pd.DataFrame:
    """Run the stage on the whole manifest with a prompted network, without a prior."""
    flags = ["--manifest", folder / "manifest.csv", "--settings", json.dumps(settings), *more]
    flags += ["--out-dir", out / "masks", "--table", out / "t.csv"]
    stage.main(stage.build_parser().parse_args([str(flag) for flag in flags]))
    return read_table(out / "t.csv", MASKS).set_index("image_id")


def bright_parts(folder):
    """A manifest of photographs of a bright part on dark ground, the last one blank."""
    rows = []
    for k in range(4):
        image = np.full((120, 160, 3), 30, np.uint8)
        if k < 3:
            cv2.rectangle(image, (50 + 8 * k, 30), (110 + 8 * k, 100), (240, 230, 220), -1)
        cv2.imwrite(str(folder / f"{k}.png"), image)
        rows.append({"image_id": str(k), "path": str(folder / f"{k}.png"), "width": 160, "height": 120})
    write_table(folder / "manifest.csv", pd.DataFrame(rows, columns=MANIFEST), MANIFEST)
    return folder


def test_a_prompted_network_needs_no_prior_and_tells_a_blank_photograph(tmp_path, capsys):
    encoder, decoder = write_pair(tmp_path / "pair")
    files = ["--encoder", encoder, "--decoder", decoder]
    table = prompted(bright_parts(tmp_path), tmp_path, {"method": "sam_onnx", "fill_holes": True}, *files)
    assert table["present"].tolist() == [1, 1, 1, 0] and (table["doubtful"] == 0).all(), table["reason"].tolist()
    assert set(table["source"]) == {"sam_onnx"} and "blank" in table.loc["3", "reason"]
    assert "3: blank photograph" in capsys.readouterr().err
    for k in range(3):
        truth = cv2.imread(str(tmp_path / f"{k}.png"))[..., 1] > 128
        assert iou(read_mask(table.loc[str(k), "mask"]), truth) > 0.9
    assert not read_mask(table.loc["3", "mask"]).any()


def test_the_packaged_sam_may_be_prompted(tmp_path):
    table = prompted(bright_parts(tmp_path), tmp_path, {"method": "prompted", "model": "nano"}, "--device", "cpu")
    truth = cv2.imread(str(tmp_path / "1.png"))[..., 1] > 128
    assert set(table["source"]) == {"prompted"} and iou(read_mask(table.loc["1", "mask"]), truth) > 0.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "sam_onnx"}, "needs its encoder"),
        ({"method": "prompted", "model": "sam2.1_hiera_t"}, "needs its checkpoint"),
        ({"method": "template"}, "--prior: required with segmenter template"),
    ],
)
def test_what_a_segmenter_lacks_is_told(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        prompted(bright_parts(tmp_path), tmp_path, settings, "--device", "cpu")
