"""Stage prior: held-out figures, gate, limits, and files that come back as they were written."""

import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.images.read_write import read_rgb
from defectflow.isolation.outlined_extent import window_of
from defectflow.parts import prior as stage
from defectflow.parts.part_model import Prior, clean_mask, label_shape
from defectflow.parts.registration_frame import iou
from defectflow.segmentation.baseline_masks import part_mask
from part_set import SIZE, arguments, scene, write_set


def run(folder, *more):
    out, report = folder / "prior.safetensors", folder / "prior.json"
    flags = [*arguments(folder), "--out", str(out), "--report", str(report), *more]
    stage.main(stage.build_parser().parse_args(flags))
    return Prior.load(out), json.loads(report.read_text())


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), ["train"] * 6 + ["absent", ""], ["a"] * 3 + ["b"] * 3 + ["a", "b"])


@pytest.fixture(scope="module")
def result(small_set):
    return run(small_set)


def test_template_beats_constant_held_out_by_group(result):
    _, report = result
    assert report["held_out"] == "group"
    assert report["template"]["iou_mean"] > 0.96 > report["constant"]["iou_mean"] > 0.7
    assert report["template"]["n"] == 6
    assert set(report["template"]["by_group"]) == {"a", "b"}
    assert report["template"]["iou_min"] <= report["template"]["iou_mean"]


def test_gate_lies_between_present_and_absent(result, small_set):
    prior, report = result
    image = read_rgb(small_set / "images/img_06.png")  # no part
    assert prior.register(image).score < prior.info["score_threshold"] == report["registration"]["threshold"]
    assert prior.register(read_rgb(small_set / "images/img_07.png")).score > prior.info["score_doubtful"]
    assert prior.info["registers"] is True


def test_own_group_is_left_out(result):
    prior, _ = result
    out = prior.leave_out("img_01")
    assert [prior.image_ids[i] for i in out] == ["img_00", "img_01", "img_02"]
    assert prior.leave_out("img_07") is None  # not annotated
    assert prior.register_field(np.zeros(prior.templates.frame, np.float32), out).templates[0] >= 3
    expected = prior.labels[3:].mean(axis=0)
    np.testing.assert_allclose(prior.mean_label(out), expected, atol=1e-6)


def test_a_photograph_of_a_known_session_is_masked_as_those_that_were_learned(result, small_set):
    prior, _ = result
    image, groups = read_rgb(small_set / "images/img_01.png"), np.array(prior.groups)[prior.chosen]
    held_out, new, all_of_them = (
        {str(groups[i]) for i in prior.register(image, out).templates} for out in (prior.leave_out("img_01"), None, ())
    )
    assert new == held_out == {"group b"} and all_of_them == {"group a", "group b"}
    alone = replace(prior, groups=["group a"] * 6)
    assert len(alone.register(image, None).templates) > 3  # nothing else would remain


def test_prior_file_round_trip(result, tmp_path):
    prior, _ = result
    prior.save(tmp_path / "again.safetensors")
    again = Prior.load(tmp_path / "again.safetensors")
    np.testing.assert_array_equal(again.labels, prior.labels)
    np.testing.assert_array_equal(again.templates.fields, prior.templates.fields)
    assert again.info == prior.info
    assert (again.image_ids, again.groups) == (prior.image_ids, prior.groups)


def test_two_runs_write_the_same_bytes(result, small_set, tmp_path):
    first = [(small_set / name).read_bytes() for name in ("prior.safetensors", "prior.json")]
    run(small_set)
    assert [(small_set / name).read_bytes() for name in ("prior.safetensors", "prior.json")] == first


def test_one_group_holds_out_single_images(tmp_path):
    prior, report = run(write_set(tmp_path / "set", ["train"] * 3, ["a"] * 3))
    assert report["held_out"] == "image"
    assert prior.leave_out("img_01") == [1]
    assert report["template"]["n"] == 3


def test_single_annotated_image(tmp_path):
    prior, report = run(write_set(tmp_path / "set", ["train", ""], ["a", "a"]))
    assert report["held_out"] == "none"
    assert report["template"]["iou_mean"] is None
    assert prior.leave_out("img_00") == []
    assert prior.info["score_threshold"] > 0
    assert prior.info["registers"] is False


@pytest.fixture(scope="module")
def one_outline(tmp_path_factory):
    folder = write_set(tmp_path_factory.mktemp("one"), ["train"] + [""] * 5 + ["absent"], ["a"] * 4 + ["b"] * 3)
    return folder, *run(folder, "--photographs", str(folder / "manifest.csv"))


