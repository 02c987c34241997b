import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import inspection_set
import numpy as np
import pandas as pd
import pytest
from defectflow.core.files import UserError, read_json, write_json
from defectflow.core.tables import PREDICTIONS, read_table, write_table
from defectflow.evaluation import boxes, evaluate
from defectflow.reporting import report

RECIPE = "results/demo/template/zero_out/patchcore"
VOID = {"meta", "img", "input", "br", "link"}
EVIL = "a\"><script>alert('x')</script>{{ 7*7 }}&.png"


class Page(HTMLParser):
    """What a test wants to know of a page: elements by name, text, and unclosed elements."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open, self.ids, self.tables = [], [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in self.open:  # optional end tags do not occur
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.texts))

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def make(root, *more, out=None, settings="{}", **options):
    """Judge a made-up set and write its report; returns the path of the page."""
    options = {"good": 10, "bad": 8, "unlabelled": 3} | options
    data = inspection_set.make(root / "set", **options)
    folder = root / RECIPE
    evaluate.main(evaluate.build_parser().parse_args(data.evaluate_args(folder, *more)))
    boxes.main(boxes.build_parser().parse_args(data.boxes_args(folder)))
    for name in ("regions.csv", "regions.json"):
        (folder / name).rename(data.root / name)
    return run(data, folder, settings, out or folder / "report.html")


def run(data, folder, settings, out):
    args = ["--metrics", folder / "metrics.json", "--predictions", folder / "predictions.csv"]
    args += ["--manifest", data.manifest, "--maps", *data.maps, "--regions"]
    args += [data.root / "regions.csv", data.root / "regions.json"]
    args += ["--settings", settings, "--out", out]
    args += ["--masks", *data.masks] if data.masks else []
    report.main(report.build_parser().parse_args([str(arg) for arg in args]))
    return data, folder, out


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    settings = {"detector": {"entry": "patchcore", "weights": "/home/somebody/secret/w.safetensors"}, "seed": 0}
    data, folder, out = make(root, "--review", "max_fpr=0.3", "max_fnr=0.3", settings=json.dumps(settings))
    return data, folder, out, Page(out.read_text())


def rows_of(page):
    return [attributes for attributes in page.named("tr") if "data-verdict" in attributes]


def test_the_page_is_whole_and_loads_nothing(written):
    *_, out, page = written
    text = out.read_text()
    assert len(page.ids) == len(set(page.ids))
    links = [a["href"] for a in page.named("a")]
    targets = [link[1:] for link in links if link.startswith("#")]
    assert targets and set(targets) <= set(page.ids)
    assert [link for link in links if not link.startswith("#")] == ["../../../card/card.html"]
    assert all(image["src"].startswith("data:image/jpeg") for image in page.named("img") if "src" in image)
    assert not page.named("link") and "src" not in "".join(map(str, page.named("script")))
    assert "default-src 'none'" in str(page.named("meta"))
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org)[a-z]", re.sub(r"base64,[^\"]+", "", text))


def test_every_photograph_has_a_row_with_its_verdict(written):
    _, folder, _, page = written
    predictions = read_table(folder / "predictions.csv", PREDICTIONS)
    rows = rows_of(page)
    assert len(rows) == len(predictions) == 21
    assert sum(row["data-verdict"] == "bad" for row in rows) == (predictions["predicted_label"] == 1).sum()
    assert sum(row["data-label"] == "none" for row in rows) == predictions["label"].isna().sum() == 3
    wrong = predictions["label"].notna() & (predictions["label"] != predictions["predicted_label"])
    assert sum("wrong" in row["data-state"] for row in rows) == wrong.sum() > 0
    assert sum("review" in row["data-state"] for row in rows) == (predictions["review"] == 1).sum()
    assert sum("flagged" in row["data-state"] for row in rows) == 1


def test_the_headline_and_the_matrix_agree_with_the_metrics(written):
    _, folder, _, page = written
    metrics = read_json(folder / "metrics.json")
    matrix = metrics["image"]["confusion_matrix"]
    right = matrix["true_negative"] + matrix["true_positive"]
    assert f"{right} of 18 labelled photographs judged correctly." in page.text
    for text in (*metrics["warnings"], "f1_adaptive", "What these figures prove", "They do not show"):
        assert text in page.text


def test_good_photographs_alone_prove_no_verdict_right(tmp_path):
    data, folder, out = make(tmp_path, good=20, bad=0, overlap=False)
    text = Page(out.read_text()).text
    assert "judged correctly." not in text and "it is unknown how many defects are found" in text
    assert "of 20 good photographs are below the threshold chosen on the others." in text
    assert "Please look at these first" not in text
    metrics = read_json(folder / "metrics.json")
    metrics["threshold"]["good_only"] |= {"far": True, "set_aside": True, "with_them": 50.0}
    write_json(folder / "metrics.json", metrics)
    run(data, folder, "{}", out)
    page = Page(out.read_text())
    assert "Please look at these first" in page.text and "with which it would be 50" in page.text
    assert "stands out from all others" in page.text
    assert len(page.ids) == len(set(page.ids))


def test_charts_galleries_masks_and_versions_are_there(written):
    *_, page = written
    assert len(page.named("svg")) == 5  # histogram, strips, ROC, precision and recall, calibration
    for text in (
        "Missed defects",
        "False alarms",
        "Nearest to the threshold",
        "Typical good",
        "Masks of the part",
        "numpy ",
    ):
        assert text in page.text
    assert len(page.named("img")) > 20


def test_a_file_of_the_settings_is_told_by_its_name_alone(written):
    *_, out, page = written
    assert "weights w.safetensors" in page.text and "somebody" not in out.read_text()
    assert str(out.parents[4]) not in out.read_text()


def test_the_same_inputs_give_the_same_bytes(written, tmp_path):
    data, folder, out, _ = written
    settings = {"detector": {"entry": "patchcore", "weights": "/elsewhere/w.safetensors"}, "seed": 0}
    _, _, again = run(data, folder, json.dumps(settings), tmp_path / "again.html")
    assert again.read_bytes() == out.read_bytes()


def test_kinds_are_shown_for_what_is_called_bad_with_recall_and_confusion(written, tmp_path):
    data, folder, *_ = written
    table = read_table(folder / "predictions.csv", PREDICTIONS)
    bad = table["predicted_label"] == 1
    table = table.assign(kind=np.where(bad, "dent<i>", ""), kind_probability=np.where(bad, 0.8125, np.nan))
    write_table(tmp_path / "predictions.csv", table, list(table.columns))
    told = {
        "classes": [{"name": "dent<i>", "n": 5, "recall": 0.8, "interval": [0.376, 0.964], "precision": 0.75}],
        "confusion": {"classes": ["good", "dent<i>"], "counts": [[4, 1], [1, 4]]},
        "if_bad": {"n": 5, "accuracy": 0.6, "interval": [0.23, 0.88]}, "majority": {"if_bad": 0.5},
    }  # fmt: skip
    write_json(tmp_path / "kinds.json", told)
    args = ["--metrics", folder / "metrics.json", "--predictions", tmp_path / "predictions.csv", "--manifest"]
    args += [data.manifest, "--maps", *data.maps, "--regions", data.root / "regions.csv", data.root / "regions.json"]
    write_json(tmp_path / "refinement.json", {"told": "Regions are outlined by SAM 2.1."})
    args += ["--kinds", tmp_path / "kinds.json", "--refinement", tmp_path / "refinement.json"]
    args += ["--out", tmp_path / "report.html"]
    report.main(report.build_parser().parse_args([str(arg) for arg in args]))
    page = Page((tmp_path / "report.html").read_text())
    assert "kinds" in page.ids and "kinds" not in written[-1].ids and len(page.named("svg")) == 6
    assert "kind: dent<i> (81 %)" in page.text and "Probability" in page.text
    assert "Regions are outlined by SAM 2.1." in page.text
    assert sum(cell.get("data-v") == "0.8125" for cell in page.named("td")) == bad.sum() > 0


def test_names_that_are_html_stay_text(written, tmp_path):
    data, folder, *_ = written
    for name in ("predictions.csv", "metrics.json"):
        (tmp_path / RECIPE).mkdir(parents=True, exist_ok=True)
        (tmp_path / RECIPE / name).write_bytes((folder / name).read_bytes())
    table = read_table(folder / "predictions.csv", PREDICTIONS)
    table["filename"] = [f"{k}{EVIL}" for k in range(len(table))]
    table["defect_type"] = table["defect_type"].where(table["defect_type"] == "", EVIL)
    write_table(tmp_path / RECIPE / "predictions.csv", table, PREDICTIONS)
    metrics = read_json(folder / "metrics.json")
    metrics["warnings"] = [EVIL]
    metrics["by_defect"] = {EVIL: next(iter(metrics["by_defect"].values()))}
    write_json(tmp_path / RECIPE / "metrics.json", metrics)
    _, _, out = run(data, tmp_path / RECIPE, json.dumps({EVIL: EVIL}), tmp_path / "page.html")
    page = Page(out.read_text())
    assert len(page.named("script")) == 1
    assert {key for _, attributes in page.elements for key in attributes} <= {
        key for _, attributes in written[3].elements for key in attributes
    }
    assert f"0{EVIL}" in page.text and "49&" not in page.text


def test_without_labels_masks_or_ground_truth(tmp_path):
    data, folder, _ = make(tmp_path, good=0, bad=0, unlabelled=4)
    data.masks.clear()
    evaluated = read_table(folder / "predictions.csv", PREDICTIONS)
    evaluated[["mask_present", "mask_doubtful"]] = np.nan
    write_table(folder / "predictions.csv", evaluated, PREDICTIONS)
    page = Page(run(data, folder, "{}", folder / "report.html")[2].read_text())
    assert "4 photographs scored, none judged." in page.text and "Without a label" in page.text
    assert len(rows_of(page)) == 4 and "Masks of the part" not in page.text


def test_good_images_only(tmp_path):
    page = Page(make(tmp_path, bad=0, unlabelled=0)[2].read_text())
    assert "Missed defects No photograph of a bad part has a label and a verdict." in page.text
    assert "marked as the defect" not in page.text and "the part" in page.text
    assert "How many defects are missed: no photograph of a bad part was labelled." in page.text
    assert len(page.named("svg")) == 2  # histogram, calibration


def test_what_bears_on_everything_stands_above_the_figures(written, tmp_path):
    data, folder, *_ = written
    (tmp_path / RECIPE).mkdir(parents=True)
    metrics = read_json(folder / "metrics.json")
    metrics["background"] = {"warning": "The background of these photographs is being judged: 40 % of the heat ..."}
    metrics["warnings"].insert(0, metrics["background"]["warning"])
    metrics["confidence_intervals"]["auroc"], metrics["image"]["auroc"] = [0.0, 0.3], 0.08
    kinds = [{"kind": "scratch", "n": 8, "found": 6, "share": 0.75}]
    metrics["drawn_defects"] = {"photographs": 8, "n": 8, "found": 6, "share": 0.75, "by_kind": kinds}
    write_json(tmp_path / RECIPE / "metrics.json", metrics)
    shutil.copy(folder / "predictions.csv", tmp_path / RECIPE)
    text = Page(run(data, tmp_path / RECIPE, "{}", tmp_path / "page.html")[2].read_text()).text
    top, rest = text.split("Measured on", 1)
    assert "Drawn defects: an indicator, not a result" in rest and "8 defects; 6 of them are called bad (75 %)" in rest
    assert "The background of these photographs is being judged" in top and "judged: 40 %" not in rest
    assert "clearly below 0.5" in top and "worse than guessing" in rest and "better than guessing" not in rest


@pytest.mark.parametrize(
    "low, high, n, text",
    [
        (0.2005, 2.848, 5, "0.2005 to 2.848. That is a lot"),
        (1.0, 1.1, 5, "from fold to fold: 1.000 to 1.100."),
        (1.2, 1.2, 5, "never its own fold: 1.200."),
        (-0.1, 0.4, 5, "That is a lot"),
    ],
)
def test_how_much_the_thresholds_differ_is_told_as_it_is(low, high, n, text):
    note = report.threshold_note({"n": n, "min": low, "max": high})
    assert text in note and "a little" not in note and ("That is a lot" in note) == (high > 1.5 * low or low < 0)
    assert report.threshold_note(None) == ""


def test_a_long_table_keeps_what_has_to_be_looked_at():
    n = report.ROWS + 500
    table = pd.DataFrame({"margin": np.linspace(-1, 1, n), "note": ""})
    table.loc[:9, "note"] = "missed defect"
    kept = report.rows_of(table)
    assert len(kept) == report.ROWS and set(range(10)) <= set(kept.index) and n - 1 in kept.index
    assert 10 not in kept.index and kept.index.is_monotonic_increasing
    assert report.rows_of(table.head(50)).equals(table.head(50))


def test_predictions_of_another_run_are_refused(written, tmp_path):
    data, folder, *_ = written
    write_json(tmp_path / RECIPE / "metrics.json", read_json(folder / "metrics.json"))
    table = read_table(folder / "predictions.csv", PREDICTIONS).assign(image_id="strange")
    write_table(tmp_path / RECIPE / "predictions.csv", table, PREDICTIONS)
    with pytest.raises(UserError, match=r"strange is not in manifest\.csv"):
        run(data, tmp_path / RECIPE, "{}", tmp_path / "x.html")
    with pytest.raises(UserError, match="--settings: not valid JSON"):
        run(data, folder, "{", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ACTIONS = """<script>
