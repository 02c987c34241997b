import json

import numpy as np
import pandas as pd
import pytest
import torch
from defectflow.backbones import patch_embedding
from defectflow.backbones.network_input import RIM, Scale, object_cells
from defectflow.backbones.network_settings import NetworkSettings
from defectflow.backbones.patch_embedding import PatchEmbedder, has_bfloat16
from defectflow.core import tables
from defectflow.core.files import UserError, write_json
from defectflow.detection import features
from defectflow.detection.feature_files import PatchFile
from defectflow.images.read_write import letterbox, read_rgb, write_png
from PIL import Image
from settings_words import with_settings


@pytest.fixture
def isolated(tmp_path):
    """Table of a whole picture, one with a mask, one whose part is absent, and a copy."""
    generator = np.random.default_rng(0)
    rows = []
    for image_id, copy_of, kind, window in [
        ("whole", "", "", (0, 0, 120, 80)),
        ("part", "", "", (-20, 10, 100, 90)),
        ("absent", "", "", (0, 0, 120, 80)),
        ("part~aug1", "part", "augmented", (0, 0, 120, 80)),
    ]:
        image = generator.integers(0, 256, (80, 120, 3), dtype=np.uint8)
        write_png(tmp_path / f"{image_id}.png", image)
        mask = np.zeros((80, 120), bool)
        if image_id.startswith("part"):
            mask[20:60, 30:90] = True
        if image_id != "whole":
            write_png(tmp_path / f"{image_id}_mask.png", mask)
        mask_path = "" if image_id == "whole" else str(tmp_path / f"{image_id}_mask.png")
        rows.append(
            [
                image_id,
                str(tmp_path / f"{image_id}.png"),
                mask_path,
                *window,
                0.0,
                120,
                90,
                copy_of,
                kind,
                int(image_id == "part"),
            ]
        )
    table = pd.DataFrame(rows, columns=tables.ISOLATED)
    tables.write_table(tmp_path / "originals.csv", table[table["copy_of"] == ""], tables.ISOLATED)
    tables.write_table(tmp_path / "copies.csv", table[table["copy_of"] != ""], tables.ISOLATED)
    return tmp_path


@pytest.fixture(autouse=True)
def rectangle(monkeypatch):
    """Pictures of 64 x 96 pixels: what a config cannot ask for, and the stage can do."""
    monkeypatch.setattr(features, "DILATION", 0)
    monkeypatch.setattr(
        features,
        "sizes_of",
        lambda settings, shape: (
            sizes_of(settings, shape)
            if shape
            else (SIZE, (settings.center_crop,) * 2 if settings.center_crop else SIZE, None)
        ),
    )


SIZE = (64, 96)
sizes_of = features.sizes_of


def run(folder, *extra, out="out.safetensors", copies=True):
    table = [str(folder / "originals.csv")] + [str(folder / "copies.csv")] * copies
    common = ["--tables", *table, "--out", str(folder / out), "--threads", "2", "--device", "cpu"]
    features.main(features.build_parser().parse_args([*common, *with_settings(extra, NetworkSettings)]))
    return PatchFile(folder / out)


PIXELS = ("--backbone", "pixels")
RESNET = ("--backbone", "resnet18.tv_in1k", "--foreground-only", "false")
OBJECT = RESNET[:2]


def test_pixels_keep_every_cell_in_order(isolated):
    file = run(isolated, *PIXELS)
    assert [item["image_id"] for item in file.items] == ["absent", "part", "part~aug1", "whole"]
    assert file.config["grid"] == [8, 12]
    assert file.config["trained"] is False
    assert all(file.count(i) == 96 for i in range(4))
    assert file.position(1).tolist() == list(range(96))
    assert file.items[2]["copy_of"] == "part" and file.items[2]["kind"] == "augmented"
    assert [item["doubtful"] for item in file.items] == [False, True, False, False]


def test_random_weights_are_told_and_colours_have_none(isolated, capsys):
    run(isolated, *RESNET)
    assert "resnet18.tv_in1k has random weights" in capsys.readouterr().err
    run(isolated, *PIXELS)
    assert "random weights" not in capsys.readouterr().err


