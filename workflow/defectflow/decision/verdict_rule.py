"""The rule that turns raw scores into verdicts: bad or good, and whether a person decides.

Evaluation, inspection, the robustness table and the comparison of runtimes all ask `decide`; numpy only.
"""

from typing import NamedTuple

import numpy as np

DIGITS = 9  # significant digits of scores and thresholds: what tables keep, so that they give the same verdicts


class Decision(NamedTuple):
    """What `decide` returns.

    Attributes:
        raw_score: float [N], the scores with DIGITS significant digits.
        bad: bool [N], ``raw_score >= threshold``; False where one of them is NaN.
        review: bool [N], ``low <= raw_score < high`` of the review band: a person decides; None without a band.
    """

    raw_score: np.ndarray
    bad: np.ndarray
    review: np.ndarray | None


def decide(
    raw_score: np.ndarray | float,
    threshold: np.ndarray | float,
    band: tuple[np.ndarray | float, np.ndarray | float] | None = None,
) -> Decision:
    """Verdicts on raw scores, rounded as in tables first, so that a score gets the same verdict everywhere.

    Args:
        raw_score: float [N] or scalar, larger = more anomalous.
        threshold: float [N] or scalar.
        band: lower and upper limit of the review band, float [N] or scalars each; None: no band.
    """
    raw = nine_digits(raw_score)
    return Decision(raw, raw >= threshold, None if band is None else (band[0] <= raw) & (raw < band[1]))


def nine_digits(values: np.ndarray | float) -> np.ndarray:
    """Numbers rounded to DIGITS significant digits, as read back from a table: float64 of the same shape."""
    values = np.asarray(values, np.float64)
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.ravel()], np.float64).reshape(values.shape)
