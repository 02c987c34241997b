"""Ingest: sound data sets in both layouts, and one list of everything that is wrong."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from defectflow.annotations.coco import encode
from defectflow.core.files import UserError, sha256_of
from defectflow.core.tables import MANIFEST, read_table
from defectflow.data.ingest import build_parser, main
from PIL import Image

SQUARE = [[5, 5, 30, 5, 30, 30, 5, 30]]


def photograph(path, seed, size=(48, 40), orientation=1):
    """Write noise of (width, height) with an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(path, exif=exif)


def gray_mask(path, inside, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[4:9, 4:9] = 255 * inside
    cv2.imwrite(str(path), mask)


def coco_set(root):
    """Four images: polygon, merged RLE, rotated photograph annotated as stored, no annotation."""
    images = root / "images"
    photograph(images / "a.jpg", 0)
    photograph(images / "sub" / "b.png", 1)
    photograph(images / "c.jpg", 2, orientation=6)
    photograph(images / "d.jpg", 3)
    mask = np.zeros((40, 48), bool)
    mask[10:20, 10:30] = True
    names = ["a.jpg", "b.png", "c.jpg", "d.jpg"]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": SQUARE},
        {"id": 2, "image_id": 2, "category_id": 1, "segmentation": encode(mask)},
        {"id": 3, "image_id": 2, "category_id": 1, "segmentation": SQUARE},
        {"id": 4, "image_id": 3, "category_id": 1, "segmentation": SQUARE},
    ]
    entries = [{"id": i + 1, "file_name": name, "width": 48, "height": 40} for i, name in enumerate(names)]
    coco = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "part"}]}
    (root / "annotations.json").write_text(json.dumps(coco))
    gray_mask(root / "gt" / "b.png", True)
    (root / "labels.csv").write_text(
        "filename,label,defect_type,group,mask\n"
        "a.jpg,0,,A,\nsub/b.png,1,crack,A,gt/b.png\nc.jpg,0,,B,\n"
    )  # fmt: skip
    return coco


def run(root, *options, mvtec=False):
    given = ["--mvtec", str(root)] if mvtec else ["--images", str(root / "images")]
    if not mvtec:
        for name, flag in (("annotations.json", "--annotations"), ("labels.csv", "--labels")):
            given += [flag, str(root / name)] if (root / name).exists() else []
    out, report = root / "out" / "manifest.csv", root / "out" / "report.json"
    main(build_parser().parse_args([*given, *options, "--out", str(out), "--report", str(report)]))
    return read_table(out, MANIFEST), json.loads(report.read_text())


def test_counts_of_a_single_image_are_numbers(tmp_path):
    photograph(tmp_path / "images/a.jpg", 0)
    counts = run(tmp_path)[1]
    assert counts["images"] == 1 and type(counts["with_defect_mask"]) is type(counts["rotated_by_exif"]) is int


def test_coco_layout(tmp_path):
    coco_set(tmp_path)
    manifest, report = run(tmp_path)
    assert manifest["image_id"].tolist() == ["a", "c", "d", "sub__b"]
    b = manifest.iloc[3]
    assert b["path"] == f"{tmp_path}/images/sub/b.png" and b["sha256"] == sha256_of(b["path"])
    assert (b["label"], b["defect_type"], b["group"], b["split"]) == (1, "crack", "A", "")
    assert b["mask"] == str(tmp_path / "gt" / "b.png")
    assert manifest[["width", "height"]].to_numpy().tolist() == [[48, 40], [40, 48], [48, 40], [48, 40]]
    assert np.isnan(manifest["label"][2])
    expected = {"images": 4, "good": 2, "bad": 1, "unlabelled": 1, "annotated": 3, "rotated_by_exif": 1}
    assert {key: report[key] for key in expected} == expected
    assert report["groups"] == {"A": 2, "B": 1} and report["images_without_group"] == 1
    assert report["sizes"] == {"40x48": 1, "48x40": 3}
    assert report["problems"] == []
    assert 80 < report["exposure"]["mean_luminance"]["median"] < 120