def test_affine_leads_back_to_the_frame(isolated):
    file = run(isolated, *PIXELS)
    # 120 x 80 in 96 x 64 (width x height): scaled by 0.8, no padding; the window begins at (-20, 10).
    top_left = file.affine[1] @ (-0.5, -0.5, 1)
    bottom_right = file.affine[1] @ (95.5, 63.5, 1)
    np.testing.assert_allclose(top_left, (-20.5, 9.5), atol=1e-9)
    np.testing.assert_allclose(bottom_right, (99.5, 89.5), atol=1e-9)


@pytest.mark.parametrize("kind", ["xmp", "grey16", "cmyk"])
def test_the_network_sees_the_pixels_that_were_surveyed(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    path = tmp_path / ("a.png" if kind == "grey16" else "a.jpg")
    if kind == "xmp":
        Image.fromarray(pixels).save(path, xmp=b'<rdf:Description tiff:Orientation="6"/>')
    elif kind == "grey16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 250).save(path)
    else:
        Image.fromarray(pixels).convert("CMYK").save(path)
    image = read_rgb(path)
    height, width = image.shape[:2]
    values = ["a", str(path), "", 0, 0, width, height, 0.0, width, height, "", "", 0]
    row = next(pd.DataFrame([values], columns=tables.ISOLATED).itertuples())
    loaded = features.load_item(row, (height, width), (height, width), [Scale(1, (8, 8))], False, 0)
    assert (loaded.picture == image).all()


def test_center_crop_keeps_the_middle_and_its_place_in_the_frame(isolated):
    whole, cropped = run(isolated, *PIXELS), run(isolated, *PIXELS, "--center-crop", "48", out="cropped.safetensors")
    assert cropped.config["fitted_size"] == [64, 96] and cropped.config["input_size"] == [48, 48]
    assert cropped.config["grid"] == [6, 6]
    # Rows 8 to 56 and columns 24 to 72 of 64 x 96: cells 1 to 6 and 3 to 8 of the whole grid.
    expected = whole.patches(1).view(8, 12, 3)[1:7, 3:9].reshape(-1, 3)
    assert torch.equal(cropped.patches(1), expected)
    np.testing.assert_allclose(cropped.affine[1] @ (-0.5, -0.5, 1), whole.affine[1] @ (23.5, 7.5, 1), atol=1e-9)


def test_foreground_only_keeps_the_part_and_absent_parts_keep_everything(isolated):
    file = run(isolated, *OBJECT)
    kept = {item["image_id"]: file.position(i).tolist() for i, item in enumerate(file.items)}
    expected = np.zeros((8, 12), bool)
    expected[2:6, 3:9] = True  # mask 20:60 x 30:90 at 0.8 is 16:48 x 24:72; cells are 8 pixels
    assert kept["part"] == np.flatnonzero(expected).tolist()
    assert kept["whole"] == kept["absent"] == list(range(96))
    assert dict(zip(kept, file.present, strict=True)) == {
        "absent": False, "part": True, "part~aug1": True, "whole": True,
    }  # fmt: skip
    everything = run(isolated, *RESNET, out="all.safetensors")
    assert everything.count(1) == 96 and everything.present.all()
    torch.testing.assert_close(everything.patches(1)[kept["part"]], file.patches(1))


def test_same_bytes_twice(isolated):
    first = run(isolated, *OBJECT)
    second = run(isolated, *OBJECT, "--threads", "1", out="again.safetensors")
    assert first.path.read_bytes() == second.path.read_bytes()


BFLOAT16 = pytest.mark.skipif(not has_bfloat16(), reason="no bfloat16 on this processor")


@BFLOAT16
def test_a_network_in_bfloat16_is_told_and_gives_the_same_bytes_twice(isolated):
    exact = run(isolated, *OBJECT)
    files = [
        run(isolated, *OBJECT, "--precision", "bfloat16", "--threads", threads, out=f"{threads}.safetensors")
        for threads in "12"
    ]
    assert files[0].path.read_bytes() == files[1].path.read_bytes()
    assert (exact.config["precision"], files[0].config["precision"]) == ("float32", "bfloat16")
    difference = torch.linalg.vector_norm(files[0].patches(1) - exact.patches(1))
    assert 0.001 < difference / torch.linalg.vector_norm(exact.patches(1)) < 0.03


def test_no_bfloat16_is_one_line(isolated, monkeypatch):
    monkeypatch.setattr(patch_embedding, "has_bfloat16", lambda: False)
    with pytest.raises(UserError, match=r"precision bfloat16: .* \(use float32\)"):
        run(isolated, *OBJECT, "--precision", "bfloat16")
    assert not (isolated / "out.safetensors").exists()


@pytest.fixture
def embedded(monkeypatch):
    """Number of pictures that ran through the network in each call so far; the first of a run is the one of noise."""
    calls = []
    original = features.PatchEmbedder.scales

    def counted(self, images):
        calls.append(len(images))
        return original(self, images)

    monkeypatch.setattr(features.PatchEmbedder, "scales", counted)
    return calls


def test_a_photograph_added_or_removed_runs_no_other_through_the_network(isolated, embedded):
    table = tables.read_table(isolated / "originals.csv", tables.ISOLATED)
    tables.write_table(isolated / "originals.csv", table[table["image_id"] != "absent"], tables.ISOLATED)
    run(isolated, *OBJECT)
    fewer = (isolated / "out.safetensors").read_bytes()
    tables.write_table(isolated / "originals.csv", table, tables.ISOLATED)
    for written, expected in ((table, 1), (table, 0), (table[table["image_id"] != "absent"], 0)):
        tables.write_table(isolated / "originals.csv", written, tables.ISOLATED)
        embedded.clear()
        updated = run(isolated, *OBJECT)
        assert sum(embedded) == 1 + expected
        fresh = run(isolated, *OBJECT, out=f"fresh{len(written)}-{expected}.safetensors")
        assert updated.path.read_bytes() == fresh.path.read_bytes()
    assert updated.path.read_bytes() == fewer


def reseed(folder):
    """Other content under the same name, in the same place."""
    write_png(folder / "part.png", np.random.default_rng(9).integers(0, 256, (80, 120, 3), dtype=np.uint8))


def shift_mask(folder):
    mask = np.zeros((80, 120), bool)
    mask[30:70, 30:90] = True
    write_png(folder / "part_mask.png", mask)


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (reseed, (), 1),
        (shift_mask, (), 1),
        (None, ("--seed", "1"), 4),  # other weights
        (None, ("--layers", "layer2"), 4),
        pytest.param(None, ("--precision", "bfloat16"), 4, marks=BFLOAT16),
        (None, ("--backbone", "patch-nano"), 4),
        (lambda folder: (folder / "out.safetensors").write_bytes(b"torn"), (), 4),
    ],
)
def test_patches_made_from_anything_else_are_not_kept(isolated, embedded, change, options, expected):
    run(isolated, *OBJECT)
    if change:
        change(isolated)
    embedded.clear()
    updated = run(isolated, *OBJECT, *options)
    assert sum(embedded) == 1 + expected
    fresh = run(isolated, *OBJECT, *options, out="fresh.safetensors")
    assert updated.path.read_bytes() == fresh.path.read_bytes()


