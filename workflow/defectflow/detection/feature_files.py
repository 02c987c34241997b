"""Patch features of a shard of images on disk: written as they come, read image by image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from defectflow.core.files import UserError, atomic, tensor_header, tensor_offsets

_DTYPES = {torch.float32: "F32", torch.float16: "F16"}


class PatchWriter:
    """Appends the patches of one image after the other; made by `write_patches`."""

    def __init__(self, stream: BinaryIO, config: Mapping[str, Any], dimensions: int, dtype: torch.dtype) -> None:
        self._stream = stream
        self._metadata = {"defectflow": json.dumps(config)}
        self._dimensions = dimensions
        self._dtype = dtype
        self._items = len(config["items"])
        self._start = [0]
        self._affines: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._present: list[bool] = []
        self._keys: list[bytes] = []
        # How many patches there will be is known at the end: leave room for any number, and for what is known then.
        self._header = len(self._head(10**15)) // 8 * 8 + 8
        self._stream.seek(8 + self._header + (self._items + 1) * 8 + self._items * 48)

    def add(
        self, patches: torch.Tensor, position: np.ndarray, affine: np.ndarray, present: bool, key: bytes = bytes(32)
    ) -> None:
        """Append one image.

        Args:
            patches: float (n, dimensions).
            position: int (n,), their flat indices in the grid.
            affine: float64 (2, 3), from pixel coordinates of the network's input to those of the original frame.
            present: whether the part is in the picture.
            key: hash of all that the patches were made from, 32 bytes; zeros where nobody will ask for it.
        """
        self._stream.write(patches.to("cpu", self._dtype).contiguous().numpy().data)
        self._start.append(self._start[-1] + len(position))
        self._affines.append(affine)
        self._positions.append(position)
        self._present.append(present)
        self._keys.append(key)

    def close(self) -> None:
        """Write the small tensors and the header."""
        if len(self._present) != self._items:
            raise ValueError(f"{len(self._present)} images added, {self._items} announced")
        for position in self._positions:
            self._stream.write(position.astype("<i4").data)
        self._stream.write(np.array(self._present, dtype=np.uint8).data)
        self._stream.write(b"".join(self._keys))
        self._stream.seek(0)
        self._stream.write(self._header.to_bytes(8, "little"))
        self._stream.write(self._head(self._start[-1]).ljust(self._header))
        self._stream.write(np.array(self._start, dtype="<i8").data)
        self._stream.write(np.array(self._affines, dtype="<f8").data)

    def _head(self, patches: int) -> bytes:
        tensors = (
            ("start", "I64", (self._items + 1,), 8),
            ("affine", "F64", (self._items, 2, 3), 8),
            ("patches", _DTYPES[self._dtype], (patches, self._dimensions), self._dtype.itemsize),
            ("position", "I32", (patches,), 4),
            ("present", "U8", (self._items,), 1),
            ("key", "U8", (self._items, 32), 1),
        )
        return tensor_header(self._metadata, tensors)


@contextmanager
def write_patches(
    path: str | Path, config: Mapping[str, Any], dimensions: int, dtype: torch.dtype = torch.float32
) -> Iterator[PatchWriter]:
    """Write a patch file (safetensors) atomically, one image at a time and in constant memory.

    The file holds ``patches`` [n, dimensions], ``position`` int32 [n] (flat index in the grid), ``start`` int64
    [items + 1] (the rows of item i are start[i] to start[i + 1]), ``affine`` float64 [items, 2, 3], ``present`` uint8
    [items] and ``key`` uint8 [items, 32], as `PatchWriter.add` takes them; ``config`` is in its metadata as JSON.

    Args:
        path: file to write.
        config: ``items`` (a list with one dict for each image, in the order they are added), ``grid``, ...
        dimensions: length of a patch vector.
        dtype: float32, or float16 for half the size.
    """
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        writer = PatchWriter(stream, config, dimensions, dtype)
        yield writer
        writer.close()


class PatchFile:
    """A patch file. What it says of single images is read when it is asked for: a large set has many files.

    Attributes:
        config: its metadata, without the items.
        dimensions: length of a patch vector.
        present: bool (items,), whether the part is in the picture; where it is not, all patches are here.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with safe_open(path, framework="numpy") as file:
                metadata, names = file.metadata() or {}, set(file.keys())
                if not {"patches", "key"} <= names or "defectflow" not in metadata:
                    raise UserError(f"{path}: not a patch file (run the features stage)")
                self._half = file.get_slice("patches").get_dtype() == "F16"
                self.dimensions: int = file.get_slice("patches").get_shape()[1]
                self.present = file.get_tensor("present").astype(bool)
                self._start = file.get_tensor("start")
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except SafetensorError as error:
            raise UserError(f"{path}: not a patch file ({error})") from None
        config = json.loads(metadata["defectflow"])
        self.config: dict[str, Any] = {key: value for key, value in config.items() if key != "items"}
        self._offsets = tensor_offsets(path)

    @property
    def items(self) -> list[dict[str, Any]]:
        """A dict for each image: image_id, copy_of, kind, doubtful, window (x0, y0, x1, y1), frame (height, width)."""
        with safe_open(self.path, framework="numpy") as file:
            items: list[dict[str, Any]] = json.loads(file.metadata()["defectflow"])["items"]
            return items

    @property
    def affine(self) -> np.ndarray:
        """float64 (items, 2, 3), from pixel coordinates of the network's input to those of the original frame."""
        return self._read("affine", "<f8", 0, len(self.present) * 6).reshape(-1, 2, 3)

    @property
    def keys(self) -> list[bytes]:
        """For each image, 32 bytes: hash of all that its patches were made from."""
        return [row.tobytes() for row in self._read("key", "u1", 0, len(self.present) * 32).reshape(-1, 32)]

    def count(self, item: int) -> int:
        """Number of patches of an image."""
        return int(self._start[item + 1] - self._start[item])

    def patches(self, item: int) -> torch.Tensor:
        """Patches of an image, float32 (n, dimensions)."""
        begin, size = int(self._start[item]) * self.dimensions, self.count(item) * self.dimensions
        values = self._read("patches", "<f2" if self._half else "<f4", begin, size)
        return torch.from_numpy(values.astype(np.float32, copy=False).reshape(-1, self.dimensions))

    def position(self, item: int) -> torch.Tensor:
        """Flat index in the grid of an image's patches, int64 (n,)."""
        return torch.from_numpy(self._read("position", "<i4", int(self._start[item]), self.count(item))).long()

    def _read(self, name: str, dtype: str, begin: int, count: int) -> np.ndarray:
        """``count`` numbers of a tensor from the flat index ``begin`` on, without mapping the file."""
        return np.fromfile(self.path, dtype, count, offset=self._offsets[name] + begin * np.dtype(dtype).itemsize)


def open_patches(paths: Sequence[str | Path]) -> list[PatchFile]:
    """Open patch files that belong together.

    Raises:
        UserError: a file is absent, is not a patch file, or was made with other settings than the first.
    """
    files = [PatchFile(path) for path in paths]
    for file in files:
        for key in sorted(files[0].config.keys() | file.config.keys()):
            if file.config.get(key) != files[0].config.get(key):
                raise UserError(
                    f"{file.path}: {key} is {file.config.get(key)}, but {files[0].config.get(key)} in {files[0].path} "
                    "(make all shards with the same settings)"
                )
    return files
