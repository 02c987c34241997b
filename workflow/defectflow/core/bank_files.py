"""Bank files: what a detector has learned of each set of good images, as the fit stage writes it and a bundle holds it.

A file is safetensors: the tensors of bank ``NAME`` are called ``NAME`` and ``NAME/PART``, and its metadata hold the
settings of the fit as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from defectflow.core.files import UserError


class BankFile:
    """An open bank file; each bank is read when it is asked for.

    Attributes:
        path: the file.
        settings: what the banks were fitted with: method, backbone, layers, grid, input_size ...
    """

    def __init__(self, path: str | Path, framework: str = "numpy") -> None:
        """``framework``: "numpy", or "pt" for tensors of torch.

        Raises:
            UserError: the file is absent or is not a bank file.
        """
        try:
            self._file = safe_open(path, framework=framework)
            self.settings: dict[str, Any] = json.loads((self._file.metadata() or {}).get("defectflow", "{}"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (SafetensorError, ValueError) as error:
            raise UserError(f"{path}: not a bank file ({error})") from None
        if "method" not in self.settings:
            raise UserError(f"{path}: not a bank file (run the fit stage)")
        self.path = path
        self._names = set(self._file.keys())

    def tensors(self, name: str) -> dict[str, Any]:
        """The tensors of a bank: its patches as "", others by their names.

        Raises:
            UserError: there is no such bank.
        """
        if name not in self._names:
            raise UserError(f"{self.path}: no bank {name!r} (the splits have changed: fit again)")
        parts = [name, *sorted(key for key in self._names if key.startswith(f"{name}/"))]
        return {part[len(name) + 1 :]: self._file.get_tensor(part) for part in parts}
