"""Verdicts, the part, releases and watching in a browser, on a run that has ended: by mouse and by keyboard."""

import json
import os
import shutil

import cv2
import pandas as pd
import pytest

pytest.importorskip("fastapi", reason="needs the extra desk")
import bundle_set
from browser_desk import CHROMIUM, NEEDED, Running, opened, playwright
from judged_desk import BAD, GOOD, NEW, judged_project

pytestmark = NEEDED
PATIENCE = 60_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def project(tmp_path):
    return judged_project(tmp_path / "line")


@pytest.fixture
def page(browser, project):
    desk = Running(project.folder)
    page = opened(browser, desk, viewport={"width": 1280, "height": 800}, locale="en-GB")
    page.set_default_timeout(PATIENCE)
    page.base = desk.base
    yield page
    assert page.said == []
    page.context.close()
    desk.end()


def go(page, name):
    page.goto(f"{page.base}/{name}")
    page.wait_for_selector("h1")
    for width in (1280, 820):  # a desk, a tablet
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), f"{name}, {width} pixels wide"
    page.set_viewport_size({"width": 1280, "height": 800})


def test_a_threshold_is_moved_by_keys_and_by_mouse_and_becomes_a_setting(page, project):
    go(page, "verdicts")
    missed = page.locator(".tiles b").first
    missed.wait_for()
    before = int(missed.inner_text().split()[0])
    page.keyboard.press("t")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("count => parseInt(document.querySelector('.tiles b').textContent) > count", arg=before)
    box, grip = page.locator("#histogram").bounding_box(), page.locator("[data-handle=threshold]").bounding_box()
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 2, box["y"] + 60)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('.tiles b').textContent.startsWith('0 ')")
    page.keyboard.press("r")
    page.wait_for_function("() => document.querySelectorAll('.tiles div').length === 3")
    page.click("#use")
    page.wait_for_selector("#pending:not([hidden])")
    text = project.config.read_text()
    assert "threshold: fixed" in text and "max_fpr" in text
    page.locator("#strategies button", has_text="Lowest cost").click()
    page.click("#use")
    page.wait_for_function("() => document.querySelector('#pending').textContent.includes('cost')")
    assert "threshold: cost" in project.config.read_text()


def test_photographs_are_looked_at_one_after_the_other(page):
    go(page, "verdicts")
    page.locator(".tile").first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.loupe .content img")
    name = page.locator("dialog.loupe h2").inner_text()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => document.querySelector('dialog.loupe h2').textContent !== name", arg=name)
    page.locator("dialog.loupe button", has_text="What was judged").click()
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.loupe", state="detached")
    assert page.locator("#outcomes button", has_text="Missed").is_visible()


