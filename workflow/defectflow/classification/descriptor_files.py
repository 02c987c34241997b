"""Files of descriptors, with the data of each photograph needed by the classifier of kinds."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from defectflow.core.files import UserError, atomic

TENSORS = ("held_out", "every", "good", "typical")
ITEMS = ["image_id", "path", "group", "class", "fold"]


class Descriptors(NamedTuple):
    """Content of a file of descriptors.

    Attributes:
        held_out: float32 (folds, n, d), the n photographs of the sample compared with good ones outside the fold.
        every: float32 (n + u, d), compared with all good ones: those of the sample, then u without a label.
        items: image_id, path, group, class ("" without a label) and fold (-1) of these n + u.
        about: network, as patch files have it; unit, left_out, unnamed: see `Sample`.
        good: float16 (m, d / 2), the good patches that were compared with.
        typical: float32 (m,), the distance that each of them has to the nearest of another group.
    """

    held_out: np.ndarray
    every: np.ndarray
    items: pd.DataFrame
    about: dict[str, Any]
    good: np.ndarray
    typical: np.ndarray

    @property
    def finetuned(self) -> bool:
        """Whether they are of a network that has learned from the photographs outside of each fold."""
        return bool(self.about["network"].get("finetuned"))

    @property
    def known(self) -> pd.DataFrame:
        """The rows of ``items`` that belong to the sample."""
        return self.items.iloc[: self.held_out.shape[1]]


def write_descriptors(path: str | Path, found: Descriptors) -> None:
    """Write a file of descriptors (safetensors), atomically."""
    about = json.dumps(found.about | {"items": found.items[ITEMS].to_numpy(object).tolist()})
    with atomic(path) as temporary:
        save_file({name: getattr(found, name) for name in TENSORS}, temporary, {"kinds": about})


def read_descriptors(path: str | Path) -> Descriptors:
    """Read a file of descriptors.

    Raises:
        UserError: it is missing or not such a file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "kinds" not in metadata:
                raise UserError(f"{path}: not a file of descriptors (run describe again)")
            about = json.loads(metadata["kinds"])
            items = pd.DataFrame(about.pop("items"), columns=ITEMS)
            held_out, every, good, typical = map(file.get_tensor, TENSORS)
            return Descriptors(held_out, every, items, about, good, typical)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a file of descriptors ({error})") from None
