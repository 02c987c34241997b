"""A new user at the desk: 30 photographs without outlines and labels to the first verdicts; minutes and clicks.

Afterwards, how long the answer to a click on the part takes.

Playwright (the extra dev, with a Chromium on the machine) does what a person would: it opens the address that the desk
prints, drags photographs in, starts the run and waits for the verdicts. Nothing is set, so that the defaults of the
workflow are what is timed. The photographs are rendered as those of the demo.

    python benchmarks/desk_walk.py
"""

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
HOUR = 3_600_000  # milliseconds
POST = """async ([path, body]) => {
    const csrf = document.querySelector("meta[name=csrf]").content;
    const headers = {"Content-Type": "application/json", "X-Desk-CSRF": csrf};
    const began = performance.now();
    const response = await fetch(path, {method: "POST", headers, body: JSON.stringify(body)});
    if (!response.ok) throw new Error(await response.text());
    await response.arrayBuffer();
    return (performance.now() - began) / 1000;
}"""


class Person:
    """Clicks on a page, counted."""

    def __init__(self, page):
        self.page, self.clicks = page, 0

    def click(self, selector: str) -> None:
        """One click on an element."""
        self.page.locator(selector).first.click()
        self.clicks += 1


def photographs(folder: Path, count: int, seed: int) -> list[str]:
    """Photographs of the demo, every kind of view among them; their outlines and labels stay behind."""
    from defectflow.demo.render_demo import render

    source = folder / "demo"
    source.mkdir()
    bad = round(0.3 * count)
    render(source, count - bad, bad, 512, seed)
    return sorted(str(path) for path in (source / "images").iterdir())


def jobs(project: Path) -> float:
    """Seconds of processor time of the jobs of a run, from its benchmarks (Snakemake itself is not in it)."""
    total = 0.0
    for path in (project / "results/benchmarks").rglob("*.tsv"):
        header, *rows = (line.split("\t") for line in path.read_text().splitlines())
        total += sum(float(row[header.index("cpu_time")]) for row in rows if row[header.index("cpu_time")] != "NA")
    return total


def clicks_on_the_part(page, names):
    """Seconds from request to answer: of opening each photograph, and of five clicks on each."""
    opened, answered = [], []
    for name, following in zip(names, [*names[1:], None], strict=True):
        opened.append(page.evaluate(POST, ["/api/part/open", {"name": name, "following": following}]))
        page.wait_for_timeout(2000)  # as long as a person looks; the next photograph is encoded meanwhile
        inside = []
        for x, y in ((250, 250), (220, 260), (280, 240), (250, 220), (260, 280)):
            inside.append((x, y))
            told = {"name": name, "inside": inside, "outside": [(8, 8)]}
            answered.append(page.evaluate(POST, ["/api/part/clicks", told]))
    return opened, answered


def main() -> None:
    """Walk, and print what it took."""
    from playwright.sync_api import expect, sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=int, default=30, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chromium = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if chromium is None:
        sys.exit("error: no chromium (apt install chromium)")
    with tempfile.TemporaryDirectory() as work, sync_playwright() as play:
        files, project = photographs(Path(work), args.photographs, args.seed), Path(work) / "desk"
        load = os.getloadavg()[0]
        began, steps = time.monotonic(), []

        def step(name: str) -> None:
            steps.append((name, time.monotonic() - began, person.clicks))

        words = [sys.executable, "-m", "defectflow", "desk", str(project), "--port", "0", "--no-browser"]
        desk = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        address = next(found[1] for line in desk.stdout if (found := re.search(r"open (http\S+)", line)))
        page = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        person = Person(page)
        page.goto(address)
        step("the desk is open")
        with page.expect_file_chooser() as choosing:
            person.click("#add-files")
        choosing.value.set_files(files)
        person.clicks += 1  # "Open" in the dialog of the browser
        expect(page.locator("#count")).to_contain_text(f"{len(files)} photographs", timeout=HOUR)
        step("the photographs are in")
        person.click(".rail a[href='/runs']")
        person.click("#start")
        status = page.locator("#status")
        expect(status).to_have_text(re.compile("finished|error"), timeout=HOUR)
        if "error" in status.inner_text():
            sys.exit(f"error: {page.locator('#problems').inner_text()}")
        step("the run has finished")
        person.click(".rail a[href='/verdicts'], #results a")
        page.wait_for_selector(".tile", timeout=60_000)
        step("the first verdicts are seen")
        said = page.locator(".tile .mark").all_inner_texts()
        page.goto(page.url.replace("verdicts", "part"))
        opened, answered = clicks_on_the_part(page, [Path(file).name for file in files[:12]])
        desk.send_signal(signal.SIGTERM)
        desk.wait(20)
        used = jobs(project)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(files)} photographs, no outlines, no labels; {os.cpu_count()} cores, load before: {load:.1f}\n")
    print("| step | minutes | clicks |\n|---|---|---|")
    for name, seconds, clicks in steps:
        print(f"| {name} | {seconds / 60:.1f} | {clicks} |")
    desk_time = children.ru_utime + children.ru_stime
    verdicts = ", ".join(f"{said.count(word)} {word}" for word in sorted(set(said)))
    print(
        f"\n{len(answered)} clicks on the part: {median(answered):.2f} s each, {max(answered):.2f} at most; opening the"
        f" first photograph {opened[0]:.1f} s, each further one {max(opened[1:]):.2f} at most"
        f"\nprocessor time: jobs {used / 60:.1f} min, desk and browser {desk_time / 60:.1f} min; verdicts: {verdicts}"
    )


if __name__ == "__main__":
    main()
