"""Labels of a run in every format: written, read again as annotations, and equal within rounding."""

import json
from collections import Counter, defaultdict

import cv2
import inspection_set
import numpy as np
import pytest
from defectflow.annotations.coco import annotations_by_image, decode, decode_polygons, entries_by_name
from defectflow.config.run_settings import RunSettings
from defectflow.config.settings import types_of
from defectflow.core.files import UserError, read_json
from defectflow.core.tables import MANIFEST, REGIONS, read_table, write_table
from defectflow.evaluation import boxes, evaluate
from defectflow.images.read_write import read_mask, read_rgb
from defectflow.label_export import export_labels
from defectflow.label_export.export_labels import WRITERS
from defectflow.label_export.labelled import Labelled, check_stems, copy_photograph, held_out
from defectflow.label_export.training_folders import folders_of_kinds
from defectflow.label_formats.label_files import kind_of
from defectflow.listing.image_names import is_image
from defectflow.sources import preflight
from defectflow.sources.dataset import image_paths, image_rows, read_coco
from PIL import Image

SIZE = (240, 320)  # height, width
READ = {"coco": "annotations.json", "label_studio": "tasks.json", "cvat": "annotations.xml", "yolo_segment": "labels",
        "yolo_detect": "labels", "pascal_voc": "Annotations", "labelme": ""}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A set, the folder of its run, and {name: [part, regions]}: the masks of each photograph that labels have."""
    root = tmp_path_factory.mktemp("labels")
    data = inspection_set.make(root / "set", size=SIZE)
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(root / "out")))
    boxes.main(boxes.build_parser().parse_args(data.boxes_args(root / "out")))
    regions = read_table(root / "out/regions.csv", REGIONS)
    results, masks = read_json(root / "out/regions.json"), {}
    for row in read_table(data.manifest, MANIFEST).itertuples():
        name = row.path.split("/images/")[1]
        found = np.zeros(SIZE, bool)
        for region, result in zip(regions.itertuples(), results, strict=True):
            if region.image_id == row.image_id and not region.mark and row.label != 0:
                found |= decode(result["segmentation"], SIZE[1], SIZE[0])
        masks[name] = [read_mask(root / "set/masks" / f"{row.image_id}.png"), found]
    return data, root, masks


def write(run, kind, out, *more):
    data, root, _ = run
    words = ["--predictions", f"{root}/out/predictions.csv", "--manifest", str(data.manifest), "--out", str(out)]
    words += ["--regions", f"{root}/out/regions.csv", f"{root}/out/regions.json", "--images", f"{root}/set/images"]
    words += ["--masks", *map(str, data.masks), "--format", kind, *more]
    export_labels.main(export_labels.build_parser().parse_args(words))
    return out


def submitted(path):
    """The tasks as Label Studio exports them once a person has accepted each."""
    tasks = read_json(path)
    for task in tasks:
        (predicted,) = task.pop("predictions")
        task["annotations"] = [{"id": 1, "was_cancelled": False, "result": predicted["result"]}]
    path.write_text(json.dumps(tasks))


def read_again(place, names):
    """{name: [part, regions]} as masks, and the boxes of each by label."""
    coco = read_coco(str(place))
    entries, problems = entries_by_name(coco, names)
    assert not problems
    titles = {one["id"]: one["name"] for one in coco["categories"]}
    found, extents = {}, defaultdict(list)
    by_image = annotations_by_image(coco)
    for name, entry in entries.items():
        masks = {"part": np.zeros(SIZE, bool), "defect": np.zeros(SIZE, bool)}
        unit = (entry["width"], entry["height"])
        for one in by_image.get(entry["id"], []):
            if "segmentation" in one:
                masks[titles[one["category_id"]]] |= decode_polygons(one["segmentation"], SIZE[1], SIZE[0], unit)
            if "bbox" in one:
                scale = np.array([SIZE[1] / unit[0], SIZE[0] / unit[1]] * 2)
                extents[name, titles[one["category_id"]]].append(np.array(one["bbox"]) * scale)
        found[name] = [masks["part"], masks["defect"]]
    return found, extents


def likeness(one, other):
    return (one & other).sum() / max((one | other).sum(), 1) if one.any() or other.any() else 1.0


@pytest.mark.parametrize("kind", [kind for kind in READ if kind != "yolo_detect"])
def test_what_is_written_is_read_again(run, tmp_path, kind):
    masks = run[2]
    out = write(run, kind, tmp_path / "labels")
    if kind == "label_studio":
        submitted(out / "tasks.json")
    names = list(masks)
    if kind.startswith("yolo"):
        names = [str(path.relative_to(out / "images")) for path in (out / "images").rglob("*.png")]
    elif kind == "pascal_voc":
        names = [str(path.relative_to(out / "JPEGImages")) for path in (out / "JPEGImages").rglob("*.png")]
    found, _ = read_again(out / READ[kind], names)
    found = {name.removeprefix("train/").removeprefix("val/"): own for name, own in found.items()}
    missing = masks.keys() - found.keys()
    assert len(found) >= 12 and all(not masks[name][1].any() and name.startswith("odd") for name in missing)
    assert not missing or kind in export_labels.TRAINS
    for name, (part, regions) in found.items():
        assert likeness(part, masks[name][0]) > 0.99, name
        assert likeness(regions, masks[name][1]) > 0.97, name
    assert sum(own[1].any() for own in found.values()) == 3


def test_boxes_of_yolo_enclose_the_shapes(run, tmp_path):
    masks = run[2]
    out = write(run, "yolo_detect", tmp_path / "labels")
    names = [str(path.relative_to(out / "images")) for path in (out / "images").rglob("*.png")]
    _, extents = read_again(out / "labels", names)
    assert len(extents) > 15
    for (name, label), found in extents.items():
        mask = masks[name.partition("/")[2]][label == "defect"]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        low = np.min([box[:2] for box in found], 0)
        high = np.max([box[:2] + box[2:] for box in found], 0)
        assert np.allclose(low, [columns[0], rows[0]], atol=0.6), name
        assert np.allclose(high, [columns[-1] + 1, rows[-1] + 1], atol=0.6), name
    assert (out / "data.yaml").read_text() == "train: images/train\nval: images/val\nnames:\n  0: part\n  1: defect\n"


def test_every_format_is_found_by_its_content(run, tmp_path):
    kinds = {"labelme": "LabelMe", "cvat": "CVAT", "coco": "COCO", "pascal_voc": "Pascal VOC", "yolo_segment": "YOLO"}
    for kind, tool in kinds.items():
        out = write(run, kind, tmp_path / kind)
        files = [path for path in out.rglob("*") if path.is_file() and not is_image(path.name)]
        found = Counter(kind_of(path) for path in files)
        assert found[tool] >= (1 if kind in ("cvat", "coco") else 12), kind


def test_the_mvtec_layout_has_ground_truth_or_else_the_regions(run, tmp_path, capsys):
    data, root, masks = run
    out = write(run, "mvtec", tmp_path / "labels")
    said = capsys.readouterr()
    assert "2 photographs left out: unlabelled, and folders tell the label (new/000.png, new/001.png)" in said.err
    assert len(list((out / "train/good").iterdir())) + len(list((out / "test/good").iterdir())) == 8
    assert sorted(path.name for path in (out / "test").iterdir()) == ["good", "hole", "scratch"]
    resolved = preflight.resolve({"path": str(out)})
    rows, problems = image_rows(resolved, image_paths(resolved))
    names, drawn = read_json(out / "names.json"), {name: row["mask"] for name, row in rows.items() if row["mask"]}
    assert resolved["layout"] == "mvtec" and not problems and len(drawn) == 6
    assert {names[name] for name, row in rows.items() if row["label"] == "0"} == {f"good/{n:03}.png" for n in range(8)}
    for name, mask in drawn.items():
        source = root / "set/truth" / names[name].replace("/", "__")
        assert (read_mask(mask) == read_mask(source)).all() and rows[name]["defect_type"] in name
    table = read_table(data.manifest, MANIFEST)
    table["mask"] = ""
    write_table(tmp_path / "manifest.csv", table.astype({"label": "Int64"}), MANIFEST)
    out = write(run, "mvtec", tmp_path / "again", "--manifest", str(tmp_path / "manifest.csv"))
    drawn = sorted((out / "ground_truth").rglob("*.png"))
    assert len(drawn) == 3
    names = read_json(out / "names.json")
    for path in drawn:
        name = names[f"test/{path.parent.name}/{path.name.replace('_mask', '')}"]
        assert likeness(read_mask(path), masks[name][1]) > 0.97
    assert "no region was found on it (draw it by hand)" in capsys.readouterr().err


def test_groups_are_not_divided_and_the_split_of_the_set_is_kept():
    def photographs(**more):
        return [Labelled(str(n), f"{n}.png", "", 9, 9, group=f"g{n // 5}", **more) for n in range(50)]

    out = held_out(photographs())
    assert len(out) == 10 and len({int(n) // 5 for n in out}) == 2 and out == held_out(photographs()[::-1])
    assert held_out(photographs(split="train")) == set()
    assert held_out([Labelled("a", "a.png", "", 9, 9)]) == set()


@pytest.mark.parametrize("large", [f"large{k}" for k in range(8)])
def test_one_large_group_is_not_held_out(large):
    groups = [large] * 60 + [f"g{n}" for n in range(40)]
    out = held_out([Labelled(str(n), f"{n}.png", "", 9, 9, group=group) for n, group in enumerate(groups)])
    assert len(out) == 20 and all(int(n) >= 60 for n in out)
    two = [Labelled(str(n), f"{n}.png", "", 9, 9, group=large if n else "one") for n in range(30)]
    assert held_out(two) == {"0"}


def test_kinds_that_differ_by_punctuation_have_folders_of_their_own():
    found = folders_of_kinds(["scratch 1", "scratch-1", "scratch/1", "Scratch_1", "ok", "", "good", "Kratzer ä"])
    assert len({name.casefold() for name in found.values()}) == 8
    assert found["scratch-1"] == "scratch-1" and found["Kratzer ä"] == "Kratzer_ä"
    assert {found[name] for name in ("", "good", "ok")} == {"bad", "bad_2", "bad_3"}


def test_two_photographs_with_one_label_file_are_refused():
    with pytest.raises(UserError, match=r"d/a.jpg: d/a.png has the same name but for the suffix"):
        check_stems([Labelled("a", "d/a.png", "", 9, 9), Labelled("b", "d/a.jpg", "", 9, 9)])


def test_a_photograph_with_exif_is_copied_upright(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    copy_photograph(Labelled("a", "a.png", str(tmp_path / "a.png"), 6, 9), tmp_path / "out/a.png")
    with Image.open(tmp_path / "out/a.png") as found:
        assert (np.asarray(found) == read_rgb(tmp_path / "a.png")).all() and found.size == (6, 9)


@pytest.mark.parametrize(("mode", "suffix"), [("L", "jpg"), ("RGB", "bmp"), ("CMYK", "jpg"), ("I;16", "tif")])
def test_a_photograph_of_another_format_becomes_png(tmp_path, mode, suffix):
    image = Image.new(mode, (9, 6), 90 if mode in ("L", "I;16") else None)
    image.save(tmp_path / f"a.{suffix}")
    copy_photograph(Labelled("a", f"a.{suffix}", str(tmp_path / f"a.{suffix}"), 9, 6), tmp_path / "out/a.png")
    with Image.open(tmp_path / "out/a.png") as found:
        assert found.format == "PNG" and found.size == (9, 6) and found.mode == {"CMYK": "RGB"}.get(mode, mode)


def test_a_copy_that_is_converted_has_the_depth_of_the_set(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((6, 9, 3), 2048, np.uint16))
    copy_photograph(Labelled("a", "a.tif", str(tmp_path / "a.tif"), 9, 6, depth="12"), tmp_path / "out/a.png")
    assert (cv2.imread(str(tmp_path / "out/a.png")) == 128).all()


@pytest.mark.parametrize("source", ["a.tif", "a.png"])
def test_training_programs_get_12_bits_in_16_as_8_bits_as_the_run_reads_them(tmp_path, source):
    cv2.imwrite(str(tmp_path / source), np.full((6, 9), 2048, np.uint16))
    one = Labelled("a", source, str(tmp_path / source), 9, 6, depth="12")
    copy_photograph(one, tmp_path / "out/a.png", shallow=True)
    assert (np.asarray(Image.open(tmp_path / "out/a.png").convert("L")) == 128).all()
    copy_photograph(one, tmp_path / "whole" / source)
    assert (cv2.imread(str(tmp_path / "whole" / source), cv2.IMREAD_UNCHANGED) == 2048).all()


def test_without_anything_to_export_it_says_so(run, tmp_path):
    root = run[1]
    for name, content in (("regions.csv", ",".join(REGIONS) + "\n"), ("regions.json", "[]\n")):
        (tmp_path / name).write_text(content)
    words = ["--format", "coco", "--predictions", f"{root}/out/predictions.csv", "--manifest", str(run[0].manifest)]
    words += ["--regions", f"{tmp_path}/regions.csv", f"{tmp_path}/regions.json", "--images", f"{root}/set/images"]
    with pytest.raises(UserError, match="no mask of the part and no region to export"):
        export_labels.main(export_labels.build_parser().parse_args([*words, "--out", f"{tmp_path}/labels"]))
    assert not (tmp_path / "labels").exists()


def test_the_config_names_the_formats_that_are_written():
    assert types_of(RunSettings)["label_format"].__args__ == tuple(WRITERS)
