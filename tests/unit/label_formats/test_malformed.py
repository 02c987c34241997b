"""Malformed files of each tool get one line that names the file, the place in it and the remedy."""

import json

import labelled_set
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.label_formats.label_files import read_tool
from defectflow.label_formats.xml_files import read_xml

SHAPE = {"label": "part", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
LABELME = {"shapes": [SHAPE], "imagePath": "a.jpg", "imageWidth": 20, "imageHeight": 10}
OBJECT = "<object><name>part</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
VOC = f"<annotation><filename>a.jpg</filename><size><width>20</width><height>10</height></size>{OBJECT}</annotation>"
POLYGON = '<polygon label="part" points="1,1;9,1;9,9"/>'
CVAT = f'<annotations><image id="0" name="a.jpg" width="20" height="10">{POLYGON}</image></annotations>'
TASK = labelled_set.task(0, labelled_set.result("polygon", {"points": [[1, 1], [9, 1], [9, 9]]}, "part"))


def folder(root, name, content):
    (root / "set").mkdir()
    (root / "set" / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(root / "set")


def refused(source, *texts):
    with pytest.raises(UserError) as caught:
        read_tool(source)
    message = str(caught.value)
    assert "\n" not in message and all(text in message for text in texts), message


def labelme(**changed):
    return LABELME | {"shapes": [SHAPE | changed]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (labelme(points=[[1, 1], [9, "x"], [9, 9]]), "shapes[0]: 'x' is not a number"),
        (labelme(points="none"), "shapes[0]: no list of points"),
        (labelme(points=[[1, float("nan")]]), "shapes[0]: nan is not a number"),
        (labelme(shape_type="circle"), "shapes[0]: a circle of 3 points"),
        (labelme(shape_type="mask", points=[[1, 1], [5, 5]]), "shapes[0]: a mask of 2 points"),
        (LABELME | {"imageWidth": -3}, "imageWidth, imageHeight: a picture of -3x10 pixels"),
        (LABELME | {"imageWidth": "wide"}, "imageHeight: 'wide' is not a number"),
        (LABELME | {"imagePath": ""}, "it names no photograph (`imagePath` is missing"),
        (labelme(shape_type="linestrip"), "no outline and no box in it: only linestrip (1)"),
    ],
)
def test_labelme(tmp_path, content, text):
    refused(folder(tmp_path, "a.json", content), "set", text)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("<xmin>1</xmin>", "<xmin>left</xmin>", "object 1: 'left' is not a number"),
        ("<xmin>1</xmin>", "", "object 1: '' is not a number"),
        ("<xmin>1</xmin>", "<xmin>12</xmin>", "object 1: the box ends before it begins"),
        ("bndbox", "robndbox", "object 1: it has neither <bndbox> nor <polygon>"),
        ("</annotation>", "", "not valid XML"),
        ("<width>20", "<width>-20", "size: a picture of -20x10 pixels"),
    ],
)
def test_pascal_voc(tmp_path, old, new, text):
    refused(folder(tmp_path, "a.xml", VOC.replace(old, new)), "a.xml", text)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("1,1;9,1", "1,1;9", "a.jpg, polygon part: no list of points"),
        ("1,1;9,1", "1,1;9,up", "'up' is not a number"),
        ('name="a.jpg"', "", "image 0 has no name"),
        (
            POLYGON,
            '<mask label="part" rle="1, 99" left="1" top="1" width="3" height="3"/>',
            "do not fit its box of 3x3",
        ),
        (POLYGON, '<polyline label="part" points="1,1;2,2"/>', "no outline and no box in it: only polyline (1)"),
        (POLYGON, "<track/>", "no outline and no box in it: only track (1)"),
        ("</annotations>", "</wrong>", "not valid XML"),
    ],
)
def test_cvat(tmp_path, old, new, text):
    (tmp_path / "a.xml").write_text(CVAT.replace(old, new))
    refused(str(tmp_path / "a.xml"), "a.xml", text)


def task(**changed):
    (one,) = TASK["annotations"]
    (region,) = one["result"]
    return TASK | {"annotations": [one | {"result": [region | changed]}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (task(value={"points": [[1, "x"]], "polygonlabels": ["part"]}), "task 1, polygon part: 'x' is not a number"),
        (task(original_width=None), "task 1, polygon part: no `original_width` and `original_height`"),
        (task(image_rotation=90), "drawn on a photograph that was turned"),
        (TASK | {"annotations": TASK["annotations"] * 2}, "task 1: 2 annotations of one photograph, which counts?"),
        (TASK | {"data": {"text": "none"}}, "its `data` does not say which photograph it is"),
        (TASK | {"annotations": [3]}, "`annotations` is no list of annotations"),
        (TASK | {"annotations": [], "predictions": [{"result": []}]}, "no outline and no box in it"),
    ],
)
def test_label_studio(tmp_path, content, text):
    (tmp_path / "p.json").write_text(json.dumps([content | {"meta": {"data": {}, "result": []}}]))
    refused(str(tmp_path / "p.json"), "p.json", text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("0 0.5 0.5 0.2 0.2\n0 120 90 30 30\n", "a.txt, line 2: 120 is no share of the picture, 0 to 1"),
        ("0 0.5 0.5 0.2 0.2\n\n0 0.5 0.5 0.2\n", "a.txt, line 3: 3 numbers after the class (4 for a box"),
        ("0 0.5 0.5 0.2 0.2\n0 .1 .1 .2 .2 .3 .3 .4\n", "a.txt, line 2: 7 numbers after the class"),
        ("0 0.5 0.5 0.2 0.2\npart 0.5 0.5 0.2 0.2\n", "a.txt, line 2: 'part' is not a number"),
        ("0 0.5 0.5 0.2 0.2\n3 0.5 0.5 0.2 0.2\n", "a.txt, line 2: class 3, and"),
        ("0 0.5 0.5 0.2 0.2\n0.5 0.5 0.5 0.2 0.2\n", "a.txt, line 2: class 0.5 is no whole number"),
    ],
)
def test_yolo(tmp_path, content, text):
    (tmp_path / "classes.txt").write_text("part\nclip\n")
    refused(folder(tmp_path, "a.txt", content), text)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"data.yaml": "names: [part]\nkpt_shape: [4, 2]\n"}, "data.yaml: the labels are keypoints"),
        ({"data.yaml": "names: part\n"}, "data.yaml: `names` is neither a list of classes nor"),
        ({"data.yaml": "names: [part\n"}, "data.yaml: not valid YAML"),
        ({"data.yaml": "names: [part]\n", "classes.txt": "clip\n"}, "name different classes (delete the wrong one)"),
    ],
)
def test_lists_of_classes(tmp_path, files, text):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    refused(folder(tmp_path, "a.txt", "0 0.5 0.5 0.2 0.2\n"), text)


