"""An OPC UA client reads what the server shows, and nothing else is possible."""

import asyncio
import json
import logging
import math
import shutil
import socket
import subprocess

import pytest
from defectflow.core.files import UserError

pytest.importorskip("asyncua", reason="needs the extra opcua")

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from defectflow.delivery.opcua import URI, OpcUa

RECORD = {
    "time": "2025-01-01T00:00:00.000+00:00", "id": "1f", "part_id": "4711", "file": "ä.png", "model": "plate",
    "model_version": "0", "verdict": "bad", "score": 0.75, "raw_score": 2.0, "threshold": 1.0, "reason": "",
    "cause": None,
}  # fmt: skip


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"opc.tcp://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def opened():
    """Function that starts a server, which is ended afterwards."""
    servers = []

    def start(*words) -> OpcUa:
        servers.append(OpcUa(*words))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


async def read(client, *names) -> list:
    space = await client.get_namespace_index(URI)
    return [await client.get_node(ua.NodeId(name, space)).read_value() for name in names]


def test_clients_read_the_latest_verdict_and_cannot_write(address, opened):
    server = opened(address, ["plate", "other"], None, None, None)

    async def look():
        async with Client(address) as client:
            (verdict, count, score) = await read(client, "plate.Verdict", "plate.Count", "plate.Score")
            assert (verdict, count) == ("", 0) and math.isnan(score)
            await asyncio.to_thread(server.send, [RECORD | {"id": "0"}, RECORD])
            assert await read(client, "plate.Count", "plate.Id", "plate.PartId", "plate.File") == [
                2,
                "1f",
                "4711",
                "ä.png",
            ]
            assert await read(client, "plate.Verdict", "plate.Score", "plate.Cause") == ["bad", 0.75, ""]
            assert json.loads((await read(client, "plate.Record"))[0]) == RECORD
            assert await read(client, "other.Count", "unnamed.Count") == [0, 0]
            await asyncio.to_thread(server.send, [RECORD | {"model": "", "verdict": "review", "score": None}])
            assert await read(client, "unnamed.Count", "unnamed.Verdict") == [1, "review"]
            top = await client.nodes.objects.get_child(f"{await client.get_namespace_index(URI)}:defectflow")
            assert len(await top.get_children()) == 3
            with pytest.raises(ua.UaStatusCodeError):
                await top.add_variable(2, "mine", 1)
            node = client.get_node(ua.NodeId("plate.Verdict", await client.get_namespace_index(URI)))
            with pytest.raises(ua.UaStatusCodeError):
                await node.write_value("good")
        administrator = Client(address)
        administrator.set_user("admin")
        administrator.set_password("")
        with pytest.raises(Exception):  # noqa: B017
            await administrator.connect()

    asyncio.run(look())
    with pytest.raises(UserError, match="choose another port"):
        OpcUa(address, ["plate"], None, None, None)


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here to make a certificate")
def test_with_a_login_and_a_certificate_others_see_nothing(address, opened, tmp_path):
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    uris = {"server": URI, "client": "urn:example.org:FreeOpcUa:opcua-asyncio"}
    for name, uri in uris.items():
        command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=URI:{uri}"
        files = ["-keyout", f"{name}-key.pem", "-out", f"{name}.pem"]
        subprocess.run([*command.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "login").write_text("line:pass:word\n")
    server = opened(address, ["plate"], tmp_path / "login", tmp_path / "server.pem", tmp_path / "server-key.pem")
    server.send([RECORD])

    async def look(user, password, encrypted=True):
        client = Client(address)
        if encrypted:
            await client.set_security(
                SecurityPolicyBasic256Sha256, tmp_path / "client.pem", tmp_path / "client-key.pem",
                server_certificate=str(tmp_path / "server.pem"),
            )  # fmt: skip
        if user:
            client.set_user(user)
            client.set_password(password)
        async with client:
            return await read(client, "plate.Verdict")

    assert asyncio.run(look("line", "pass:word")) == ["bad"]
    for words in (("line", "wrong"), ("admin", ""), ("", ""), ("line", "pass:word", False)):
        with pytest.raises(Exception):  # noqa: B017
            asyncio.run(look(*words))


@pytest.mark.parametrize("address", ["opc.tcp://", "http://127.0.0.1", "opc.tcp://127.0.0.1/path", "opc.tcp://h:x"])
def test_other_addresses_are_refused(address):
    with pytest.raises(UserError, match="--opcua: an address"):
        OpcUa(address, [], None, None, None)


def test_on_other_hosts_a_login_and_encryption_are_needed(tmp_path):
    (tmp_path / "login").write_text("a:b")
    for login in (None, tmp_path / "login"):
        with pytest.raises(UserError, match="a login and encryption are needed"):
            OpcUa("opc.tcp://0.0.0.0:4840", [], login, None, None)
