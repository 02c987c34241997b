import numpy as np
import pandas as pd
from defectflow.core.tables import SCORES
from defectflow.evaluation.drawn_defect_figures import drawn_defect_figures


def test_only_those_on_good_photographs_that_are_called_good_count():
    table = pd.DataFrame({
        "image_id": ["a", "b", "alarm", "bad"], "label": [0, 0, 0, 1], "predicted_label": [0.0, 0, 1, 1],
        "threshold": [2.0, 3.0, 1.0, 2.0], "raw_score": [1.0, 1, 1.5, 4], "detection": "fold",
    })  # fmt: skip
    rows = [(name, kind, score) for name, kind, score in (
        ("a", "scratch", 2.0), ("a", "stain", 1.9), ("b", "scratch", 2.5), ("b", "stain", 3.5), ("alarm", "scratch", 9),
    )]  # fmt: skip
    scores = pd.DataFrame(
        [[f"{name}~{kind}~1", name, "synthetic", "", score, "", np.nan] for name, kind, score in rows]
        + [["a~blur~1", "a", "perturbed", "", 9, "", np.nan]],
        columns=SCORES,
    )
    found = drawn_defect_figures(table, scores)
    assert (found["photographs"], found["n"], found["found"], found["share"]) == (2, 4, 2, 0.5)
    assert found["by_kind"] == [
        {"kind": "scratch", "n": 2, "found": 1, "share": 0.5}, {"kind": "stain", "n": 2, "found": 1, "share": 0.5}
    ]  # fmt: skip
    assert "indicator, no result" in found["meaning"]
    assert drawn_defect_figures(table, scores[scores["kind"] != "synthetic"]) is None