def test_a_file_of_entities_is_refused_before_they_are_expanded(tmp_path):
    bomb = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    (tmp_path / "a.xml").write_text(f'<!DOCTYPE annotation [<!ENTITY a0 "x">{bomb}]><annotation>&a11;</annotation>')
    with pytest.raises(UserError, match=r"a.xml: it declares a document type"):
        read_xml(str(tmp_path / "a.xml"))
    with pytest.raises(UserError, match="no such file"):
        read_xml(str(tmp_path / "b.xml"))


def test_what_encloses_no_area_is_counted_and_named(tmp_path):
    shapes = [SHAPE, SHAPE | {"shape_type": "line"}, SHAPE | {"shape_type": "line"}, SHAPE | {"shape_type": "point"}]
    found = read_tool(folder(tmp_path, "a.json", LABELME | {"shapes": shapes}))
    assert len(found["annotations"]) == 1
    assert found["notes"] == ["not read, since they enclose no area: line (2), point (1)"]


def test_shapes_of_each_tool_become_outlines_or_boxes(tmp_path):
    circle = SHAPE | {"shape_type": "circle", "points": [[10, 5], [13, 9]]}
    box = SHAPE | {"shape_type": "rectangle", "points": [[9, 8], [1, 2]]}
    found = read_tool(folder(tmp_path, "a.json", LABELME | {"shapes": [circle, box]}))
    outline, boxed = found["annotations"]
    points = np.array(outline["segmentation"]).reshape(-1, 2)
    assert np.allclose(np.hypot(*(points - [10, 5]).T), 5) and boxed["bbox"] == [1, 2, 8, 6]
    (tmp_path / "c.xml").write_text(
        CVAT.replace(POLYGON, '<box label="part" xtl="2" ytl="2" xbr="12" ybr="4" rotation="90"/>'
                              '<ellipse label="part" cx="10" cy="5" rx="6" ry="2" rotation="90"/>')
    )  # fmt: skip
    boxed, outline = read_tool(str(tmp_path / "c.xml"))["annotations"]
    assert np.allclose(boxed["bbox"], [6, -2, 2, 10])
    points = np.array(outline["segmentation"]).reshape(-1, 2)
    assert np.allclose(np.ptp(points, axis=0), [4, 12], atol=0.1)
    turned = {"x": 50, "y": 10, "width": 10, "height": 20, "rotation": 90}
    task = labelled_set.task(0, labelled_set.result("rectangle", turned, "part"))
    (tmp_path / "p.json").write_text(json.dumps([task]))
    (boxed,) = read_tool(str(tmp_path / "p.json"))["annotations"]
    assert np.allclose(boxed["bbox"], [120 - 40, 20, 40, 24])


def test_of_several_annotations_in_label_studio_the_ground_truth_counts(tmp_path):
    (one,) = TASK["annotations"]
    moved = labelled_set.result("polygon", {"points": [[2, 2], [9, 1], [9, 9]]}, "part")
    several = [one, one | {"result": [moved], "ground_truth": True}, one | {"was_cancelled": True}]
    (tmp_path / "p.json").write_text(json.dumps([TASK | {"annotations": several}]))
    (found,) = read_tool(str(tmp_path / "p.json"))["annotations"]
    assert np.allclose(found["segmentation"][0][:2], [2 * 2.4, 2 * 2])


def test_a_region_that_label_studio_writes_twice_is_read_once(tmp_path):
    value = {"points": [[1, 1], [9, 1], [9, 9]]}
    about = {"id": "r1", "to_name": "image", "original_width": 240, "original_height": 200}
    bare = about | {"type": "polygon", "value": value}
    labels = about | {"type": "labels", "value": value | {"labels": ["part"]}}
    (tmp_path / "p.json").write_text(json.dumps([labelled_set.task(0, bare, labels)]))
    found = read_tool(str(tmp_path / "p.json"))
    assert len(found["annotations"]) == 1 and [one["name"] for one in found["categories"]] == ["part"]
