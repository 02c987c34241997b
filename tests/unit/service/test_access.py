import json

import pytest
from defectflow.core.addresses import is_loopback
from defectflow.core.files import UserError
from defectflow.service import access
from defectflow.service.access import RateLimit, add_token, find_token, foreign, read_tokens, remove_token
from defectflow.service.options import Options


def test_a_token_is_kept_as_a_hash_that_its_owner_alone_may_read(tmp_path):
    file = tmp_path / "tokens.json"
    text = add_token(file, "camera-3", "inspect")
    other = add_token(file, "boss", "approve")
    assert len(text) > 40 and text not in file.read_text() and file.stat().st_mode & 0o77 == 0
    tokens = read_tokens(file)
    assert find_token(tokens, f"Bearer {text}").name == "camera-3"
    assert find_token(tokens, f"bearer  {other}").name == "boss"
    for header in ("", "Bearer", "Bearer ", f"Basic {text}", f"Bearer {text}x", f"Bearer {text[:-1]}", text):
        assert find_token(tokens, header) is None
    remove_token(file, "camera-3")
    assert [token.name for token in read_tokens(file)] == ["boss"]


def test_a_role_includes_those_before_it(tmp_path):
    file = tmp_path / "tokens.json"
    for role in access.ROLES:
        add_token(file, role, role)
    able = {token.name: [token.may(role) for role in access.ROLES] for token in read_tokens(file)}
    assert able == {"inspect": [True, False, False], "label": [True, True, False], "approve": [True, True, True]}


def test_wrong_files_of_tokens_are_refused(tmp_path):
    file = tmp_path / "tokens.json"
    add_token(file, "a", "inspect")
    with pytest.raises(UserError, match="already has a token 'a'"):
        add_token(file, "a", "inspect")
    with pytest.raises(UserError, match="has no token 'b' \\(it has: a\\)"):
        remove_token(file, "b")
    with pytest.raises(UserError, match="not a valid name"):
        add_token(file, "a\nb", "inspect")
    entry = json.loads(file.read_text())["tokens"][0]
    for content in ([], {"tokens": [{"name": "a"}]}, {"tokens": [entry | {"role": "king"}]},
                    {"tokens": [entry | {"sha256": ""}]}):  # fmt: skip
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"tokens\.json: "):
            read_tokens(file)


def test_requests_of_foreign_pages_are_known():
    assert not foreign({"host": "localhost:80"}, "127.0.0.1") and not foreign({"host": "[::1]:80"}, "127.0.0.1")
    assert not foreign({"host": "127.0.0.1:80", "origin": "http://127.0.0.1:80"}, "127.0.0.1")
    assert foreign({"host": "evil.example:80"}, "127.0.0.1") and foreign({}, "127.0.0.1")
    assert foreign({"host": "127.0.0.1:80", "origin": "http://127.0.0.1:81"}, "127.0.0.1")


def test_a_sender_may_send_so_many_requests_a_second_and_others_too(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(access.time, "monotonic", lambda: now[0])
    rate = RateLimit(2)
    assert [rate.wait("a") for _ in range(4)] == [0, 0, 1, 1]
    assert rate.wait("b") == 0
    now[0] += 0.5
    assert [rate.wait("a"), rate.wait("a")] == [0, 1]
    monkeypatch.setattr(access, "REMEMBERED", 10)
    for number in range(50):
        rate.wait(str(number))
    assert len(rate._known) == 10
    assert RateLimit(0.1).wait("a") == 0 and RateLimit(None).wait("a") == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_tokens(host):
    assert is_loopback(host)
    Options(bundles=("b",), host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", "localhost.example.org", ""])
def test_other_addresses_do(host, tmp_path):
    with pytest.raises(UserError, match="tokens are needed"):
        Options(bundles=("b",), host=host).check()
    add_token(tmp_path / "t.json", "a", "inspect")
    Options(bundles=("b",), host=host, tokens=tmp_path / "t.json").check()


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"queue": 0}, {"timeout": 0}, {"rate": 0}, {"body": 0}, {"certificate": "a"},
              {"timeout": float("nan")}, {"rate": float("inf")}, {"port": 65536}, {"port": -1},
              {"certificate": "a", "key": "b"}, {"csv": "a.csv"}]
)  # fmt: skip
def test_wrong_options_are_refused(wrong, tmp_path):
    paths = {key: tmp_path / value if isinstance(value, str) else value for key, value in wrong.items()}
    with pytest.raises(UserError, match="--"):
        Options(bundles=("b",), **paths).check()
