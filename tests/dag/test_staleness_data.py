"""What a change of photographs, labels, outlines or weights makes stale, and what is no change."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_part
from made import Made
from staleness import ALL, CARD, CONFIG, OF_THE_FOUND_RUN, closure, edited


def images(site: Made) -> Path:
    return site.folder / "data/mine/images"


def picture(seed: int) -> np.ndarray:
    return draw_part(np.random.default_rng(seed))[0]


def repaint(name: str) -> Callable[[Path], object]:
    return lambda data: cv2.imwrite(str(data / "images" / name), picture(99))


def rename(data: Path) -> None:
    (data / "images/part_013.png").rename(data / "images/other.png")
    for name in ("labels.csv", "annotations.json"):
        (data / name).write_text((data / name).read_text().replace("part_013.png", "other.png"))


def remove(data: Path) -> None:
    (data / "images/part_013.png").unlink()
    labels = data / "labels.csv"
    labels.write_text(re.sub("^part_013.*\n", "", labels.read_text(), flags=re.M))


def relabel(data: Path) -> None:
    labels = data / "labels.csv"
    labels.write_text(labels.read_text().replace("part_000.png,0", "part_000.png,1"))


def mark_defect(data: Path) -> None:
    """A ground-truth mask for a photograph that is labelled bad."""
    name = re.search(r"^(part_\d+\.png),1", (data / "labels.csv").read_text(), re.M)[1]
    mask = np.zeros(cv2.imread(str(data / "images" / name)).shape[:2], np.uint8)
    mask[20:30, 20:30] = 255
    cv2.imwrite(str(data / "defect.png"), mask)
    lines = (data / "labels.csv").read_text().splitlines()
    more = [f"{line},{'defect.png' if line.startswith(name) else ''}" for line in lines[1:]]
    (data / "labels.csv").write_text("\n".join([f"{lines[0]},mask", *more, ""]))


def move_outline(data: Path) -> None:
    coco = json.loads((data / "annotations.json").read_text())
    coco["annotations"][0]["segmentation"][0][0] += 1
    (data / "annotations.json").write_text(json.dumps(coco))


def reorder(data: Path) -> None:
    """The same annotations in another order, labels with other line ends: only what reads the file itself looks."""
    coco = json.loads((data / "annotations.json").read_text())
    coco["annotations"].reverse()
    (data / "annotations.json").write_text(json.dumps(coco, indent=1))


# Without copies, which are made of the manifest: here one photograph is to stay one photograph.
PLAIN = {**CONFIG, "augmentation": {}, "compare": CONFIG["compare"][:1]}
AFTER_INGEST = {
    "ingest": 1,
    "split": 1,
    "fit": 2,
    "score": 4,
    "calibrate": 2,
    "check_labels": 1,
    "keep_features": 2,
    "evaluate": 2,
    "next_to_label": 1,
    "boxes": 2,
    "render": 1,
    "report": 2,
    "leaderboard": 1,
}
ONE_SHARD = {"survey": 1, "masks": 2, "isolate": 2, "features": 2}
OF_ALL = {"picture_shape": 2} | AFTER_INGEST


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("plain"), PLAIN)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (repaint("part_013.png"), ONE_SHARD | OF_ALL),
        (repaint("new.png"), ONE_SHARD | OF_ALL),
        (remove, ONE_SHARD | OF_ALL),
        (rename, {rule: 2 * jobs for rule, jobs in ONE_SHARD.items()} | OF_ALL),
        (relabel, AFTER_INGEST),
        (mark_defect, AFTER_INGEST),
        (reorder, AFTER_INGEST),
        (repaint("part_000.png"), {"survey": 1, "sam_pairs": 1}),
        (move_outline, {"sam_pairs": 1}),
    ],
    ids=[
        "changed",
        "added",
        "removed",
        "renamed",
        "label",
        "defect marked",
        "annotations reordered",
        "annotated image",
        "outline",
    ],
)
def test_a_change_of_the_data_re_runs_its_shard_and_what_sees_the_whole(plain, change, expected):
    data, kept = plain.folder / "data/mine", plain.folder / "data/kept"
    shutil.copytree(data, kept)
    try:
        change(data)
        stale = plain.stale()
    finally:
        shutil.rmtree(data)
        kept.rename(data)
    if "sam_pairs" in expected:  # every mask depends on every outline
        assert set(stale) == closure(" ".join((*expected, "ingest")), ALL - {"augment", *OF_THE_FOUND_RUN})
        assert {rule: stale.get(rule, 0) for rule in ("survey", "sam_pairs")} == {"survey": 0} | expected
    else:
        assert stale == expected
    assert plain.stale() == {}


def test_other_ids_in_a_coco_file_are_a_reason_for_regions_of_their_own(plain):
    # Also where `snakemake card`, or a run that stopped, has ingested the file before: its manifest stays the same.
    annotations = plain.folder / "data/mine/annotations.json"
    content = annotations.read_text()
    coco = json.loads(content)
    for entry, key in [(e, "id") for e in coco["images"]] + [(e, "image_id") for e in coco["annotations"]]:
        entry[key] += 1000
    try:
        annotations.write_text(json.dumps(coco))
        assert plain.jobs("--allowed-rules", "boxes", config=PLAIN) == {"boxes": 2}
    finally:
        annotations.write_text(content)


@pytest.mark.parametrize(("holds", "features"), [(999, 2), (0, 3)])
def test_where_the_shape_may_become_another_the_features_of_all_shards_follow_it(plain, holds, features):
    shape, new = plain.folder / "results/mine/own/crop/picture_shape.json", images(plain) / "new.png"
    before = shape.stat().st_mtime_ns
    try:
        shape.write_text(json.dumps({"height": 504, "width": 760, "long": False, "long_holds": holds, "sides_hold": 0}))
        cv2.imwrite(str(new), picture(98))
        assert plain.stale() == ONE_SHARD | OF_ALL | {"features": features}
    finally:
        new.unlink()
        shape.write_text("")
        os.utime(shape, ns=(before, before))


@pytest.mark.parametrize(("name", "first"), [("start.pt", "segment"), ("net.safetensors", "features")])
def test_other_weights_in_a_file_re_run_what_loads_them(site, name, first):
    stale = edited(site, f"data/{name}", lambda text: "other weights")
    assert set(stale) == closure(first, ALL)
    assert stale.get("segment", stale["features"]) == (1 if name == "start.pt" else 2)


def test_other_packaged_weights_re_run_what_loads_them(demo):
    stale = edited(demo, "patch-nano.safetensors", lambda text: "other weights")
    assert {"features", "fit", "score"} <= set(stale) and not {"survey", "ingest"} & set(stale)


def test_another_part_nano_looks_for_the_part_anew(site):
    stale = edited(site, "part-nano.safetensors", lambda text: "other weights")
    assert {"candidates", "find_part", "learn_found"} <= set(stale) and not {"ingest", "prior"} & set(stale)


# --- The card of a data set ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cards(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("cards"), CARD, "card")


def test_the_card_is_stale_after_what_it_is_made_from_and_nothing_else(cards):
    card = {"card": 1, "write_card": 1}
    assert cards.stale() == {}
    about = {"datasets": {"mine": {"path": "data/mine", "about": {"creator": "we"}}}}
    assert cards.stale(CARD | about) == cards.stale(CARD | {"seed": 1}) == card
    assert cards.stale(CARD | {"threshold": "youden", "detector": "padim"}) == {}
    assert edited(cards, "card.html", lambda text: text + "<p>") == card
    assert edited(cards, "data/mine/labels.csv", lambda text: text.replace(",1,", ",,", 1)) == card | {"ingest": 1}
    run = cards.folder / "results/mine/template/crop/patchcore"
    run.mkdir(parents=True)
    for name in ("regions.csv", "regions.json"):
        (run / name).touch()
    assert cards.stale() == card  # the regions of a run stand in for masks


# --- What is no change ----------------------------------------------------------------------------------------------
def test_touching_every_file_re_runs_nothing(site):
    for path in sorted(site.folder.rglob("*"), reverse=True):  # inputs last: results/ comes after data/ and workflow/
        if ".snakemake" not in path.parts:
            path.touch()
    assert site.stale() == {}


def test_leaving_a_branch_and_coming_back_re_runs_nothing(site):
    def git(*args: str) -> None:
        command = ["git", "-c", "user.name=test", "-c", "user.email=test", *args]
        subprocess.run(command, cwd=site.folder, check=True, capture_output=True)

    git("init", "-b", "main")
    git("add", "Snakefile", "config.yaml", "workflow", "envs", "requirements.lock", "data")
    git("commit", "-m", "here")
    git("checkout", "-b", "elsewhere")
    for name in ("files", "survey", "fit"):
        path = site.packaged(f"{name}.py")
        path.write_text(path.read_text() + "\nCHANGED = 1\n")
    (site.folder / "data/mine/labels.csv").write_text("filename,label\n")
    git("commit", "-am", "there")
    git("checkout", "main")
    try:
        assert site.stale() == {}
    finally:
        shutil.rmtree(site.folder / ".git")


def test_a_copy_of_the_whole_tree_has_nothing_to_do(site, tmp_path):
    copy = object.__new__(Made)
    copy.config, copy.targets = site.config, site.targets
    copy.folder = shutil.copytree(site.folder, tmp_path / "copy", copy_function=shutil.copyfile)  # times are new
    assert copy.stale() == {}