def test_one_outline_is_carried_over_and_says_what_it_rests_on(one_outline):
    _, prior, report = one_outline
    told = report["propagation"]
    assert (told["outlines"], told["photographs"], told["found"]) == (1, 6, 5) and told["not_found"] == ["img_06"]
    assert 0.93 < told["agreement_min"] <= told["agreement_mean"] <= 1 and "not a held-out IoU" in told["note"]
    assert report["template"]["iou_mean"] is None and report["held_out"] == "none"  # nothing was drawn to compare with
    assert prior.image_ids == ["img_00", *(f"img_0{k}" for k in range(1, 6))] and len(prior.templates.fields) == 6
    assert prior.leave_out("img_03") == [3] and prior.leave_out("img_06") is None


def test_the_extent_of_the_part_is_that_of_all_photographs_found(one_outline):
    folder, prior, _ = one_outline
    extents = []
    for number, label in enumerate(prior.labels):
        x, y, width, height = cv2.boundingRect(label.view(np.uint8))
        extents.append((width, height))
        assert number or (x, y) != (0, 0)
    size = np.array(prior.info["extent"]["size"]) * SIZE[1]
    np.testing.assert_allclose(size, np.max(extents, axis=0) * SIZE[1] / prior.labels.shape[2], atol=1)
    (width, height), centre = window_of("", folder / "prior.safetensors", 0.1)
    np.testing.assert_allclose((width, height), np.array(prior.info["extent"]["size"]) * 1.2)
    assert centre == tuple(prior.info["extent"]["centre"])
    label = np.zeros((384, 512), bool)  # an upright photograph in a frame that lies: of its 512 columns 288 show it
    label[100:200, 200:300] = True
    found = stage.extent_of(label[None], [(1600, 1200)])
    np.testing.assert_allclose(found["size"], np.array([100, 100]) / 384)
    np.testing.assert_allclose(
        found["centre"], ((249.5 - 112 + 0.5) * 1600 / 384 / 1600 - 0.5 / 1600, 149.5 / 384), atol=1e-3
    )


def test_masks_of_one_outline_fit_and_a_photograph_without_the_part_is_doubtful(one_outline):
    folder = one_outline[0]
    loaded = Prior.load(folder / "prior.safetensors")
    rng = np.random.default_rng(5)
    for number in range(7):
        options = {"angle": rng.uniform(-2, 2), "shift": rng.uniform(-5, 5, 2)}
        image, out = read_rgb(folder / f"images/img_0{number}.png"), loaded.leave_out(f"img_0{number}")
        mask, row = part_mask(loaded, "template", image, out)
        if number < 6:
            assert iou(mask, scene(number, **options)[1]) > 0.94 and not row["doubtful"] and row["present"]
        else:
            assert row["doubtful"] and "uncertain" in row["reason"]


def test_of_three_outlines_each_is_still_judged_by_the_others(tmp_path):
    folder = write_set(tmp_path / "set", ["train"] * 3 + [""] * 3, ["a"] * 6)
    plain = run(folder)[1]["template"]
    prior, report = run(folder, "--photographs", str(folder / "manifest.csv"))
    assert report["template"] == plain and plain["n"] == 3 and report["propagation"]["found"] == 3
    assert prior.info["registers"] is True


def test_many_outlines_read_no_other_photographs(tmp_path):
    folder = write_set(tmp_path / "set", ["train"] * 4 + [""] * 2, ["a"] * 6)
    run(folder)
    before = (folder / "prior.safetensors").read_bytes()
    _, report = run(folder, "--photographs", str(folder / "manifest.csv"))
    assert "propagation" not in report and (folder / "prior.safetensors").read_bytes() == before


def test_an_outline_that_is_hardly_found_again_stops_and_names_the_next_to_draw(tmp_path):
    folder = write_set(tmp_path / "set", ["train"] + ["absent"] * 3, ["a"] * 4)
    with pytest.raises(UserError, match=r"outlined on img_00 was found again in 0 of 3 .*\(outline img_0[123] as well"):
        run(folder, "--photographs", str(folder / "manifest.csv"))
    assert not (folder / "prior.safetensors").exists()


def test_of_many_photographs_a_sample_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "SAMPLE", 3)
    folder = write_set(tmp_path / "set", ["train"] + [""] * 5, ["a"] * 6)
    annotated = [SimpleNamespace(image_id="img_00")]
    first, again, other = (
        [o.image_id for o in stage.read_others([folder / "manifest.csv"], annotated, seed, None)] for seed in (0, 0, 1)
    )
    assert first == again == sorted(first) and len(first) == 3 and "img_00" not in first + other


