import io

import numpy as np
import pytest
import yaml
from defectflow.config.configuration import checked
from defectflow.desk import config_file
from defectflow.desk.project import ROOT
from defectflow.desk.records import results
from judged_desk import BAD, GOOD, LABELS, NEW, SCORES, SIZE, Browser, judged_project
from PIL import Image


@pytest.fixture
def project(tmp_path):
    return judged_project(tmp_path / "line 3")


@pytest.fixture
def browser(project):
    return Browser(project)


def asked(project):
    """The config that Snakemake makes of both files, checked as it does."""
    base = config_file.read(ROOT / "config.yaml")
    own = project.settings()
    return checked({**base, **own, "detectors": {**base["detectors"], **own.get("detectors", {})}}).config


def test_the_page_says_what_to_do_before_a_run_and_shows_scores_after_it(tmp_path, browser):
    from defectflow.desk.project import Project

    empty = Browser(Project(tmp_path / "new"))
    page = empty.get("/verdicts")
    assert page.status_code == 200 and "/runs" in page.text and "histogram" not in page.text
    assert empty.get("/api/verdicts").json()["error"].startswith("no run has finished yet")
    page = browser.get("/verdicts").text
    assert 'id="histogram"' in page and "<script>" not in page and "onclick=" not in page and "style=" not in page


def test_every_photograph_of_the_run_is_there(browser):
    found = browser.get("/api/verdicts").json()
    assert len(found["photographs"]) == GOOD + BAD + NEW and (found["n_good"], found["n_bad"]) == (GOOD, BAD)
    assert [one["score"] for one in found["photographs"][: GOOD + BAD]] == pytest.approx(SCORES)
    assert sum(one["held_out"] for one in found["photographs"]) == GOOD + BAD
    assert found["threshold"] == 1.1 and found["setting"] == {"strategy": "auto", "options": {}, "review": None}


def test_the_figures_are_those_of_the_threshold(browser):
    found = browser.get("/api/verdicts/figures", params={"threshold": 1.1, "miss": 50, "bad_share": 0.1}).json()
    missed = sum(s < 1.1 for s, bad in zip(SCORES, LABELS, strict=True) if bad)
    alarms = sum(s >= 1.1 for s, bad in zip(SCORES, LABELS, strict=True) if not bad)
    assert (found["missed"], found["false_alarms"]) == (missed, alarms) and missed and alarms
    assert found["per_thousand"]["cost"]["value"] == pytest.approx(100 * missed / BAD * 50 + 900 * alarms / GOOD * 5)
    banded = browser.get("/api/verdicts/figures", params={"threshold": 1.1, "low": 0.8, "high": 1.3}).json()
    assert banded["missed"] == 0 and banded["good_reviewed"] + banded["bad_reviewed"] > 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": "nan"},
        {"threshold": 1, "low": 1.1, "high": 1.2},
        {"threshold": 1, "miss": -1},
        {},
        {"threshold": "x"},
    ],
)
def test_figures_that_make_no_sense_are_refused(browser, wrong):
    answer = browser.get("/api/verdicts/figures", params=wrong)
    assert answer.status_code == 422 and "\n" not in answer.json()["error"]


def test_each_strategy_has_its_figures_or_says_why_not(browser):
    rules = {rule["strategy"]: rule for rule in browser.get("/api/verdicts/strategies").json()}
    assert "problem" in rules["conformal"] and rules["f1_adaptive"]["missed"] >= 0
    dear = {rule["strategy"]: rule for rule in browser.get("/api/verdicts/strategies", params={"miss": 1e6}).json()}
    assert dear["cost"]["threshold"] < rules["cost"]["threshold"]
    evaluated = browser.get("/api/verdicts/evaluated").json()
    assert {key: evaluated[key] for key in ("missed", "false_alarms")} == {
        key: rules["f1_adaptive"][key] for key in ("missed", "false_alarms")
    }


def test_costs_are_kept(browser, project):
    told = {"miss": 40, "false_alarm": 2, "look": 0.5, "bad_share": 0.03}
    assert browser.put("/api/verdicts/costs", json=told).json() == told
    assert 'value="40"' in browser.get("/verdicts").text and 'value="3"' in browser.get("/verdicts").text
    for wrong in ({**told, "miss": -1}, {"miss": 1, "price": 2}):
        assert browser.put("/api/verdicts/costs", json=wrong).status_code == 422
    assert browser.client.put("/api/verdicts/costs", json=told).status_code == 403
    (project.state / "costs.json").write_text("{damaged")
    assert browser.get("/verdicts").status_code == 200


