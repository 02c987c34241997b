"""The score for people, with the threshold at 0.5; numpy only, for evaluation and inspection alike."""

import math

import numpy as np

CLOSE_MARGIN, CLOSE_TO_ITSELF = 0.1, 0.25
BELOW_HALF = 0.499999999  # the largest score in [0, 1] that is below 0.5 with the nine digits that tables keep


def normalise(raw: np.ndarray | float, threshold: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Scores for people: ``clip((raw - threshold) / (high - low) + 0.5, 0, 1)`` as anomalib's post-processor.

    ``result >= 0.5`` holds exactly when ``raw >= threshold``, also after rounding to nine digits. NaN stays NaN.

    Args:
        raw, threshold: float [N].
        low, high: float [N] or scalar, range of the calibration scores; a range of zero counts as one.
    """
    span = np.asarray(high, np.float64) - low
    score = np.clip((raw - threshold) / np.where(span > 0, span, 1.0) + 0.5, 0.0, 1.0)
    shown: np.ndarray = np.where(raw < threshold, np.minimum(score, BELOW_HALF), score)
    return shown


def margins(score: np.ndarray, raw: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Sort key in the order of the scores that people see, 0 at the threshold: float [N].

    Raw scores would not do, because each fold has its own threshold and scale.

    Args:
        score, raw, threshold: float [N], the first from `normalise`. Scores clipped to 0 or 1 are ordered by their raw
            scores, and so are all scores without a threshold (NaN).
    """
    beyond = np.where(np.abs(score - 0.5) >= 0.5, raw - threshold, 0.0)
    return np.where(np.isnan(threshold), raw, score - 0.5 + beyond)


def is_close(margin: np.ndarray, raw: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Whether scores lie near their threshold: within a tenth of the calibration scores' range and a quarter of itself.

    Args:
        margin: float [N], see `margins`.
        raw, threshold: float [N].
    """
    near = np.abs(raw - threshold) <= CLOSE_TO_ITSELF * np.abs(threshold)
    close: np.ndarray = (np.abs(margin) <= CLOSE_MARGIN) & near
    return close


def two_digits(score: float) -> str:
    """A score in [0, 1] with two decimals, rounded down: 0.50 or more is bad, less is good.

    >>> two_digits(0.4999)
    '0.49'
    """
    return f"{math.floor(100 * score + 1e-8) / 100:.2f}"
