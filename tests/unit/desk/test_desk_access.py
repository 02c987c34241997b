"""Nobody but the person who started the desk, or who has the password, gets in; no other site acts through them."""

import pytest
from defectflow.core.files import UserError
from defectflow.desk.access import Access
from defectflow.desk.app import create_app
from defectflow.desk.project import Project
from desk_client import LOOPBACK, Desk
from fastapi.testclient import TestClient


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "part")


def stranger(desk, host=LOOPBACK):
    return TestClient(desk.app, base_url=host)


def test_without_the_token_nothing_is_told(desk):
    for path in ("/", "/photographs", "/labels", "/runs", "/?token=wrong"):
        answer = stranger(desk).get(path)
        assert answer.status_code == 401 and "part" not in answer.text.lower().replace("department", "")
    for path in ("/api/photographs/list", "/api/labels/list", "/api/runs/state", "/api/photographs/picture?name=a.png"):
        answer = stranger(desk).get(path)
        assert answer.status_code == 401 and "error" in answer.json()


def test_the_token_becomes_a_strict_cookie_and_leaves_the_address(desk):
    client = stranger(desk)
    answer = client.get(f"/?token={desk.access.token}")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and desk.access.token not in answer.text + cookie
    assert client.get("/photographs").status_code == 200


def test_a_cookie_survives_a_restart_and_a_forged_one_is_none(desk, tmp_path):
    (cookie,) = desk.client.cookies.values()
    assert Access(Project(tmp_path / "part").state).is_session(cookie)
    assert not desk.access.is_session(cookie[:-1] + ("0" if cookie[-1] != "0" else "1"))
    assert not desk.access.is_session("") and not desk.access.is_session(".")


def test_changes_need_the_header_of_the_page(desk):
    for headers in ({"X-Desk-CSRF": ""}, {"X-Desk-CSRF": "0" * 64}):
        answer = desk.client.post("/api/labels/put", json={"names": [], "label": "good"}, headers=headers)
        assert answer.status_code == 403
    assert desk.post("/api/labels/put", names=[], label="good") == {"changed": 0, "rows": []}


def test_pages_of_other_sites_and_their_names_are_refused(desk):
    assert desk.client.get("/photographs", headers={"Origin": "http://evil.example"}).status_code == 403
    assert stranger(desk, "http://evil.example").get(f"/?token={desk.access.token}").status_code == 421
    assert stranger(desk, "http://localhost:8500").get(f"/?token={desk.access.token}").status_code == 200


def test_every_answer_keeps_foreign_scripts_out(desk):
    for path in ("/photographs", "/api/labels/list", "/static/desk.js", "/nothing"):
        headers = desk.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy and "unsafe-inline" not in policy and "default-src 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"


def test_pages_have_no_inline_scripts_or_styles(desk):
    for page in ("photographs", "labels", "runs"):
        text = desk.client.get(f"/{page}").text
        assert " style=" not in text and "<style" not in text and " onclick" not in text
        scripts = text.split("<script")[1:]
        assert all(one.startswith((' type="application/json"', ' type="module" src="/static/')) for one in scripts)


def test_other_addresses_need_a_password(tmp_path):
    project = Project(tmp_path / "part")
    for password, text in ((None, "--password"), ("short", "longer")):
        with pytest.raises(UserError, match=text):
            Access(project.state, "0.0.0.0", password)
    access = Access(project.state, "0.0.0.0", "correct horse")
    client = TestClient(create_app(project, access), base_url="http://192.0.2.7:8500")
    assert client.get(f"/?token={access.token}").status_code == 401
    assert "password" in client.get("/labels").text
    assert client.post("/login", data={"password": "wrong horse"}).status_code == 401
    assert client.post("/login", data={"password": "correct horse"}).status_code == 429  # too soon after a wrong one
    access.tries = type(access.tries)(None)
    assert client.post("/login", data={"password": "correct horse"}).status_code == 200
    assert client.get("/labels").status_code == 200
    assert access.token not in access.address(8500)


def test_a_large_request_is_refused(desk):
    answer = desk.client.post("/api/labels/put", content=b" " * 17_000_000)
    assert answer.status_code == 413
