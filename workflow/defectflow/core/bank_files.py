"""Bank files: what a detector has learned of each set of good images, as the fit stage writes it and a bundle holds it.

A file is safetensors: the tensors of bank ``NAME`` are called ``NAME`` and ``NAME/PART``, and its metadata hold the
settings of the fit as JSON. Banks of folds share most of their rows with each other and with the bank of all: their
file may hold numbers of rows instead, of the bank of all and, counted on from there, of the tensor ``rows/PART``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from defectflow.core.files import UserError

WHOLE = "all"  # name of the bank of all good images


class BankFile:
    """An open bank file; each bank is read when it is asked for.

    Attributes:
        path: the file.
        settings: what the banks were fitted with: method, backbone, layers, grid, input_size ...
    """

    def __init__(self, path: str | Path, framework: str = "numpy", whole: BankFile | None = None) -> None:
        """Open a file.

        Args:
            path: the file.
            framework: "numpy", or "pt" for tensors of torch.
            whole: the file with the bank of all, where this one holds the banks of folds.

        Raises:
            UserError: the file is absent or is not a bank file.
        """
        try:
            self._file = safe_open(path, framework=framework)
            metadata = self._file.metadata() or {}
            self.settings: dict[str, Any] = json.loads(metadata.get("defectflow", "{}"))
            self._by_row: dict[str, str] = json.loads(metadata.get("by_row", "{}"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (SafetensorError, ValueError) as error:
            raise UserError(f"{path}: not a bank file ({error})") from None
        if "method" not in self.settings:
            raise UserError(f"{path}: not a bank file (run the fit stage)")
        self.path = path
        self._whole = whole
        self._names = set(self._file.keys())

    def tensors(self, name: str) -> dict[str, Any]:
        """The tensors of a bank: its patches as "", others by their names.

        Raises:
            UserError: there is no such bank.
        """
        if name not in self._names:
            raise UserError(f"{self.path}: no bank {name!r} (the splits have changed: fit again)")
        parts = [name, *sorted(key for key in self._names if key.startswith(f"{name}/"))]
        found = {part[len(name) + 1 :]: self._file.get_tensor(part) for part in parts}
        return found | {part: self._rows(part, found[part]) for part in self._by_row if part in found}

    def _rows(self, part: str, numbers: Any) -> Any:
        if self._whole is None:
            raise UserError(f"{self.path}: holds banks of folds alone (give the banks of the same fit as well)")
        base, more = self._whole.tensors(WHOLE)[part], self._file.get_tensor(_pool(part))
        if _digest(np.asarray(base)).hex() != self._by_row[part]:
            raise UserError(f"{self.path}: belongs to other banks than {self._whole.path} (fit again)")
        found, others = base[numbers.clip(0, len(base) - 1)], numbers >= len(base)
        found[others] = more[numbers[others] - len(base)]
        return found


def by_row(
    banks: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of banks of folds as a file holds them: rows that several have are in it once, if that saves anything.

    Args:
        banks: tensors of the banks of folds, by their names in a file: ``fold/F`` and ``fold/F/PART``.
        whole: those of the bank of all.

    Returns:
        The tensors to write, and what else the metadata of the file say.
    """
    tensors, parts = dict(banks), dict[str, str]()
    of_part: dict[str, list[str]] = {}
    for key in banks:
        of_part.setdefault("/".join(key.split("/")[2:]), []).append(key)
    for part, keys in of_part.items():
        base = whole.get(f"{WHOLE}/{part}" if part else WHOLE)
        alike = base is not None and base.ndim == 2
        if base is None or not alike or any(banks[key].dtype != base.dtype for key in keys):
            continue
        known = {digest: row for row, digest in reversed([*enumerate(map(_digest, base))])}
        new, numbers = list[np.ndarray](), dict[str, np.ndarray]()
        for key in keys:
            found = np.empty(len(banks[key]), np.int32)
            for place, row in enumerate(banks[key]):
                found[place] = known.setdefault(_digest(row), len(base) + len(new))
                if found[place] == len(base) + len(new):
                    new.append(row)
            numbers[key] = found
        pool = np.stack(new) if new else base[:0]
        if pool.nbytes + sum(found.nbytes for found in numbers.values()) < sum(banks[key].nbytes for key in keys):
            tensors |= numbers | {_pool(part): pool}
            parts[part] = _digest(base).hex()
    return tensors, {"by_row": json.dumps(parts)} if parts else {}


def _digest(values: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()


def _pool(part: str) -> str:
    return f"rows/{part}" if part else "rows"