def test_the_chosen_threshold_becomes_a_setting_of_the_workflow(browser, project):
    text = project.config.read_text()
    setting = browser.post("/api/verdicts/setting", json={"strategy": "fixed", "options": {"value": 1.234}}).json()
    assert setting == {"strategy": "fixed", "options": {"value": 1.234}, "review": None}
    config = asked(project)
    assert (config["threshold"], config["threshold_options"]) == ("fixed", {"value": 1.234})
    assert text.strip() in project.config.read_text()  # what a person wrote stays
    options = {"miss": 100, "false_alarm": 5, "bad_share": 0.02}
    browser.post("/api/verdicts/setting", json={"strategy": "cost", "options": options, "band": [0.8, 1.3]})
    config = asked(project)
    assert config["threshold"] == "cost" and config["review"] == {"max_fpr": 0.0, "max_fnr": 0.0}
    browser.post("/api/verdicts/setting", json={"strategy": "auto", "options": {}})
    assert asked(project)["review"] is None and asked(project)["threshold"] == "auto"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"strategy": "best"}, "not one of"), ({"strategy": "fixed"}, "needs value"),
        ({"strategy": "max_fpr", "options": {"max_fpr": 7}}, "max_fpr"),
        ({"strategy": "auto", "options": [1]}, "mapping"),
        ({"strategy": "auto", "band": [1]}, "band"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_work_changes_nothing(browser, project, wrong, told):
    before = project.config.read_text()
    answer = browser.post("/api/verdicts/setting", json=wrong)
    assert answer.status_code == 422 and told in answer.json()["error"] and project.config.read_text() == before


def test_a_detector_with_a_threshold_of_its_own_keeps_it_in_its_entry(browser, project):
    project.change_settings({"detectors": {"patchcore": {"threshold": "youden"}}})
    assert browser.get("/api/verdicts").json()["setting"]["strategy"] == "youden"
    browser.post("/api/verdicts/setting", json={"strategy": "fixed", "options": {"value": 1.5}})
    written = yaml.safe_load(project.config.read_text())
    assert written["detectors"]["patchcore"] == {"threshold": "fixed", "threshold_options": {"value": 1.5}}
    assert "threshold" not in written


def test_pictures_are_those_of_the_run_and_of_nothing_else(browser, project):
    for layer, mode in (("photograph", "RGB"), ("part", "RGB"), ("heatmap", "RGB"), ("heat", "RGBA"), ("mask", "RGBA")):
        answer = browser.get(f"/api/verdicts/picture/{layer}", params={"image_id": "p03", "side": 64})
        image = Image.open(io.BytesIO(answer.content))
        assert answer.status_code == 200 and image.mode == mode and max(image.size) <= 64, layer
    mask = np.asarray(Image.open(io.BytesIO(browser.get("/api/verdicts/picture/mask?image_id=p03").content)))
    assert 0 < (mask[..., 3] > 0).mean() < 0.2
    (project.folder / "secret.jpg").write_bytes((project.photographs / "p00.jpg").read_bytes())
    for strange in ("../secret", "secret.jpg", "photographs/p00.jpg", "", "p0\x00"):
        assert browser.get("/api/verdicts/picture/photograph", params={"image_id": strange}).status_code == 422
    assert browser.get("/api/verdicts/picture/code?image_id=p03").status_code == 422
    (project.photographs / "p05.jpg").unlink()
    assert "run again" in browser.get("/api/verdicts/picture/photograph?image_id=p05").json()["error"]


def test_one_photograph_has_its_boxes_and_layers(browser):
    found = browser.get(f"/api/verdicts/photograph?image_id=p{GOOD:02}").json()
    assert (found["height"], found["width"]) == SIZE and found["boxes"] == [[26, 18, 9, 9, 1.3, ""]]
    assert found["layers"] == ["photograph", "part", "heatmap", "heat", "mask"]
    assert browser.get("/api/verdicts/photograph?image_id=p03").json()["reason"] == "small area"
    assert browser.get("/api/verdicts/photograph?image_id=strange").status_code == 422


def test_a_new_evaluation_is_seen_at_once(browser, project):
    run = results.need_run(project)
    before = browser.get("/api/verdicts").json()
    text = (run.folder / "predictions.csv").read_text()
    (run.folder / "predictions.csv").write_text(text.replace("p00.jpg", "p00_new.jpg"))
    after = browser.get("/api/verdicts").json()
    assert before["photographs"][0]["name"] == "p00.jpg" and after["photographs"][0]["name"] == "p00_new.jpg"
    # A page that shows the old one gets no figures of the new one, and does not write its threshold.
    stamps = before["stamp"], after["stamp"]
    asked = [browser.get(f"/api/verdicts/figures?threshold=1.1&stamp={stamp}").status_code for stamp in stamps]
    assert asked == [409, 200] == [browser.get(f"/api/verdicts/strategies?stamp={s}").status_code for s in stamps]
    chosen = {"strategy": "fixed", "options": {"value": 1.0}}
    answer = browser.post(f"/api/verdicts/setting?stamp={stamps[0]}", json=chosen)
    assert answer.status_code == 409 and "newer run" in answer.json()["error"]
    assert "threshold" not in project.settings()
