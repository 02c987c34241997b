import csv
import io
import json
import os
import stat
import zipfile

import pandas as pd
import pytest
from defectflow.core.files import UserError, write_json
from defectflow.desk import release as page
from defectflow.desk.records import releases
from defectflow.inspection.bundle_files import SECTIONS, read_bundle, write_manifest
from judged_desk import Browser, judged_project, lines

PRINTS = """#!/bin/sh
for word in "$@"; do
  case "$word" in --print-to-pdf=*) printf "%%PDF-1.4 page" > "${word#*=}";; esac
done
"""


def put_bundle(project, value=1.1):
    """A bundle in the run, as far as it is checked without being used."""
    folder = next(project.results.glob("*/*/*/*/metrics.json")).parent / "bundle"
    folder.mkdir(exist_ok=True)
    (folder / "network.onnx").write_bytes(b"layers")
    empty = {name: kind() for name, kind in SECTIONS.items() if name != "files"}
    write_manifest(folder, {**empty, "threshold": {"value": value, "strategy": "f1_adaptive"}, "review": None})
    return folder


@pytest.fixture
def project(tmp_path):
    project = judged_project(tmp_path / "line 3")
    put_bundle(project)
    return project


@pytest.fixture
def browser(project):
    return Browser(project)


def approve(browser, version, who="Ana", note=""):
    return browser.post("/api/release", json={"version": version, "who": who, "note": note})


def test_a_release_keeps_bundle_report_and_verdicts_and_is_in_use(browser, project):
    assert browser.get("/release").status_code == 200
    before = browser.get("/api/release").json()
    assert before["candidate"]["released"] is None and before["suggested"] == "1" and before["current"] is None
    after = approve(browser, "1.0", note="first").json()
    assert after["current"] == "1.0" and after["candidate"]["released"] == "1.0" and after["suggested"] == "1.1"
    folder = project.folder / "releases/1.0"
    assert {path.name for path in folder.iterdir()} == {"bundle", "release.json", "report.html", "verdicts.csv"}
    assert read_bundle(project.folder / "releases/current").settings["threshold"]["value"] == 1.1
    assert releases.bundle_in_use(project) == folder / "bundle"
    about = json.loads((folder / "release.json").read_text())
    assert (about["who"], about["note"], about["threshold"]) == ("Ana", "first", 1.1)
    # What is run later does not change it.
    put_bundle(project, 1.4)
    assert read_bundle(folder / "bundle").settings["threshold"]["value"] == 1.1


@pytest.mark.parametrize(
    ("version", "who", "told"),
    [
        ("", "Ana", "letters and digits"), ("../x", "Ana", "letters and digits"), ("a/b", "Ana", "letters and digits"),
        ("current", "Ana", "letters and digits"), ("1.0", "Ana", "exists already"), ("2", "  ", "who approves"),
    ],
)  # fmt: skip
def test_a_release_that_does_not_work_leaves_nothing(browser, project, version, who, told):
    approve(browser, "1.0")
    before = sorted(path.name for path in (project.folder / "releases").iterdir())
    answer = approve(browser, version, who)
    assert answer.status_code == 422 and told in answer.json()["error"]
    assert sorted(path.name for path in (project.folder / "releases").iterdir()) == before


def test_a_bundle_that_is_absent_damaged_or_older_than_its_run_is_not_released(browser, project):
    folder = put_bundle(project)
    os.utime(folder / "bundle.json", (1, 1))
    assert browser.get("/api/release").json()["candidate"]["outdated"]
    assert "older than its run" in approve(browser, "1").json()["error"]
    put_bundle(project)
    (folder / "network.onnx").write_bytes(b"other!")
    assert "damaged" in approve(browser, "1").json()["error"]
    (folder / "bundle.json").unlink()
    assert browser.get("/api/release").json()["candidate"] is None
    assert "no bundle to release" in approve(browser, "1").json()["error"]
    assert not (project.folder / "releases/1").exists() and releases.current(project) is None


