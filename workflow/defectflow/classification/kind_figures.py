"""kinds.json: held-out figures of the classifier of kinds, compared with always naming the most frequent class."""

from typing import Any

import numpy as np

from defectflow.classification.cross_validation import Judged
from defectflow.classification.heads.calibration import calibration_error, log_loss
from defectflow.metrics.metrics import auroc, ratio, wilson

RESAMPLES = 2000
MEANING = {
    "held_out": "Every photograph is classified by a classifier trained only on other folds, and compared only with "
    "good photographs of these folds. Folds consist of whole groups if every class has two or more.",
    "interval": "95 %: Wilson's, photographs treated as independent; balanced accuracy: percentile bootstrap within "
    "classes.",
    "if_bad": "Accuracy of the kind on bad photographs if good is excluded.",
    "majority": "The same figures for always naming the most frequent class.",
    "kind_probability": "Softmax with a temperature chosen on folds within the other folds.",
    "open_set": "auroc: defects of a removed kind against defects of the others, by distance to the nearest "
    "kind. rejected_known, rejected_unknown: shares called unknown kind.",
}


def accuracy_of(right: np.ndarray) -> dict[str, Any]:
    """n, accuracy and its interval of bool (n,)."""
    return {
        "n": len(right),
        "accuracy": ratio(int(right.sum()), len(right)),
        "interval": wilson(right.sum(), len(right)),
    }


def balanced(labels: np.ndarray, right: np.ndarray, seed: int) -> tuple[float, list[float]]:
    """Mean recall of the classes that occur, and its 95 % interval by a bootstrap within each class."""
    rng = np.random.default_rng(seed)
    of_class = [right[labels == label].astype(float) for label in np.unique(labels)]
    drawn = np.mean([rng.choice(one, (RESAMPLES, len(one))).mean(axis=1) for one in of_class], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([one.mean() for one in of_class])), [float(low), float(high)]


def class_figures(names: list[str], labels: np.ndarray, chosen: np.ndarray) -> list[dict[str, Any]]:
    """For each class: name, n, recall with its interval, and precision (None if the class was never predicted)."""
    rows = []
    for number, name in enumerate(names):
        own, called = labels == number, chosen == number
        hits = int((own & called).sum())
        rows.append(
            {"name": name, "n": int(own.sum()), "recall": ratio(hits, int(own.sum()))}
            | {"interval": wilson(hits, int(own.sum())), "precision": ratio(hits, int(called.sum()))}
        )
    return rows


def confusion_counts(labels: np.ndarray, chosen: np.ndarray, k: int) -> np.ndarray:
    """Counts, int (k, k), row: true class, column: predicted class."""
    counts = np.zeros((k, k), int)
    np.add.at(counts, (labels, chosen), 1)
    return counts


def figures(names: list[str], labels: np.ndarray, judged: Judged, seed: int = 0) -> dict[str, Any]:
    """The figures of held-out photographs.

    Args:
        names: the classes, good first.
        labels: int (n,), class of each photograph.
        judged: their results.
        seed: of the bootstrap.
    """
    chosen, right = judged.chosen, judged.chosen == labels
    bad = labels > 0
    value, span = balanced(labels, right, seed)
    most = int(np.bincount(labels).argmax())
    kinds = np.bincount(labels[bad])
    kind, _ = judged.if_bad
    return {
        **accuracy_of(right),
        "balanced_accuracy": value,
        "balanced_accuracy_interval": span,
        "majority": {
            "class": names[most], "accuracy": float((labels == most).mean()), "balanced_accuracy": 1 / len(names),
            "if_bad": float(kinds.max() / kinds.sum()) if len(names) > 2 else None,
        },
        "if_bad": accuracy_of((kind == labels)[bad]) if len(names) > 2 else None,
        "classes": class_figures(names, labels, chosen),
        "confusion": {"classes": names, "counts": confusion_counts(labels, chosen, len(names)).tolist()},
        "calibration": {
            "log_loss": float(-np.log(np.maximum(judged.chance[np.arange(len(labels)), labels], 1e-12)).mean()),
            "log_loss_without": log_loss(judged.logits, labels),
            "expected_error": calibration_error(judged.chance.max(axis=1), right),
        },
    }  # fmt: skip


def open_set_figures(
    judged: Judged, labels: np.ndarray, taken: tuple[np.ndarray, np.ndarray, list[str]], limit: float
) -> dict[str, Any]:
    """Figures for recognising unknown kinds.

    Args:
        judged, labels: the held-out photographs.
        taken: the result of `cross_validation.leave_kinds_out`.
        limit: of the novelty, for new photographs.
    """
    unknown, far, away = taken
    by_kind = {}
    for kind in sorted(set(away)):
        own = np.array([name == kind for name in away])
        by_kind[kind] = auroc(unknown[own], far[own])
    known = labels > 0
    return {
        "auroc": auroc(unknown, far) if len(unknown) else None,
        "by_kind": by_kind,
        "limit": limit,
        "rejected_known": ratio(int(judged.unknown[known].sum()), int(known.sum())),
        "rejected_unknown": ratio(int((far[unknown == 1] > limit).sum()), int((unknown == 1).sum())),
    }
