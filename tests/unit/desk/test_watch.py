import csv
import functools
import http.server
import shutil
import socket
import threading
import time
from dataclasses import replace

import bundle_set
import cv2
import numpy as np
import pytest
import taught_set
from defectflow.core.files import UserError, write_json
from defectflow.desk.project import Project
from defectflow.desk.records import feedback_table, watching
from defectflow.inspection.inspector import Inspector
from defectflow.monitoring.inspection_log import read_log
from defectflow.sources.feedback import read_feedback
from judged_desk import Browser

PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def png(image):
    return cv2.imencode(".png", image[..., ::-1], PNG)[1].tobytes()


@pytest.fixture
def project(tmp_path, bundle_folder):
    project = Project(tmp_path / "line")
    place = project.folder / "releases/1"
    place.mkdir(parents=True)
    shutil.copytree(bundle_folder, place / "bundle")
    write_json(place / "release.json", {"version": "1", "time": 0})
    (project.folder / "releases/current").symlink_to("1/bundle")
    return project


@pytest.fixture
def browser(project):
    return Browser(project)


def until(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def judge(browser, image, name="one.png"):
    return browser.client.post(
        f"/api/watch/judge?name={name}", content=png(image), headers={"X-Desk-CSRF": browser.csrf}
    )


def test_without_a_release_the_page_says_where_to_go(tmp_path):
    browser = Browser(Project(tmp_path / "new"))
    assert "/release" in browser.get("/watch").text and 'id="source"' not in browser.get("/watch").text
    answers = [judge(browser, bundle_set.photograph(1)), browser.get("/api/watch/drift")]
    answers.append(browser.post("/api/watch/start", json={"kind": "folder", "source": str(tmp_path)}))
    for answer in answers:
        assert answer.status_code == 422 and "no bundle is in use" in answer.json()["error"]


def test_single_pictures_get_the_verdict_of_the_bundle_and_stand_in_the_log(browser, project):
    good, bad = judge(browser, bundle_set.photograph(1)).json(), judge(browser, bundle_set.photograph(2, True)).json()
    assert (good["verdict"], bad["verdict"]) == ("good", "bad") and bad["score"] > 0.5 > good["score"]
    state = browser.get("/api/watch/state").json()
    assert [row["number"] for row in state["verdicts"]] == [2, 1] and state["counts"]["bad"] == 1
    assert browser.get("/api/watch/state?since=1").json()["verdicts"][0]["number"] == 2
    assert len(read_log(project.folder / "inspections.db").time) == 2
    for layer in ("photograph", "overlay"):
        answer = browser.get(f"/api/watch/picture/{layer}?number=2")
        assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), 1) is not None
    assert browser.get("/api/watch/picture/photograph?number=9").status_code == 422


def test_what_the_inspector_is_not_sure_of_goes_to_a_person_as_in_the_service(bundle_folder):
    verdict = Inspector.load(bundle_folder)(bundle_set.photograph(1))
    for changed, word in (
        ({}, "good"), ({"present": True}, "good"), ({"present": False}, "review"), ({"doubtful": True}, "review"),
        ({"doubtful": True, "bad": True}, "review"), ({"bad": True}, "bad"), ({"review": True}, "review"),
    ):  # fmt: skip
        assert watching.word_of(replace(verdict, **changed)) == word


def test_what_is_no_picture_is_refused_or_told(browser):
    for name, body in (("page.html", b"x"), ("empty.png", b""), ("../x", b"x")):
        answer = browser.client.post(
            "/api/watch/judge", params={"name": name}, content=body, headers={"X-Desk-CSRF": browser.csrf}
        )
        assert answer.status_code == 422 and "not a picture" in answer.json()["error"]
    broken = browser.client.post("/api/watch/judge?name=a.png", content=b"text", headers={"X-Desk-CSRF": browser.csrf})
    assert broken.json()["verdict"] == "error" and broken.json()["said"] and broken.json()["score"] is None


def test_a_folder_is_watched_until_it_is_stopped(browser, project, tmp_path):
    folder = tmp_path / "incoming"
    folder.mkdir()
    (folder / "notes.pdf").write_text("not a picture")
    cv2.imwrite(str(folder / "a.png"), bundle_set.photograph(3)[..., ::-1])
    assert browser.post("/api/watch/start", json={"kind": "folder", "source": str(folder)}).json()["watching"]
    until(lambda: browser.get("/api/watch/state").json()["counts"]["good"] == 1)
    again = browser.post("/api/watch/start", json={"kind": "folder", "source": str(folder)})
    assert "watched already" in again.json()["error"]
    cv2.imwrite(str(folder / "b.png"), bundle_set.photograph(4, True)[..., ::-1])
    until(lambda: browser.get("/api/watch/state").json()["counts"]["bad"] == 1)
    began = time.monotonic()
    assert browser.post("/api/watch/stop").json()["watching"] is None and time.monotonic() - began < 5
    # The line writes another photograph by that name: what was said of the first is not said of it.
    cv2.imwrite(str(folder / "b.png"), bundle_set.photograph(5)[..., ::-1])
    for answer in (
        browser.post("/api/watch/feedback", json={"number": 2, "said": "good"}),
        browser.get("/api/watch/picture/photograph?number=2"), browser.get("/api/watch/picture/overlay?number=2"),
    ):  # fmt: skip
        assert answer.status_code == 422 and "was replaced" in answer.json()["error"]
    assert not (project.folder / "feedback.csv").exists()
    state = browser.get("/api/watch/state").json()
    assert state["problem"] == "" and [row["name"] for row in state["verdicts"]] == ["b.png", "a.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png", "notes.pdf"]  # nothing is written there


