import numpy as np
import pandas as pd
from defectflow.core.tables import LABELS_TO_CHECK, write_table
from defectflow.images.read_write import write_png
from defectflow.reporting import label_lists


def written(tmp_path, count):
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", np.full((20, 30, 3), ord(name), np.uint8))
    row = ["a.png", 0, 2.5, 1.25, "labelled good, and far", "b.png", "a", "b"]
    write_table(tmp_path / "l.csv", pd.DataFrame([row] * count, columns=LABELS_TO_CHECK), LABELS_TO_CHECK)
    manifest = {name: (str(tmp_path / f"{name}.png"),) for name in ("a", "b")}
    return label_lists.labels_to_check(tmp_path / "l.csv", manifest)


def test_each_photograph_stands_beside_the_good_one_most_like_it(tmp_path):
    found = written(tmp_path, 2)
    pair = found.pairs[0]
    assert (found.total, pair.name, pair.beside) == (2, "a.png", "b.png")
    assert (pair.picture.width, pair.picture.height) == (30, 20) and pair.picture.uri != pair.beside_picture.uri
    assert "2.500" in pair.text and "1.250" in pair.text


def test_a_long_list_shows_its_beginning_and_an_empty_one_nothing(tmp_path):
    found = written(tmp_path, label_lists.SHOWN + 3)
    assert found.total == label_lists.SHOWN + 3 and len(found.pairs) == label_lists.SHOWN
    assert written(tmp_path, 0) is None and label_lists.labels_to_check(None, {}) is None