def test_nothing_annotated_is_told(tmp_path):
    with pytest.raises(UserError, match="no annotated image"):
        run(write_set(tmp_path / "set", ["absent", ""], ["a", "a"]))


def test_broken_annotation_is_told(tmp_path):
    folder = write_set(tmp_path / "set", ["train", "train"], ["a", "b"])
    (folder / "pairs/sa_000001.json").write_text('{"annotations": [{"segmentation": [[1, 2, 3]]}]}')
    with pytest.raises(UserError, match=r"sa_000001\.json: not an annotation"):
        run(folder)


def test_templates_are_capped_evenly_over_groups():
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(200, 16, 16, 2)).astype(np.float32)
    groups = ["a"] * 150 + ["b"] * 40 + ["c"] * 10
    chosen = stage.farthest_points(fields, groups, 64)
    assert len(chosen) == len(set(chosen)) == 64
    counts = [sum(groups[i] == g for i in chosen) for g in "abc"]
    assert counts == [27, 27, 10]


def test_annotated_images_are_capped_over_groups():
    chosen = stage.spread_over_groups(["a"] * 100 + ["b"] * 2, 10, np.random.default_rng(0))
    assert len(chosen) == 10
    assert {100, 101} <= set(chosen)


def test_clean_mask_keeps_the_largest_and_fills_holes():
    mask = np.zeros((40, 60), bool)
    mask[5:25, 5:25] = True
    mask[10:14, 10:14] = False
    mask[30:34, 40:50] = True
    assert clean_mask(mask).sum() == 400
    assert clean_mask(mask, fill_holes=False).sum() == 384
    assert clean_mask(mask, components=2).sum() == 440
    assert not clean_mask(np.zeros((5, 5), bool)).any()
    count, holes = label_shape(mask)
    assert count == 2
    assert holes == pytest.approx(16 / 424)


def test_small_grey_photographs_and_a_black_one(tmp_path):
    import cv2

    folder = write_set(tmp_path / "set", ["train"] * 4, ["a", "a", "b", "b"])
    for number in range(1, 5):
        path = folder / f"pairs/sa_{number:06d}.jpg"
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), image * (number != 2))
    prior, report = run(folder)
    assert report["template"]["n"] == 4
    assert np.isfinite(prior.info["score_threshold"])
    tiny = prior.register(np.full((9, 7, 3), 90, np.uint8))
    assert prior.template(tiny, (9, 7))[0].shape == (9, 7)


def shelf(seed: int, scene: int) -> SimpleNamespace:
    """An annotated photograph of a fixed scene, a little moved; the outline is that of one small hole among many."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(scene)
    image = cv2.resize(world.uniform(40, 160, (12, 16)).astype(np.float32), (320, 240), interpolation=cv2.INTER_CUBIC)
    for x, y in world.integers((20, 20), (300, 220), (40, 2)).tolist():
        cv2.rectangle(image, (x, y), (x + 12, y + 9), int(world.integers(20, 200)), 1)
    for x, y in [(165, 100), *world.integers((20, 20), (300, 220), (8, 2)).tolist()]:
        cv2.circle(image, (x, y), 6, 40, -1)
        cv2.circle(image, (x, y), 6, 200, 1)
    mask = cv2.circle(np.zeros((240, 320), np.uint8), (165, 100), 6, 1, -1)
    shift = np.float32([[1, 0, rng.uniform(-6, 6)], [0, 1, rng.uniform(-6, 6)]])
    image, mask = (cv2.warpAffine(m, shift, (320, 240), borderMode=cv2.BORDER_REFLECT) for m in (image, mask))
    image = (image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)
    rgb, name = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), f"img_{seed}"
    return SimpleNamespace(image_id=name, group=f"g{seed % 3}", split="train", image=lambda: rgb, mask=lambda: mask > 0)


def test_a_small_region_is_not_found_by_chance_in_other_surroundings(result):
    prior, report = stage.build([shelf(seed, 1) for seed in range(6)], 0)
    assert report["template"]["iou_mean"] > 0.8 and report["registration"]["surroundings"] > 0.3
    assert not any(prior.lost(prior.register(shelf(seed, 1).image())) for seed in (10, 11))
    for other in (2, 3, 4):
        match = prior.register(shelf(10, other).image())
        assert match.score > prior.info["score_threshold"] and "surroundings" in prior.lost(match)
    assert result[0].info["whole_threshold"] is None  # a large part needs no such help