@pytest.mark.parametrize("source", ["", "relative/folder", "/no/such/folder"])
def test_a_folder_that_is_not_there_is_refused(browser, source):
    answer = browser.post("/api/watch/start", json={"kind": "folder", "source": source})
    assert answer.status_code == 422 and "not a folder" in answer.json()["error"]


def test_the_folder_of_the_desk_is_not_watched(browser, project):
    for folder in (project.folder, project.state):
        answer = browser.post("/api/watch/start", json={"kind": "folder", "source": str(folder)})
        assert "the desk's own folder" in answer.json()["error"]


def video(path, images):
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
    assert writer.isOpened()
    for image in images:
        writer.write(image[..., ::-1])
    writer.release()


def test_a_video_file_is_a_camera_that_ends(browser, project, tmp_path):
    video(tmp_path / "line.avi", [bundle_set.photograph(k, k >= 5) for k in range(10)])
    asked = {"kind": "camera", "source": str(tmp_path / "line.avi"), "every": 0.2}
    browser.post("/api/watch/start", json=asked)
    until(lambda: browser.get("/api/watch/state").json()["watching"] is None)
    state = browser.get("/api/watch/state").json()
    # 10 frames a second, one of every 0.2 seconds: five, of which the last two show the blot.
    assert state["problem"] == "" and len(state["verdicts"]) == 5
    assert [row["verdict"] for row in state["verdicts"]][:2] == ["bad", "bad"] and state["counts"]["good"] >= 2
    assert len(list((project.folder / "watched/camera").glob("*.png"))) == 5


def test_a_stream_at_an_address_gives_the_frames_of_its_camera(tmp_path, monkeypatch):
    video(tmp_path / "line.avi", [bundle_set.photograph(k) for k in range(6)])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=tmp_path)
    monkeypatch.setattr(watching, "BROKEN", 2)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = watching.frames(
            f"http://127.0.0.1:{server.server_port}/line.avi", 0, tmp_path / "kept", threading.Event()
        )
        (tmp_path / "kept").mkdir()
        taken = [cv2.imread(str(next(found))) for _ in range(6)]
        with pytest.raises(UserError, match="delivers no more frames"):
            next(found)
        server.shutdown()
    camera = cv2.VideoCapture(str(tmp_path / "line.avi"))
    assert all((image == camera.read()[1]).all() for image in taken)


def test_an_address_at_which_nobody_speaks_is_refused_before_long(browser, monkeypatch):
    monkeypatch.setattr(watching, "ANSWERS", 500)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        source = f"rtsp://user:secret@127.0.0.1:{silent.getsockname()[1]}/stream"
        began = time.monotonic()
        answer = browser.post("/api/watch/start", json={"kind": "camera", "source": source})
        assert time.monotonic() - began < 10
    (line,) = answer.json()["error"].splitlines()
    assert answer.status_code == 422 and "does not respond" in line and "secret" not in line


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("77", "does not respond"),
        ("/etc", "not a camera"),
        ("file:///etc/passwd", "not a camera"),
        ("concat:a|b", "not a camera"),
    ],
)
def test_a_camera_that_is_none_is_refused(browser, source, told):
    answer = browser.post("/api/watch/start", json={"kind": "camera", "source": source})
    assert answer.status_code == 422 and told in answer.json()["error"]
    assert browser.post("/api/watch/start", json={"kind": "camera", "source": "0", "every": 0.01}).status_code == 422


def test_the_password_of_a_camera_is_not_shown():
    assert watching.hidden("rtsp://user:secret@10.0.0.7/stream") == "rtsp://…@10.0.0.7/stream"
    with pytest.raises(UserError) as error:
        watching.opened("rtsp://user:secret@127.0.0.1:1/x y")
    assert "secret" not in str(error.value)


def test_a_camera_that_stops_giving_frames_is_told():
    class Dead:
        def grab(self):
            return False

        def get(self, what):
            return 0

        def release(self):
            self.released = True

    camera = Dead()
    with pytest.raises(UserError, match="delivers no more frames"):
        list(watching._frames(camera, "0", 1.0, None, lambda: False, lambda seconds: False))
    assert camera.released


