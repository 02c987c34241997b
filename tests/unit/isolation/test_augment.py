import argparse

import numpy as np
import pandas as pd
import pytest
from defectflow.core.tables import ISOLATED, MANIFEST, read_table, write_table
from defectflow.images.read_write import read_mask, read_rgb, write_png
from defectflow.isolation.augment import PERTURBATIONS, build_parser, build_perturbation, copy_seed, main
from defectflow.isolation.drawn_defects import KINDS
from defectflow.isolation.settings import AugmentationSettings
from settings_words import with_settings


def make_inputs(folder, names=("good", "bad", "unknown"), side=""):
    labels = {"good": 0, "bad": 1, "unknown": ""}
    rng = np.random.default_rng(1)
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    rows, isolated = [], []
    for name in names:
        image = np.where(mask[..., None], rng.integers(80, 160, (64, 64, 3)), 0).astype(np.uint8)
        write_png(folder / f"{name}.png", image)
        write_png(folder / f"{name}.mask.png", mask)
        rows.append(dict.fromkeys(MANIFEST, "") | {"image_id": name, "label": labels[name], "split": side})
        files = str(folder / f"{name}.png"), str(folder / f"{name}.mask.png")
        values = [name, *files, 0, 0, 64, 64, 0.0, 64, 64, "", "", 0]
        isolated.append(dict(zip(ISOLATED, values, strict=True)))
    write_table(folder / "manifest.csv", pd.DataFrame(rows), MANIFEST)
    write_table(folder / "isolated.csv", pd.DataFrame(isolated), ISOLATED)


def run(folder, out, *flags) -> pd.DataFrame:
    args = ["--isolated", folder / "isolated.csv", "--manifest", folder / "manifest.csv", "--out-dir", folder / out]
    args += ["--table", folder / f"{out}.csv", *with_settings(flags, AugmentationSettings)]
    parsed: argparse.Namespace = build_parser().parse_args([str(arg) for arg in args])
    main(parsed)
    return read_table(folder / f"{out}.csv", ISOLATED)


def test_only_good_images_enlarge_the_training_side(tmp_path):
    make_inputs(tmp_path)
    table = run(tmp_path, "copies", "--copies", 3)
    assert set(table["copy_of"]) == {"good"} and len(table) == 3 and set(table["kind"]) == {"augmented"}


def test_perturbed_copies_are_of_labelled_images_and_told_apart(tmp_path):
    make_inputs(tmp_path)
    table = run(tmp_path, "copies", "--robustness", 1, "--copies", 1)
    assert sorted(set(zip(table["copy_of"], table["kind"], strict=True))) == [
        ("bad", "perturbed"),
        ("good", "augmented"),
        ("good", "perturbed"),
    ]
    assert (table["kind"] == "perturbed").sum() == 2 * len(PERTURBATIONS)


def test_copies_differ_from_source_and_each_other_and_background_stays_zero(tmp_path):
    make_inputs(tmp_path)
    table = run(tmp_path, "copies", "--copies", 2, "--brightness", 0.3)
    source = read_rgb(tmp_path / "good.png")
    first, second = (read_rgb(path) for path in table["image"])
    assert (first != source).any() and (first != second).any()
    for image, mask in zip((first, second), (read_mask(path) for path in table["mask"]), strict=True):
        assert (image[~mask] == 0).all() and image[mask].mean() > 40