const told = {}, form = document.querySelector("form.controls");
const rows = () => [...document.getElementById("all").rows].slice(1);
const set = (name, value) => { form.elements[name].value = value; form.dispatchEvent(new Event("input")); };
const shown = () => rows().filter(row => !row.hidden).map(row => row.cells[0].textContent.trim());
told.all = shown().length;
set("verdict", "bad"); told.bad = shown(); set("verdict", "");
set("state", "wrong"); told.wrong = shown(); set("state", "");
set("text", "SCRATCH odd"); told.text = shown(); told.count = form.querySelector("output").textContent; set("text", "");
const heads = [...document.querySelectorAll("#all th button")];
heads[2].click(); told.down = rows().map(row => row.cells[2].dataset.v);
heads[2].click(); told.up = rows().map(row => row.cells[2].dataset.v);
document.querySelector(".case img").click(); told.zoom = document.getElementById("zoom").open;
document.getElementById("zoom").click(); told.closed = !document.getElementById("zoom").open;
told.wide = document.documentElement.scrollWidth > innerWidth;
document.title = JSON.stringify(told);
</script></body>"""


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
@pytest.mark.parametrize("width", [1200, 500])  # headless Chromium has no narrower window
def test_the_table_sorts_and_filters_in_a_browser_and_nothing_is_wider_than_the_screen(written, tmp_path, width):
    _, folder, out, _ = written
    (tmp_path / "page.html").write_text(out.read_text().replace("</body>", ACTIONS))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True)
    told = json.loads(html.unescape(re.search(r"<title>(\{.*?\})</title>", done.stdout)[1]))
    table = read_table(folder / "predictions.csv", PREDICTIONS)
    wrong = table["label"].notna() & (table["label"] != table["predicted_label"])
    assert told["all"] == len(table)
    assert told["bad"] == table.loc[table["predicted_label"] == 1, "filename"].tolist()
    assert told["wrong"] == table.loc[wrong, "filename"].tolist()
    assert told["text"] == table.loc[table["defect_type"] == "scratch", "filename"].tolist()
    assert told["count"] == f"{len(told['text'])} of {len(table)} photographs"
    scores = [float(score) for score in told["down"]]
    assert scores == sorted(table["pred_score"], reverse=True) and told["up"] == told["down"][::-1]
    assert told["zoom"] and told["closed"] and not told["wide"]
