import numpy as np
import pytest
from defectflow.labelling.labels_that_say_most import SPREAD, next_labels

N = 40
SCORE = np.linspace(1, 5, N)


def look(n=N):
    return np.random.default_rng(0).normal(0, 1, (n, 8))


def told(**labels):
    label = np.full(N, np.nan)
    for row, value in labels.items():
        label[int(row[1:])] = value
    return label


def test_the_first_go_from_low_to_high_scores_and_the_others_lie_near_the_threshold():
    found = next_labels(SCORE, told(), 4.0, look(), 20)
    assert len({one.row for one in found}) == 20
    assert [one.why for one in found] == ["spread"] * SPREAD + ["near"] * 15
    rows = [one.row for one in found]
    assert rows[:SPREAD] == sorted(rows[:SPREAD]) and rows[SPREAD - 1] == N - 1
    assert np.abs(SCORE[rows[SPREAD : SPREAD + 4]] - 4).max() < 0.5


def test_with_labels_of_both_kinds_the_threshold_is_theirs():
    label = told(r3=0, r10=0, r14=0, r16=1, r30=1)
    found = next_labels(SCORE, label, 4.9, look(), 6)
    assert all(one.why == "near" and 11 <= one.row <= 19 for one in found)
    assert not {one.row for one in found} & set(np.flatnonzero(~np.isnan(label)))


def test_of_a_burst_one_comes_first():
    same = look()
    same[10:20] = same[10] + 0.001 * same[10:20]
    found = next_labels(SCORE, told(r0=0, r1=0, r2=0, r38=1, r39=1), np.nan, same, 8)
    assert sum(10 <= one.row < 20 for one in found) <= 1


@pytest.mark.parametrize("count", [3, 100])
def test_there_are_no_more_than_asked_for_or_left(count):
    score = SCORE.copy()
    score[5] = np.nan
    found = next_labels(score, told(r0=0), np.nan, look(), count)
    assert len(found) == min(count, N - 2) and not {0, 5} & {one.row for one in found}
    assert next_labels(score, np.zeros(N), 3.0, look(), count) == []
