"""The stage vary: a row for each variant, differences on the same photographs."""

import json

import numpy as np
import pandas as pd
import pytest
from defectflow.classification import vary
from defectflow.classification.descriptor_files import write_descriptors
from defectflow.core.files import UserError
from kinds_set import described, manifest_of


def words(folder, variants, *networks):
    return [
        "--name", "mine", "--descriptors", *(f"{name}={folder / name}" for name in networks),
        "--variants", json.dumps(variants), "--threads", "1", "--out", str(folder / "study"),
    ]  # fmt: skip


def variant(network, head, **more):
    return {"network": network, "axes": {"head": head, "network": network}, "settings": {"head": head, **more}}


def test_variants_are_compared_with_the_first(tmp_path):
    counts = {"good": 12, "a": 8, "b": 8}
    write_descriptors(tmp_path / "own", described(tmp_path / "1", manifest_of(counts)))
    write_descriptors(tmp_path / "blind", described(tmp_path / "2", manifest_of(counts), strength=0.0))
    variants = [variant("own", "linear"), variant("own", "nearest"), variant("blind", "linear")]
    vary.main(vary.build_parser().parse_args(words(tmp_path, variants, "own", "blind")))
    table = pd.read_csv(tmp_path / "study/study.csv")
    assert list(table.columns) == ["head", "network", *vary.FIGURES] and len(table) == 3
    assert (table[["difference", "difference_low", "difference_high"]].iloc[0] == 0).all()
    assert table["accuracy"][0] > 0.85 and table["difference_high"][2] < 0
    assert table["difference"].to_numpy() == pytest.approx(table["accuracy"] - table["accuracy"][0], abs=1e-5)
    assert (table["worst_fold"] <= table["accuracy"]).all() and (table["accuracy"] <= table["best_fold"]).all()
    page = (tmp_path / "study/study.html").read_text()
    assert "3 variants on the same 28 held-out photographs" in page and "nearest" in page


def test_nothing_to_vary_is_told(tmp_path):
    with pytest.raises(UserError, match="varies nothing"):
        vary.main(vary.build_parser().parse_args(words(tmp_path, [variant("own", "linear")], "own")))


def test_photographs_of_a_group_make_the_interval_wider():
    rng = np.random.default_rng(0)
    gain = np.repeat(rng.random(20) < 0.5, 5)
    alone, grouped = (
        vary.difference(gain, np.zeros(100, bool), units, 0) for units in (np.arange(100), np.repeat(np.arange(20), 5))
    )
    assert alone[0] == grouped[0] and grouped[2] - grouped[1] > 1.5 * (alone[2] - alone[1])
