"""Thinned-out classes: as rare as asked where the set allows it, on the side to learn from alone."""

import numpy as np
import pandas as pd
import pytest
from defectflow.classification import thin_out
from defectflow.classification.descriptor_files import write_descriptors
from kinds_set import described, manifest_of


@pytest.mark.parametrize(
    ("counts", "imbalance", "kept"),
    [
        ([40, 20, 40], 1, [20, 20, 20]),
        ([40, 40, 40], 4, [40, 20, 10]),
        ([20, 300], 50, [6, 300]),  # the more frequent one stays the more frequent
        ([8, 8, 8], 50, [8, 1, 1]),
    ],
)
def test_classes_are_thinned_geometrically(counts, imbalance, kept):
    assert thin_out.wanted(np.array(counts), imbalance).tolist() == kept


def test_what_stays_is_of_the_side_to_learn_from_and_as_rare_as_asked():
    labels = np.repeat([0, 1, 2], [50, 30, 40])
    rows = np.arange(0, 120, 2)
    kept = thin_out.thinned(labels, rows, 9, np.random.default_rng(0))
    assert set(kept) <= set(rows) and len(set(kept)) == len(kept)
    assert np.bincount(labels[kept]).tolist() == [25, 2, 8]


def test_rare_classes_lose_recall_and_the_tables_say_which(tmp_path, monkeypatch, capsys):
    found = described(tmp_path, manifest_of({"good": 12, "a": 12, "b": 12}), strength=1.6)
    write_descriptors(tmp_path / "d", found)
    monkeypatch.setattr(thin_out, "BALANCES", ("none", "logit_adjustment"))
    args = ["--descriptors", tmp_path / "d", "--threads", 1, "--out", tmp_path / "out"]
    thin_out.main(thin_out.build_parser().parse_args([str(word) for word in args]))
    table = pd.read_csv(tmp_path / "out/imbalance.csv").set_index(["imbalance", "balance"])
    assert list(table.index.get_level_values(0)) == [1, 1, 10, 10, 50, 50]
    assert np.isnan(table.loc[(1, "none"), "few"]) and table.loc[(1, "none"), "reached"] == 1
    assert table.loc[(50, "none"), "reached"] < 15 and "imbalance 50: the set has too few" in capsys.readouterr().out
    assert table.loc[(50, "none"), "few"] < table.loc[(1, "none"), "many"] - 0.2
    assert (table["accuracy_low"] < table["accuracy"]).all() and (table["accuracy_high"] >= table["accuracy"]).all()
    classes = pd.read_csv(tmp_path / "out/classes.csv")
    assert len(classes) == 18 and classes.groupby("class")["n"].first().tolist() == [12, 12, 12]
    rare = classes[(classes["imbalance"] == 50) & (classes["tier"] == "few")]
    assert (rare["learned_from"] < 3).all() and (rare["recall_high"] >= rare["recall"]).all()
