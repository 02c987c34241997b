"""How much disk a run takes, by kind of file, for its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000


def bytes_of(paths: Iterable[str | Path]) -> int:
    """Bytes of files, and of all files in folders; what is absent takes none."""
    size = 0
    for path in map(Path, paths):
        size += sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())
    return size


def disk_facts(kinds: Mapping[str, Iterable[str | Path]], features: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to say of the disk, as (name, value).

    Args:
        kinds: files and folders of each kind.
        features: features.json of the run: images, bytes, fold_bank_bytes, kept, keep_features.
    """
    images = max(1, features["images"])
    sizes = {"patch features": features["bytes"], "banks of folds": features["fold_bank_bytes"]}
    sizes = sizes if features["kept"] else {}
    sizes |= {kind: bytes_of(paths) for kind, paths in kinds.items()}
    parts = ", ".join(f"{kind} {_megabytes(size)}" for kind, size in sizes.items() if size)
    total = sum(sizes.values())
    lines = [("disk", f"{_megabytes(total)} ({total / MEGABYTE / images:.2f} MB a picture): {parts}")]
    if not features["kept"]:
        told = f"{_megabytes(features['bytes'])} ({features['bytes'] / MEGABYTE / images:.2f} MB a picture)"
        told += f", banks of folds {_megabytes(features['fold_bank_bytes'])}"
        lines.append(("while it ran", f"patch features {told}; removed (keep_features: {features['keep_features']})"))
    return lines


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"
