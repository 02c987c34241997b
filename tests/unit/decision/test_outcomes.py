import numpy as np
import pandas as pd
import pytest
from defectflow.decision.outcomes import is_flagged, outcomes, with_outcomes

NAN = np.nan


def test_every_pair_of_label_and_verdict_has_one_outcome():
    label, predicted = np.array([(x, y) for x in (0, 1, NAN) for y in (0, 1, NAN)]).T
    words = ["right", "false alarm", "", "missed defect", "right", "", "", "", ""]
    assert outcomes(label, predicted).tolist() == words
    assert outcomes(np.empty(0), np.empty(0)).tolist() == []


@pytest.mark.parametrize(
    ("present", "doubtful", "flagged"),
    [(1, 0, False), (1, 1, True), (0, 0, True), (0, 1, True), (NAN, NAN, False), (None, None, False)],
)
def test_a_mask_is_flagged_where_a_person_should_look(present, doubtful, flagged):
    assert bool(is_flagged(present, doubtful)) is flagged
    if present in (0, 1):  # an inspector has bools, tables have numbers
        assert is_flagged(bool(present), bool(doubtful)) is flagged
    if present is not None:
        assert is_flagged(pd.Series([present]), pd.Series([doubtful])).tolist() == [flagged]


def test_a_note_says_all_that_is_to_be_looked_at():
    columns = ["label", "predicted_label", "review", "mask_present", "mask_doubtful"]
    rows = [(1, 0, 1, 1, 1), (0, 1, 0, 0, 0), (NAN, 1, 1, 1, 0), (1, 1, NAN, NAN, NAN)]
    table = with_outcomes(pd.DataFrame(rows, columns=columns))
    assert table["note"].tolist() == [
        "missed defect · to a person · doubtful mask", "false alarm · no part found", "to a person", "",
    ]  # fmt: skip
    assert table["outcome"].tolist() == ["missed defect", "false alarm", "", "right"]
    assert table["mask_flagged"].tolist() == [True, True, False, False]
    assert with_outcomes(table.iloc[:0])["note"].tolist() == []
