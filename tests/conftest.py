"""Shared by all tests: Snakemake run on a copy of this checkout, and a small data set of one's own to run it on."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest

# The same examples in every run, on machines of any speed.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]
# A server with Snakemake loaded, from which the process of every dry run is forked: a third less time for each.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "snakemake.dag", "snakemake.workflow", "pandas"])


def _snakemake(folder: str, args: list[str], output: str) -> None:
    """Run Snakemake in this process, which ends with it."""
    os.chdir(folder)
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    from snakemake.cli import main

    main(args)


class Workflow:
    """A copy of the workflow in a folder of its own, so that tests may edit modules and fill results/."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("workflow", "envs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("Snakefile", "config.yaml", "requirements.lock"):
            shutil.copy(ROOT / name, folder / name)

    def packaged(self, name: str) -> Path:
        """The one file of this name in the package of the copy, in whatever room."""
        (path,) = (self.folder / "workflow/defectflow").rglob(name)
        return path

    def snakemake(self, *args: str, config: dict | None = None, **options) -> subprocess.CompletedProcess:
        """Run ``snakemake *args --config ...`` in the copy; values of ``config`` are given as JSON."""
        command = self.command(*args, config=config)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **options)

    def command(self, *args: str, config: dict | None = None) -> list[str]:
        """That command."""
        return [sys.executable, "-m", "snakemake", *args, *self._config(config)]

    def plan(self, *args: str, config: dict | None = None) -> tuple[int, str]:
        """Exit status and output of a dry run."""
        output = self.folder / "plan.txt"
        arguments = ["-n", *args, "--quiet", "rules", *self._config(config)]
        process = FORKS.Process(target=_snakemake, args=(str(self.folder), arguments, str(output)))
        process.start()
        process.join()
        return process.exitcode, output.read_text()

    @staticmethod
    def _config(config: dict | None) -> list[str]:
        return ["--config", *(f"{key}={json.dumps(value)}" for key, value in config.items())] if config else []

    def jobs(self, *args: str, config: dict | None = None) -> dict[str, int]:
        """Rules that a dry run would execute, with the number of jobs of each; {} when there is nothing to do."""
        status, output = self.plan(*args, config=config)
        assert status == 0, output
        stats = output.partition("Job stats:")[2].partition("total")[0].splitlines()
        counts = {rule: int(count) for rule, count in (line.split() for line in stats[3:] if line.strip())}
        assert counts or "Nothing to be done" in output, output
        counts.pop("all", None)
        return counts


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A `made.Made` for a config in which every rule of a run has work; a test leaves it as it was."""
    from made import Made
    from staleness import CONFIG

    return Made(tmp_path_factory.mktemp("stale"), CONFIG)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The same for the demo and the making of our own weights."""
    from made import Made
    from staleness import DEMO

    return Made(tmp_path_factory.mktemp("demo"), DEMO, "all", "pretrain")


@pytest.fixture
def workflow(tmp_path) -> Workflow:
    folder = tmp_path / "checkout"
    folder.mkdir()
    return Workflow(folder)


def draw_part(rng: np.random.Generator, size: int = 96, defect: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A grey plate with two holes over noise, shifted a little: uint8 RGB and bool mask; a defect is a dark blot."""
    image = rng.integers(0, 255, (size // 8, size // 8, 3)).astype(np.uint8)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    x, y = size // 4 + rng.integers(-3, 4), size // 4 + rng.integers(-3, 4)
    mask = np.zeros((size, size), np.uint8)
    cv2.rectangle(mask, (x, y), (x + size // 2, y + size // 2), 1, -1)
    image[mask > 0] = 150
    for dx in (size // 8, size // 3):
        cv2.circle(image, (int(x + dx), int(y + size // 4)), size // 20, (60, 60, 60), -1)
    if defect:
        cv2.circle(image, (int(x + size // 4), int(y + size // 3)), size // 12, (20, 20, 20), -1)
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return image, mask > 0


def make_coco_set(folder: Path, good: int = 8, bad: int = 4, unlabelled: int = 2, seed: int = 0) -> Path:
    """Write images/, annotations.json (polygons for all but the unlabelled) and labels.csv in groups of two."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations, rows = [], [], ["filename,label,group"]
    for number in range(good + bad + unlabelled):
        label = "0" if number < good else "1" if number < good + bad else ""
        image, mask = draw_part(rng, defect=label == "1")
        name = f"part_{number:03d}.png"
        cv2.imwrite(str(folder / "images" / name), image[..., ::-1])
        rows.append(f"{name},{label},g{number // 2}")
        images.append({"id": number + 1, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        if label:
            x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {"id": number + 1, "image_id": number + 1, "category_id": 1, "segmentation": [polygon], "iscrowd": 0}
                | {"bbox": [x, y, w, h], "area": int(w * h)}
            )
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "part"}]}
    (folder / "annotations.json").write_text(json.dumps(coco))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def make_mvtec_set(folder: Path, good: int = 6, seed: int = 0) -> Path:
    """Write the same part in the MVTec layout: train/good, test/good, test/blot with ground truth."""
    rng = np.random.default_rng(seed)
    for part, count, defect in (("train/good", good, False), ("test/good", 3, False), ("test/blot", 3, True)):
        (folder / part).mkdir(parents=True)
        for number in range(count):
            image, mask = draw_part(rng, defect=defect)
            cv2.imwrite(str(folder / part / f"{number:03d}.png"), image[..., ::-1])
            if defect:
                truth = folder / "ground_truth/blot"
                truth.mkdir(parents=True, exist_ok=True)
                dark = mask & (image.max(axis=2) < 45)
                cv2.imwrite(str(truth / f"{number:03d}_mask.png"), dark.astype(np.uint8) * 255)
    return folder


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory):
    """A small bundle, made once; tests that alter it copy it first."""
    import bundle_set  # tests/unit

    return bundle_set.make(tmp_path_factory.mktemp("bundle"))
