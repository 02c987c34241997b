import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import bundle_set
import numpy as np
import pytest
import taught_set
from defectflow.bundling.export import export_bundle
from defectflow.commands import cli
from defectflow.core.files import UserError
from defectflow.images.read_write import write_png
from defectflow.inspection.bundle_files import pack, read_bundle, write_manifest
from defectflow.inspection.held_out import FILE, HeldOut, read_held_out, short
from defectflow.inspection.inspector import Inspector
from defectflow.learning import learn as learning
from defectflow.learning.learn import forget, learn, refuse_photographs_of_the_run
from defectflow.learning.lessons import under
from defectflow.sources.feedback import Feedback
from PIL import Image
from safetensors.numpy import load_file


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(300, 304):
        write_png(folder / f"spotted_{seed}.png", taught_set.spotted(seed))
        write_png(folder / f"faint_{seed}.png", taught_set.faint(seed))
    write_png(folder / "blot.png", bundle_set.photograph(310, True))
    return folder


@pytest.fixture(scope="module")
def erring(bundle_folder, tmp_path_factory):
    return taught_set.make(bundle_folder, tmp_path_factory.mktemp("erring") / "bundle")


@pytest.fixture(scope="module")
def erring_of_two_scales(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scales")
    return taught_set.make(bundle_set.make_with_two_scales(folder / "run"), folder / "bundle", threshold=2.0)


@pytest.fixture
def bundle(erring, tmp_path):
    return shutil.copytree(erring, tmp_path / "bundle")


def table(photos, *rows, columns="filename,said"):
    path = photos / "feedback.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def all_rows():
    return [
        f"{kind}_{seed}.png,{said}"
        for seed in (300, 301, 302)
        for kind, said in (("spotted", "good"), ("faint", "bad"))
    ]


def test_what_was_judged_wrongly_is_judged_rightly_on_photographs_of_no_row(bundle, photos):
    new = [(taught_set.spotted(seed), False) for seed in (400, 401)] + [
        (taught_set.faint(seed), True) for seed in (402, 403)
    ]
    new += [(bundle_set.photograph(404), False), (bundle_set.photograph(405, True), True)]
    before = Inspector.load(bundle)
    assert [before(photo).bad for photo, _ in new] == [True, True, False, False, False, True]
    lines = []
    learn(bundle, table(photos, *all_rows()), say=lines.append)
    for runtime in ("openvino", "onnx", "torch"):
        after = Inspector.load(bundle, runtime)
        assert [after(photo).bad for photo, _ in new] == [bad for _, bad in new], runtime
    plain = bundle_set.photograph(404)
    assert after(plain).raw_score == pytest.approx(before(plain).raw_score, rel=1e-4)  # good ones are not hurt
    assert any("6 rows (3 good, 3 bad)" in line for line in lines)
    told = json.loads(next(bundle.glob("taught-*/learned.json")).read_text())
    assert told["photographs_of_the_table"]["before"] == {
        "good": 3,
        "bad": 3,
        "false_alarms": 3,
        "missed": 3,
        "f1": 0.0,
    }
    assert told["photographs_of_the_table"]["after"]["f1"] == 1 == told["photographs_of_the_run"]["after"]["f1"]
    assert told["version"] == read_bundle(bundle).settings["taught"]["version"]


def test_runtimes_give_the_same_scores(bundle, photos):
    learn(bundle, table(photos, *all_rows()), say=lambda _: None)
    for make in (taught_set.faint, taught_set.spotted):
        scores = [Inspector.load(bundle, runtime)(make(410)) for runtime in ("openvino", "onnx", "torch")]
        assert np.ptp([one.raw_score for one in scores]) < 1e-3 * scores[0].raw_score
        np.testing.assert_allclose(scores[0].map.grid_map, scores[2].map.grid_map, atol=1e-3)


def test_two_scales_learn_from_mistakes_and_forget_them(erring_of_two_scales, photos, tmp_path):
    folder = shutil.copytree(erring_of_two_scales, tmp_path / "bundle")
    first = content(folder)
    new = [(taught_set.spotted(seed), False) for seed in (400, 401)] + [
        (taught_set.faint(seed), True) for seed in (402, 403)
    ]
    before = Inspector.load(folder, "torch")
    assert [before(photo).bad for photo, _ in new] == [True, True, False, False]
    learn(folder, table(photos, *all_rows()), say=lambda _: None)
    found = [[Inspector.load(folder, runtime)(photo) for photo, _ in new] for runtime in ("openvino", "onnx", "torch")]
    for verdicts in found:
        assert [one.bad for one in verdicts] == [bad for _, bad in new]
        for one, same in zip(verdicts, found[2], strict=True):
            assert one.raw_score == pytest.approx(same.raw_score, rel=1e-3)
            np.testing.assert_allclose(one.map.grid_map, same.map.grid_map, atol=1e-3)
    taught = load_file(next(folder.glob("taught-*/patches.safetensors")))
    assert {name for name, patches in taught.items() if len(patches)} == {
        "good_after_all", "defects", "scale1_good_after_all", "scale1_defects"
    }  # fmt: skip
    # Scored again from the patches that the bundle keeps, photographs of the run have the scores of the taught bank.
    told = json.loads(next(folder.glob("taught-*/learned.json")).read_text())["scores_of_the_run"]
    after = Inspector.load(folder, "torch")
    for number in (0, 5, 12, 17):
        seed, bad = taught_set.RUN[number]
        assert told[number] == pytest.approx(after(bundle_set.photograph(seed, bad)).raw_score, rel=1e-3)
    forget(folder)
    assert content(folder) == first


def test_several_scales_without_what_the_run_kept_of_them_are_refused(erring_of_two_scales, photos, tmp_path):
    folder = shutil.copytree(erring_of_two_scales, tmp_path / "bundle")
    held = read_held_out(read_bundle(folder))
    replace(held, position=None, units=None).save(folder / FILE)
    manifest = json.loads((folder / "bundle.json").read_text())
    kept = {key: value for key, value in manifest.items() if key not in ("format", "files")}
    write_manifest(folder, kept)
    with pytest.raises(UserError, match=r"bundle: too old to teach several scales \(make the bundle again\)"):
        learn(folder, table(photos, "faint_300.png,bad"), say=lambda _: None)


def test_a_row_taken_out_leaves_the_bundle_as_it_was_byte_for_byte(bundle, photos):
    first = content(bundle)
    learn(bundle, table(photos, *all_rows()[:4]), say=lambda _: None)
    four = content(bundle)
    learn(bundle, table(photos, *all_rows()), say=lambda _: None)
    assert content(bundle) != four
    learn(bundle, table(photos, *all_rows()[:4]), say=lambda _: None)
    assert content(bundle) == four
    learn(bundle, table(photos, *all_rows()[:4]), say=lambda _: None)
    assert content(bundle) == four
    assert forget(bundle).endswith("as it was before anybody taught it")
    assert content(bundle) == first


def test_a_lesson_that_lowers_the_f1_of_the_run_is_refused_unless_forced(bundle, photos, monkeypatch):
    before = content(bundle)
    liar = table(photos, "blot.png,good")
    monkeypatch.setattr(learning.Outcome, "worse", property(lambda _: True))
    with pytest.raises(UserError, match=r"not changed, because it would judge .* worse"):
        learn(bundle, liar, say=lambda _: None)
    assert content(bundle) == before
    learn(bundle, liar, force=True, say=lambda _: None)
    assert content(bundle) != before


def test_what_is_said_to_be_good_and_looks_like_a_defect_is_told_first(bundle, photos):
    lines = []
    learn(bundle, table(photos, "blot.png,good"), force=True, say=lines.append)
    assert lines[0].startswith("warning: blot.png (line 2) is said to be good, and where it is strangest it looks like")


def test_a_box_says_where_the_defect_is(bundle, photos):
    write_png(
        photos / "both.png", np.where(np.arange(128)[None, :, None] < 64, taught_set.faint(302), taught_set.faint(302))
    )
    lines = []
    rows = ["faint_303.png,bad,0,0,128,96", "faint_302.png,bad,,,,"]
    learn(bundle, table(photos, *rows, columns="filename,said,x0,y0,x1,y1"), say=lines.append)
    with pytest.raises(UserError, match=r"faint_303.png: the box of line 2 is outside of its 128 x 96 pixels"):
        learn(bundle, table(photos, "faint_303.png,bad,0,0,500,96", columns="filename,said,x0,y0,x1,y1"))


def painted(kind):
    """A mask of 40 by 40 pixels that is painted in the upper left quarter and the lower right corner."""
    mask = np.zeros((40, 40), np.uint8)
    mask[:20, :20], mask[30:, 30:] = {"labels": (1, 2)}.get(kind, (255, 255))
    colour = np.dstack([mask, 0 * mask, 0 * mask])
    colour[20:] //= 3
    return {"alpha": np.dstack([np.full((40, 40, 3), 255, np.uint8), mask]), "colours": colour}.get(kind, mask)


@pytest.mark.parametrize("kind", ["white", "labels", "alpha", "colours"])
def test_a_mask_is_read_as_the_workflow_reads_ground_truth(tmp_path, kind):
    Image.fromarray(painted(kind)).save(tmp_path / "mask.png")
    said = Feedback(2, tmp_path / "a.png", "", True, mask=tmp_path / "mask.png")
    network = {"grid": [4, 4], "input_size": [40, 40]}
    found = under(said, (40, 40), np.eye(2, 3), np.arange(16), network).reshape(4, 4)
    assert found.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_a_mask_that_is_painted_anew_is_learned_from(bundle, photos):
    rows = table(photos, "faint_303.png,bad,mask.png", columns="filename,said,mask")
    taught = []
    for left in (True, False, True):
        mask = np.zeros((96, 128), bool)
        mask[:, :64] = left
        mask[:, 64:] = not left
        write_png(photos / "mask.png", mask)
        learn(bundle, rows, force=True, say=lambda _: None)
        taught.append(content(bundle))
    assert taught[0] != taught[1] and taught[0] == taught[2]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the file is empty"),
        ("filename,said\n", "no rows"),
        ("filename\nfaint_300.png\n", "column 'said' is missing"),
        ("filename,sad\nfaint_300.png,bad\n", "unknown column 'sad' .said. "),
        ("filename,said\nfaint_999.png,bad\n", "line 2: faint_999.png: no such file; did you mean .*faint_30"),
        ("filename,said\nfaint_300.png,1\n", "line 2: said is '1' .write good for a false alarm"),
        ("filename,said\nfaint_300.png,bad\nfaint_300.png,good\n", "lines 2 and 3 .* contradict each other"),
        ("filename,said\nfaint_300.png,bad\nfaint_300.png,bad\n", "lines 2 and 3 .* say the same"),
        ("filename,said,x0\nfaint_300.png,bad,5\n", "line 2: a box needs the numbers x0, y0, x1 and y1"),
        ("filename,said\nfeedback.csv,bad\n", "feedback.csv: not a"),
    ],
)
def test_bad_feedback_is_one_line_and_changes_nothing(bundle, photos, text, message):
    before = content(bundle)
    path = photos / "feedback.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        learn(bundle, path, say=lambda _: None)
    assert "\n" not in str(caught.value) and content(bundle) == before


