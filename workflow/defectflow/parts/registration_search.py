"""Shifts of templates over a picture: normalised cross-correlation by FFT (Lewis 1995)."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import Any

import numpy as np

PADDING = 1.3  # of the frame in the FFT, so that shifts do not wrap around
AT_ONCE = 4  # templates computed together, so that they stay in the cache
_CORE = "scipy.fft._pocketfft.pypocketfft"
_UNSCALED, _BY_SIZE = 0, 2  # what it divides by


def _compiled_core() -> Any:
    """The compiled module behind scipy.fft, which takes 0.15 s to import for what is not needed here.

    Raises:
        ImportError: this version of scipy keeps it elsewhere.
    """
    if _CORE not in sys.modules:
        scipy = importlib.util.find_spec("scipy")
        folders = [f"{folder}/fft/_pocketfft" for folder in (scipy and scipy.submodule_search_locations) or ()]
        spec = PathFinder.find_spec(_CORE, folders)
        if spec is None or spec.loader is None:
            raise ImportError(_CORE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[_CORE] = module  # so that scipy.fft, if it is imported later, takes the same
    return sys.modules[_CORE]


try:
    _core = _compiled_core()
    _good_size, _r2c, _c2r = _core.good_size, _core.r2c, _core.c2r
except (ImportError, AttributeError):
    from scipy import fft

    def _good_size(size: int, real: bool) -> int:
        length: int = fft.next_fast_len(size, real=real)
        return length

    def _r2c(x: np.ndarray, axes: Sequence[int], forward: bool, scaling: int) -> np.ndarray:
        spectrum: np.ndarray = fft.rfftn(x, axes=axes)
        return spectrum

    def _c2r(x: np.ndarray, axes: Sequence[int], last: int, forward: bool, scaling: int) -> np.ndarray:
        values: np.ndarray = fft.irfftn(x, (x.shape[axes[0]], last), axes)
        return values


class Spectrum:
    """Templates of one size prepared for normalised cross-correlation by FFT."""

    def __init__(self, fields: np.ndarray, weights: np.ndarray):
        """``fields``: (n, h, w, 2) float32; ``weights``: (n, h, w) in [0, 1]."""
        self.shape = tuple(int(_good_size(int(s * PADDING), True)) for s in weights.shape[1:])
        weighted = fields * weights[..., None]
        self.fields = np.conj(self._fft(np.moveaxis(weighted, -1, 1)))
        self.weights = np.conj(self._fft(weights))
        self.norms = np.sqrt((weighted * fields).sum(axis=(1, 2, 3)))
        self.areas = weights.sum(axis=(1, 2))

    def _fft(self, x: np.ndarray) -> np.ndarray:
        padded = np.zeros((*x.shape[:-2], *self.shape), np.float32)
        padded[..., : x.shape[-2], : x.shape[-1]] = x
        spectrum: np.ndarray = _r2c(padded, (-2, -1), True, _UNSCALED)
        return spectrum

    def _inverse(self, spectrum: np.ndarray) -> np.ndarray:
        values: np.ndarray = _c2r(spectrum, (-2, -1), self.shape[1], False, _BY_SIZE)
        return values

    def peaks(self, pictures: np.ndarray, chosen: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Best fit of the chosen templates in each of several fields.

        Args:
            pictures: float32 (m, h, w, 2).
            chosen: n indices of templates.

        Returns:
            Largest NCC (m, n) in [-1, 1] and its shift (m, n, 2) = (x, y) in whole pixels, template to picture.
        """
        chosen = np.asarray(chosen)
        planes = np.moveaxis(pictures, -1, 1)
        transformed, (x, y) = self._fft(planes), planes.swapaxes(0, 1)
        energies = x * x + y * y  # ten times as fast as a sum over the last axis
        floors = 0.5 * np.maximum(energies.mean(axis=(1, 2)), 1e-3)
        energies = self._fft(energies)
        flat, best = np.empty((len(pictures), len(chosen)), int), np.empty((len(pictures), len(chosen)))
        for begin in range(0, len(chosen), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            some = chosen[part]
            # Copied once for all pictures.
            (dx, dy), weights, norms = self.fields[some].swapaxes(0, 1), self.weights[some], self.norms[some] + 1e-9
            areas = self.areas[some]
            for i, picture in enumerate(transformed):
                numerator = self._inverse(dx * picture[0] + dy * picture[1])  # half the time of a sum over an axis
                energy = self._inverse(weights * energies[i])
                # If the template is on an empty place (or outside) the quotient is meaningless: keep a floor under
                # it. A template may be empty.
                floor = np.maximum(areas * floors[i], 1e-9).astype(np.float32)
                np.maximum(energy, floor[:, None, None], out=energy)
                numerator /= np.sqrt(energy, out=energy)
                ncc = numerator.reshape(len(some), -1)
                flat[i, part] = ncc.argmax(axis=1)
                best[i, part] = ncc[np.arange(len(some)), flat[i, part]] / norms
        y, x = np.unravel_index(flat, self.shape)
        y = np.where(y > self.shape[0] // 2, y - self.shape[0], y)
        x = np.where(x > self.shape[1] // 2, x - self.shape[1], x)
        return best, np.stack([x, y], axis=-1).astype(float)
