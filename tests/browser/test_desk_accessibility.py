"""What axe-core finds on the pages of the desk, in light and dark: nothing serious, and nothing critical."""

import fcntl
import os
import shutil
import time

import cv2
import pytest

pytest.importorskip("fastapi", reason="needs the extra desk")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
import bundle_set
from axe_playwright_python.sync_playwright import Axe
from browser_desk import CHROMIUM, NEEDED, Running, opened, playwright
from defectflow.core.files import write_json
from defectflow.desk.pages import PAGES
from judged_desk import judged_project

pytestmark = NEEDED
SERIOUS = ("serious", "critical")
# What differs in the dark; the rest is the same page.
COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return judged_project(tmp_path_factory.mktemp("axe") / "line")


@pytest.fixture(scope="module")
def page(project, bundle_folder):
    run = next(project.results.glob("*/*/*/*/metrics.json")).parent
    shutil.copytree(bundle_folder, run / "bundle")
    for file in (run / "bundle").iterdir():
        os.utime(file)  # as of now: newer than the run
    desk = Running(project.folder)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = opened(browser, desk, color_scheme="light")
        page.base = desk.base
        post(page, "release", version="1", note="first", who="Ana")  # so that there is something to watch with
        yield page
        browser.close()
    desk.end()


def post(page, path, **content):
    csrf = page.locator('meta[name="csrf"]').get_attribute("content")
    answer = page.request.post(f"{page.base}/api/{path}", data=content, headers={"X-Desk-CSRF": csrf})
    assert answer.ok, answer.text()


def findings(page, **options):
    """Lines on what is serious in the page as it is."""
    found = []
    for one in Axe().run(page, options=options or None).response["violations"]:
        if one["impact"] in SERIOUS:
            found += [f"{one['id']} ({one['impact']}): {node['html'][:160]}" for node in one["nodes"][:5]]
    return found


def in_both(page, wait=True):
    if wait:  # a page that asks again and again never comes to rest
        page.wait_for_load_state("networkidle")
    found = findings(page)
    page.emulate_media(color_scheme="dark")
    found += [f"dark: {line}" for line in findings(page, **COLOURS)]
    page.emulate_media(color_scheme="light")
    return found


def test_what_is_wrong_would_be_found(page):
    wrong = "<p id=wrong><input><b class=x>pale words</b></p>"
    page.evaluate("wrong => document.querySelector('main').insertAdjacentHTML('beforeend', wrong)", wrong)
    page.evaluate("document.querySelector('#wrong .x').style.color = 'rgb(200, 200, 200)'")
    found = " ".join(findings(page))
    assert "label (critical)" in found and "color-contrast (serious)" in found
    assert any("color-contrast" in line for line in findings(page, **COLOURS))


@pytest.mark.parametrize("module", [one.module for one in PAGES])
def test_no_page_has_a_serious_finding(page, module):
    page.goto(f"{page.base}/{module}")
    page.wait_for_selector("h1")
    assert in_both(page) == []


def test_no_state_of_labels_and_runs_has_one(page):
    for who, label in (("Ana", "good"), ("Ben", "bad")):
        post(page, "labels/put", names=["p01.jpg"], label=label, who=who)
    page.goto(f"{page.base}/labels")
    page.locator("[data-filter=settle]").click()
    page.locator("#choices button").first.wait_for()
    assert in_both(page) == []
    page.keyboard.press("d")
    page.locator(".board canvas").wait_for()
    assert in_both(page) == []
    page.keyboard.press("Escape")
    page.goto(f"{page.base}/runs")
    page.locator("#all-settings summary").click()
    page.locator("#groups input").first.wait_for()
    page.keyboard.press("?")
    assert in_both(page) == []


LOG = """\
Job stats:
job         count
--------  -------
all             1
features        2
ingest          1
total           4

Finished jobid: 3 (Rule: ingest)
1 of 4 steps (25%) done
"""


def test_a_run_under_way_with_others_waiting_has_none(page, project):
    folder = project.state / "runs"
    (folder / "20260101-000000-000000").mkdir()
    state = {"run": "20260101-000000-000000", "status": "running", "started": time.time(), "ended": None}
    write_json(folder / "20260101-000000-000000/state.json", state | {"targets": [], "command": []})
    (folder / "20260101-000000-000000/log.txt").write_text(LOG)
    with open(folder / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the process of a run does
        for cores in ("all", 1):
            post(page, "runs/start", bundle=cores == 1, cores=cores)
        page.goto(f"{page.base}/runs")
        page.locator("#queue li").nth(1).wait_for()
        page.locator("#stages li.done").wait_for()
        assert in_both(page, wait=False) == []
        post(page, "runs/unqueue")


def test_watching_with_verdicts_has_none(page, tmp_path):
    for number, bad in ((1, False), (2, True)):
        cv2.imwrite(str(tmp_path / f"new{number}.png"), bundle_set.photograph(number, bad)[..., ::-1])
    post(page, "watch/start", kind="folder", source=str(tmp_path))
    page.goto(f"{page.base}/watch")
    page.locator("#list button").nth(1).wait_for()
    page.locator("#now .row button:not(.quiet)").click()
    page.locator("#feedback *").first.wait_for()
    assert in_both(page, wait=False) == []
    post(page, "watch/stop")


def test_no_empty_page_has_one(page, tmp_path):
    desk = Running(tmp_path / "empty")
    try:
        empty = opened(page.context.browser, desk, color_scheme="light")
        found = {}
        for one in PAGES:
            empty.goto(f"{desk.base}/{one.module}")
            empty.wait_for_selector("h1")
            found[one.module] = in_both(empty)
        assert found == {one.module: [] for one in PAGES} and not empty.said
    finally:
        desk.end()