def test_a_photograph_of_the_run_is_corrected_there(bundle, photos, monkeypatch):
    monkeypatch.setattr("defectflow.sources.feedback.sha256_of", lambda _: "100")
    with pytest.raises(UserError, match=r"is a photograph of the run \(100.png\): correct its label there"):
        learn(bundle, table(photos, "faint_300.png,bad"))


def test_a_photograph_of_the_run_is_known_though_the_bundle_keeps_no_patches_of_it():
    used, other = "0123456789abcdef" * 4, "fedcba9876543210" * 4
    empty = np.empty(0)
    held = HeldOut([], *[empty] * 8, None, used=np.unique(np.array([short(used), short("ff" * 32)])))
    assert held.name_of(used) == "" and held.name_of(other) is None
    rows = [Feedback(2, Path("a.png"), used, True), Feedback(3, Path("b.png"), other, True)]
    with pytest.raises(UserError, match=r"line 2: a.png is a photograph of the run: correct its label there"):
        refuse_photographs_of_the_run(rows, held, Path("feedback.csv"))
    refuse_photographs_of_the_run(rows[1:], held, Path("feedback.csv"))


def test_a_table_of_a_spreadsheet_is_read(bundle, photos):
    path = photos / "feedback.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows(
            [["Filename", "Said", "who"], ["faint_300.png", "bad", "Ana; Bo"], []]
        )
    lines = []
    learn(bundle, path, say=lines.append)
    assert lines[-1].startswith(f"{bundle}: version 1-")


