import pytest
from defectflow.finding.self_check import judge

SOUND = {
    "edge": 3.5, "maps": 0.8, "head": 0.95, "stability": 0.9, "agreement": 0.9, "registration": 0.1, "area": 0.3,
    "spread": 0.05, "figure": 0.99, "rim": 0.0, "learned": 0.98, "doubt": 0.05, "surface": 0.02, "together": 0.8,
}  # fmt: skip


def test_a_part_with_all_signs_for_it_is_used():
    check = judge(SOUND)
    assert check.use == "found" and check.trust > 0.7 and check.reason == ""


@pytest.mark.parametrize(
    "signs",
    [{"surface": 0.9}, {"edge": 0.5, "maps": 0.2, "learned": 0.6, "agreement": 0.5}, {"area": 0.95}, {"area": 0.5}],
)
def test_a_part_with_signs_against_it_is_not(signs):
    check = judge(SOUND | signs)
    assert check.use == "whole" and check.trust < 0.6 and check.reason
