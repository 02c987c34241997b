"""Broken, huge and lying pictures, names and forms: every request gets an answer, and nothing else happens."""

import io
import random

import bundle_set
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from running_service import form, running

pytest.importorskip("fastapi", reason="needs the extra serve")

EXTREME = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\xff\xff")
GROWN = 200_000  # kilobytes that a worker may take more than after its first photograph


def seeds() -> list[bytes]:
    """One small picture in many formats and kinds of compression."""
    image = Image.fromarray(bundle_set.photograph(80, size=(36, 48)))
    frames = {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}
    kinds = [
        (image, "PNG", {}), (image.convert("I;16"), "PNG", {}), (image.convert("P"), "PNG", {"transparency": 0}),
        (image, "JPEG", {}), (image, "JPEG", {"progressive": True}), (image.convert("CMYK"), "JPEG", {}),
        (image, "TIFF", {}), (image, "TIFF", {"compression": "tiff_lzw"}), (image.convert("F"), "TIFF", {}),
        (image, "TIFF", frames), (image, "GIF", frames), (image, "BMP", {}), (image, "WEBP", {}), (image, "PPM", {}),
        (image, "TGA", {"compression": "tga_rle"}), (image, "ICO", {}), (image, "JPEG2000", {}), (image, "SGI", {}),
        (image, "PCX", {}), (image, "DDS", {}), (image, "PNG", frames), (image, "EPS", {}),
    ]  # fmt: skip
    found = []
    for picture, kind, options in kinds:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        found.append(stream.getvalue())
    return found


SEEDS = seeds()


def mutated(content: bytes, seed: int) -> bytes:
    """The content with a few bytes set, inserted or removed, mostly near the head, or cut off."""
    chance, changed = random.Random(seed), bytearray(content)
    for _ in range(chance.choice((0, 1, 1, 2, 4, 16))):
        at = min(int(chance.random() ** 3 * len(changed)), max(0, len(changed) - 1))
        what = chance.randrange(5)
        if what == 0:
            changed[at : at + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            changed[at : at + 4] = chance.choice(EXTREME)
        elif what == 2:
            del changed[at : at + chance.randrange(1, 9)]
        elif what == 3:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            del changed[max(8, at) :]
    return bytes(changed)


@pytest.fixture(scope="module")
def service(bundle_folder, tmp_path_factory):
    limits = ("--workers", "1", "--timeout", "100", "--max-body", "1", "--max-pixels", "1", "--max-pictures", "8")
    with running(tmp_path_factory.mktemp("fuzz"), f"plate={bundle_folder}", *limits) as running_:
        yield running_


def resident(process: int) -> int:
    """Kilobytes of memory."""
    with open(f"/proc/{process}/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


def test_mutated_pictures_get_a_verdict_or_a_reason(service):
    service.inspect([("a", SEEDS[0])])
    (worker,) = service.workers()
    before, judged = resident(worker), 0
    for number in range(0, 400, 8):
        pictures = [(f"{n}", mutated(SEEDS[n % len(SEEDS)], n)) for n in range(number, number + 8)]
        status, _, answer = service.inspect(pictures)
        assert status == 200
        for result in answer["results"]:
            assert result["cause"] in (None, "unreadable"), (result["file"], result["reason"])
            assert (result["score"] is None) == (result["cause"] is not None)
            assert result["reason"] or result["cause"] is None
            assert service.log.parent.name not in result["reason"]
            judged += result["cause"] is None
    assert 50 < judged < 350  # both kinds of answer were seen
    assert service.workers() == [worker] and resident(worker) < before + GROWN


@settings(max_examples=40)
@given(st.text(max_size=40).filter(lambda text: "\r" not in text and "\n" not in text), st.text(max_size=300))
def test_names_and_ids_of_all_kinds_are_echoed_or_refused(service, name, part_id):
    body, headers = form([("NAME", SEEDS[0])], part_id="ID")
    body = body.replace(b"NAME", name.encode("utf-8", "replace").replace(b'"', b"%22"))
    body = body.replace(b"\r\nID\r\n", b"\r\n" + part_id.encode("utf-8", "replace") + b"\r\n")
    status, _, answer = service.request("POST", "/v1/inspect", body, headers)
    assert status == 200 or (status == 422 and "part_id" in answer["error"])
    if status == 200:
        assert answer["results"][0]["cause"] in (None, "unreadable")


@settings(max_examples=60)
@given(st.integers(0, 10**9))
def test_mutated_forms_are_answered_or_refused(service, seed):
    body, headers = form([("a.png", SEEDS[0]), ("b.jpg", SEEDS[3])], part_id="7", overlay="0")
    if seed % 3 == 0:
        headers["Content-Type"] = mutated(headers["Content-Type"].encode(), seed).decode("latin-1")
        headers["Content-Type"] = "".join(c for c in headers["Content-Type"] if c.isprintable() and ord(c) < 256)
    status, _, answer = service.request("POST", "/v1/inspect", mutated(body, seed), headers)
    assert status in (200, 400, 413, 415, 422), answer


def test_nothing_is_left_behind(service):
    names = {path.name for path in service.log.parent.iterdir()}
    assert {name for name in names if not name.startswith("defectflow-serve-")} == {"serve.log"}
    assert list(service.log.parent.glob("defectflow-serve-*/*/jobs/*/*")) == []
    assert service.metric("defectflow_held_bytes") == 0 and service.metric("defectflow_workers_replaced") == 0
    assert "Traceback" not in service.log.read_text()