def test_same_seed_same_copies_whatever_else_is_in_the_shard(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    make_inputs(tmp_path / "a")
    make_inputs(tmp_path / "b", names=("good",))
    a, b = run(tmp_path / "a", "copies", "--copies", 1), run(tmp_path / "b", "copies", "--copies", 1)
    assert (read_rgb(a["image"][0]) == read_rgb(b["image"][0])).all()
    c = run(tmp_path / "a", "other", "--copies", 1, "--seed", 5)
    assert (read_rgb(a["image"][0]) != read_rgb(c["image"][0])).any()
    same, likewise, other = (
        read_table(tmp_path / f"{name}.csv", ["content"])["content"][0] for name in ("a/copies", "b/copies", "a/other")
    )
    assert same == likewise != other  # so that Snakemake sees other copies in the table, which has their paths alone
    assert copy_seed(0, "x") != copy_seed(0, "y")


def test_no_copies_gives_an_empty_table(tmp_path):
    make_inputs(tmp_path)
    assert len(run(tmp_path, "copies")) == 0


def test_a_fixed_test_image_is_never_copied_for_training_nor_a_training_image_for_the_score(tmp_path):
    make_inputs(tmp_path, names=("good",), side="test")
    assert run(tmp_path, "copies", "--copies", 1, "--robustness", 1)["kind"].tolist() == ["perturbed"] * 5
    make_inputs(tmp_path, names=("good",), side="train")
    assert run(tmp_path, "copies", "--copies", 1, "--robustness", 1)["kind"].tolist() == ["augmented"]


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_a_perturbation_changes_one_thing_and_grows_with_its_strength(kind):
    rng = np.random.default_rng(0)
    image = np.full((64, 64, 3), 100, np.uint8)
    image[20:44, 20:44] = rng.integers(90, 160, (24, 24, 3))
    amount = {"blur": 3, "rotate": 8}.get(kind, 0.1)

    def change(strength, seed=3):
        mask = np.ones((64, 64), np.uint8)
        varied = build_perturbation(kind, amount, strength, seed)(image=image, mask=mask)["image"]
        return varied.astype(int)

    weak, strong = (np.abs(change(s) - image).mean() for s in (0.5, 2.0))
    assert 0 < weak < strong
    assert (change(1.0) == change(1.0)).all()
    if kind == "brightness":
        assert np.unique(change(1.0) - image).size == 1
    elif kind in ("rotate", "translate", "contrast"):
        assert any((change(1.0, 3) != change(1.0, seed)).any() for seed in range(4, 9))  # either way


def test_the_copies_of_the_robustness_table_are_named_after_kind_and_strength(tmp_path):
    make_inputs(tmp_path, names=("good",))
    table = run(tmp_path, "copies", "--robustness", 0.5, 2, "--blur", 0, "--translate", 0.1)
    kinds = ("brightness", "contrast", "rotate", "translate")  # blur is switched off
    assert table["image_id"].tolist() == [f"good~{kind}~{strength}" for kind in kinds for strength in ("0.5", "2")]
    source = read_rgb(tmp_path / "good.png")
    assert all((read_rgb(path) != source).any() for path in table["image"])


def test_defects_are_drawn_on_good_images_that_are_judged_and_only_scored(tmp_path):
    make_inputs(tmp_path)
    table = run(tmp_path, "copies", "--synthetic", 2)
    assert set(table["copy_of"]) == {"good"} and set(table["kind"]) == {"synthetic"}
    assert sorted(table["image_id"]) == sorted(f"good~{kind}~{number}" for kind in KINDS for number in (1, 2))
    source, mask = read_rgb(tmp_path / "good.png"), read_mask(tmp_path / "good.mask.png")
    for row in table.itertuples():
        picture = read_rgb(row.image)
        assert (picture != source).any() and not (picture != source)[~mask].any()
        assert (read_mask(row.mask) == mask).all()
    again = run(tmp_path, "again", "--synthetic", 2)
    assert [read_rgb(a).tobytes() for a in again["image"]] == [read_rgb(a).tobytes() for a in table["image"]]
    make_inputs(tmp_path, side="train")
    assert run(tmp_path, "training", "--synthetic", 1).empty


def test_a_picture_without_the_part_is_varied_and_not_blanked(tmp_path):
    make_inputs(tmp_path, names=("good",))
    source = np.random.default_rng(0).integers(80, 160, (64, 64, 3), dtype=np.uint8)
    write_png(tmp_path / "good.png", source)
    write_png(tmp_path / "good.mask.png", np.zeros((64, 64), bool))
    for path in run(tmp_path, "copies", "--robustness", 0.5)["image"]:
        assert len(np.unique(read_rgb(path)[..., 0])) > 20, path


def test_copies_have_the_background_of_their_source_though_its_corner_lies_beyond_the_frame(tmp_path):
    make_inputs(tmp_path, names=("good",))
    source, mask = read_rgb(tmp_path / "good.png").copy(), read_mask(tmp_path / "good.mask.png")
    source[~mask] = 120
    source[:6] = 0
    write_png(tmp_path / "good.png", source)
    (copy,) = run(tmp_path, "copies", "--copies", 1).itertuples()
    assert (read_rgb(copy.image)[~read_mask(copy.mask)] == 120).all()
