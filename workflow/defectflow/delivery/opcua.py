"""An OPC UA server that shows the latest verdict of each bundle to controllers and plant systems.

Clients may read and subscribe; nothing can be written. Needs asyncua (the extra `opcua`).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from defectflow.core.addresses import is_loopback, parts_of
from defectflow.core.files import UserError

URI = "urn:defectflow:service"
PATIENCE = 60.0  # seconds that anything here may take
UNNAMED = "unnamed"  # of verdicts on requests that did not arrive far enough to name a bundle
# Name of a variable, and the field of the record. Count is written last: when it changes, the others belong together.
TEXTS = {
    "Record": "", "Id": "id", "PartId": "part_id", "File": "file", "ModelVersion": "model_version",
    "Verdict": "verdict", "Reason": "reason", "Cause": "cause", "Time": "time",
}  # fmt: skip
NUMBERS = {"Score": "score", "RawScore": "raw_score", "Threshold": "threshold"}

Value = TypeVar("Value")


class OpcUa:
    """The server; see `destinations.Delivery`. Variables are below Objects/defectflow/NAME OF THE BUNDLE.

    Args:
        address: opc.tcp://HOST[:PORT].
        models: names of the bundles.
        login: file with USER:PASSWORD; None: everybody may read.
        certificate, key: PEM files; None: nothing is encrypted.
    """

    name, batch = "opcua", 1

    def __init__(
        self, address: str, models: Sequence[str], login: Path | None, certificate: Path | None, key: Path | None
    ) -> None:
        """Start the server.

        Raises:
            UserError: asyncua is not installed, or the address is taken, or open to others without login or encryption.
        """
        parts = parts_of(address)
        if parts is None or parts.scheme != "opc.tcp" or parts.path.strip("/"):
            raise UserError("--opcua: an address like opc.tcp://127.0.0.1:4840 is needed")
        if not is_loopback(parts.hostname or "") and not (login and certificate):
            raise UserError(
                f"--opcua {address}: others can reach this address, so that a login and encryption are needed "
                "(--opcua-login, --certificate, --key)"
            )
        words = login.read_text().strip().split(":", 1) if login else []
        if login and len(words) != 2:
            raise UserError(f"--opcua-login {login}: USER:PASSWORD in one line is needed")
        self._url = f"opc.tcp://{parts.netloc if parts.port else f'{parts.netloc}:4840'}/"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._counts = dict.fromkeys([*models, UNNAMED], 0)
        self._nodes: dict[str, dict[str, Any]] = {}
        self._server: Any = None
        try:
            self._wait(self._start(words, certificate, key))
        except ModuleNotFoundError as error:
            self.close()
            raise UserError(f"--opcua: {error.name} is not installed (pip install 'defectflow[opcua]')") from None
        except (OSError, ValueError) as error:
            self.close()
            raise UserError(f"--opcua {address}: {error} (choose another port or address)") from None

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Show the verdicts, one after the other."""
        for record in records:
            self._wait(self._show(record))

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._wait(self._server.stop())
            self._server = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _wait(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _start(self, login: list[str], certificate: Path | None, key: Path | None) -> None:
        from asyncua import Server, ua

        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        server = Server(user_manager=_users(login))
        await server.init()
        server.set_endpoint(self._url)
        server.set_server_name("defectflow")
        await server.set_application_uri(URI)
        kinds = ua.SecurityPolicyType
        if certificate and key:
            await server.load_certificate(str(certificate), format="pem")
            await server.load_private_key(str(key), format="pem")
            encrypted = [kinds.Basic256Sha256_SignAndEncrypt, kinds.Aes256Sha256RsaPss_SignAndEncrypt]
            server.set_security_policy(encrypted)
        else:
            server.set_security_policy([kinds.NoSecurity])
        server.set_identity_tokens([ua.UserNameIdentityToken if login else ua.AnonymousIdentityToken])
        space = await server.register_namespace(URI)
        top = await server.nodes.objects.add_object(ua.NodeId("defectflow", space), f"{space}:defectflow")
        for model in self._counts:
            folder = await top.add_object(ua.NodeId(model, space), f"{space}:{model}")
            empty: dict[str, tuple[Any, Any]] = dict.fromkeys(TEXTS, ("", ua.VariantType.String))
            empty |= dict.fromkeys(NUMBERS, (math.nan, ua.VariantType.Double))
            empty |= {"Count": (0, ua.VariantType.UInt64)}
            self._nodes[model] = {
                name: await folder.add_variable(ua.NodeId(f"{model}.{name}", space), f"{space}:{name}", value, kind)
                for name, (value, kind) in empty.items()
            }
        await server.start()
        self._server = server

    async def _show(self, record: dict[str, Any]) -> None:
        from asyncua import ua

        model = record["model"] if record["model"] in self._nodes else UNNAMED
        nodes = self._nodes[model]
        for name, key in TEXTS.items():
            text = json.dumps(record) if name == "Record" else record[key] or ""
            await nodes[name].write_value(text, ua.VariantType.String)
        for name, key in NUMBERS.items():
            value = record[key]
            await nodes[name].write_value(math.nan if value is None else float(value), ua.VariantType.Double)
        self._counts[model] += 1
        await nodes["Count"].write_value(self._counts[model], ua.VariantType.UInt64)


def _users(login: list[str]) -> Any:
    """Who may read: who knows the login, or everybody without one. Nobody is an administrator."""
    from asyncua.crypto.permission_rules import User, UserRole

    class Users:
        def get_user(
            self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
        ) -> User | None:
            given = [username or "", password or ""]
            same = [hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(given, login, strict=False)]
            return User(role=UserRole.User) if all(same) else None

    return Users()
