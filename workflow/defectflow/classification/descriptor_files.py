"""Files of descriptors, with the data of each photograph needed by the classifier of kinds."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from defectflow.core.files import UserError, atomic

ITEMS = ["image_id", "path", "group", "class", "fold"]


class Descriptors(NamedTuple):
    """Content of a file of descriptors.

    Attributes:
        held_out: float32 (folds, n, d), the n photographs of the sample compared with good ones outside the fold.
        every: float32 (n + u, d), compared with all good ones: those of the sample, then u without a label.
        items: image_id, path, group, class ("" without a label) and fold (-1) of these n + u.
        about: network, unit, left_out, unnamed: see `Sample`.
    """

    held_out: np.ndarray
    every: np.ndarray
    items: pd.DataFrame
    about: dict[str, Any]

    @property
    def known(self) -> pd.DataFrame:
        """The rows of ``items`` that belong to the sample."""
        return self.items.iloc[: self.held_out.shape[1]]


def write_descriptors(path: str | Path, found: Descriptors) -> None:
    """Write a file of descriptors (safetensors), atomically."""
    about = json.dumps(found.about | {"items": found.items[ITEMS].to_numpy(object).tolist()})
    with atomic(path) as temporary:
        save_file({"held_out": found.held_out, "every": found.every}, temporary, {"kinds": about})


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
            return Descriptors(file.get_tensor("held_out"), file.get_tensor("every"), items, about)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a file of descriptors ({error})") from None