def test_rolling_back_is_one_step_and_is_logged(browser, project):
    approve(browser, "1")
    put_bundle(project, 1.3)
    approve(browser, "2", note="tighter")
    back = browser.post("/api/release/use", json={"version": "1", "who": "Ben", "note": "too many alarms"}).json()
    assert back["current"] == "1" and releases.bundle_in_use(project).parent.name == "1"
    log = [(one["who"], one["action"], one["version"], one["note"]) for one in back["audit"]]
    assert log[0] == ("Ben", "put in use", "1", "too many alarms") and len(log) == 3 and back["audit_wrong"] == ""
    for version, told in (("1", "already in use"), ("9", "no such release"), ("..", "no such release")):
        answer = browser.post("/api/release/use", json={"version": version, "who": "Ben"})
        assert answer.status_code == 422 and told in answer.json()["error"]
    (project.folder / "releases/2/bundle/network.onnx").write_bytes(b"broken")
    assert "damaged" in browser.post("/api/release/use", json={"version": "2", "who": "Ben"}).json()["error"]
    put = project.folder / "releases/2/bundle"
    (put / "network.onnx").write_bytes(b"layer2")
    settings = json.loads((put / "bundle.json").read_text())
    write_manifest(put, {key: value for key, value in settings.items() if key not in ("format", "files")})
    answer = browser.post("/api/release/use", json={"version": "2", "who": "Ben"})
    assert "was changed after the release" in answer.json()["error"] and releases.current(project) == "1"


def test_the_log_shows_when_somebody_has_changed_it(browser, project):
    for version in ("1", "2", "3"):
        put_bundle(project, 1 + float(version) / 10)
        approve(browser, version)
    path = project.folder / "releases/audit.jsonl"
    entries = lines(path)
    assert [one["number"] for one in entries] == [1, 2, 3]
    text = path.read_text()
    path.write_text(text.replace('"version": "2"', '"version": "7"'))
    assert "line 3" in releases.audit(project)[1]
    path.write_text("".join(text.splitlines(keepends=True)[1:]))
    assert "line 1" in releases.audit(project)[1]
    path.write_text(text + "damaged\n")
    assert "line 4" in browser.get("/api/release").json()["audit_wrong"]


