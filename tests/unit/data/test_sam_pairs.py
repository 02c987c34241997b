"""Pairs in SA-1B form, read back with the official loader of the sam2 package."""

import json

import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.core.tables import PAIRS, read_table
from defectflow.data.sam_pairs import build_parser, main
from defectflow.images.exif_orientation import stored_size
from defectflow.images.read_write import read_rgb
from PIL import Image

SQUARE = [[5, 5, 30, 5, 30, 20, 5, 20]]
CORNER = [[36, 0, 48, 0, 48, 10, 36, 10]]


@pytest.fixture
def data(tmp_path):
    """Five images: plain JPEG, PNG, rotated JPEG annotated as stored, one not annotated, one broken."""
    rng = np.random.default_rng(0)
    names = ["a.jpg", "sub/b.png", "c.jpg", "d.jpg", "sub/torn.jpg"]
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in names:
        image = Image.fromarray(rng.integers(0, 255, (5, 6, 3), np.uint8)).resize((48, 40), Image.Resampling.BICUBIC)
        exif = image.getexif()
        exif[0x112] = 6 if name == "c.jpg" else 1
        image.save(tmp_path / "images" / name, exif=exif)
    outlines = [(1, SQUARE), (2, SQUARE), (2, CORNER), (3, SQUARE), (5, SQUARE)]
    coco = {
        "images": [{"id": i + 1, "file_name": name, "width": 48, "height": 40} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1 + (outline is CORNER), "segmentation": outline}
            for i, (image, outline) in enumerate(outlines)
        ],
        "categories": [{"id": 1, "name": "part"}, {"id": 2, "name": "clip"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    torn = tmp_path / "images" / names[4]
    torn.write_bytes(torn.read_bytes()[:-300])
    (tmp_path / "labels.csv").write_text("filename,label,group\na.jpg,0,A\nsub/b.png,0,B\n")
    return tmp_path


def run(root, *options):
    given = ["--labels", "labels.csv", "--images", "images", "--annotations", "annotations.json"]
    given = [part if part.startswith("--") else str(root / part) for part in given]
    main(build_parser().parse_args([*given, *options, "--out", f"{root}/pairs", "--table", f"{root}/pairs/pairs.csv"]))
    return read_table(root / "pairs" / "pairs.csv", PAIRS)


def test_official_loader_reads_the_pairs(data):
    from training.dataset.vos_raw_dataset import SA1BRawDataset

    table = run(data).set_index("pair")
    dataset = SA1BRawDataset(img_folder=str(data / "pairs"), gt_folder=str(data / "pairs"))
    assert len(dataset) == 3
    for index, name in enumerate(dataset.video_names):
        video, segments = dataset.get_video(index)
        assert video.video_id == int(name.removeprefix("sa_"))
        masks = segments.load(0)
        picture = read_rgb(video.frames[0].image_path)
        mask = masks[0].numpy()
        assert list(masks.keys()) == [0]
        assert mask.shape == picture.shape[:2] and mask.sum() == table.loc[name, "area"] > 0
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
        assert box == table.loc[name, PAIRS[-4:]].tolist()


def test_table_maps_back_and_lists_images_without_annotation(data):
    table = run(data)
    assert table["image_id"].tolist() == ["a", "c", "d", "sub__b"]
    assert table["pair"].tolist() == ["sa_000001", "sa_000002", "", "sa_000003"]
    assert table["n_annotations"].tolist() == [1, 1, 0, 2] and table["group"].tolist() == ["A", "", "", "B"]
    assert table["area"].fillna(-1).tolist() == [375, 375, -1, 375 + 120]
    # 48 x 40 as stored, turned clockwise: x' = 40 - y - height, y' = x.
    assert table.loc[1, PAIRS[-4:]].tolist() == [20, 5, 15, 25]
    assert sorted(p.name for p in (data / "pairs").iterdir())[:2] == ["pairs.csv", "sa_000001.jpg"]
    table = data / "pairs" / "pairs.csv"
    kept = table.read_bytes()
    Image.open(data / "images" / "a.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(data / "images" / "a.jpg")
    run(data)
    assert table.read_bytes() != kept  # a run that stops here goes on from the table alone


def test_pictures_are_copied_or_turned(data):
    run(data)
    assert (data / "pairs" / "sa_000001.jpg").read_bytes() == (data / "images" / "a.jpg").read_bytes()
    for pair, name in (("sa_000002", "c.jpg"), ("sa_000003", "sub/b.png")):
        path = data / "pairs" / f"{pair}.jpg"
        picture, original = read_rgb(path), read_rgb(data / "images" / name)
        assert stored_size(path) == (picture.shape[1::-1], 1)
        assert picture.shape == original.shape
        assert np.abs(picture.astype(int) - original).mean() < 6


def test_json_is_sa1b(data):
    run(data)
    pair = json.loads((data / "pairs" / "sa_000002.json").read_text())
    assert pair["image"] == {"image_id": 2, "width": 40, "height": 48, "file_name": "sa_000002.jpg"}
    (annotation,) = pair["annotations"]
    fields = {"id", "segmentation", "area", "bbox", "predicted_iou", "stability_score", "crop_box", "point_coords"}
    assert set(annotation) == fields and annotation["id"] == 2
    assert annotation["segmentation"]["size"] == [48, 40]
    assert isinstance(annotation["segmentation"]["counts"], str)


def test_one_category(data):
    assert run(data, "--category", "clip")["n_annotations"].tolist() == [0, 0, 0, 1]


def test_no_usable_annotation_is_an_error_and_leaves_nothing(data):
    coco = json.loads((data / "annotations.json").read_text())
    for annotation in coco["annotations"]:
        annotation["segmentation"] = []
    (data / "annotations.json").write_text(json.dumps(coco))
    with pytest.raises(UserError, match=r"no sound image of .* has a usable annotation"):
        run(data)
    assert not (data / "pairs").exists()