def test_only_the_newest_frames_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "KEPT", 3)
    for number in range(5):
        watching.kept(tmp_path, b"x", f"frame-{number}", ".png")
    assert [path.name[-5] for path in sorted(tmp_path.iterdir())] == ["2", "3", "4"]


def test_what_was_wrong_becomes_the_table_that_learn_reads(browser, project):
    judge(browser, bundle_set.photograph(1))
    judge(browser, bundle_set.photograph(2, True))
    answer = browser.post("/api/watch/feedback", json={"number": 1, "said": "bad", "who": "Ana", "box": [1, 2, 30, 40]})
    assert answer.json() == {"feedback": 1, "said": "bad"}
    assert browser.post("/api/watch/feedback", json={"number": 2, "said": "good"}).json()["feedback"] == 2
    # Another opinion takes the place of the first.
    assert browser.post("/api/watch/feedback", json={"number": 2, "said": "good", "who": "Ben"}).json()["feedback"] == 2
    rows = read_feedback(project.folder / "feedback.csv")
    assert [(row.bad, row.box) for row in rows] == [(True, (1, 2, 30, 40)), (False, None)]
    told = list(csv.DictReader((project.folder / "feedback.csv").open()))
    assert [row["who"] for row in told] == ["Ana", "Ben"] and all(row["time"] for row in told)
    assert [row["feedback"] for row in browser.get("/api/watch/state").json()["verdicts"]] == ["good", "bad"]
    # The photograph may go; what was said of it stays.
    for path in (project.folder / "watched/single").iterdir():
        path.unlink()
    assert feedback_table.checked(project) == 2


def test_feedback_is_taken_back_and_leaves_nothing(browser, project):
    judge(browser, bundle_set.photograph(1))
    browser.post("/api/watch/feedback", json={"number": 1, "said": "bad"})
    assert browser.post("/api/watch/feedback", json={"number": 1, "said": ""}).json()["feedback"] == 0
    assert not (project.folder / "feedback.csv").exists() and list((project.folder / "feedback").iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"number": 7, "said": "bad"}, {"number": 1, "said": "perhaps"}, {"number": 1, "said": "good", "box": [1, 1, 5, 5]},
     {"number": 1, "said": "bad", "box": [1, 1, 5, 50000]}, {"number": 1, "said": "bad", "box": [9, 9, 5, 5]},
     {"number": 1, "said": "bad", "session": "of a desk that has ended"}],
)  # fmt: skip
def test_feedback_that_makes_no_sense_writes_nothing(browser, project, wrong):
    judge(browser, bundle_set.photograph(1))
    assert browser.post("/api/watch/feedback", json=wrong).status_code == 422
    assert not (project.folder / "feedback.csv").exists()


def test_the_bundle_of_the_run_learns_and_the_one_in_use_stays(browser, project, bundle_folder):
    run = project.results / project.dataset / "none/none/patchcore"
    run.mkdir(parents=True)
    taught_set.make(bundle_folder, run / "bundle")
    for name in ("metrics.json", "predictions.csv"):
        (run / name).write_text("{}")
    assert "no feedback" in browser.post("/api/watch/teach").json()["error"]
    used = (project.folder / "releases/1/bundle/bundle.json").read_bytes()
    judge(browser, taught_set.spotted(31))
    browser.post("/api/watch/feedback", json={"number": 1, "said": "good"})
    found = browser.post("/api/watch/teach?force=true")
    assert found.status_code == 200, found.text
    assert "version 1" in found.json()["lines"][-1]
    assert '"taught"' in (run / "bundle/bundle.json").read_text()
    assert (project.folder / "releases/1/bundle/bundle.json").read_bytes() == used


def test_drift_is_charted_from_the_log(browser, project, bundle_folder):
    place = project.folder / "releases/1/bundle"
    shutil.rmtree(place)
    taught_set.make(bundle_folder, place)
    assert browser.get("/api/watch/drift").json() == {"told": [], "line": "", "few": True, "charts": []}
    for seed in range(3):
        judge(browser, bundle_set.photograph(seed))
    found = browser.get("/api/watch/drift").json()
    assert found["few"] and "3 photographs" in found["line"]
    charts = {chart["key"]: chart for chart in found["charts"]}
    assert {"exposure", "sharpness"} <= set(charts) and len(charts["exposure"]["path"]) == 3
    for seed in range(20):
        judge(browser, (bundle_set.photograph(seed) * 0.5).astype(np.uint8))
    found = browser.get("/api/watch/drift").json()
    assert any("darker" in text for text in found["told"])
    assert next(chart for chart in found["charts"] if chart["key"] == "exposure")["alarms"]
