"""Answers that come late or out of order never stand beside another photograph or threshold; 10,000 pictures."""

import re

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra desk")
from browser_desk import CHROMIUM, NEEDED, Running, opened, playwright
from defectflow.desk.records.outlines import outline_of, outlined
from judged_desk import judged_project

pytestmark = NEEDED
MANY = 10_000
ON_TOP = """() => {
  const box = document.querySelector("#toasts .toast").getBoundingClientRect();
  return Boolean(document.elementFromPoint(box.x + 20, box.y + 8).closest("#toasts"));
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = judged_project(tmp_path_factory.mktemp("late") / "line")
    cv2.imwrite(str(project.photographs / "tall.jpg"), np.full((300, 60, 3), 90, np.uint8))
    return project


@pytest.fixture(scope="module")
def desk(project):
    desk = Running(project.folder)
    yield desk
    desk.end()


@pytest.fixture
def page(browser, desk):
    page = opened(browser, desk)
    page.base = desk.base
    yield page
    page.context.close()


class Held:
    """Requests to addresses that match wait until `go`, in the order in which their indices are given."""

    def __init__(self, page, pattern):
        self.page, self.pattern, self.waiting = page, pattern, []
        page.route(pattern, lambda route: self.waiting.append(route))

    def until(self, count):
        for _ in range(600):
            if len(self.waiting) >= count:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{len(self.waiting)} requests to {self.pattern}")

    def go(self, *order):
        waiting, self.waiting = self.waiting, []
        for index in order or range(len(waiting)):
            waiting[index].continue_()
        self.page.unroute(self.pattern)


def test_no_photograph_stands_beside_the_name_of_another(page):
    expect = playwright.expect
    page.goto(f"{page.base}/labels")
    large = page.locator("#large")
    expect(large).to_be_visible()
    page.wait_for_function("() => document.querySelector('#large').complete")
    # A tall photograph is seen whole: who sees a part of it would label what is not seen.
    page.locator(".cell[aria-label^='tall.jpg']").click()
    expect(page.locator("#name")).to_have_text("tall.jpg")
    expect(large).to_be_visible()
    stage, shown = page.locator(".stage").bounding_box(), large.bounding_box()
    assert shown["y"] >= stage["y"] - 1 and shown["height"] <= stage["height"] + 1
    slow = Held(page, "**/picture?name=p05.jpg&size=large*")
    page.locator(".cell[aria-label^='p05.jpg']").click()
    expect(page.locator("#name")).to_have_text("p05.jpg")
    expect(large).not_to_be_visible()
    slow.until(1)
    slow.go()
    expect(large).to_be_visible()
    # What is typed stays when the answer to an earlier label comes; and a key that is held labels one photograph.
    slow = Held(page, "**/api/labels/put")
    page.keyboard.down("b")
    page.keyboard.down("b")
    page.keyboard.up("b")
    page.keyboard.press("k")
    page.keyboard.type("dent")
    slow.until(1)
    slow.go()
    expect(page.locator("#count")).to_contain_text("1 bad")
    assert page.locator("#kind").input_value() == "dent"
    # Another window labels; this one knows it when it is looked at again.
    csrf = page.locator('meta[name="csrf"]').get_attribute("content")
    sent = {"names": ["p08.jpg"], "label": "bad"}
    assert page.request.post(f"{page.base}/api/labels/put", data=sent, headers={"X-Desk-CSRF": csrf}).ok
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator("#count")).to_contain_text("2 bad")
    assert page.locator("#kind").input_value() == "dent"
    assert page.said == []


def test_no_verdict_stands_beside_another_threshold_or_run(page, project):
    expect = playwright.expect
    page.goto(f"{page.base}/verdicts")
    expect(page.locator(".tiles b").first).to_be_visible()
    page.locator(".tile").first.click()
    expect(page.locator("dialog.loupe .content img").first).to_be_visible()
    slow = Held(page, "**/api/verdicts/photograph?*")
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog.loupe .content img")).to_have_count(0)
    page.locator("#boxes").click()  # nor does a switch bring it back
    expect(page.locator("dialog.loupe .content img")).to_have_count(0)
    slow.until(1)
    slow.go()
    expect(page.locator("dialog.loupe .content img").first).to_be_visible()
    page.keyboard.press("Escape")
    # Strategies for costs that have been changed since are not shown.
    slow = Held(page, "**/api/verdicts/strategies?*")
    for number, cost in enumerate(("60", "70"), 1):
        page.fill("#c-miss", cost)
        slow.until(number)
    with page.expect_response(lambda answer: "miss=60" in answer.url and "strategies" in answer.url):
        slow.go(1, 0)
    page.wait_for_timeout(200)
    shown = page.locator("#strategies tr", has_text="Largest F1").locator("td").last.inner_text()
    asked = page.request.get(f"{page.base}/api/verdicts/strategies?miss=70&bad_share=0.02").json()
    cost = next(rule for rule in asked if rule["strategy"] == "f1_adaptive")["per_thousand"]["cost"]["value"]
    assert float(shown.replace(",", "")) == pytest.approx(cost, rel=0.05)
    # A newer run: its figures do not appear below the old scores.
    table = next(project.results.rglob("predictions.csv"))
    table.write_text(table.read_text() + "\n" if not table.read_text().endswith("\n") else table.read_text())
    page.locator("[data-handle=threshold]").press("ArrowRight")
    expect(page.locator("#figures")).to_contain_text("newer run")
    page.locator("#toasts button", has_text="Load it").click()
    expect(page.locator(".tiles b").first).to_be_visible()
    page.locator("#language").select_option("de")
    expect(page.locator("[data-handle=threshold] text")).to_have_text(re.compile(r"^\d,\d\d$"))  # 1.100 would be 1,100


def test_a_drawing_is_what_was_drawn(page, project):
    expect = playwright.expect
    page.goto(f"{page.base}/labels")
    page.locator(".cell[aria-label^='p13.jpg']").click()

    def box(*ends):
        board = page.locator(".board canvas").bounding_box()
        for act, end in zip((page.mouse.move, page.mouse.move), ends, strict=True):
            act(board["x"] + end[0] * board["width"], board["y"] + end[1] * board["height"], steps=3)
            page.mouse.down() if end is ends[0] else page.mouse.up()

    save = page.locator("dialog.draw button.main")
    page.keyboard.press("d")
    expect(page.locator(".board canvas")).to_be_focused()
    box((0.1, 0.1), (0.3, 0.3))
    save.click()
    page.locator("dialog.draw").wait_for(state="detached")
    path = project.folder / "defects/p13.jpg.png"
    first = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    # Drawn before the mask that there is has come: it is added to it, and a stray click on the cross loses nothing.
    slow = Held(page, "**/api/labels/defect?name=p13.jpg")
    page.keyboard.press("d")
    slow.until(1)
    box((0.6, 0.6), (0.8, 0.8))
    expect(save).to_be_disabled()
    slow.go()
    page.get_by_role("dialog").get_by_role("button", name="Close").first.click()
    expect(page.locator("#toasts")).to_contain_text("Nothing is saved yet")
    assert page.evaluate(ON_TOP)  # above the dialog
    save.click()
    page.locator("dialog.draw").wait_for(state="detached")
    second = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert (second[first > 0] > 0).all() and np.count_nonzero(second) > 1.5 * np.count_nonzero(first)
    # A click that is not answered yet is waited for; what is painted after it is not replaced by its answer.
    page.goto(f"{page.base}/part")
    page.locator("#sheet button").first.click()
    expect(page.locator(".board canvas")).to_be_focused()
    expect(page.locator("dialog.draw .busy")).to_have_text("")
    page.locator("dialog.draw button", has_text="Start over").click()
    slow = Held(page, "**/api/part/clicks")
    page.locator(".board canvas").click(position={"x": 300, "y": 200})
    slow.until(1)
    page.keyboard.press("b")
    page.locator(".board canvas").click(position={"x": 40, "y": 40})
    save.click()
    slow.go()
    page.locator("dialog.draw").wait_for(state="detached")
    (name,) = outlined(project)
    assert 0 < outline_of(project, name).mean() < 0.1  # the stroke alone
    assert page.said == []


def test_ten_thousand_photographs_are_a_window_on_them(page, project):
    expect = playwright.expect
    source = project.photographs / "p00.jpg"
    (project.photographs / "many").mkdir()
    for number in range(MANY):
        (project.photographs / f"many/{number:05}.jpg").hardlink_to(source)
    page.wait_for_timeout(2100)  # a listing is valid for two seconds
    page.goto(f"{page.base}/photographs")
    expect(page.locator("#count")).to_contain_text("10,023", timeout=60_000)
    seen = "() => [...document.querySelectorAll('.cell img')].filter((one) => one.complete && one.naturalWidth).length"
    whole = f"() => document.querySelectorAll('.cell').length === ({seen})()"
    page.wait_for_function(whole)
    assert 20 < page.locator(".cell").count() < 300
    page.locator("#grid").focus()
    for key, name in (("End", "tall.jpg"), ("Home", "00000.jpg")):
        page.keyboard.press(key)
        expect(page.locator(".cell.at")).to_contain_text(name)
        page.wait_for_function(whole)  # no gaps where one has scrolled to
    assert page.said == []
