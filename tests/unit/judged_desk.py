"""A folder of the desk with a run that has ended, and a browser that is let in: for tests of its pages."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import write_json
from defectflow.core.tables import ISOLATED, MANIFEST, MASKS, PREDICTIONS, REGIONS, SPLITS, write_table
from defectflow.desk.access import Access
from defectflow.desk.app import create_app
from defectflow.desk.project import Project

httpx = pytest.importorskip("httpx", reason="httpx drives the pages of the desk in tests")
SIZE = 48, 64  # height, width
GOOD, BAD = 12, 8
SCORES = [*np.linspace(0.5, 1.2, GOOD).round(6), *np.linspace(0.9, 2.0, BAD).round(6)]
LABELS = [0] * GOOD + [1] * BAD
NEW = 2  # photographs without a label


class Browser:
    """A client that has opened the address of the desk; `get`, `post`, `put` give responses of httpx."""

    def __init__(self, project):
        from starlette.testclient import TestClient

        self.access = Access(project.state)
        self.client = TestClient(create_app(project, self.access), base_url="http://localhost")
        assert self.client.get(f"/?token={self.access.token}").status_code == 200
        cookie = next(iter(self.client.cookies.values()))
        self.csrf = self.access.csrf(cookie)
        self.get = self.client.get

    def post(self, path, **given):
        return self.client.post(path, headers={"X-Desk-CSRF": self.csrf}, **given)

    def put(self, path, **given):
        return self.client.put(path, headers={"X-Desk-CSRF": self.csrf}, **given)


def photo(seed, bad=False):
    image = np.full((*SIZE, 3), 60 + seed % 7, np.uint8)
    cv2.ellipse(image, (32, 24), (20, 14), 0, 0, 360, (180, 180, 190), -1)
    if bad:
        cv2.circle(image, (30, 22), 4, (20, 20, 20), -1)
    return image


def judged_project(folder, review=False):
    """A project with GOOD good, BAD bad and NEW unlabelled photographs, and the files of their evaluated run."""
    project = Project(folder)
    base = project.results / project.dataset
    run = base / "template/crop/patchcore"
    for place in (base / "template/masks/0", base / "template/crop/images/0", run / "heatmaps", run / "figures"):
        place.mkdir(parents=True)
    names = [f"p{k:02}" for k in range(GOOD + BAD + NEW)]
    labels = [*LABELS, *[None] * NEW]
    scores = [*SCORES, *[0.7, 1.4][:NEW]]
    mask = np.zeros(SIZE, np.uint8)
    cv2.ellipse(mask, (32, 24), (20, 14), 0, 0, 360, 255, -1)
    rows = {"manifest": [], "predictions": [], "splits": [], "masks": [], "isolated": []}
    for number, (name, label, score) in enumerate(zip(names, labels, scores, strict=True)):
        image = photo(number, label == 1)
        cv2.imwrite(str(project.photographs / f"{name}.jpg"), image)
        cv2.imwrite(str(base / f"template/masks/0/{name}.png"), mask)
        cv2.imwrite(str(base / f"template/crop/images/0/{name}.png"), image[8:40, 8:56])
        cv2.imwrite(str(run / f"heatmaps/{name}.png"), np.full((*SIZE, 3), 40, np.uint8))
        kind = ["scratch", "hole"][number % 2] if label == 1 else ""
        rows["manifest"].append(
            dict.fromkeys(MANIFEST, "")
            | {"image_id": name, "path": f"photographs/{name}.jpg", "width": SIZE[1], "height": SIZE[0]}
            | {"label": label, "defect_type": kind}
        )
        held_out = "fold" if label is not None else "unlabelled"
        rows["splits"].append(
            dict.fromkeys(SPLITS, "") | {"image_id": name, "label": label, "detection": held_out, "fold": number % 4}
        )
        rows["predictions"].append(
            dict.fromkeys(PREDICTIONS, "")
            | {"filename": f"{name}.jpg", "image_id": name, "raw_score": score, "label": label, "defect_type": kind}
            | {"split": held_out, "threshold": 1.1, "predicted_label": int(score >= 1.1), "mask_present": 1}
            | {"mask_doubtful": int(number == 3), "pred_score": 0.5, "map_threshold": 1.0}
        )
        rows["masks"].append(
            dict.fromkeys(MASKS, "")
            | {"image_id": name, "mask": f"results/{project.dataset}/template/masks/0/{name}.png", "source": "template"}
            | {"present": 1, "doubtful": int(number == 3), "reason": "small area" if number == 3 else "", "area": 0.3}
        )
        rows["isolated"].append(
            dict.fromkeys(ISOLATED, "")
            | {"image_id": name, "image": f"results/{project.dataset}/template/crop/images/0/{name}.png"}
        )
    write_table(base / "manifest.csv", pd.DataFrame(rows["manifest"]), MANIFEST)
    write_table(base / "splits.csv", pd.DataFrame(rows["splits"]), SPLITS)
    write_table(base / "template/masks/0.csv", pd.DataFrame(rows["masks"]), MASKS)
    write_table(base / "template/crop/images/0.csv", pd.DataFrame(rows["isolated"]), ISOLATED)
    write_table(run / "predictions.csv", pd.DataFrame(rows["predictions"]), PREDICTIONS)
    region = {"image_id": names[GOOD], "region": 1, "x": 26, "y": 18, "width": 9, "height": 9, "area": 50, "score": 1.3}
    write_table(run / "regions.csv", pd.DataFrame([dict.fromkeys(REGIONS, "") | region]), REGIONS)
    band = {"max_fpr": 0.05, "max_fnr": 0.05, "low": 1.0, "high": 1.2} if review else None
    threshold = {"strategy": "f1_adaptive", "options": {}, "value": 1.1, "folds": None}
    write_json(run / "metrics.json", {"threshold": threshold, "review": band, "n_samples": GOOD + BAD})
    (run / "report.html").write_text("<!doctype html><title>report</title><p>figures")
    return project


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
