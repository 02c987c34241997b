from types import SimpleNamespace

import numpy as np
import pytest
from defectflow.learning.threshold_after_lessons import COPIES, Outcome, copies, folds_of


def test_rows_share_the_weight_of_their_kind_in_the_run():
    # The run: 8 good, of which 2 are false alarms, and 4 bad, all found. Told: 6 false alarms and 3 missed.
    label, called = np.array([0] * 8 + [1] * 4), np.array([False] * 6 + [True] * 2 + [True] * 4)
    said, bad = np.array([0] * 6 + [1] * 3), np.array([True] * 6 + [False] * 3)
    times = copies(label, called, said, bad)
    assert times[:6].tolist() == [COPIES] * 6 and times[8:12].tolist() == [COPIES] * 4
    assert times[6:8].sum() + times[12:18].sum() == pytest.approx(2 * COPIES, abs=4)  # two false alarms, as before
    assert times[18:].sum() == pytest.approx(COPIES / 2, abs=2)  # missed: none in the run


def outcome(before, after):
    return Outcome(None, {}, None, before, after, {}, {}, np.empty(0), np.empty(0))


@pytest.mark.parametrize(
    "before, after, worse",
    [
        ((0.5, 1), (0.4, 1), True),
        ((0.5, 1), (0.5, 3), False),
        ((None, 1), (None, 2), True),
        ((None, 1), (None, 1), False),
    ],
)
def test_worse_is_a_lower_f1_or_without_bad_ones_more_false_alarms(before, after, worse):
    sides = [{"f1": f1, "false_alarms": alarms} for f1, alarms in (before, after)]
    assert outcome(*sides).worse is worse


def test_a_run_without_folds_gets_five_by_content():
    photographs = [{"fold": "", "sha256": f"{number:02}"} for number in range(12)]
    assert folds_of(SimpleNamespace(photographs=photographs)) == [str(number % 5) for number in range(12)]