def test_mvtec_layout(tmp_path, capsys):
    for number, name in enumerate(["train/good/000", "test/good/000", "test/crack/000", "test/stain/000"]):
        photograph(tmp_path / f"{name}.png", number)
    gray_mask(tmp_path / "ground_truth" / "crack" / "000_mask.png", True)
    gray_mask(tmp_path / "ground_truth" / "stain" / "000.png", True)
    manifest, report = run(tmp_path, mvtec=True)
    table = manifest.set_index("image_id")
    assert table.loc["train__good__000", ["label", "defect_type", "split", "mask"]].tolist() == [0, "", "train", ""]
    assert table.loc["test__good__000", ["label", "split"]].tolist() == [0, "test"]
    assert table.loc["test__crack__000", ["label", "defect_type", "split"]].tolist() == [1, "crack", "test"]
    assert table.loc["test__crack__000", "mask"].endswith("ground_truth/crack/000_mask.png")
    assert table.loc["test__stain__000", "mask"].endswith("ground_truth/stain/000.png")
    # Snakemake compares small tables by what they hold: what reads a mask is stale where its file has other content.
    crack = table.loc["test__crack__000", "mask"]
    marked = read_table(tmp_path / "out/manifest.csv", ["image_id", "mask_sha256"]).set_index("image_id")["mask_sha256"]
    assert marked["test__crack__000"] == sha256_of(crack)[:16] and marked["train__good__000"] == ""
    assert report["defect_types"] == {"crack": 1, "stain": 1} and report["splits"] == {"test": 3, "train": 1}
    assert report["warnings"] == [] and len(report["folders"]) == 5
    assert "test/crack: 1 picture: bad, crack, held out" in capsys.readouterr().out


