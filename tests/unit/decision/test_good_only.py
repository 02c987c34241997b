import cv2
import numpy as np
import pandas as pd
import pytest
from defectflow.decision import good_only
from defectflow.decision.chosen_threshold import calibrate
from defectflow.reporting.galleries import Gallery
from defectflow.reporting.outlier_gallery import to_look_at, without


def judged(scores, label=0.0):
    names = [f"part {k:02}.jpg" for k in range(len(scores))]
    return pd.DataFrame(
        {"image_id": [f"i{k}" for k in range(len(scores))], "filename": names, "raw_score": scores, "label": label,
         "detection": "fold"}
    )  # fmt: skip


def told(scores, strategy="f1_adaptive", **options):
    value = calibrate(np.array(scores), np.zeros(len(scores)), strategy, **options).value
    return good_only.figures(judged(scores), value, strategy, options)


ORDINARY = [1 + 0.02 * k for k in range(29)]


def test_a_photograph_far_above_the_others_is_named_with_what_the_threshold_is_without_it():
    found = told([*ORDINARY, 3.0])
    assert found["filenames"] == ["part 29.jpg"] and found["far"] and found["set_aside"]
    assert found["largest_of_others"] == ORDINARY[-1] and found["n_others"] == 29
    assert ORDINARY[-1] < found["without_them"] < 2 < 3 < found["with_them"] < 3.001
    text = good_only.sentence(found)
    assert text.startswith("No labelled bad image") and "part 29.jpg (3) stands out: the 29 other" in text
    assert "was set aside" in text and "Please look at it: label it bad if it shows a defect" in text


def test_two_of_them_are_told_in_the_plural():
    text = good_only.sentence(told([*ORDINARY, 3.0, 3.1]))
    assert "part 29.jpg and part 30.jpg (3 and 3.1) stand out" in text and "they were set aside" in text


def test_another_strategy_keeps_its_threshold_and_says_what_it_would_be():
    found = told([*ORDINARY, 3.0], "normal_percentile", percentile=99.5)
    assert found["far"] and not found["set_aside"] and found["with_them"] > 3 > 2 > found["without_them"]
    assert "The threshold is 3; without it it would be 1.56" in good_only.sentence(found)


@pytest.mark.parametrize(
    ("strategy", "option"),
    [("normal_sigma", {"sigma": 3}), ("max_fpr", {"max_fpr": 0.05}), ("conformal", {"alpha": 0.1})],
)
def test_a_strategy_that_sets_nothing_aside_is_not_said_to(strategy, option):
    found = told([*ORDINARY, 3.0], strategy, **option)
    assert found["far"] and not found["set_aside"] and found["without_them"] < found["with_them"] < 3
    assert "set aside" not in good_only.sentence(found) and "; without it it would be" in good_only.sentence(found)


def test_where_none_is_far_the_one_with_the_largest_score_is_named():
    found = told(ORDINARY)
    assert not found["far"] and not found["set_aside"] and found["filenames"] == ["part 28.jpg"]
    text = good_only.sentence(found)
    assert "because of part 28.jpg (1.56); without that one it would be 1.54" in text and "look" not in text


@pytest.mark.parametrize("scores", [[1.0], [1.0, 1.0, 1.0]])
def test_few_or_equal_scores_are_no_trouble(scores):
    assert good_only.sentence(told(scores)).startswith("No labelled bad image")


def test_with_bad_images_there_is_nothing_to_tell():
    table = pd.concat([judged([1.0, 2.0]), judged([3.0], 1.0)])
    assert good_only.figures(table, 2.5, "f1_adaptive", {}) is None
    held_out = table.assign(detection=["fold", "fold", "calibration"])
    assert good_only.figures(held_out, 2.5, "f1_adaptive", {}) is None
    assert "was judged" in good_only.sentence(None)  # what is then told where none of the judged ones is bad
    assert good_only.figures(judged([np.nan]), None, "f1_adaptive", {}) is None


def test_the_gallery_shows_each_beside_the_good_ones_that_look_most_like_it(tmp_path):
    table = judged([*ORDINARY[:9], 3.0])
    for k, name in enumerate(table["filename"]):
        picture = np.full((40, 60, 3), 200, np.uint8)
        picture[:, : 6 * (k % 5) + 6] = 40  # the last looks like number 4
        cv2.imwrite(str(tmp_path / name), picture)
    table["path"] = [str(tmp_path / name) for name in table["filename"]]
    gallery = to_look_at(table, {"far": True, "image_ids": ["i9"]})
    assert gallery.rows["filename"].tolist()[:2] == ["part 09.jpg", "part 04.jpg"] and gallery.total == 3
    assert to_look_at(table, {"far": False, "image_ids": ["i9"]}) is None and to_look_at(table, None) is None
    alarms = without(Gallery("False alarms", "Good, and called bad.", 2, table.iloc[[9, 0]]), gallery)
    assert alarms.total == 1 and alarms.rows["filename"].tolist() == ["part 00.jpg"]
    assert alarms.lead.endswith("1 is shown above.")
