"""A desk in a process of its own, and a browser on it: what the tests of this folder share."""

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

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
playwright.expect.set_options(timeout=60_000)  # milliseconds, on a busy machine
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
NEEDED = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium (apt install chromium)")]
PICTURES = os.environ.get("DESK_PICTURES", "")


class Running:
    """A desk on a folder, in a process of its own."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder.with_name(f"{folder.name}.log")
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
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(20)


def opened(browser, desk, **options):
    """A page of the desk; what its console says is an error of the test."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 720}} | options))
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: message.type == "error" and page.said.append(message.text))
    page.on("response", lambda answer: answer.status >= 500 and page.said.append(f"{answer.status} {answer.url}"))
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
        page.wait_for_timeout(9500)  # messages go away
        page.screenshot(path=str(ROOT / PICTURES / f"desk-{name}.jpg"), type="jpeg", quality=85)


def choose_by_key(page, key, files):
    """Press a key that asks for files, and give them."""
    page.bring_to_front()
    with page.expect_file_chooser() as choosing:
        page.wait_for_timeout(500)  # Playwright does not wait until it is ready to catch the dialog
        page.keyboard.press(key)
    choosing.value.set_files(files)


def tab_to(page, selector):
    """Press Tab until an element has the focus: by the keyboard it can be reached."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached by Tab")
