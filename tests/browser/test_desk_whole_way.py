"""From an empty desk to a bundle in use and back to feedback, on 24 small photographs: by mouse, and by keyboard alone.

The run is made once, by the walk with the mouse; the walk by keyboard finds its results in place and starts its run on
them, which has nothing left to do. `DESK_PICTURES=docs pytest tests/browser` also writes the pictures of docs/desk.md.
"""

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest
from browser_desk import CHROMIUM, NEEDED, PICTURES, Running, choose_by_key, drawn, opened, playwright, tab_to

pytest.importorskip("fastapi", reason="needs the extra desk")
from defectflow.desk.project import Project
from defectflow.desk.running.run_process import Runs

pytestmark = NEEDED
GOOD, BAD, SIDE = 16, 8, 640 if PICTURES else 192
PATIENCE = 400_000  # milliseconds for a run on a busy machine


class Set:
    """Rendered photographs in a folder that says nothing of their labels, the bad ones, and outlines of the part."""

    def __init__(self, source: Path, target: Path):
        from defectflow.demo.render_demo import render
        from defectflow.sources.labels_csv import read_labels

        source.mkdir()
        render(source, GOOD, BAD, SIDE, 3)
        for path in (source / "images").iterdir():
            shutil.copy(path, target)
        self.files = sorted(str(path) for path in target.iterdir())
        assert len(self.files) == GOOD + BAD
        self.bad = {Path(row["filename"]).name for row in read_labels(source / "labels.csv") if row["label"] == "1"}
        coco = json.loads((source / "annotations.json").read_text())
        names = {image["id"]: Path(image["file_name"]).name for image in coco["images"]}
        self.outlines = {}
        for one in coco["annotations"]:
            points = max(one["segmentation"], key=len)
            corners = list(zip(points[::2], points[1::2], strict=True))
            self.outlines.setdefault(names[one["image_id"]], corners[:: max(1, len(corners) // 24)])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return Set(tmp_path_factory.mktemp("rendered") / "set", tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def ended(folder, *desks):
    for desk in desks:
        desk.end()
    Runs(Project(folder)).stop()  # of a test that failed


@pytest.fixture
def desk(tmp_path):
    running = Running(tmp_path / "bracket")
    yield running
    ended(running.folder, running)


@pytest.fixture(scope="module")
def walked(browser, photographs, tmp_path_factory):
    """The folder of a desk after photographs, labels, an outline and a run, all by mouse."""
    expect = playwright.expect
    desk = Running(tmp_path_factory.mktemp("walk") / "bracket")
    folder, files, bad = desk.folder, photographs.files, photographs.bad
    page = opened(browser, desk)
    expect(page.locator("#empty")).to_be_visible()
    # Photographs, one of them twice and one broken.
    broken, again = folder.with_name("broken.jpg"), folder.with_name("again.jpg")
    broken.write_bytes(Path(files[0]).read_bytes()[:2000])
    shutil.copy(files[1], again)
    with page.expect_file_chooser() as choosing:
        page.locator("#add-files").click()
    choosing.value.set_files([*files, str(broken), str(again)])
    told = f"{GOOD + BAD} photographs added · 2 left out"
    expect(page.locator("#delivery-text")).to_contain_text(told, timeout=60_000)
    expect(page.locator("#delivery-lists")).to_contain_text("broken.jpg")
    expect(page.locator("#delivery-lists")).to_contain_text("the same picture as")
    expect(page.locator("#count")).to_have_text(f"{GOOD + BAD} photographs")
    drawn(page, "photographs")
    # Labels: the bad ones with Ctrl, then all that have none from the first to the last with Shift.
    page.get_by_role("link", name="Labels").click()
    expect(page.locator("#name")).not_to_be_empty()
    for name in sorted(bad):
        page.locator(f".cell[aria-label^='{name}']").click(modifiers=["Control"])
    page.locator("button[data-label=bad]").click()
    expect(page.locator("#count")).to_contain_text(f"{len(bad)} bad")
    page.locator("[data-filter=none]").click()
    page.locator(".cell").first.click()
    page.locator(f".cell[aria-posinset='{GOOD}']").click(modifiers=["Shift"])
    page.locator("button[data-label=good]").click()
    expect(page.locator("#count")).to_contain_text(f"{GOOD} good")
    expect(page.locator("#count")).to_contain_text("0 no label")
    page.locator("[data-filter=all]").click()
    page.locator(f".cell[aria-label^='{min(bad)}']").click()
    page.locator("#kind").fill("scratch")
    page.locator("#kind-form button").click()
    expect(page.locator("#label")).to_contain_text("scratch")
    page.locator("#mark").click()
    box = page.locator(".board canvas").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.45 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.55 * box["height"], steps=3)
    page.mouse.up()
    drawn(page, "defect")
    page.locator("dialog.draw button.main").click()
    expect(page.locator("#over")).to_be_visible()
    drawn(page, "labels")
    rows = (folder / "labels.csv").read_text().splitlines()
    assert len(rows) == GOOD + BAD + 1 and f"{min(bad)},1,scratch,defects/{min(bad)}.png" in rows
    # The part, outlined on one photograph.
    page.get_by_role("link", name="The part").click()
    name = min(set(photographs.outlines) - bad)
    page.locator("#sheet button", has_text=name).click()
    page.locator("dialog.draw button", has_text="Polygon").click()
    box = page.locator(".board canvas").bounding_box()
    corners = [
        (box["x"] + x / SIDE * box["width"], box["y"] + y / SIDE * box["height"]) for x, y in photographs.outlines[name]
    ]
    for corner in corners[:-1]:
        page.mouse.click(*corner)
    page.mouse.dblclick(*corners[-1])
    drawn(page, "part")
    page.locator("dialog.draw button.main").click()
    page.locator("dialog.draw").wait_for(state="detached")
    # A run with few patches; the page is loaded again in it, then the browser is closed and the desk ended.
    page.get_by_role("link", name="Run").click()
    page.get_by_text("Fast", exact=True).click()
    page.locator("#all-settings summary").click()
    for path, text in (("detectors.patchcore.coreset_max", "400"), ("folds", "2")):
        page.locator(f"[id='set-{path}']").fill(text)
        page.locator(f"[id='set-{path}']").press("Enter")
        expect(page.locator("tr.changed", has_text=path.rpartition(".")[2])).to_be_visible()
    page.locator("#all-settings summary").click()
    page.locator("#bundle").check()
    page.locator("#start").click()
    begun = page.locator("#stages li.now, #stages li.done").first  # two stages may be at work, or the first one done
    expect(begun).to_contain_text("Read and check", timeout=PATIENCE)
    page.reload()
    expect(page.locator("#status")).to_have_text("running")
    expect(page.locator("#start")).to_have_text("Queue another run")
    # It is stopped, and goes on where it was.
    page.locator("#stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("stopped; nothing is lost")
    page.locator("#start").click()
    expect(page.locator("#status")).to_have_text("running")
    assert page.said == []
    page.context.close()
    desk.end()
    desk = Running(folder)
    page = opened(browser, desk)
    page.goto(f"{desk.base}/runs")
    expect(page.locator("#status")).to_have_text("running")
    expect(page.locator("#stages li.done").nth(1)).to_be_visible(timeout=PATIENCE)
    drawn(page, "run")
    expect(page.locator("#status")).to_have_text("finished", timeout=PATIENCE)
    with page.context.expect_page() as opening:
        page.get_by_role("link", name="Report of").first.click()
    expect(opening.value.locator("h1").first).to_be_visible()
    page.context.close()
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept, symlinks=True)
    yield folder, kept, desk
    ended(folder, desk)


def test_one_outline_becomes_the_mask_of_every_photograph(walked):
    folder, _, _ = walked
    coco = json.loads((folder / "annotations.json").read_text())
    assert len(coco["images"]) == len(coco["annotations"]) == 1
    rows = [row for path in folder.glob("results/bracket/template/masks/*.csv") for row in csv.DictReader(path.open())]
    assert len(rows) == GOOD + BAD and {row["source"] for row in rows} == {"template"}
    assert sum(row["present"] == "1" for row in rows) >= GOOD + BAD - 2  # one that is not found again goes to a person
    assert all((folder / row["mask"]).is_file() for row in rows if row["present"] == "1")


def test_the_marked_defect_is_ground_truth_of_the_run(walked):
    (run,) = walked[0].glob("results/bracket/*/*/*/metrics.json")
    assert json.loads((walked[0] / "results/bracket/ingest_report.json").read_text())["with_defect_mask"] == 1
    assert json.loads(run.read_text())["pixel"]


def test_by_mouse_to_a_bundle_in_use_and_back_to_feedback(browser, walked, photographs):
    expect = playwright.expect
    folder, _, desk = walked
    page = opened(browser, desk)
    page.get_by_role("link", name="The part").click()
    expect(page.locator("#about")).to_contain_text(f"{GOOD + BAD} registered from outlines")
    page.locator("#accept").click()
    expect(page.locator(".note.good")).to_be_visible()
    page.get_by_role("link", name="Verdicts").click()
    figures, grip = page.locator("#figures"), page.locator("[data-handle=threshold]")
    before = figures.inner_text()
    place, chart = grip.bounding_box(), page.locator("#histogram").bounding_box()
    drawn(page, "verdicts")
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + 60)
    page.mouse.down()
    page.mouse.move(chart["x"] + 3, chart["y"] + 60)
    page.mouse.up()
    expect(figures).not_to_have_text(before)
    page.get_by_role("link", name="Release").click()
    page.locator("#who").fill("Ana")
    page.locator("#note").fill("first")
    page.locator("#approve button").click()
    expect(page.locator("tr.in-use")).to_be_visible()
    drawn(page, "release")
    pdf = page.request.get(f"{desk.base}/api/release/report.pdf?version=1").body()
    assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF") and pdf.count(b"/Type /Page\n") > 1
    page.get_by_role("link", name="Watch").click()
    page.locator("[data-kind=single]").click()
    page.set_input_files("#files", photographs.files[:4])
    expect(page.locator("#list button")).to_have_count(4, timeout=PATIENCE)
    page.locator("#list button").last.click()
    page.locator("#now .row button").first.click()
    expect(page.locator("#now")).to_contain_text("You said:")
    drawn(page, "watch")
    (row,) = csv.DictReader((folder / "feedback.csv").open())
    assert row["who"] == "Ana" and (folder / row["filename"]).read_bytes() == Path(photographs.files[0]).read_bytes()
    assert page.said == []


def test_by_keyboard_alone(browser, desk, walked, photographs):
    expect = playwright.expect
    _, kept, _ = walked
    page = opened(browser, desk)
    expect(page.locator("#empty")).to_be_visible()
    choose_by_key(page, "a", photographs.files)
    expect(page.locator("#count")).to_have_text(f"{GOOD + BAD} photographs", timeout=60_000)
    page.keyboard.press(".")
    page.wait_for_url("**/labels")
    expect(page.locator("#name")).not_to_be_empty()
    page.keyboard.press("/")
    page.keyboard.press("Home")
    for number in range(GOOD + BAD):
        name = page.locator("#name").inner_text()
        page.keyboard.press("b" if name in photographs.bad else "g")
        if number + 1 < GOOD + BAD:
            expect(page.locator("#name")).not_to_have_text(name)
    expect(page.locator("#count")).to_contain_text("0 no label")
    page.keyboard.press("z")
    expect(page.locator("#count")).to_contain_text("1 no label")
    page.keyboard.press("b" if page.locator("#name").inner_text() in photographs.bad else "g")
    expect(page.locator("#count")).to_contain_text("0 no label")
    page.keyboard.press(".")
    page.wait_for_url("**/part")
    expect(page.locator("#sheet button").first).to_be_visible()
    page.keyboard.press("o")
    expect(page.locator(".board canvas")).to_be_focused(timeout=PATIENCE)  # SAM is loaded, the photograph encoded
    page.keyboard.press("Enter")  # the middle of the photograph is on the part
    expect(page.locator("dialog.draw button.main")).to_be_enabled(timeout=PATIENCE)
    tab_to(page, "dialog.draw button.main")
    page.keyboard.press("Enter")
    page.locator("dialog.draw").wait_for(state="detached")
    assert len(json.loads((desk.folder / "annotations.json").read_text())["annotations"]) == 1
    page.keyboard.press(".")
    page.wait_for_url("**/runs")
    # What the walk by mouse has computed, with its outline and its settings; no page reads what is half copied.
    for name in ("results", ".snakemake", "defects"):
        shutil.copytree(kept / name, desk.folder / name, symlinks=True, dirs_exist_ok=True)
    for name in ("annotations.json", "config.yaml", "labels.csv"):
        shutil.copy2(kept / name, desk.folder / name)
    page.reload()
    expect(page.locator("#status")).to_have_text("nothing has run yet")
    tab_to(page, "#bundle")
    page.keyboard.press("Space")
    page.keyboard.press("p")
    expect(page.locator("#planned")).to_contain_text("up to date", timeout=PATIENCE)
    page.keyboard.press("s")
    expect(page.locator("#status")).to_have_text("finished", timeout=PATIENCE)
    page.keyboard.press(".")
    page.wait_for_url("**/verdicts")
    expect(page.locator(".tile").first).to_be_visible()
    before = page.locator("#figures").inner_text()
    page.keyboard.press("t")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#figures")).not_to_have_text(before)
    page.keyboard.press(".")
    page.wait_for_url("**/release")
    page.keyboard.press("v")
    tab_to(page, "#who")
    page.keyboard.type("Ben")
    page.keyboard.press("Enter")
    expect(page.locator("tr.in-use")).to_be_visible()
    tab_to(page, ".rail a[href='/watch']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/watch")
    tab_to(page, "[data-kind=single]")
    page.keyboard.press("Enter")
    tab_to(page, "#files")
    choose_by_key(page, "Enter", photographs.files[:1])
    expect(page.locator("#list button")).to_have_count(1, timeout=PATIENCE)
    page.keyboard.press("w")
    expect(page.locator("#now")).to_contain_text("You said:")
    (row,) = csv.DictReader((desk.folder / "feedback.csv").open())
    assert row["who"] == "Ben"
    assert page.said == []


def test_two_people_in_two_windows_settle_what_they_see_otherwise(browser, desk, photographs):
    expect = playwright.expect
    for path in photographs.files[:4]:
        shutil.copy(path, desk.folder / "photographs")
    ana, ben = (opened(browser, desk) for _ in range(2))
    for page, name in ((ana, "Ana"), (ben, "Ben")):
        page.goto(f"{desk.base}/labels")
        expect(page.locator("#name")).not_to_be_empty()
        page.keyboard.press("n")
        page.keyboard.type(name)
        page.keyboard.press("Enter")
    ana.keyboard.press("Control+a")
    ana.keyboard.press("g")
    expect(ana.locator("#count")).to_contain_text("4 good")
    ben.keyboard.press("Home")
    ben.keyboard.press("b")
    expect(ben.locator("#toasts")).to_contain_text("Ana says otherwise")
    name = Path(photographs.files[0]).name
    assert len((desk.folder / "labels.csv").read_text().splitlines()) == 4
    ana.reload()
    ana.locator("[data-filter=settle]").click()
    expect(ana.locator("#said")).to_have_text("Ana: good · Ben: bad")
    expect(ana.locator("#choices button")).to_have_count(2)
    drawn(ana, "settle")
    ana.keyboard.press("Shift+B")
    expect(ana.locator("#empty-title")).to_have_text("Nothing to settle")
    assert f"{name},1," in (desk.folder / "labels.csv").read_text()
    assert ana.said == ben.said == []


def test_a_killed_desk_loses_no_label(browser, desk, photographs):
    for path in photographs.files[:6]:
        shutil.copy(path, desk.folder / "photographs")
    page = opened(browser, desk, color_scheme="dark", locale="de-DE")
    page.goto(f"{desk.base}/labels")
    playwright.expect(page.locator("h1")).to_have_text("Beschriftung")
    page.keyboard.press("/")
    page.keyboard.press("Control+a")
    page.keyboard.press("g")
    playwright.expect(page.locator("#count")).to_contain_text("6 gut")
    drawn(page, "dark")
    desk.end(signal.SIGKILL)
    again = Running(desk.folder)
    try:
        page = opened(browser, again)
        page.goto(f"{again.base}/labels")
        playwright.expect(page.locator("#count")).to_contain_text("6 good")
        page.keyboard.press("?")
        playwright.expect(page.get_by_role("dialog")).to_contain_text("Not sure")
    finally:
        again.end()
    assert len((desk.folder / "labels.csv").read_text().splitlines()) == 7
