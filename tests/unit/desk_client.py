"""A desk on a folder, and a client that is signed in."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra desk")
pytest.importorskip("httpx", reason="needs httpx")
from defectflow.desk.access import Access
from defectflow.desk.app import create_app
from defectflow.desk.project import Project
from fastapi.testclient import TestClient

LOOPBACK = "http://127.0.0.1"


def photograph(seed: int, side: int = 48) -> bytes:
    """A small PNG of its own."""
    picture = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


def declared(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is this large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(2000))) + chunk(b"IEND", b"")


def zipped(files: dict[str, bytes]) -> bytes:
    """A .zip with these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Desk:
    """A desk on a folder, and a client that is signed in."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        self.access = Access(self.project.state)
        self.app = create_app(self.project, self.access)
        self.client = TestClient(self.app, base_url=LOOPBACK)
        self.client.get(f"/?token={self.access.token}")
        (cookie,) = self.client.cookies.values()
        self.client.headers["X-Desk-CSRF"] = self.access.csrf(cookie)

    def add(self, files: dict[str, bytes]) -> dict[str, Any]:
        """Upload files; the report."""
        parts = [("image", (name, content, "application/octet-stream")) for name, content in files.items()]
        answer = self.client.post("/api/photographs/upload", files=parts)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str, /, status: int = 200, **query: Any) -> Any:
        """JSON of the API."""
        answer = self.client.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, path: str, /, status: int = 200, **content: Any) -> Any:
        """JSON of the API."""
        answer = self.client.post(path, json=content)
        assert answer.status_code == status, answer.text
        return answer.json()

    def names(self) -> list[str]:
        """The photographs."""
        return [row[0] for row in self.get("/api/photographs/list")["photographs"]]
