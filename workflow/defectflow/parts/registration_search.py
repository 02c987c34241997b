"""Shifts of templates over a picture: normalised cross-correlation by FFT (Lewis 1995)."""

from collections.abc import Sequence

import numpy as np
from scipy import fft

PADDING = 1.3  # of the frame in the FFT, so that shifts do not wrap around
AT_ONCE = 4  # templates computed together, so that they stay in the cache


class Spectrum:
    """Templates of one size prepared for normalised cross-correlation by FFT."""

    def __init__(self, fields: np.ndarray, weights: np.ndarray):
        """``fields``: (n, h, w, 2) float32; ``weights``: (n, h, w) in [0, 1]."""
        self.shape = tuple(fft.next_fast_len(int(s * PADDING), real=True) for s in weights.shape[1:])
        weighted = fields * weights[..., None]
        self.fields = np.conj(self._fft(np.moveaxis(weighted, -1, 1)))
        self.weights = np.conj(self._fft(weights))
        self.norms = np.sqrt((weighted * fields).sum(axis=(1, 2, 3)))
        self.areas = weights.sum(axis=(1, 2))

    def _fft(self, x: np.ndarray) -> np.ndarray:
        spectrum: np.ndarray = fft.rfft2(x.astype(np.float32), self.shape)
        return spectrum

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
        for i, picture in enumerate(transformed):
            for begin in range(0, len(chosen), AT_ONCE):
                part = slice(begin, begin + AT_ONCE)
                some = chosen[part]
                numerator = fft.irfft2((self.fields[some] * picture).sum(axis=1), self.shape)
                energy = fft.irfft2(self.weights[some] * energies[i], self.shape)
                # If the template is on an empty place (or outside) the quotient is meaningless: keep a floor under
                # it. A template may be empty.
                floor = np.maximum(self.areas[some] * floors[i], 1e-9)
                np.maximum(energy, floor[:, None, None], out=energy)
                numerator /= np.sqrt(energy, out=energy)
                ncc = numerator.reshape(len(some), -1)
                flat[i, part] = ncc.argmax(axis=1)
                best[i, part] = ncc[np.arange(len(some)), flat[i, part]] / (self.norms[some] + 1e-9)
        y, x = np.unravel_index(flat, self.shape)
        y = np.where(y > self.shape[0] // 2, y - self.shape[0], y)
        x = np.where(x > self.shape[1] // 2, x - self.shape[1], x)
        return best, np.stack([x, y], axis=-1).astype(float)
