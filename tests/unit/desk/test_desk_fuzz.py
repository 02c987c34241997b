"""Whatever is sent: no error of the server, and no file outside of the folder."""

import json

import pytest
from desk_client import Desk, photograph, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged_desk import judged_project

PICTURE = photograph(7)
PATHS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["p01", "p01.jpg", "nan", "-1e999", "0.5", "..", "../a", "/etc/passwd", "a/../../b", "a\0b", "good", "\u202e"]
    ),
)
NAMES = st.builds(
    lambda parts, end: "/".join(parts) + end,
    st.lists(PATHS, min_size=1, max_size=3),
    st.sampled_from(["", ".png", ".jpg", ".csv", ".json", ".zip"]),
)
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.integers(1, len(PICTURE)).map(lambda n: PICTURE[:n]),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.tuples(NAMES, st.binary(max_size=50)).map(lambda pair: zipped({pair[0] or "a": pair[1]})),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    *("names", "label", "kind", "path", "text", "question", "option", "share", "who", "settles", "number", "go_on"),
    *("name", "inside", "outside", "stamp", "strategy", "options", "band", "version", "note", "sha256", "said", "box"),
    *("session", "source", "every", "run"),
)
POSTS = (
    "labels/put",
    "labels/undo",
    "labels/defect?name=a.png",
    "runs/unqueue",
    "runs/stop",
    "photographs/folder",
    "photographs/remove",
    "photographs/give-back",
    "runs/answer",
    "runs/setting",
    "part/clicks",
    "part/outline?name=p01.jpg",
    "part/remove",
    "part/accept",
    "verdicts/setting",
    "release",
    "release/use",
    "watch/start",
    "watch/feedback",
    "watch/judge?name=a.png",
)
GETS = (
    "photographs/picture?name=",
    "photographs/archive/",
    "labels/defect?look=1&name=",
    "runs/report/",
    "runs/log?run=",
    "photographs/picture?name=a.png&size=",
    "part/picture?name=",
    "part/mask?name=",
    "part/sheet?name=",
    "verdicts/photograph?image_id=",
    "verdicts/picture/",
    "verdicts/picture/heat?image_id=",
    "verdicts/figures?threshold=",
    "verdicts/figures?threshold=1&low=",
    "verdicts/evaluated?miss=",
    "verdicts/strategies?bad_share=",
    "release/compare?old=",
    "release/report.html?version=",
    "release/bundle.zip?version=",
    "watch/state?since=",
    "watch/picture/photograph?number=",
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "around/part"
    judged_project(folder)  # so that what is sent meets a run
    return Desk(folder)


def outside(desk):
    """Files beside the folder of the desk."""
    around = desk.project.folder.parents[1]
    return [path for path in around.rglob("*") if desk.project.folder not in (path, *path.parents) and path.is_file()]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, content=CONTENTS)
def test_files_of_any_name_and_content(desk, name, content):
    if not name.strip() or any(ord(c) in (0, 10, 13) or 0xD800 <= ord(c) < 0xE000 for c in name):
        return  # a client cannot send it as a file
    answer = desk.client.post("/api/photographs/upload", files=[("image", (name, content))])
    assert answer.status_code in (200, 400, 422), answer.text
    assert outside(desk) == []


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), content=st.dictionaries(st.sampled_from(KEYS), VALUES | PATHS, max_size=4))
def test_any_json_is_answered(desk, path, content):
    body = json.dumps(content).encode("utf-8", "surrogatepass")
    answer = desk.client.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 422), answer.text
    assert outside(desk) == []
    assert desk.client.get("/api/photographs/list").status_code == 200


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(GETS), value=PATHS)
def test_any_address_is_answered(desk, path, value):
    from urllib.parse import quote

    answer = desk.client.get(f"/api/{path}{quote(value.encode('utf-8', 'surrogatepass'), safe='')}")
    assert answer.status_code in (200, 307, 404, 422), answer.text
