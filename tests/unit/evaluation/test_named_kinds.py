"""The kind of what is called bad, in predictions.csv."""

import numpy as np
import pandas as pd
from defectflow.evaluation.named_kinds import naming

PREDICTED = pd.DataFrame({"image_id": ["a", "b", "c", "d"], "predicted_label": pd.array([1, 0, 1, None], "Int64")})


def test_only_what_is_called_bad_has_a_kind(tmp_path):
    said = pd.DataFrame({"image_id": ["a", "b", "d"], "kind_if_bad": ["scratch", "hole", "stain"]})
    said.assign(kind_if_bad_probability=[0.75, 0.5, 1.0]).to_csv(tmp_path / "kinds.csv", index=False)
    columns, add = naming(tmp_path / "kinds.csv")
    assert columns == ["kind", "kind_probability"]
    table = add(PREDICTED)
    assert list(table["kind"]) == ["scratch", "", "", ""]
    assert table["kind_probability"].iloc[0] == 0.75 and np.isnan(table["kind_probability"].iloc[1:]).all()


def test_without_kinds_nothing_is_added():
    columns, add = naming(None)
    assert columns == [] and add(PREDICTED) is PREDICTED
