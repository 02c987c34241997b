"""Sentences on what is missing: each is said where it holds, and only there."""

import card_set
import numpy as np
import pytest
from defectflow.dataset_card.limits import copies, enough, interval, missing
from defectflow.dataset_card.shortcuts import shortcuts

MANY = "0" * 200 + "1" * 200


def said(table, **report) -> str:
    return "\n".join(missing(table, card_set.report(**report), None, shortcuts(table)))


def whole(**columns):
    """A set in which nothing is missing but masks: many of both, in sessions that have both, one kind."""
    groups = [f"s{i % 20}" for i in range(len(MANY))]
    kinds = ["" if c == "0" else "dent" for c in MANY]
    return card_set.table(MANY, **{"group": groups, "defect_type": kinds} | columns)


def test_a_large_set_of_many_sessions_lacks_its_masks_alone():
    assert said(whole()).splitlines() == [
        "No bad photograph has a ground-truth mask: pixel metrics are not computed, and nothing measures whether "
        "the heat lies on the defect."
    ]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ("----", "No photograph is labelled: a run with five or more assumes that most are good"),
        ("0000", "No bad photograph is labelled"),
        ("1111", "No good photograph is labelled"),
        ("0011-", "1 photograph without a label counts in no figure"),
        ("0011--", "2 photographs without a label count in no figure"),
    ],
)
def test_missing_labels_are_told(labels, text):
    assert text in said(card_set.table(labels))
    assert text not in said(whole())


def test_the_interval_is_that_of_the_photographs_that_are_judged():
    text = said(card_set.table("0" * 12 + "1" * 9))
    low, high = interval(8, 9)
    assert f"9 bad photographs to measure with: the recall is known to about ±{(high - low) / 2:.2f}" in text
    assert "If 8 of them were found, it might be anything from 0.57 to 0.98; ±0.05 takes 141 photographs." in text
    n = enough()
    widths = [np.subtract(*interval(0.9 * k, k)[::-1]) / 2 for k in (n - 1, n)]
    assert widths[0] > 0.05 >= widths[1]
    fixed = card_set.table("0" * 12 + "1" * 9, split=["train"] * 10 + ["test"] * 11)
    assert "2 good photographs to measure with" in said(fixed)
    assert "to measure with" not in said(whole())


def test_bad_photographs_of_one_session_are_told():
    groups = ["a"] * 5 + ["b"] * 5 + ["c"] * 6
    text = said(card_set.table("0" * 10 + "1" * 6, group=groups))
    assert "All 6 bad photographs come from one session (c): a verdict may judge the session." in text
    assert "No session has both good and bad photographs" in text and "come from 2 sessions" in text
    both = said(card_set.table("0" * 10 + "1" * 6, group=["a"] * 5 + ["b"] * 5 + ["b"] * 6))
    assert "one session (b)" in both and "No session has both" not in both
    some = said(card_set.table("0" * 10 + "1" * 6, group=["a"] * 5 + ["b"] * 7 + ["c"] * 4))
    assert "4 of 6 bad photographs come from sessions without a good one (c)" in some
    assert "Nothing says which photographs were taken together" in said(card_set.table("0011"))


def test_a_session_on_both_sides_of_a_split_is_told():
    table = card_set.table("000011", group=list("aabbbb"), split=["train"] * 3 + ["test"] * 3)
    assert "1 session on both sides of the split (b)" in said(table)
    assert "both sides" not in said(card_set.table("000011", group=list("aabbbb"), split=["train"] * 2 + ["test"] * 4))


def test_a_difference_in_light_is_told_before_the_sessions():
    table = whole()
    dark = table.assign(luminance=table["luminance"].where(table["label"] == 0, table["luminance"] - 30))
    first, *_ = said(dark).splitlines()
    assert first.startswith("Good and bad photographs differ in brightness before anything else: bad ones are darker")
    assert "differ" not in said(table)


def test_few_photographs_of_a_kind_are_told():
    kinds = [""] * 40 + ["dent"] * 12 + ["crack"] * 3 + [""] * 5
    text = said(card_set.table("0" * 40 + "1" * 20, defect_type=kinds))
    assert "crack has fewer than 10 photographs" in text and "dent" not in text
    assert "5 bad photographs of no named kind count for no kind of defect" in text
    each = said(card_set.table("0" * 40 + "1" * 6, defect_type=[""] * 40 + ["dent", "crack"] * 3))
    assert "Each of the 2 kinds of defect has fewer than 10" in each
    assert "Nothing says which kind of defect" in said(card_set.table("0011"))


def test_light_sizes_and_outlines_are_told():
    text = said(whole(clipped=[0.3] * 3 + [0.0] * 397, luminance=[5.0] + [90.0] * 399), annotated=0)
    assert "3 of 400 photographs are overexposed in more than 10\N{NO-BREAK SPACE}% of the frame" in text
    assert "1 of 400 photographs is nearly black" in text and "No outline of the part" in text
    assert "400 of 400 photographs are white in more than" in said(whole(clipped=0.3))
    assert "2 different proportions" in said(whole(width=[60] * 399 + [90]))


def test_copies_are_counted_by_what_ingest_says_of_them():
    near = {"file": "a", "text": "hardly differs from b: saved again?", "figure": "verdicts"}
    equal = {"file": "a", "text": "the same file as b", "left_out": "image"}
    report = card_set.report(
        problems=[equal, equal, {"file": "c", "text": "torn", "left_out": "image"}], warnings=[near]
    )
    assert copies(report) == {"equal_files": 2, "near_copies": 1}
    assert "1 pair of photographs hardly differs" in said(whole(), warnings=[near])