def test_the_gallery_is_filtered_by_kind_session_and_outcome_and_sorted_by_score(page, project):
    table = project.results / project.dataset / "splits.csv"
    splits = pd.read_csv(table, dtype=str, keep_default_na=False)
    splits["group"] = ["morning", "evening"] * (len(splits) // 2)
    splits.to_csv(table, index=False)
    go(page, "verdicts")
    page.locator(".tile").first.wait_for()

    def names(count):
        page.wait_for_function("n => document.querySelectorAll('.tile').length === n", arg=count)
        return [text.split(" · ")[-1] for text in page.locator(".tile .name").all_inner_texts()]

    page.select_option("#kind", "scratch")
    assert {int(name[1:3]) % 2 for name in names(BAD // 2)} == {0}
    page.select_option("#group", "evening")
    names(0)
    page.select_option("#kind", "")
    page.select_option("#order", "high")
    assert names((GOOD + BAD + NEW) // 2)[:2] == ["p19.jpg", "p17.jpg"]
    page.locator("#outcomes [data-outcome=missed]").click()
    assert names(1) == ["p13.jpg"]


def test_the_part_is_outlined_by_keys_and_by_clicks(page, project):
    go(page, "part")
    page.locator("#sheet button").first.wait_for()
    page.keyboard.press("o")
    page.wait_for_selector(".board canvas")
    page.locator("dialog.draw button", has_text="Start over").click()
    page.locator(".board canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.draw button.main:not([disabled])")
    page.click("dialog.draw button.main")
    page.wait_for_selector("dialog.draw", state="detached")
    assert len(json.loads((project.folder / "annotations.json").read_text())["annotations"]) == 1
    page.locator("#sheet button").nth(1).click()
    page.wait_for_selector(".board canvas")
    page.keyboard.press("p")
    box = page.locator(".board canvas").bounding_box()
    for x, y in ((0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.keyboard.press("Enter")
    page.click("dialog.draw button.main")
    page.wait_for_selector("dialog.draw", state="detached")
    assert len(json.loads((project.folder / "annotations.json").read_text())["annotations"]) == 2
    page.wait_for_function("() => document.querySelector('#show').textContent.includes('Outlined 2')")
    page.click("#accept")
    page.wait_for_selector(".note.good")


def test_a_defect_is_marked_by_mouse_and_by_keys_and_shown_again(page, project):
    go(page, "labels")
    page.wait_for_function("() => document.querySelector('#name').textContent")
    page.locator(".cell[aria-label^='p13.jpg']").click()
    page.keyboard.press("d")
    save = page.locator("dialog.draw button.main")
    box = page.locator(".board canvas").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    page.mouse.up()
    save.click()
    page.wait_for_selector("dialog.draw", state="detached")
    page.wait_for_selector("#over:not([hidden])")
    path = project.folder / "defects/p13.jpg.png"
    first = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert first.shape == (48, 64) and first[12:24, 16:32].mean() > 230 and first.sum() / 255 < 220
    assert "p13.jpg,1,,defects/p13.jpg.png" in (project.folder / "labels.csv").read_text()
    # Opened again it is there; by keys alone a box is added, a dot painted, and the dot taken back.
    page.keyboard.press("d")
    page.wait_for_selector("dialog.draw button.main:not([disabled])")
    corner = *["Shift+ArrowRight"] * 3, *["Shift+ArrowDown"] * 3
    for key in ("ArrowRight", "Enter", *corner, "Enter", "b", "ArrowUp", "Enter", "z"):
        page.keyboard.press(key)
    save.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog.draw", state="detached")
    second = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert (second[first > 0] == 255).all() and 400 < second.sum() / 255 < 460


def test_a_release_is_put_in_use_watched_with_and_rolled_back(page, project, tmp_path, bundle_folder):
    run = next(project.results.glob("*/*/*/*/metrics.json")).parent
    shutil.copytree(bundle_folder, run / "bundle")
    for file in (run / "bundle").iterdir():
        os.utime(file)  # as of now: newer than the run
    go(page, "watch")
    assert page.locator("a.main", has_text="releases").is_visible()
    go(page, "release")
    page.fill("#who", "Ana")
    page.fill("#note", "first")
    page.click("#approve button")
    page.wait_for_selector("tr.in-use")
    go(page, "watch")
    page.click("[data-kind=single]")
    for number, bad in ((1, False), (2, True)):
        cv2.imwrite(str(tmp_path / f"new{number}.png"), bundle_set.photograph(number, bad)[..., ::-1])
    page.set_input_files("#files", [str(tmp_path / "new1.png"), str(tmp_path / "new2.png")])
    page.wait_for_function("() => document.querySelectorAll('#list button').length === 2")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#now .mark.bad")
    page.keyboard.press("w")
    page.wait_for_selector("#now .mark.good")
    assert "good" in (project.folder / "feedback.csv").read_text()
    settings = json.loads((run / "bundle/bundle.json").read_text())
    settings["threshold"]["value"] *= 1.1
    (run / "bundle/bundle.json").write_text(json.dumps(settings))
    go(page, "release")
    page.fill("#who", "Ana")
    page.click("#approve button")
    page.wait_for_function("() => document.querySelectorAll('#releases tbody tr').length === 2")
    page.locator("#releases button", has_text="Use it").click()
    page.fill("#use-who", "Ben")
    page.fill("#use-note", "too many misses")
    page.click("dialog button.main")
    page.wait_for_function("() => document.querySelectorAll('#audit tbody tr').length === 3")
    assert os.readlink(project.folder / "releases/current") == "1/bundle"
