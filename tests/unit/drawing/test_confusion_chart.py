"""The confusion matrix of any number of classes."""

import cv2
import numpy as np
from defectflow.drawing.chart_files import save_png, svg
from defectflow.drawing.confusion_chart import confusion_chart


def test_every_count_and_class_is_shown(tmp_path):
    names = ["good", "a kind with a very long name", "b"]
    counts = np.array([[101, 2, 0], [3, 57, 4], [0, 5, 66]])
    drawn = svg(confusion_chart(names, counts))
    for text in ("101", "57", "66", ">5<", "good (103)", "b (71)", "a kind with a…"):
        assert text in drawn
    save_png(tmp_path / "c.png", confusion_chart(names, counts))
    assert cv2.imread(str(tmp_path / "c.png")) is not None