def broken_set(root):
    """coco_set and one of every fault."""
    coco = coco_set(root)
    images = root / "images"
    whole = (images / "d.jpg").read_bytes()
    (images / "e_truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "f_text.png").write_text("not an image")
    (images / "g_copy.jpg").write_bytes(whole)
    photograph(images / "h_small.png", 9, (20, 20))
    photograph(root / "outside" / "x.jpg", 10)
    os.symlink(root / "outside" / "x.jpg", images / "i_link.jpg")
    os.symlink(root / "outside", images / "linked")
    os.symlink(images / "none.jpg", images / "j_nowhere.jpg")
    os.symlink(images / "sub", images / "k_inside")
    photograph(images / "l.png", 11)
    photograph(images / "m.png", 12)
    photograph(images / "n.png", 13)
    gray_mask(root / "gt" / "empty.png", False)
    gray_mask(root / "gt" / "small.png", True, (20, 20))
    gray_mask(root / "gt" / "good.png", True)
    (root / "labels.csv").write_text(
        (root / "labels.csv").read_text().replace("a.jpg,0,,A,", "a.jpg,0,,A,gt/good.png")
        + "absent.jpg,1,,,\nb.png,1,,,\nl.png,1,,,gt/empty.png\nm.png,1,,,gt/small.png\nn.png,1,,,gt/none.png\n"
        + "d.jpg,0,,,../outside/x.jpg\n"
    )
    coco["images"] += [
        {"id": 10, "file_name": "absent.jpg", "width": 48, "height": 40},
        {"id": 11, "file_name": "../outside/x.jpg", "width": 48, "height": 40},
        {"id": 12, "file_name": "l.png", "width": 96, "height": 80},
        {"id": 13, "file_name": "m.png", "width": 48, "height": 40},
    ]
    coco["annotations"] += [
        {"id": 20, "image_id": 10, "category_id": 1, "segmentation": SQUARE},
        {"id": 21, "image_id": 999, "category_id": 1, "segmentation": SQUARE},
        {"id": 22, "image_id": 12, "category_id": 1, "segmentation": SQUARE},
        {"id": 23, "image_id": 13, "category_id": 1, "segmentation": []},
        {"id": 24, "image_id": 13, "category_id": 5, "segmentation": SQUARE},
    ]
    (root / "annotations.json").write_text(json.dumps(coco))


FAULTS = [
    "e_truncated.jpg: not a readable image",
    "f_text.png: not a readable image",
    "g_copy.jpg: the same file as d.jpg",
    "h_small.png: only 20x20 pixels",
    "i_link.jpg: a link that leaves the image folder",
    "linked: a link to a folder",
    "j_nowhere.jpg: ",
    "k_inside: a link to a folder",
    "labels.csv: absent.jpg: no such image",
    "labels.csv: b.png: this image has two rows",
    "labels.csv: d.jpg: the path of the mask leaves",
    "annotations.json: image absent.jpg: no such image",
    "annotations.json: image ../outside/x.jpg: the path leaves the image folder",
    "annotations.json: l.png: sizes disagree: annotated as 96x80, the picture has 48x40",
    "annotations.json: m.png: annotation 23: it has no outline",
    "annotations.json: annotation 24 is of an unknown category",
    "annotations.json: 1 annotations point at image id 999",
    "gt/empty.png is empty, though the image is labelled bad",
    "gt/small.png has 20x20 pixels, the picture 48x40",
    "gt/none.png does not exist",
    "gt/good.png marks a defect, though the image is labelled good",
]


def test_stop_lists_everything_and_writes_nothing(tmp_path):
    broken_set(tmp_path)
    command = [
        sys.executable,
        "-m",
        "defectflow.data.ingest",
        "--images",
        "images",
        "--annotations",
        "annotations.json",
    ]
    command += ["--labels", "labels.csv", "--out", "out/manifest.csv", "--report", "out/report.json"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert result.returncode == 1
    assert f"error: images: {len(FAULTS)} problems, listed above" in result.stderr
    assert f"... and {len(FAULTS) - 20} more" in result.stderr
    assert "Traceback" not in result.stderr
    assert sum(fault in result.stderr for fault in FAULTS) == 20
    assert not (tmp_path / "out").exists()


def test_leave_out_goes_on_without_what_is_broken(tmp_path, capsys):
    broken_set(tmp_path)
    manifest, report = run(tmp_path, "--on-problem", "leave_out")
    told = [f"{problem['file']}: {problem['text']}" for problem in report["problems"]]
    for fault in FAULTS:
        assert any(fault in line for line in told), fault
    assert len(told) == len(FAULTS)
    assert manifest["image_id"].tolist() == ["a", "c", "d", "l", "m", "n", "sub__b"]
    assert manifest.set_index("image_id")["mask"].to_dict() == {
        **dict.fromkeys("acdlmn", ""),
        "sub__b": str(tmp_path / "gt" / "b.png"),
    }
    # Of m there are only an annotation without outline and one of an unknown category.
    assert report["annotated"] == 3
    assert "21 problems" in capsys.readouterr().err


def test_of_equal_files_with_two_labels_neither_counts_and_near_copies_are_told(tmp_path, capsys):
    for number, name in enumerate("abc"):
        photograph(tmp_path / "images" / f"{name}.png", number, (96, 80))
    (tmp_path / "images/copy.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    Image.open(tmp_path / "images/b.png").save(tmp_path / "images/nearly.bmp")
    (tmp_path / "labels.csv").write_text("filename,label\na.png,0\nb.png,0\nc.png,0\ncopy.png,1\nnearly.bmp,1\n")
    with pytest.raises(UserError, match="2 problems"):
        run(tmp_path)
    manifest, report = run(tmp_path, "--on-problem", "leave_out")
    assert manifest["image_id"].tolist() == ["b", "c", "nearly"]
    assert [problem["file"] for problem in report["problems"]] == ["a.png", "copy.png"]
    (warning,) = report["warnings"]
    assert warning["file"] == "nearly.bmp" and warning["figure"] == "verdicts"
    assert warning["text"].startswith("hardly differs from b.png: ") and "1 warning:" in capsys.readouterr().err


def test_bad_image_in_the_training_split(tmp_path):
    photograph(tmp_path / "train" / "good" / "0.png", 0)
    photograph(tmp_path / "train" / "crack" / "0.png", 1)
    with pytest.raises(UserError, match="1 problem,"):
        run(tmp_path, mvtec=True)
    assert run(tmp_path, "--on-problem", "leave_out", mvtec=True)[0]["image_id"].tolist() == ["train__good__0"]


def test_errors_that_no_list_can_help(tmp_path):
    coco_set(tmp_path)
    with pytest.raises(UserError, match=r"no category 'prt' \(part\?"):
        run(tmp_path, "--category", "prt", "--on-problem", "leave_out")
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        run(tmp_path)


def test_two_runs_are_byte_identical(tmp_path):
    coco_set(tmp_path)
    first = [run(tmp_path) and (tmp_path / "out" / name).read_bytes() for name in ("manifest.csv", "report.json")]
    second = [run(tmp_path) and (tmp_path / "out" / name).read_bytes() for name in ("manifest.csv", "report.json")]
    assert first == second


def masked_set(root, encode, bad=4):
    """Good and bad images with ground-truth masks, written by ``encode`` (mask, path)."""
    rows, masks = ["filename,label,defect_type,group,mask"], {}
    for number in range(bad + 2):
        photograph(root / f"images/{number}.png", number)
        if number < bad:
            mask = np.zeros((40, 48), bool)
            mask[8 + number : 20, 10:25] = True
            masks[str(number)] = mask
            (root / "gt").mkdir(exist_ok=True)
            encode(mask, root / f"gt/{number}.png")
        rows.append(f"{number}.png,{int(number < bad)},,,{f'gt/{number}.png' if number < bad else ''}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return masks


def transparent(mask, path):
    Image.fromarray(np.dstack([np.full((*mask.shape, 3), 255, np.uint8), mask.astype(np.uint8) * 255])).save(path)


def as_jpeg(mask, path):
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, "JPEG", quality=85)


@pytest.mark.parametrize(("encode", "told"), [(transparent, "alpha channel"), (as_jpeg, "cut at half")])
def test_masks_that_mean_something_else_are_written_clean_and_told(tmp_path, encode, told):
    masks = masked_set(tmp_path, encode)
    manifest, report = run(tmp_path, "--ground-truth", str(tmp_path / "clean"))
    table = manifest.set_index("image_id")["mask"]
    for name, mask in masks.items():
        assert table[name] == str(tmp_path / "clean" / f"{name}.png")
        pixels = cv2.imread(table[name], cv2.IMREAD_UNCHANGED)
        found = pixels > 0
        assert set(np.unique(pixels)) == {0, 255} and (found & mask).sum() / (found | mask).sum() > 0.95
    assert table["4"] == "" and sorted(path.name for path in (tmp_path / "clean").iterdir()) == [
        f"{name}.png" for name in masks
    ]
    (warning,) = report["warnings"]
    assert warning["figure"] == "pixels" and "all 4 are read alike" in warning["text"] and told in warning["text"]


@pytest.mark.parametrize("values", [(0, 1), (0, 255)])
def test_plain_masks_stay_where_they_are_and_nothing_is_told(tmp_path, values):
    def encode(mask, path):
        cv2.imwrite(str(path), np.where(mask, values[1], values[0]).astype(np.uint8))

    masked_set(tmp_path, encode)
    manifest, report = run(tmp_path, "--ground-truth", str(tmp_path / "clean"))
    assert manifest.set_index("image_id")["mask"]["0"] == str(tmp_path / "gt/0.png")
    assert report["warnings"] == [] and list((tmp_path / "clean").iterdir()) == []


def inverted(mask, path):
    cv2.imwrite(str(path), np.where(mask, 0, 255).astype(np.uint8))


def on_a_photograph(mask, path):
    photo = np.random.default_rng(0).integers(0, 200, (*mask.shape, 3), np.uint8)
    photo[mask] = (0, 0, 255)
    cv2.imwrite(str(path), photo)


@pytest.mark.parametrize(
    ("encode", "message"), [(inverted, "is it inverted?"), (on_a_photograph, "no colour that is most of the picture")]
)
def test_masks_that_can_mean_two_things_stop_and_name_every_file(tmp_path, capsys, encode, message):
    masked_set(tmp_path, encode)
    with pytest.raises(UserError, match="4 problems"):
        run(tmp_path)
    assert "gt/3.png" in (told := capsys.readouterr().err) and told.count(message) == 4
    manifest, report = run(tmp_path, "--on-problem", "leave_out")
    assert set(manifest["mask"]) == {""} and len(report["problems"]) == 4 and report["with_defect_mask"] == 0


def test_one_inverted_mask_among_others_is_told(tmp_path, capsys):
    masked_set(tmp_path, lambda mask, path: (inverted if path.stem == "2" else as_png)(mask, path))
    with pytest.raises(UserError, match="1 problem,"):
        run(tmp_path)
    assert "gt/2.png covers 92% of the picture, and most masks" in capsys.readouterr().err


def as_png(mask, path):
    cv2.imwrite(str(path), mask.astype(np.uint8) * 255)


def deep_set(root, pictures):
    (root / "images").mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(root / f"images/{number}.png"), picture)
    (root / "labels.csv").write_text("filename,label\n" + "".join(f"{n}.png,0\n" for n in range(len(pictures))))


def deep(seed, bits=12):
    picture = np.random.default_rng(seed).integers(0, 1 << bits, (40, 48)).astype(np.uint16)
    picture[:4, :4] = (1 << bits) - 1
    return picture


def test_the_depth_of_16_bit_photographs_is_told_and_used(tmp_path):
    deep_set(tmp_path, [deep(0), deep(1), (deep(2) >> 4).astype(np.uint8)])
    report = run(tmp_path, "--depth", "12")[1]
    depth, mixed = report["warnings"]
    assert "2 of 3 are read as 12 bits" in depth["text"]
    assert "1 of 3 files are 8-bit ones" in mixed["text"] and "2.png" in mixed["text"]
    assert report["exposure"]["mean_luminance"]["minimum"] > 120


def test_a_file_of_another_depth_is_a_problem_by_name(tmp_path, capsys):
    deep_set(tmp_path, [deep(0), deep(1), deep(2), deep(3, bits=10)])
    with pytest.raises(UserError, match="1 problem,"):
        run(tmp_path, "--depth", "12")
    assert "3.png: its largest value is 1023, as of 10 bits; most others hold 12 bits" in capsys.readouterr().err
    manifest, report = run(tmp_path, "--depth", "12", "--on-problem", "leave_out")
    assert manifest["image_id"].tolist() == ["0", "1", "2"]
    assert "3 of 4 are read as 12 bits" in report["warnings"][0]["text"]
    assert len(run(tmp_path, "--depth", "12", "--depth-given")[0]) == 4


def test_what_people_said_about_verdicts_is_a_label_and_told(tmp_path):
    root = tmp_path / "set"
    coco_set(root)
    before, _ = run(root)
    name = before.loc[before["label"].isna(), "path"].iloc[0]
    (tmp_path / "said.csv").write_text(f"filename,said,who\n{name},bad,Ana\n")
    after, report = run(root, "--feedback", str(tmp_path / "said.csv"))
    changed = before["path"] == name
    assert after.loc[changed, "label"].tolist() == [1]
    assert after.drop(columns="label").equals(before.drop(columns="label"))
    assert after.loc[~changed, "label"].tolist() == before.loc[~changed, "label"].tolist()
    assert any("labels of 1 photograph are what people said" in one["text"] for one in report["warnings"])
