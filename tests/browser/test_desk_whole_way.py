"""The desk in a browser: from an empty folder to a report, by mouse and by keyboard.

`DESK_PICTURES=docs pytest tests/browser` also writes the pictures of docs/desk.md.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from defectflow.desk.project import Project
from defectflow.desk.running.run_process import Runs

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("fastapi", reason="needs the extra desk")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium (apt install chromium)")]
PICTURES = os.environ.get("DESK_PICTURES", "")
GOOD, BAD = 16, 8
PATIENCE = 400  # seconds for a run on a busy machine


class Running:
    """A desk on a folder, in a process of its own."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder.with_name("desk.log")
        words = [sys.executable, "-m", "defectflow", "desk", str(folder), "--port", "0", "--no-browser"]
        with open(self.log, "w") as stream:
            self.process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)
        until = time.monotonic() + 60
        while not (found := re.search(r"open (http\S+)", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)
        self.address = found[1]
        self.base = self.address.partition("/?")[0]

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Small rendered photographs in folders that say nothing of their labels, and the names of the bad ones."""
    from defectflow.demo.render_demo import render
    from defectflow.sources.labels_csv import read_labels

    source, target = tmp_path_factory.mktemp("rendered") / "set", tmp_path_factory.mktemp("photographs")
    source.mkdir()
    render(source, GOOD, BAD, 192, 3)
    rows = read_labels(source / "labels.csv")
    for path in (source / "images").iterdir():
        shutil.copy(path, target)
    assert len(list(target.iterdir())) == GOOD + BAD
    return target, {Path(row["filename"]).name for row in rows if row["label"] == "1"}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def desk(tmp_path):
    running = Running(tmp_path / "bracket")
    yield running
    if running.process.poll() is None:
        running.end()
    Runs(Project(running.folder)).stop()  # of a test that failed


def opened(browser, desk, **options):
    """A page of the desk; what its console says is an error of the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, **options)
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: message.type == "error" and page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(desk.address)
    page.wait_for_url("**/photographs")
    return page


def drawn(page, name):
    """Wait until the pictures in view are there, and keep the page as a picture of the docs."""
    until = time.monotonic() + 30
    while not page.evaluate("[...document.images].every((one) => one.complete)") and time.monotonic() < until:
        time.sleep(0.1)
    if PICTURES:
        page.wait_for_timeout(6000)  # messages go away
        page.screenshot(path=str(ROOT / PICTURES / f"desk-{name}.jpg"), type="jpeg", quality=85)


def label_all(page, bad):
    """Label every photograph by keys alone."""
    expect = playwright.expect
    page.keyboard.press("/")
    page.keyboard.press("Home")
    for number in range(GOOD + BAD):
        name = page.locator("#name").inner_text()
        page.keyboard.press("b" if name in bad else "g")
        if number + 1 < GOOD + BAD:
            expect(page.locator("#name")).not_to_have_text(name)
    expect(page.locator("#count")).to_contain_text(f"{len(bad)} bad")
    expect(page.locator("#count")).to_contain_text("0 no label")


def test_from_an_empty_desk_to_a_report(browser, desk, photographs):
    folder, bad = photographs
    expect = playwright.expect
    page = opened(browser, desk)
    expect(page.locator("#empty")).to_be_visible()
    # Photographs by the button, one of them twice and one broken.
    files = sorted(str(path) for path in folder.iterdir())
    broken = desk.folder.with_name("broken.jpg")
    broken.write_bytes(Path(files[0]).read_bytes()[:2000])
    again = desk.folder.with_name("again.jpg")
    shutil.copy(files[1], again)
    page.set_input_files("#files", [*files, str(broken), str(again)])
    expect(page.locator("#delivery-text")).to_contain_text(
        f"{GOOD + BAD} photographs added · 2 left out", timeout=60_000
    )
    expect(page.locator("#delivery-lists")).to_contain_text("broken.jpg")
    expect(page.locator("#delivery-lists")).to_contain_text("the same picture as")
    expect(page.locator("#count")).to_have_text(f"{GOOD + BAD} photographs")
    drawn(page, "photographs")
    # Labels by keys.
    page.keyboard.press(".")
    page.wait_for_url("**/labels")
    expect(page.locator("#name")).not_to_be_empty()
    label_all(page, bad)
    page.keyboard.press("z")
    expect(page.locator("#count")).to_contain_text("1 no label")
    page.keyboard.press("g" if page.locator("#name").inner_text() not in bad else "b")
    expect(page.locator("#count")).to_contain_text("0 no label")
    page.locator(f".cell[aria-label^='{min(bad)}']").click()
    page.keyboard.press("k")
    page.keyboard.type("scratch")
    page.keyboard.press("Enter")
    expect(page.locator("#label")).to_contain_text("scratch")
    drawn(page, "labels")
    rows = (desk.folder / "labels.csv").read_text().splitlines()
    assert len(rows) == GOOD + BAD + 1 and f"{min(bad)},1,scratch" in rows
    # A run with few patches, by the mouse; the browser is closed in it, and the desk is ended.
    page.get_by_role("link", name="Run").click()
    page.wait_for_url("**/runs")
    page.get_by_text("Fast", exact=True).click()
    page.locator("#all-settings summary").click()
    if not PICTURES:  # to find the part takes a third of the time
        page.locator("[id='set-segmenter']").select_option("none")
        expect(page.locator("tr.changed", has_text="segmenter")).to_be_visible()
    for path, text in (("detectors.patchcore.coreset_max", "400"), ("folds", "2")):
        page.locator(f"[id='set-{path}']").fill(text)
        page.locator(f"[id='set-{path}']").press("Enter")
        expect(page.locator("tr.changed", has_text=path.rpartition(".")[2])).to_be_visible()
    page.locator("#all-settings summary").click()
    page.locator("#plan").click()
    expect(page.locator("#planned")).to_contain_text("jobs in", timeout=PATIENCE * 1000)
    page.locator("#start").click()
    begun = page.locator("#stages li.now, #stages li.done").first  # two stages may be at work, or the first one done
    expect(begun).to_contain_text("Read and check", timeout=PATIENCE * 1000)
    expect(page.locator("#start")).to_have_text("Queue another run")
    assert page.said == []
    page.context.close()
    desk.end()
    again = Running(desk.folder)
    try:
        page = opened(browser, again)
        page.goto(f"{again.base}/runs")
        expect(page.locator("#status")).to_have_text("running")
        expect(page.locator("#stages li.done").nth(1)).to_be_visible(timeout=PATIENCE * 1000)
        drawn(page, "run")
        expect(page.locator("#status")).to_have_text("finished", timeout=PATIENCE * 1000)
        expect(page.locator("#results")).to_contain_text("Report of")
        with page.context.expect_page() as opening:
            page.get_by_role("link", name="Report of").first.click()
        expect(opening.value.locator("h1").first).to_be_visible()
        page.locator("#plan").click()
        expect(page.locator("#planned")).to_contain_text("up to date", timeout=PATIENCE * 1000)
        page.goto(f"{again.base}/labels")
        expect(page.locator("#name")).not_to_be_empty()
    finally:
        again.end()


def test_a_killed_desk_loses_no_label(browser, desk, photographs):
    folder, _ = photographs
    for path in sorted(folder.iterdir())[:6]:
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