def test_a_taught_bundle_packs_and_says_its_version_and_is_not_exported(bundle, photos, tmp_path, capsys):
    learn(bundle, table(photos, *all_rows()[:2]), say=lambda _: None)
    version = read_bundle(bundle).settings["taught"]["version"]
    pack(bundle, tmp_path / "taught.zip")
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(tmp_path / "taught.zip"), str(photos / "blot.png")])
    assert f"taught, version {version}" in capsys.readouterr().err
    with pytest.raises(UserError, match="was taught"):
        export_bundle(bundle, "openvino", "fp32", [photos / "blot.png"])
    with pytest.raises(UserError, match=r"cannot teach a .zip"):
        learn(tmp_path / "taught.zip", photos / "feedback.csv")


def test_what_breaks_off_leaves_a_whole_bundle_and_nothing_behind_in_the_end(bundle, photos, monkeypatch):
    before = content(bundle)
    with monkeypatch.context() as patched:
        patched.setattr(learning, "replace_manifest", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            learn(bundle, table(photos, *all_rows()[:2]), say=lambda _: None)
    assert (bundle / "bundle.json").read_bytes() == before[Path("bundle.json")] and read_bundle(bundle)
    learn(bundle, table(photos, *all_rows()[2:4]), say=lambda _: None)
    assert len(list(bundle.glob("taught-*"))) == 1
    forget(bundle)
    assert content(bundle) == before


def test_another_detector_is_refused(bundle, photos, monkeypatch):
    monkeypatch.setattr(learning.PatchCore, "name", "another")
    with pytest.raises(UserError, match=r"its detector patchcore cannot be taught \(bundle a run with patchcore\)"):
        learn(bundle, table(photos, "faint_300.png,bad"))