def test_an_edit_of_the_code_keeps_nothing(isolated, embedded, monkeypatch):
    run(isolated, *OBJECT)
    monkeypatch.setattr(features, "code_hash", lambda module: f"another {module}")
    embedded.clear()
    run(isolated, *OBJECT)
    assert sum(embedded) == 1 + 4


def test_empty_shard(tmp_path):
    tables.write_table(tmp_path / "originals.csv", pd.DataFrame(columns=tables.ISOLATED), tables.ISOLATED)
    file = run(tmp_path, *PIXELS, copies=False)
    assert file.items == [] and file.dimensions == 3 and file.config["grid"] == [8, 12]


def test_bad_input_leaves_no_file(isolated):
    with pytest.raises(UserError, match="image_size: 8 is less than the minimum of 64 pixels"):
        run(isolated, "--backbone", "pixels", "--image-size", "8")
    (isolated / "part.png").unlink()
    with pytest.raises(UserError, match=r"part\.png: no such file"):
        run(isolated, *PIXELS)
    assert not list(isolated.glob("*out*"))


def test_several_scales_follow_each_other_and_see_the_same_picture(isolated):
    both = run(isolated, "--image-size", "128", "64")  # halved, whatever the size that `rectangle` says
    assert both.config["grid"] == [8, 12] and both.config["coarser"] == [{"reduction": 2, "grid": [4, 6]}]
    alone = run(isolated, out="alone.safetensors")
    for item in range(len(both.items)):
        fine = both.position(item) < 96
        assert torch.equal(both.position(item)[fine], alone.position(item))
        torch.testing.assert_close(both.patches(item)[fine], alone.patches(item))
    whole = next(i for i, item in enumerate(both.items) if item["image_id"] == "whole")
    assert both.count(whole) == 96 + 24
    picture = read_rgb(isolated / "whole.png")
    fitted, _ = letterbox(picture, SIZE)
    halves = fitted.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
    expected = PatchEmbedder("patch-nano", ["layer2", "layer3"])(halves[None]).flatten(0, 2)
    torch.testing.assert_close(both.patches(whole)[96:], expected, rtol=1e-4, atol=1e-4)
    # The rectangle of 30 x 30 pixels of the part's picture: every coarse cell that it touches has a patch.
    part = next(i for i, item in enumerate(both.items) if item["image_id"] == "part")
    rows, columns = np.divmod(both.position(part)[both.position(part) < 96].numpy(), 12)
    coarse = set((rows // 2 * 6 + columns // 2).tolist())
    assert coarse == set((both.position(part)[both.position(part) >= 96] - 96).tolist())


def test_table_given_twice(isolated):
    with pytest.raises(UserError, match="listed twice"):
        features.read_isolated([str(isolated / "originals.csv")] * 2)


def test_object_cells_touch_and_dilation():
    mask = np.zeros((32, 32), bool)
    mask[7, 7] = True
    assert np.argwhere(object_cells(mask, (4, 4), 0)).tolist() == [[0, 0]]
    assert np.argwhere(object_cells(mask, (4, 4), 1)).tolist() == [[0, 0], [0, 1], [1, 0]]


def test_a_size_that_a_transformer_cannot_take_is_one_line(isolated):
    with pytest.raises(UserError, match="90 x 90 pixels: vit_tiny_patch16_224 does not take them"):
        run(isolated, "--backbone", "vit_tiny_patch16_224", "--layers", "blocks.1", "--center-crop", "90")


STRIP = {"height": 504, "width": 1256, "long": True}


@pytest.mark.parametrize(
    ("settings", "shape", "size"),
    [
        ({}, None, (512, 512)),
        ({}, {"height": 504, "width": 800, "long": False}, (512, 512)),
        ({}, STRIP, (512, 1280)),  # as many pixels as it has
        ({"input_shape": "square"}, STRIP, (512, 512)),
        ({"image_size": 256}, STRIP, (256, 640)),
        ({"image_size": 1024}, STRIP, (672, 1632)),  # not enlarged beyond the area of the square
        ({"image_size": [512, 128]}, STRIP, (512, 1280)),  # its fourth still has whole strides
        ({"image_size": 518}, {"height": 2000, "width": 1000, "long": True}, (1036, 518)),  # patches of 14 pixels
    ],
)
def test_long_pictures_keep_their_shape_and_are_not_enlarged_for_it(settings, shape, size):
    assert sizes_of(NetworkSettings(**settings), shape)[:2] == (size, size)


def test_nothing_is_cut_from_a_long_picture_unless_it_is_asked_for():
    size, crop, rim = sizes_of(NetworkSettings(image_size=256, center_crop=224), STRIP)
    assert (size, crop, rim) == ((256, 256), (224, 224), None)


@pytest.fixture
def strips(tmp_path):
    """A table of three strips of 200 x 60 pixels, of which one shows more above; and the shape of the set."""
    rows = []
    for i, height in enumerate((60, 60, 64)):
        image = np.random.default_rng(i).integers(60, 120, (height, 200, 3), dtype=np.uint8)
        write_png(tmp_path / f"{i}.png", image)
        rows.append([f"{i}", str(tmp_path / f"{i}.png"), "", 0, 0, 200, height, 0.0, 200, height, "", "", 0])
    tables.write_table(tmp_path / "originals.csv", pd.DataFrame(rows, columns=tables.ISOLATED), tables.ISOLATED)
    write_json(tmp_path / "shape.json", {"height": 60, "width": 200, "long": True})
    return tmp_path


def test_a_strip_fills_its_input_and_its_border_is_mirrored(strips):
    common = ("--image-size", "64", "--foreground-only", "false", "--shape", str(strips / "shape.json"))
    file = run(strips, *PIXELS, *common, copies=False)
    height, width = file.config["fitted_size"]
    assert file.config["input_size"] == [height, width] and file.config["grid"] == [height // 8, width // 8]
    assert height < 128 and width >= 200 and file.config["rim"] == RIM
    for item, frame in ((0, 60), (2, 64)):
        assert file.patches(item).min() > 50 / 255, "black rims"
        inside = file.affine[item] @ np.array([[-0.5, width - 0.5], [-0.5, height - 0.5], [1, 1]])
        assert (inside[:, 0] <= -0.5 + 1e-9).all() and (inside[:, 1] >= np.array([200, frame]) - 0.5 - 1e-9).all()
    square = run(strips, *PIXELS, *common, "--input-shape", "square", out="square.safetensors", copies=False)
    assert square.config["input_size"] == [64, 64] and "rim" not in square.config


def test_a_size_that_is_chosen_by_the_set_is_used_and_told(strips):
    chosen = {"auto": {"image_size": 96, "reason": "the part is small"}}
    write_json(strips / "auto.json", {"height": 64, "width": 200, "long": False} | chosen)
    given = (*PIXELS, "--image-size", "auto", "--shape", str(strips / "auto.json"))
    file = run(strips, *given, copies=False)
    assert file.config["input_size"] == [96, 96] and file.config["size_reason"] == "the part is small"
    with pytest.raises(UserError, match="image_size: auto: the size of the part is not known"):
        run(strips, *given[:-2], copies=False)
    for key, value in (("center_crop", 64), ("tiles", {})):
        with pytest.raises(UserError, match="image_size"):
            NetworkSettings.from_dict({"image_size": "auto", key: value}, "here")


def test_large_pictures_are_seen_in_tiles_at_their_own_size_and_as_a_whole(strips):
    image = np.random.default_rng(3).integers(60, 120, (200, 260, 3), dtype=np.uint8)
    write_png(strips / "large.png", image)
    row = ["large", str(strips / "large.png"), "", 0, 0, 260, 200, 0.0, 260, 200, "", "", 0]
    tables.write_table(strips / "originals.csv", pd.DataFrame([row], columns=tables.ISOLATED), tables.ISOLATED)
    write_json(strips / "shape.json", {"height": 200, "width": 264, "long": False})
    given = ("--settings", json.dumps({"image_size": 96, "tiles": {"size": 96, "overlap": 32}}))
    common = ["--tables", str(strips / "originals.csv"), "--out", str(strips / "out"), "--device", "cpu", *given]
    with pytest.raises(UserError, match="tiles: the size of the pictures is not known"):
        features.main(features.build_parser().parse_args(common))
    features.main(features.build_parser().parse_args([*common, "--shape", str(strips / "shape.json")]))
    file = PatchFile(strips / "out")
    assert file.config["input_size"] == [224, 288] and file.config["grid"] == [28, 36]
    assert file.config["tiles"] == {"size": 96, "overlap": 32} and file.config["sigma"] == 1.5
    assert file.config["coarser"] == [{"reduction": 2, "grid": [14, 18]}]
    assert file.count(0) == 28 * 36 + 14 * 18 == len(file.position(0).unique())
    before, wider = (
        file.patches(0),
        ("--settings", json.dumps({"image_size": 96, "tiles": {"size": 96, "overlap": 48}})),
    )
    common = [*common[:-2], *wider, "--shape", str(strips / "shape.json")]
    features.main(features.build_parser().parse_args(common))
    assert not torch.equal(PatchFile(strips / "out").patches(0), before), "kept though the tiles overlap otherwise"
