"""Which network clicks prompt, and photographs that are encoded once and ahead."""

import threading

import cv2
import numpy as np
import pytest
from defectflow.core.files import UserError
from defectflow.desk.pictures import clickable_photographs
from defectflow.desk.pictures.clickable_photographs import KEPT, ClickablePhotographs, choice_of
from defectflow.desk.project import Project
from defectflow.segmentation.clicked_outline import ClickNetworks
from onnx_sam import write_pair


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "line")
    for number in range(KEPT + 1):
        cv2.imwrite(str(project.photographs / f"{number}.png"), np.full((30, 40, 3), 50 * number, np.uint8))
    return project


def test_the_configured_network_takes_the_clicks(project):
    assert choice_of(project)[:3] == ("sam2.1-nano", (), "nano")
    encoder, decoder = write_pair(project.folder / "nets")
    pair = {"method": "sam_onnx", "encoder": "nets/encoder.onnx", "decoder": "nets/decoder.onnx"}
    project.change_settings({"segmenters": {"mine": pair}})  # no segmenter of the run: template learns from outlines
    assert choice_of(project)[:2] == ("mine", (("decoder", str(decoder)), ("encoder", str(encoder))))
    project.change_settings({"segmenter": "sam2.1-nano"})
    assert choice_of(project)[:3] == ("sam2.1-nano", (), "nano")
    project.change_settings({"segmenter": "sam2.1-tiny"})
    found = choice_of(project)
    assert found.name == "sam2.1-nano" and "sam2.1-tiny is downloaded by the first run" in found.told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "nets/none.onnx"}, "none.onnx: no such file .config.yaml names it under segmenters.mine.encoder"),
        ({"encoder_sha256": "0" * 64}, "wrong checksum"),
        ({"encoder": None}, "segmenters.mine has no encoder"),
    ],
)
def test_a_network_that_cannot_be_had_is_an_error_in_one_line(project, change, message):
    write_pair(project.folder / "nets")
    pair = {"method": "sam_onnx", "encoder": "nets/encoder.onnx", "decoder": "nets/decoder.onnx"}
    project.change_settings({"segmenters": {"mine": {k: v for k, v in (pair | change).items() if v}}})
    with pytest.raises(UserError, match=message) as error:
        choice_of(project)
    assert "\n" not in str(error.value)


class Figure:
    def predict(self, squares):
        return [type("Found", (), {"probability": np.full((8, 8), 0.5)})() for _ in squares]


class Slow:
    """A network that encodes one photograph only when it is told to."""

    def __init__(self):
        self.looked, self.begun, self.go_on = 0, threading.Event(), threading.Event()

    def look(self, image):
        self.looked += 1
        if image.max() == 50:  # 1.png
            self.begun.set()
            assert self.go_on.wait(10)
        return image.shape[:2]


def test_a_photograph_that_is_ready_does_not_wait_for_another(project, monkeypatch):
    slow, loads = Slow(), []
    made = ClickNetworks(Figure(), slow)
    monkeypatch.setattr(
        clickable_photographs.ClickNetworks, "load", classmethod(lambda cls, files, model: loads.append(files) or made)
    )
    opening = ClickablePhotographs(project)
    first = opening.open("0.png")
    ahead = threading.Thread(target=opening.open, args=["1.png"])
    ahead.start()
    assert slow.begun.wait(10)
    assert opening.open("0.png") is first and not slow.go_on.is_set()
    slow.go_on.set()
    ahead.join(10)
    for number in (1, 2, 3):
        opening.open(f"{number}.png")
    assert slow.looked == KEPT and opening.open("0.png") is first
    opening.open("4.png")  # the one not used for longest makes room
    assert slow.looked == KEPT + 1 and opening.open("0.png") is first and slow.looked == KEPT + 1
    opening.open("1.png")
    assert slow.looked == KEPT + 2
    # The file is replaced: it is encoded again. The config names other networks: all are.
    cv2.imwrite(str(project.photographs / "0.png"), np.zeros((30, 40, 3), np.uint8))
    assert opening.open("0.png") is not first and len(loads) == 1
    write_pair(project.folder / "nets")
    pair = {"method": "sam_onnx", "encoder": "nets/encoder.onnx", "decoder": "nets/decoder.onnx"}
    project.change_settings({"segmenters": {"mine": pair}})
    opening.warm()
    looked = slow.looked
    opening.open("0.png")
    assert len(loads) == 2 and loads[1].keys() == {"encoder", "decoder"} and slow.looked == looked + 1