def test_the_log_is_exported_as_csv_without_formulas(browser):
    approve(browser, "1", who="=HYPERLINK(1)", note="two\nlines")
    answer = browser.get("/api/release/audit.csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert tuple(rows[0]) == releases.COLUMNS and rows[0]["who"] == "'=HYPERLINK(1)" and rows[0]["note"] == "two\nlines"


def verdicts(*rows):
    return pd.DataFrame(
        [(f"{digest}.jpg", digest, label, "", verdict, 1.0, 1.1) for digest, label, verdict in rows],
        columns=releases.SHOWN,
    )


def test_comparing_says_what_changes_on_the_same_photographs():
    good, bad = "good", "bad"
    old = verdicts(("a", 0, good), ("b", 1, good), ("c", 0, good), ("d", 1, bad), ("e", 0, good), ("x", 0, bad))
    new = verdicts(("a", 0, good), ("b", 1, bad), ("c", 0, bad), ("d", 1, "review"), ("e", None, bad), ("y", 0, bad))
    found = releases.compare(old, new)
    counts = [found[key] for key in ("both", "only_old", "only_new", "better", "worse")]
    assert counts == [5, 1, 1, 1, 2]
    assert [(row["filename"], row["before"], row["after"], row["effect"]) for row in found["changed"]] == [
        ("c.jpg", good, bad, -1),
        ("d.jpg", bad, "review", -1),
        ("e.jpg", good, bad, 0),
        ("b.jpg", good, bad, 1),
    ]


def test_the_last_run_is_compared_with_a_release(browser, project):
    run = next(project.results.glob("*/*/*/*/predictions.csv"))
    manifest = project.results / project.dataset / "manifest.csv"
    table = pd.read_csv(manifest)
    table["sha256"] = [f"s{k}" for k in range(len(table))]
    table.to_csv(manifest, index=False)
    approve(browser, "1")
    predictions = pd.read_csv(run)
    predictions.loc[0, "predicted_label"] = 1
    predictions.to_csv(run, index=False)
    found = browser.get("/api/release/compare?old=1").json()
    assert found["both"] == len(table) and [row["filename"] for row in found["changed"]] == ["p00.jpg"]
    assert found["worse"] == 1 and browser.get("/api/release/compare?old=1&new=1").json()["changed"] == []
    assert browser.get("/api/release/compare?old=../1").status_code == 422


def test_the_report_opens_cut_off_from_the_desk(browser):
    approve(browser, "1")
    for query in ("", "?version=1"):
        answer = browser.get(f"/api/release/report.html{query}")
        assert "figures" in answer.text and answer.headers["content-security-policy"].startswith("sandbox")
    assert browser.get("/api/release/report.html?version=..").status_code == 422


def test_a_pdf_is_printed_where_there_is_chromium_and_not_offered_elsewhere(browser, project, tmp_path, monkeypatch):
    page.browser.cache_clear()
    monkeypatch.setattr(page.shutil, "which", lambda name: None)
    assert browser.get("/api/release").json()["pdf"] is False
    assert "needs Chromium" in browser.get("/api/release/report.pdf").json()["error"]
    fake = tmp_path / "chromium"
    fake.write_text(PRINTS)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    page.browser.cache_clear()
    monkeypatch.setattr(page.shutil, "which", lambda name: str(fake))
    answer = browser.get("/api/release/report.pdf")
    assert answer.content == b"%PDF-1.4 page" and answer.headers["content-type"] == "application/pdf"
    fake.write_text("#!/bin/sh\nexit 3\n")
    assert "did not print" in browser.get("/api/release/report.pdf").json()["error"]
    page.browser.cache_clear()


def test_a_release_can_be_taken_along(browser, project):
    approve(browser, "1")
    archive = zipfile.ZipFile(io.BytesIO(browser.get("/api/release/bundle.zip?version=1").content))
    assert set(archive.namelist()) == {"bundle.json", "network.onnx"}
    assert [path for path in project.state.iterdir() if path.name.startswith("tmp")] == []


def test_what_people_taught_a_bundle_is_released_too(browser, project):
    approve(browser, "1")
    folder = put_bundle(project)
    settings = json.loads((folder / "bundle.json").read_text())
    write_json(folder / "bundle.json", settings | {"taught": {"version": 1}})
    assert releases.candidate(project)["figures"]["recall"] is None  # not that of the run before the lesson
    (folder / "taught-1").mkdir()
    after = {"good": 10, "bad": 5, "missed": 1, "false_alarms": 2, "f1": 0.8}
    write_json(folder / "taught-1/learned.json", {"photographs_of_the_run": {"before": {}, "after": after}})
    figures = releases.candidate(project)["figures"]
    assert (figures["recall"], figures["false_positive_rate"], figures["auroc"]) == (0.8, 0.2, None)
    assert (figures["n_good"], figures["n_bad"]) == (10, 5)
    ready = releases.candidate(project)
    assert ready["taught"] == 1 and not ready["outdated"] and ready["released"] is None
    assert releases.release(project, "1-taught", "", "Ana")["taught"] == 1
    os.utime(folder / "network.onnx", (1, 1))  # the run was evaluated again, between the bundle and the lesson
    with pytest.raises(UserError, match="older than its run"):
        releases.release(project, "2-taught", "", "Ana")


def test_no_release_without_an_approver(project):
    with pytest.raises(UserError, match="who approves"):
        releases.use(project, "1", "", "")
