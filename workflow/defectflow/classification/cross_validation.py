"""Cross-validation: every labelled photograph is classified without itself and its group in training."""

from typing import Any, NamedTuple

import numpy as np

from defectflow.classification.descriptor_files import Descriptors
from defectflow.classification.heads.calibration import probabilities, temperature_of
from defectflow.classification.heads.fit_head import fit_head
from defectflow.classification.heads.novelty import known_kinds, limit_of, novelty
from defectflow.classification.kind_namer import KindNamer
from defectflow.dataset_card.photographs import GOOD


class Judged(NamedTuple):
    """Results for n photographs; k classes, the first is good.

    Attributes:
        logits: float (n, k).
        chance: float (n, k), calibrated probabilities.
        novelty: float (n,), see `novelty.novelty`.
        limit: float (n,), above which a kind is unknown.
    """

    logits: np.ndarray
    chance: np.ndarray
    novelty: np.ndarray
    limit: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        """Most probable class, int (n,)."""
        chosen: np.ndarray = self.logits.argmax(axis=1)
        return chosen

    @property
    def if_bad(self) -> tuple[np.ndarray, np.ndarray]:
        """Most probable kind if good is excluded, int (n,), and its probability then."""
        kinds = self.chance[:, 1:]
        share = kinds / np.maximum(kinds.sum(axis=1, keepdims=True), 1e-12)
        return 1 + kinds.argmax(axis=1), share.max(axis=1)

    @property
    def unknown(self) -> np.ndarray:
        """Whether a defect is not similar to any known kind, bool (n,)."""
        return self.novelty > self.limit


def class_names(found: Descriptors) -> list[str]:
    """The classes: good, then the kinds by name."""
    return [GOOD, *sorted(set(found.known["class"]) - {GOOD})]


def labels_of(found: Descriptors) -> np.ndarray:
    """Class of each photograph of the sample as an index into `class_names`, int (n,)."""
    names = class_names(found)
    return np.array([names.index(name) for name in found.known["class"]])


def _within(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, k: int, settings: Any, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds (n, k) and novelty (n,) of each photograph from those of other folds."""
    logits, new = np.zeros((len(labels), k)), np.zeros(len(labels))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        logits[test] = fit_head(features[train], labels[train], k, settings, seed)(features[test])
        bad = train & (labels > 0)
        new[test] = novelty(features[test], features[bad], labels[bad]) if bad.any() else 2.0
    return logits, new


def held_out_logits(found: Descriptors, settings: Any, seed: int = 0) -> np.ndarray:
    """Log-odds of every photograph of the sample from those of other folds, float (n, k)."""
    labels, folds = labels_of(found), found.known["fold"].to_numpy(int)
    k = len(class_names(found))
    logits = np.zeros((len(labels), k))
    for fold in np.unique(folds):
        train, test, features = folds != fold, folds == fold, found.held_out[fold]
        logits[test] = fit_head(features[train], labels[train], k, settings, seed)(features[test])
    return logits


def held_out_novelty(found: Descriptors) -> np.ndarray:
    """Novelty of every photograph of the sample beside the defects of other folds, float (n,)."""
    labels, folds = labels_of(found), found.known["fold"].to_numpy(int)
    far = np.zeros(len(labels))
    for fold in np.unique(folds):
        bad, test, features = (folds != fold) & (labels > 0), folds == fold, found.held_out[fold]
        far[test] = novelty(features[test], features[bad], labels[bad]) if bad.any() else 2.0
    return far


def cross_validate(found: Descriptors, settings: Any, seed: int = 0) -> Judged:
    """Judge every photograph of the sample; temperature and limit of a fold come from folds within the others.

    Of a network that was trained for each fold they come from what the other folds' networks say of these.

    Args:
        found: descriptors of all folds.
        settings: a `KindSettings` for the stage classify.
        seed: of heads with iterative training.
    """
    labels, folds = labels_of(found), found.known["fold"].to_numpy(int)
    k, logits_of = len(class_names(found)), held_out_logits(found, settings, seed)
    far_of = held_out_novelty(found) if found.finetuned else np.zeros(0)
    judged = Judged(
        np.zeros((len(labels), k)), np.zeros((len(labels), k)), np.zeros(len(labels)), np.zeros(len(labels))
    )
    for fold in np.unique(folds):
        train, test, features = folds != fold, folds == fold, found.held_out[fold]
        logits = logits_of[test]
        bad = labels[train] > 0
        if found.finetuned:  # the network of a fold has learned from all the others, and is too sure of them
            inner, new = logits_of[train], far_of[train]
        else:
            inner, new = _within(features[train], labels[train], folds[train], k, settings, seed)
        judged.logits[test] = logits
        judged.chance[test] = probabilities(logits, temperature_of(inner, labels[train]))
        judged.novelty[test] = novelty(features[test], features[train][bad], labels[train][bad])
        judged.limit[test] = limit_of(new[bad], settings.rejected)
    return judged


def namer_of(found: Descriptors, held_out: Judged, settings: Any, seed: int = 0) -> KindNamer:
    """Learn from all labelled photographs; temperature and limit are what holding these out says of them."""
    names, labels = class_names(found), labels_of(found)
    features, bad = found.every[: len(labels)], labels > 0
    head = fit_head(features, labels, len(names), settings, seed)
    known, limit = known_kinds(features[bad], labels[bad]), limit_of(held_out.novelty[bad], settings.rejected)
    temperature = temperature_of(held_out.logits, labels)
    return KindNamer(names, head, temperature, known, limit, found.good, found.typical, found.about["network"])


def judge_new(found: Descriptors, namer: KindNamer) -> Judged:
    """Judge the photographs without a label."""
    new = found.every[found.held_out.shape[1] :]
    if not len(new):
        none = np.zeros((0, len(namer.names)))
        return Judged(none, none, np.zeros(0), np.zeros(0))
    return Judged(*namer.chances(new), np.full(len(new), namer.limit))


def leave_kinds_out(found: Descriptors) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Novelty of defects with and without photographs of their kind to compare with.

    Each kind is removed in turn; its photographs are then unknown, those of the other kinds known. Only photographs of
    other folds are used for comparison.

    Returns:
        unknown, int: 1 for a defect of the removed kind; novelty, float; and the removed kind, for each case. Empty
        with fewer than three kinds.
    """
    classes, folds = found.known["class"].to_numpy(str), found.known["fold"].to_numpy(int)
    kinds = sorted(set(classes) - {GOOD})
    unknown: list[int] = []
    far: list[float] = []
    away: list[str] = []
    for kind in kinds if len(kinds) > 2 else []:
        for fold in np.unique(folds):
            known = (folds != fold) & (classes != GOOD) & (classes != kind)
            test = (folds == fold) & (classes != GOOD)
            if not (known.any() and test.any()):
                continue
            features = found.held_out[fold]
            values = novelty(features[test], features[known], np.unique(classes[known], return_inverse=True)[1])
            unknown += [int(name == kind) for name in classes[test]]
            far += values.tolist()
            away += [kind] * len(values)
    return np.array(unknown, int), np.array(far), away
