"""A fitted head as arrays: what the stages and inspectors alike compute log-odds with, in numpy alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

NEAREST_SCALE = 10.0  # cosines to log-odds; a temperature follows
ABSENT = 20.0  # by which the log-odds of a class that does not occur lie below the lowest


class Head(NamedTuple):
    """Layers with ReLU between them on standardised descriptors, or the photographs that vote.

    Attributes:
        classes: number of classes, k.
        present: int (c,), those that occur.
        mean, spread: float (d,), of the descriptors.
        layers: weights, float (out, in), and biases, float (out,), of each layer; the last has c outputs. Empty where
            photographs vote.
        known: float (n, d) of length 1, the photographs that vote; () otherwise.
        labels: int (n,), their classes.
        neighbours: how many of a class vote.
    """

    classes: int
    present: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    known: np.ndarray = np.empty((0, 0))
    labels: np.ndarray = np.empty(0, np.int64)
    neighbours: int = 0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Log-odds up to a constant, float (m, k), of descriptors, float (m, d)."""
        if not self.layers:
            return self._spread_out(self._votes(values))
        hidden = (values - self.mean) / self.spread
        for number, (weights, bias) in enumerate(self.layers):
            hidden = (np.maximum(hidden, 0) if number else hidden) @ weights.T + bias
        return self._spread_out(hidden)

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        layers: dict[str, np.ndarray] = {}
        for number, (weights, bias) in enumerate(self.layers):
            layers |= {f"layer{number}.w": weights, f"layer{number}.b": bias}
        numbers = np.array([self.classes, self.neighbours], np.int64)
        arrays = {name: getattr(self, name) for name in ("present", "mean", "spread", "known", "labels")}
        return {"numbers": numbers, **arrays, **layers}

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> "Head":
        """The head of `tensors`."""
        count = sum(name.startswith("layer") and name.endswith(".w") for name in tensors)
        layers = tuple((tensors[f"layer{k}.w"], tensors[f"layer{k}.b"]) for k in range(count))
        arrays = {name: tensors[name] for name in ("present", "mean", "spread", "known", "labels")}
        return cls(int(tensors["numbers"][0]), layers=layers, neighbours=int(tensors["numbers"][1]), **arrays)

    def _votes(self, values: np.ndarray) -> np.ndarray:
        """Mean cosine to the nearest photographs of each class, as many as vote and the class has."""
        cosines = unit(values) @ self.known.T
        scores = []
        for number in self.present:
            own = np.sort(cosines[:, self.labels == number], axis=1)[:, ::-1]
            scores.append(own[:, : self.neighbours].mean(axis=1))
        return NEAREST_SCALE * np.stack(scores, axis=1)

    def _spread_out(self, scores: np.ndarray) -> np.ndarray:
        full = np.repeat(scores.min(axis=1, keepdims=True) - ABSENT, self.classes, axis=1)
        full[:, self.present] = scores
        return full


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of float (n, d) at length 1."""
    result: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    return result
