"""How large the report of many photographs is, and how fast it opens in Chromium.

Simulates a run (photographs, masks, maps, verdicts; nothing is trained), writes its report, and loads it from disk in
headless Chromium. Measured are the times to DOMContentLoaded and to the load event after layout, as the browser reports
them, for the report and for an empty page. Two goals of the project: under 25 MB and under 3 seconds for 1,000
photographs.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
from common import photographs
from defectflow.core.anomaly_maps import save_maps
from defectflow.core.tables import MANIFEST, MASKS, REGIONS, SCORES, SPLITS, write_table
from defectflow.evaluation import evaluate
from defectflow.images.read_write import write_png
from defectflow.reporting import report

# Runs at the load event, after a forced layout; the result is read from the page that Chromium prints.
PROBE = """<script>addEventListener("load", () => {
document.body.getBoundingClientRect();
const [t] = performance.getEntriesByType("navigation");
document.title = `measured ${t.domContentLoadedEventEnd} ${performance.now()}`;
});</script></body>"""
SHOWN = 24  # different photographs; the others repeat them, which the report cannot know


def make_run(root: Path, count: int, size: int) -> list[str]:
    """Write a made-up run of ``count`` photographs; returns the arguments of the report stage."""
    rng = np.random.default_rng(0)
    files = sorted(photographs(root / "images", SHOWN, size).iterdir())
    part = root / "part.png"
    shape = np.zeros((size, size), np.uint8)
    write_png(part, cv2.ellipse(shape, (size // 2, size // 2), (size // 3, size // 4), 20, 0, 360, 1, -1) > 0)
    bad = rng.random(count) < 0.2
    raw = rng.normal(2, 0.6, count) + 1.6 * bad
    ids = [f"photo_{k:05}" for k in range(count)]
    kinds = np.where(bad, rng.choice(["crack", "dent", "scratch", "stain"], count), "")
    group = [f"session_{k // 20:03}" for k in range(count)]
    manifest = pd.DataFrame(dict.fromkeys(MANIFEST, ""), index=range(count)).assign(
        image_id=ids, path=[files[k % SHOWN] for k in range(count)], width=size, height=size, label=bad.astype(int)
    )
    manifest = manifest.assign(defect_type=kinds, group=group)
    splits = pd.DataFrame(dict.fromkeys(SPLITS, ""), index=range(count)).assign(image_id=ids, label=bad.astype(int))
    splits = splits.assign(group=group, detection="fold", fold=[str(k // 20 % 5) for k in range(count)])
    scores = pd.DataFrame(dict.fromkeys(SCORES, ""), index=range(count)).assign(image_id=ids, raw_score=raw)
    masks = pd.DataFrame(dict.fromkeys(MASKS, ""), index=range(count)).assign(image_id=ids, mask=part, present=1)
    masks = masks.assign(source="template", doubtful=(rng.random(count) < 0.03).astype(int))
    maps = {}
    for image_id, score in zip(ids, raw, strict=True):
        grid = cv2.GaussianBlur(rng.random((32, 32)).astype(np.float32), (7, 7), 2)
        maps[image_id] = (grid / grid.max() * np.float32(score), np.array([[size / 256, 0, 0], [0, size / 256, 0]]))
    regions = pd.DataFrame(columns=REGIONS)
    for name, table, columns in (
        ("manifest", manifest, MANIFEST), ("splits", splits, SPLITS), ("scores", scores, SCORES),
        ("masks", masks, MASKS), ("regions", regions, REGIONS),
    ):  # fmt: skip
        write_table(root / f"{name}.csv", table, columns)
    (root / "regions.json").write_text("[]\n")
    save_maps(root / "maps.safetensors", maps, (256, 256))
    run = root / "made-up/template/zero_out/patchcore"
    run.mkdir(parents=True, exist_ok=True)
    shared = ["--manifest", root / "manifest.csv", "--maps", root / "maps.safetensors", "--masks", root / "masks.csv"]
    shared += ["--metrics", run / "metrics.json", "--predictions", run / "predictions.csv"]
    more = [
        "--splits",
        root / "splits.csv",
        "--scores",
        root / "scores.csv",
        "--settings",
        '{"threshold": "f1_adaptive"}',
    ]
    more += ["--review", '{"max_fpr": 0.02, "max_fnr": 0.02}', "--robustness", run / "robustness.csv"]
    words = [str(word) for word in [*shared, *more, "--figures", run / "figures"]]
    evaluate.main(evaluate.build_parser().parse_args(words))
    shared += ["--regions", root / "regions.csv", root / "regions.json"]
    return [str(word) for word in [*shared, "--out", root / "report.html"]]


def opened(page: Path, browser: str) -> tuple[float, float, float]:
    """Open a page from disk: seconds to DOMContentLoaded, to load with layout, and processor seconds of the browser."""
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", "--dump-dom"]
    taken = {}
    with tempfile.TemporaryFile() as printed:
        process = psutil.Popen([*command, probed.as_uri()], stdout=printed, stderr=subprocess.DEVNULL)
        while process.poll() is None:  # the process that draws the page is not a child of this one
            with suppress(psutil.Error):
                for each in (process, *process.children(recursive=True)):
                    taken[each.pid] = sum(each.cpu_times()[:2])
            time.sleep(0.02)
        printed.seek(0)
        found = re.search(rb"<title>measured ([\d.]+) ([\d.]+)</title>", printed.read())
    if not found:
        sys.exit(f"{browser} printed no measurement")
    ready, load = (float(value) / 1000 for value in found.groups())
    return ready, load, sum(taken.values())


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="photographs (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="pixels, side of a photograph (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="times the page is opened (default: %(default)s)")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome") or "chromium")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = make_run(Path(folder), args.count, args.size)
        start = time.process_time()
        report.main(report.build_parser().parse_args(words))
        taken = time.process_time() - start
        page = Path(words[-1])
        size = page.stat().st_size / 1e6
        empty = Path(folder) / "empty.html"
        empty.write_text("<!DOCTYPE html><html><head><title></title></head><body></body></html>")
        rows = {}
        for name, path in (("report", page), ("empty page", empty)):
            runs = [opened(path, args.browser) for _ in range(args.repeats)]
            rows[name] = [min(values) for values in zip(*runs, strict=True)]  # other jobs can only add time
    print(f"{args.count} photographs: {size:.1f} MB, written in {taken:.1f} s of processor time.")
    print(f"Least of {args.repeats} openings:\n")
    print("| opened | DOM ready | loaded and laid out | processor time of the browser |")
    print("|---|---|---|---|")
    for name, (ready, load, cpu) in rows.items():
        print(f"| {name} | {ready:.2f} s | {load:.2f} s | {cpu:.2f} s |")


if __name__ == "__main__":
    main()
