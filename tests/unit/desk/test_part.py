import json

import cv2
import numpy as np
import pytest
from defectflow.annotations.coco import decode
from defectflow.desk.project import Project
from defectflow.parts.registration_frame import iou
from defectflow.segmentation.clicked_outline import Clickable
from judged_desk import SIZE, Browser, judged_project, photo
from PIL import ExifTags, Image


@pytest.fixture
def project(tmp_path):
    return judged_project(tmp_path / "line 3")


@pytest.fixture
def browser(project):
    return Browser(project)


def drawn(box=(12, 10, 40, 30), size=SIZE):
    mask = np.zeros(size, np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = 255
    return cv2.imencode(".png", mask)[1].tobytes(), mask > 0


def test_doubtful_masks_come_first(browser):
    found = browser.get("/api/part").json()
    assert found["rows"][0]["name"] == "p03.jpg" and found["rows"][0]["reason"] == "small area"
    assert found["flagged"] == 1 and found["sources"] == {"template": found["total"]} and found["accepted"] is None
    page = browser.get("/part").text
    assert 'id="sheet"' in page and "style=" not in page and "<script>" not in page


def test_before_a_run_the_photographs_are_there_to_be_outlined(tmp_path):
    project = Project(tmp_path / "new")
    browser = Browser(project)
    assert browser.get("/api/part").json()["total"] == 0
    (project.photographs / "a").mkdir()
    cv2.imwrite(str(project.photographs / "a/one.jpg"), photo(1))
    (project.photographs / "notes.txt").write_text("no picture")
    found = browser.get("/api/part").json()
    assert [row["name"] for row in found["rows"]] == ["a/one.jpg"] and found["sources"] == {}
    assert browser.get("/api/part/sheet?name=a/one.jpg").headers["content-type"] == "image/jpeg"


def test_an_outline_becomes_a_coco_file_that_the_data_set_names(browser, project):
    body, mask = drawn()
    answer = browser.post("/api/part/outline?name=p02.jpg", content=body)
    assert answer.json() == {"share": pytest.approx(mask.mean()), "outlined": 1, "file": "annotations.json"}
    entry = project.settings()["datasets"][project.dataset]
    assert entry == {"images": "photographs", "labels": "labels.csv", "annotations": "annotations.json"}
    content = json.loads((project.folder / "annotations.json").read_text())
    assert [one["file_name"] for one in content["images"]] == ["p02.jpg"]
    assert (decode(content["annotations"][0]["segmentation"], SIZE[1], SIZE[0]) == mask).all()
    shown = cv2.imdecode(np.frombuffer(browser.get("/api/part/mask?name=p02.jpg").content, np.uint8), 0)
    assert ((shown > 0) == mask).all()
    # Drawn again, it takes the place of the first; taken away, the file and its mention go.
    again, other = drawn((20, 10, 40, 30))
    assert browser.post("/api/part/outline?name=p02.jpg", content=again).json()["outlined"] == 1
    rows = browser.get("/api/part").json()["rows"]
    assert [row["name"] for row in rows if row["outlined"]] == ["p02.jpg"]
    assert browser.post("/api/part/remove", json={"name": "p02.jpg"}).json() == {"outlined": 0}
    assert not (project.folder / "annotations.json").exists()
    assert "annotations" not in project.settings()["datasets"][project.dataset]
    assert browser.post("/api/part/remove", json={"name": "p02.jpg"}).status_code == 422
    assert other.any()


def test_outlines_of_damage_in_the_same_file_are_left_alone(browser, project):
    file, (body, _) = project.folder / "annotations.json", drawn()
    damage = {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [[5, 5, 20, 5, 20, 20]]}
    images = [{"id": 1, "file_name": "p02.jpg", "width": SIZE[1], "height": SIZE[0]}]
    categories = [{"id": 1, "name": "part"}, {"id": 2, "name": "scratch"}]
    file.write_text(json.dumps({"images": images, "annotations": [damage], "categories": categories}))
    project.change_entry({"annotations": file.name, "category": "part"})
    assert browser.post("/api/part/remove", json={"name": "p02.jpg"}).status_code == 422
    assert browser.post("/api/part/outline?name=p02.jpg", content=body).json()["outlined"] == 1
    assert browser.post("/api/part/remove", json={"name": "p02.jpg"}).json() == {"outlined": 0}
    assert json.loads(file.read_text())["annotations"] == [damage]


def test_a_large_photograph_is_outlined_on_a_smaller_picture(browser, project):
    cv2.imwrite(str(project.photographs / "large.jpg"), np.full((1500, 2000, 3), 90, np.uint8))
    shown = cv2.imdecode(np.frombuffer(browser.get("/api/part/picture?name=large.jpg").content, np.uint8), 1)
    assert shown.shape[:2] == (768, 1024)
    body, mask = drawn((100, 100, 500, 600), shown.shape[:2])
    browser.post("/api/part/outline?name=large.jpg", content=body)
    entry = json.loads((project.folder / "annotations.json").read_text())["annotations"][0]
    full = decode(entry["segmentation"], 2000, 1500)
    assert full.mean() == pytest.approx(mask.mean(), rel=0.01) and full[600, 600] and not full[100, 100]


NO_OUTLINES = [
    b"",
    b"\x89PNG\r\n\x1a\n" + bytes(30),
    drawn(size=(10, 10), box=(1, 1, 5, 5))[0],
    drawn(box=(0, 0, 0, 0))[0],
    drawn(box=(0, 0, 64, 48))[0],
    b"GIF89a" + bytes(100),
]


@pytest.mark.parametrize("body", NO_OUTLINES)
def test_what_is_no_outline_is_refused_and_nothing_written(browser, project, body):
    answer = browser.post("/api/part/outline?name=p02.jpg", content=body)
    assert answer.status_code == 422 and not (project.folder / "annotations.json").exists()


@pytest.mark.parametrize(
    "name", ["../config.yaml", "..", "/etc/passwd", "p99.jpg", "a\\b.jpg", "p02.jpg/../../labels.csv"]
)
def test_names_stay_in_the_folder_of_the_photographs(browser, name):
    for answer in (
        browser.get("/api/part/picture", params={"name": name}),
        browser.get("/api/part/sheet", params={"name": name}),
        browser.post("/api/part/open", json={"name": name}),
        browser.post("/api/part/outline", params={"name": name}, content=drawn()[0]),
        browser.post("/api/part/clicks", json={"name": name, "inside": [[1, 1]]}),
    ):
        assert answer.status_code == 422, answer.text


def test_clicks_on_an_open_photograph_do_not_encode_it_again(browser, monkeypatch):
    opened = browser.post("/api/part/open", json={"name": "p02.jpg", "following": "p03.jpg"}).json()
    assert (opened["height"], opened["width"], opened["outlined"]) == (*SIZE, False)
    monkeypatch.delattr(Clickable, "of")
    answer = browser.post("/api/part/clicks", json={"name": "p02.jpg", "inside": [[32, 24]], "outside": [[4, 4]]})
    mask = cv2.imdecode(np.frombuffer(answer.content, np.uint8), 0) > 0
    truth = np.zeros(SIZE, np.uint8)
    cv2.ellipse(truth, (32, 24), (20, 14), 0, 0, 360, 1, -1)
    assert (mask & (truth > 0)).sum() / (mask | (truth > 0)).sum() > 0.7
    assert browser.post("/api/part/clicks", json={"name": "p02.jpg", "inside": [[64, 2]]}).status_code == 422
    assert browser.post("/api/part/clicks", json={"name": "p02.jpg"}).status_code == 200  # none yet


def test_masks_are_accepted_until_others_take_their_place(browser, project):
    seen = browser.get("/api/part").json()["stamp"]
    assert browser.post("/api/part/accept", json={"who": "Ana", "stamp": seen}).json()["accepted"]["who"] == "Ana"
    table = next((project.results / project.dataset).glob("*/masks/0.csv"))
    table.write_text(table.read_text().replace("small area", "another"))
    assert browser.get("/api/part").json()["accepted"] is None
    answer = browser.post("/api/part/accept", json={"who": "Ana", "stamp": seen})  # masks that she has not seen
    assert answer.status_code == 422 and browser.get("/api/part").json()["accepted"] is None


def test_outlines_of_another_tool_are_kept_to(browser, project):
    project.change_entry({"annotations": ["one.json", "two.json"]})
    answer = browser.post("/api/part/outline?name=p02.jpg", content=drawn()[0])
    assert answer.status_code == 422 and "several annotation files" in answer.json()["error"]
    assert browser.get("/api/part").status_code == 200


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_outline_drawn_on_the_pixels_as_stored_is_shown_upright(browser, project, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = np.full((120, 160, 3), 60, np.uint8)
    corners = [[20, 15], [90, 15], [90, 60], [20, 60]]
    cv2.fillPoly(stored, [np.array(corners)], (190, 180, 180))
    for name in ("turned.jpg", "again.jpg"):
        Image.fromarray(stored).save(project.photographs / name, exif=exif)
    size, polygon = {"width": 160, "height": 120}, np.ravel(corners).tolist()
    images = [{"id": k, "file_name": f"{name}.jpg"} | size for k, name in enumerate(("turned", "again"))]
    outlines = [{"id": k, "image_id": k, "category_id": 1, "segmentation": [polygon]} for k in range(2)]
    content = {"images": images, "annotations": outlines, "categories": [{"id": 1, "name": "part"}]}
    (project.folder / "annotations.json").write_text(json.dumps(content))
    project.change_entry({"annotations": "annotations.json"})
    mask = np.zeros((120, 160), np.uint8)
    cv2.fillPoly(mask, [np.array(corners)], 255)
    expected = np.rot90(mask, {3: 2, 6: -1}[orientation]) > 0

    def shown():
        answer = browser.get("/api/part/mask?name=turned.jpg")
        return cv2.imdecode(np.frombuffer(answer.content, np.uint8), 0) > 0

    assert shown().shape == expected.shape and iou(shown(), expected) > 0.95
    # Drawn anew at the desk, it is one of the upright photograph.
    body, again = drawn((20, 30, 60, 100), expected.shape)
    assert browser.post("/api/part/outline?name=turned.jpg", content=body).status_code == 200
    if orientation == 6:  # of the same size upright and stored, the edges of the photograph decide
        assert (shown() == again).all()


def test_outlines_of_another_tool_are_shown_and_not_changed(browser, project):
    shape = {"label": "part", "shape_type": "polygon", "points": [[12, 10], [40, 10], [40, 30], [12, 30]]}
    about = {"imagePath": "p02.jpg", "imageWidth": SIZE[1], "imageHeight": SIZE[0], "shapes": [shape]}
    (project.folder / "p02.json").write_text(json.dumps(about | {"version": "5", "flags": {}}))
    project.change_entry({"annotations": "p02.json"})
    assert browser.get("/api/part").status_code == 200
    mask = cv2.imdecode(np.frombuffer(browser.get("/api/part/mask?name=p02.jpg").content, np.uint8), 0) > 0
    assert iou(mask, drawn()[1]) > 0.9
    answer = browser.post("/api/part/outline?name=p02.jpg", content=drawn()[0])
    assert answer.status_code == 422 and "another tool" in answer.text
