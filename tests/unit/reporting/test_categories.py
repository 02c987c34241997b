import pandas as pd
import pytest
from defectflow.core.files import UserError, write_json
from defectflow.reporting import categories

MVTEC = [
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
]  # fmt: skip


def run(folder, figures, names=None):
    paths = []
    for name, (image, pixel, area) in figures.items():
        full = {"auroc": pixel, "au_pro": area} if pixel is not None else None
        metrics = {"image": {"auroc": image, "n_good": 20, "n_bad": 60}, "pixel": {"full_frame": full}}
        write_json(folder / name / "metrics.json", metrics)
        paths.append(str(folder / name / "metrics.json"))
    out = folder / "mvtec.csv"
    args = ["--names", *(names or figures), "--metrics", *paths, "--out", str(out)]
    categories.main(categories.build_parser().parse_args(args))
    return pd.read_csv(out, index_col="category")


def test_every_category_has_a_line_and_the_mean_is_that_of_all(tmp_path, capsys):
    table = run(tmp_path, {name: (0.5 + i / 100, 0.9, 0.8 + i / 100) for i, name in enumerate(MVTEC)})
    assert list(table.index) == [*MVTEC, "mean"]
    assert table.loc["mean", "image_auroc"] == pytest.approx(0.57) and table.loc["mean", "n_bad"] == 900
    assert table.loc["metal_nut", "anomalib_r18_image_auroc"] == 0.991
    assert table.loc["mean", ["paper_image_auroc", "paper_pixel_auroc", "paper_au_pro"]].tolist() == [
        0.99,
        0.981,
        0.935,
    ]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 18 and printed[-1].split()[:4] == ["mean", "300", "900", "57.0"]
    assert printed[-1].endswith("97.3 / 97.6 /    -")


def test_the_published_means_are_those_of_the_published_categories():
    table = pd.read_csv(categories.PUBLISHED, index_col="category")
    rows = table.drop(index="mean")
    assert sorted(rows.index) == MVTEC
    for column in table.columns.drop("paper_au_pro"):
        # The pixel AUROC of transistor that is left out would be 0.963.
        assert rows[column].fillna(0.963).mean() == pytest.approx(table.loc["mean", column], abs=0.0011), column


def test_some_categories_are_compared_with_the_mean_of_the_same_ones(tmp_path):
    table = run(tmp_path, {"pill": (0.9, None, None), "transistor": (0.8, 0.7, 0.6)})
    assert table.loc["mean", "anomalib_r18_image_auroc"] == pytest.approx((0.916 + 0.996) / 2)
    assert pd.isna(table.loc["mean", "paper_au_pro"]) and pd.isna(table.loc["mean", "paper_pixel_auroc"])
    assert pd.isna(table.loc["pill", "pixel_auroc"])


def test_a_category_of_ones_own_has_no_published_figures(tmp_path):
    table = run(tmp_path, {"hawk": (0.9, 0.8, 0.7)})
    assert table.loc["hawk":, table.columns[5:]].isna().all(axis=None)
    assert table.loc["mean", "au_pro"] == 0.7


def test_what_does_not_fit_is_told(tmp_path):
    with pytest.raises(UserError, match="2 for 1 files"):
        run(tmp_path, {"a": (0.9, 0.8, 0.7)}, names=["a", "b"])
    write_json(tmp_path / "x.json", {})
    args = ["--names", "x", "--metrics", str(tmp_path / "x.json"), "--out", str(tmp_path / "o.csv")]
    with pytest.raises(UserError, match="not a metrics file"):
        categories.main(categories.build_parser().parse_args(args))
