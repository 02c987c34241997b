"""Defects marked at the desk are ground-truth masks of the workflow, and make stale only what depends on these."""

import cv2
import numpy as np
import pytest
from defectflow.annotations.ground_truth_checks import check_masks
from defectflow.desk.pictures.photograph_index import PhotographIndex
from defectflow.images.image_checks import inspect
from defectflow.images.read_write import read_mask
from defectflow.sources import preflight
from desk_client import Desk, photograph
from PIL import Image

NAMES = ["a.png", "b.png", "c.png", "day 2/turned.jpg"]


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "part")
    folder = desk.project.photographs
    for number, name in enumerate(NAMES[:3]):
        (folder / name).write_bytes(photograph(number))
    (folder / "day 2").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, 60 wide and 40 high: upright it is 40 wide and 60 high
    noise = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / NAMES[3], exif=exif)
    return desk


def drawn(size=(48, 48), box=(10, 12, 20, 24)):
    """A PNG with a white box x0, y0, x1, y1."""
    mask = np.zeros(size, np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 255
    return cv2.imencode(".png", mask)[1].tobytes()


def mark(desk, name, body, status=200):
    answer = desk.client.post("/api/labels/defect", params={"name": name}, content=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def shown(desk, name, **query):
    answer = desk.client.get("/api/labels/defect", params={"name": name} | query)
    assert answer.status_code == 200, answer.text
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)


def rows(desk):
    resolved = PhotographIndex(desk.project).resolved()
    preflight.forget()
    return preflight.index(preflight._key(resolved), None).rows


def digests(desk):
    resolved = PhotographIndex(desk.project).resolved()
    preflight.forget()
    return {key: preflight.images_digest(resolved, None, labels=key == "labels") for key in ("labels", "photographs")}


def test_a_marked_defect_is_what_the_workflow_reads_and_is_shown_again(desk):
    desk.post("/api/labels/put", names=NAMES[:2], label="good")
    assert mark(desk, "c.png", drawn())["row"][2:5] == ["bad", "", True]
    desk.post("/api/labels/put", names=["c.png"], kind="dent")  # the kind comes and goes as before
    mark(desk, NAMES[3], drawn((60, 40), (5, 30, 15, 50)))
    found = {name: row for name, row in rows(desk).items() if row["mask"]}
    assert found.keys() == {"c.png", NAMES[3]} and found["c.png"]["defect_type"] == "dent"
    pictures = {name: inspect(desk.project.photographs / name, str(desk.project.folder)) for name in found}
    problems, notices, reading = check_masks(found, pictures)
    assert (problems, notices, reading) == ([], [], None)
    assert read_mask(found["c.png"]["mask"]).nonzero()[0].tolist() == sorted([*range(12, 24)] * 10)
    again = shown(desk, NAMES[3])
    assert again.shape == (60, 40) and again[30:50, 5:15].all() and (again > 0).sum() == 200
    assert shown(desk, "c.png", look=True)[14, 12].tolist()[3] and not shown(desk, "c.png", look=True)[0, 0].any()
    assert not shown(desk, "a.png").any()


def test_a_drawing_makes_stale_what_depends_on_ground_truth_and_nothing_else(desk):
    desk.post("/api/labels/put", names=["c.png"], label="bad")
    before = digests(desk)
    mark(desk, "c.png", drawn())
    first = digests(desk)
    assert first["labels"] != before["labels"] and first["photographs"] == before["photographs"]
    mark(desk, "c.png", drawn(box=(1, 1, 9, 9)))  # the same file and table, other content
    assert digests(desk)["labels"] not in (first["labels"], before["labels"])
    mark(desk, "c.png", drawn(box=(0, 0, 0, 0)))
    assert digests(desk) == before and not shown(desk, "c.png").any()


def test_what_is_called_good_after_all_has_no_defect_until_it_is_bad_again(desk):
    mark(desk, "c.png", drawn())
    desk.post("/api/labels/put", names=["c.png"], label="good")
    assert rows(desk)["c.png"] | {"label": "0", "mask": ""} == rows(desk)["c.png"]
    desk.post("/api/labels/undo")
    assert rows(desk)["c.png"]["mask"].endswith("defects/c.png.png") and shown(desk, "c.png").any()


def test_masks_that_came_along_are_shown_and_stay_as_they_are(desk):
    folder = desk.project.folder / "truth"
    folder.mkdir()
    colours = np.zeros((48, 48, 4), np.uint8)
    colours[5:9, 5:9] = (0, 0, 255, 255)  # an alpha channel tells where
    cv2.imwrite(str(folder / "b.png"), colours)
    desk.project.labels.write_text("filename,label,mask\nb.png,bad,truth/b.png\n")
    before = (folder / "b.png").read_bytes()
    assert shown(desk, "b.png")[5:9, 5:9].all() and (shown(desk, "b.png") > 0).sum() == 16
    mark(desk, "b.png", drawn())
    assert (folder / "b.png").read_bytes() == before and "defects/b.png.png" in desk.project.labels.read_text()
    desk.project.labels.write_text("filename,label,mask\nb.png,bad,../secret.png\n")
    assert desk.client.get("/api/labels/defect", params={"name": "b.png"}).status_code == 422


@pytest.mark.parametrize("body", [b"", b"GIF89a" + bytes(90), drawn((10, 10)), drawn(box=(0, 0, 48, 48))])
def test_what_is_no_drawing_is_refused_and_nothing_written(desk, body):
    mark(desk, "a.png", body, 422)
    assert not (desk.project.folder / "defects").exists() and "a.png" not in desk.project.labels.read_text()


@pytest.mark.parametrize("name", ["../labels.csv", "/etc/passwd", "none.png", "a.png/../../x.png", "defects"])
def test_names_are_those_of_photographs(desk, name):
    mark(desk, name, drawn(), 422)
    assert desk.client.get("/api/labels/defect", params={"name": name}).status_code == 422


def test_a_long_name_has_a_mask_too(desk):
    name = "x" * 245 + ".png"
    (desk.project.photographs / name).write_bytes(photograph(9))
    other = Desk(desk.project.folder)
    mark(other, name, drawn())
    assert shown(other, name).any()
