import re
from xml.etree import ElementTree

import numpy as np
import pytest
from defectflow.drawing import chart_files
from defectflow.drawing import histograms_and_curves as charts
from defectflow.drawing.chart_files import save_png, svg
from defectflow.reporting.html_pages import TEMPLATES
from PIL import Image

RNG = np.random.default_rng(0)
GOOD, BAD = RNG.normal(0, 1, 30), RNG.normal(2, 1, 20)
LABELS, SCORES = np.repeat([0, 1], [30, 20]), np.concatenate([GOOD, BAD])
COUNTS = {"true_negative": 28, "false_positive": 2, "false_negative": 0, "true_positive": 20}
BINS = [
    {"low": low, "high": low + 0.1, "share_bad": low, "interval": [0.0, 1.0], "n": 5, "n_bad": 1} for low in (0.2, 0.8)
]


def all_charts():
    return {
        "score_histogram": charts.score_histogram(
            {"good": GOOD, "bad": BAD, "no label": SCORES[:0]}, 1.0, (0.9, 1.1), (0.5, 1.5)
        ),
        "scores_by_kind": charts.scores_by_kind([("good", GOOD), ("hole", BAD)], 1.0, (0.5, 1.5)),
        "roc": charts.roc([("AUROC 0.9", LABELS, SCORES), ("groups apart", LABELS, -SCORES)], (0.1, 0.8)),
        "precision_recall": charts.precision_recall(LABELS, SCORES, None, "average precision 0.9"),
        "calibration_curve": charts.calibration_curve(BINS),
        "confusion_matrix": charts.confusion_matrix(COUNTS),
        "notice": charts.notice("Nothing", "there is nothing"),
    }


def drawn():
    return {name: svg(chart) for name, chart in all_charts().items()}


@pytest.fixture(scope="module")
def pictures():
    return drawn()


def test_charts_are_svg_elements_that_name_no_colour_font_id_or_date_of_their_own(pictures):
    for name, picture in pictures.items():
        root = ElementTree.fromstring(picture)
        assert root.tag == f"{{{chart_files.SVG}}}svg" and root.get("aria-label"), name
        assert "width" not in root.attrib and root.get("viewBox")
        assert not re.search(r"#0[1-7]0[1-7]|font-family|<style|<metadata|DOCTYPE", picture), name
        assert set(re.findall(r"var\(--(\w+)\)", picture)) <= set(charts.Colours._fields)


def test_what_is_referred_to_is_there_and_ids_of_two_charts_differ(pictures):
    seen = set()
    for picture in pictures.values():
        ids = set(re.findall(r' id="([^"]+)"', picture))
        wanted = set(re.findall(r"url\(#([^)]+)\)", picture)) | set(re.findall(r'href="#([^"]+)"', picture))
        assert wanted <= ids and not ids & seen
        seen |= ids


def test_the_same_data_give_the_same_bytes(pictures):
    assert drawn() == pictures


def test_the_legend_tells_counts_threshold_and_band(pictures):
    text = " ".join(ElementTree.fromstring(pictures["score_histogram"]).itertext())
    for words in ("good (30)", "bad (20)", "threshold 1", "to a person", "thresholds of the folds"):
        assert words in text
    assert "no label" not in text


def test_names_of_defects_are_text_whatever_they_hold():
    rows = [("good", GOOD), ("<script>alert(1)</script>", BAD), ("$\\frac{$ & \"q'", BAD)]
    picture = svg(charts.scores_by_kind(rows, None, None))
    assert "<script" not in picture
    text = list(ElementTree.fromstring(picture).itertext())
    assert any(words.startswith("<script>alert(1)<") for words in text)
    assert any(words.startswith("$\\frac{$ & \"q'") for words in text)


def test_a_strip_of_many_photographs_stays_light():
    many = svg(charts.scores_by_kind([("good", RNG.normal(0, 1, 50_000))], None, None))
    assert many.count("<use") <= charts.DOTS + 30 and "good (50000)" in many


def test_a_single_score_can_be_drawn():
    assert "<svg" in svg(charts.score_histogram({"good": np.array([1.0])}, None, None, None))


def test_png_files_are_the_same_twice_in_the_colours_of_a_light_page(tmp_path):
    for name, chart in all_charts().items():
        for folder in ("one", "two"):
            save_png(tmp_path / folder / f"{name}.png", chart)
        assert (tmp_path / "one" / f"{name}.png").read_bytes() == (tmp_path / "two" / f"{name}.png").read_bytes(), name
        with Image.open(tmp_path / "one" / f"{name}.png") as picture:
            assert picture.width == round(chart.width * chart_files.DOTS_PER_INCH) and "Software" not in picture.info
            colours = {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height)}
        stand_ins = {tuple(bytes.fromhex(colour[1:])) for colour in chart_files.STAND_IN}
        assert (255, 255, 255) in colours and not colours & stand_ins, name


def test_colours_of_png_files_are_those_of_a_light_page():
    light = (TEMPLATES / "style.css").read_text().split("@media")[0]
    for name, colour in chart_files.LIGHT._asdict().items():
        assert f"--{name}: {colour};" in light
