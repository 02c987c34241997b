"""What axe-core finds on the pages of the desk, in light and dark: nothing serious, and nothing critical."""

import os
import shutil

import pytest

pytest.importorskip("fastapi", reason="needs the extra desk")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
from axe_playwright_python.sync_playwright import Axe
from browser_desk import CHROMIUM, NEEDED, Running, opened, playwright
from defectflow.desk.pages import PAGES
from judged_desk import judged_project

pytestmark = NEEDED
SERIOUS = ("serious", "critical")
# What differs in the dark; the rest is the same page.
COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}


@pytest.fixture(scope="module")
def page(tmp_path_factory, bundle_folder):
    project = judged_project(tmp_path_factory.mktemp("axe") / "line")
    run = next(project.results.glob("*/*/*/*/metrics.json")).parent
    shutil.copytree(bundle_folder, run / "bundle")
    os.utime(run / "bundle/bundle.json")
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


def in_both(page):
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
