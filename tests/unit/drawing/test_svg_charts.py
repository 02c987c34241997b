import re
from xml.etree import ElementTree

import numpy as np
import pytest
from defectflow.drawing import svg_charts

RNG = np.random.default_rng(0)
GOOD, BAD = RNG.normal(0, 1, 30), RNG.normal(2, 1, 20)
LABELS, SCORES = np.repeat([0, 1], [30, 20]), np.concatenate([GOOD, BAD])
BINS = [
    {"low": low, "high": low + 0.1, "share_bad": low, "interval": [0.0, 1.0], "n": 5, "n_bad": 1} for low in (0.2, 0.8)
]


def drawn():
    return {
        "histogram": svg_charts.histogram(
            {"good": GOOD, "bad": BAD, "no label": SCORES[:0]}, 1.0, (0.9, 1.1), (0.5, 1.5)
        ),
        "strips": svg_charts.strips([("good", GOOD), ("hole", BAD)], 1.0, (0.5, 1.5)),
        "roc": svg_charts.roc([("AUROC 0.9", LABELS, SCORES), ("groups apart", LABELS, -SCORES)], (0.1, 0.8)),
        "precision_recall": svg_charts.precision_recall(LABELS, SCORES, None, "average precision 0.9"),
        "calibration": svg_charts.calibration(BINS),
    }


@pytest.fixture(scope="module")
def pictures():
    return drawn()


def test_charts_are_svg_elements_that_name_no_colour_font_id_or_date_of_their_own(pictures):
    for name, svg in pictures.items():
        root = ElementTree.fromstring(svg)
        assert root.tag == f"{{{svg_charts.SVG}}}svg" and root.get("aria-label"), name
        assert "width" not in root.attrib and root.get("viewBox")
        assert not re.search(r"#0[1-7]0[1-7]|font-family|<style|<metadata|DOCTYPE", svg), name
        assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(svg_charts.THEME.values())


def test_what_is_referred_to_is_there_and_ids_of_two_charts_differ(pictures):
    seen = set()
    for svg in pictures.values():
        ids = set(re.findall(r' id="([^"]+)"', svg))
        wanted = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert wanted <= ids and not ids & seen
        seen |= ids


def test_the_same_data_give_the_same_bytes(pictures):
    assert drawn() == pictures


def test_the_legend_tells_counts_threshold_and_band(pictures):
    text = " ".join(ElementTree.fromstring(pictures["histogram"]).itertext())
    for words in ("good (30)", "bad (20)", "threshold 1", "to a person", "thresholds of the folds"):
        assert words in text
    assert "no label" not in text


def test_names_of_defects_are_text_whatever_they_hold():
    svg = svg_charts.strips([("good", GOOD), ("<script>alert(1)</script>", BAD), ("$\\frac{$ & \"q'", BAD)], None, None)
    assert "<script" not in svg
    text = list(ElementTree.fromstring(svg).itertext())
    assert any(words.startswith("<script>alert(1)<") for words in text)
    assert any(words.startswith("$\\frac{$ & \"q'") for words in text)


def test_a_strip_of_many_photographs_stays_light():
    many = svg_charts.strips([("good", RNG.normal(0, 1, 50_000))], None, None)
    assert many.count("<use") <= svg_charts.DOTS + 30 and "good (50000)" in many


def test_a_single_score_can_be_drawn():
    assert "<svg" in svg_charts.histogram({"good": np.array([1.0])}, None, None, None)
