"""One rule for all that judge: the workflow's tables, an inspector, perturbed copies and the comparison of runtimes."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
from defectflow.backbones.network_input import Loaded
from defectflow.bundling import parity
from defectflow.core.tables import SCORES, read_table, write_table
from defectflow.decision.chosen_threshold import Threshold
from defectflow.decision.decisions import Verdicts, assign_verdicts_to_new
from defectflow.decision.verdict_rule import decide, nine_digits
from defectflow.evaluation import robustness
from defectflow.inspection.inspector import Inspector, Ready
from defectflow.methods.numpy_detector import Scored
from hypothesis import given, settings
from hypothesis import strategies as st

finite = st.floats(min_value=1e-6, max_value=1e6)


@st.composite
def cases(draw):
    """A raw score as a detector gives it, a threshold and a band (or None) with nine digits; ties and near ones too."""
    threshold = float(nine_digits(draw(finite)))
    other = st.one_of(st.just(threshold), finite.map(lambda value: float(nine_digits(value))))
    low, high = draw(other), draw(other)
    at = draw(st.sampled_from([threshold, low, high]))
    near = st.sampled_from([at, np.nextafter(at, 0), np.nextafter(at, 2 * at), at * (1 - 4e-10), at * (1 + 4e-10)])
    raw = draw(st.one_of(near, near.map(lambda value: float(np.float32(value))), finite))
    return raw, threshold, draw(st.sampled_from([None, (min(low, threshold), max(high, threshold)), (low, high)]))


ONES = np.ones(4, np.float32)


def inspector(raw, threshold, band):
    """An inspector whose detector gives the score ``raw`` to any photograph."""
    made = Inspector.__new__(Inspector)
    made.runtime, made.clock, made._locate, made._namer = "stub", time.perf_counter, None, None
    made._scorer = lambda patches, cells: Scored(raw, ONES, lambda: ONES)
    made._network = lambda pictures: np.ones((len(pictures), 4, 1), np.float32)
    made.settings = {
        "network": {"grid": [2, 2], "input_size": [8, 8]},
        "threshold": {"value": threshold, "low": 0.0, "high": 2 * threshold},
        "review": band and list(band),
        "pixel_threshold": None,
        "regions": {},
    }
    return made


ITEM = Loaded(picture=np.zeros((8, 8, 3), np.uint8), cells=np.arange(4), affine=np.eye(2, 3), present=True)


@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_workflow_and_inspector_give_one_verdict(case, tmp_path_factory):
    raw, threshold, band = case
    path = tmp_path_factory.mktemp("tables") / "scores.csv"
    row = pd.DataFrame([["a", "", "", "all", raw, "", np.nan]], columns=SCORES)
    write_table(path, row, SCORES)
    overall = Threshold(threshold, 0.0, 2 * threshold, 1, 1, pd.DataFrame())
    judged = assign_verdicts_to_new(read_table(path, SCORES), Verdicts(pd.DataFrame(), overall, band)).iloc[0]
    verdict = inspector(raw, threshold, json.loads(json.dumps(band))).finish([Ready((8, 8), None, ITEM, {})])[0]
    assert verdict.bad == (judged["predicted_label"] == 1)
    assert (None if np.isnan(judged["review"]) else judged["review"] == 1) == verdict.review
    assert f"{verdict.score:.9g}" == f"{judged['pred_score']:.9g}" and (verdict.score >= 0.5) == verdict.bad
    assert f"{verdict.raw_score:.9g}" == f"{judged['raw_score']:.9g}"
    path.unlink()


@given(raw=finite, case=cases())
@settings(max_examples=50, deadline=None)
def test_copies_and_other_runtimes_are_judged_alike(raw, case):
    other, threshold, _ = case
    source = {"image_id": "a", "label": 1, "threshold": threshold, "detection": "fold", "raw_score": raw}
    table = pd.DataFrame([source | {"predicted_label": float(decide(raw, threshold).bad)}])
    copies = pd.DataFrame([["a~blur~1", "a", "perturbed", "all", other, "", np.nan]], columns=SCORES)
    changed = robustness.robustness_table(table, copies).iloc[1]["changed_verdicts"]
    verdicts = [
        inspector(score, threshold, None).finish([Ready((8, 8), None, ITEM, {})])[0].bad for score in (raw, other)
    ]
    assert (changed == 1) == (verdicts[0] != verdicts[1])


def test_a_runtime_that_differs_behind_the_ninth_digit_changes_no_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "read_photograph", lambda path, depth: np.zeros((8, 8, 3), np.uint8))
    for other, expected in ((1.2 * (1 - 1e-12), 0), (1.2 * (1 - 1e-7), 1)):
        pair = [inspector(score, 1.2, None) for score in (1.2, other)]
        for one in pair:
            one.settings["depth"] = None
            one.prepare = lambda image: ITEM
        assert parity.compare(*pair, [tmp_path / "a.png"])["verdicts_changed"] == expected


def test_arrays_and_bands_keep_their_shape_and_nothing_is_bad():
    decision = decide(np.array([[1.0, np.nan], [2.0, 3.0]]), np.array([[1.0, 1.0], [np.nan, 4.0]]), (1.0, 3.0))
    assert decision.bad.tolist() == [[True, False], [False, False]]
    assert decision.review.tolist() == [[True, False], [True, False]]
    assert decide(1.0, 1.0).review is None


def test_the_rule_needs_numpy_alone():
    code = "import sys, defectflow.decision.verdict_rule; print(*sys.modules)"
    loaded = {
        name.partition(".")[0] for name in subprocess.check_output([sys.executable, "-c", code], text=True).split()
    }
    assert not loaded & {"pandas", "torch", "sklearn", "cv2"}
