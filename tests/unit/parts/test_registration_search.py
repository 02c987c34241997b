"""The Fourier transforms of the search: those of scipy.fft, without the time to import it."""

import importlib.util
import subprocess
import sys
from importlib.machinery import PathFinder

import numpy as np
from defectflow.parts import registration_search
from scipy import fft

SHAPE = (40, 54)


def spectrum_of(module):
    rng = np.random.default_rng(3)
    fields, weights = rng.normal(size=(3, 30, 41, 2)).astype(np.float32), rng.random((3, 30, 41), np.float32)
    return module.Spectrum(fields, weights)


def apart():
    """The module as it is where scipy keeps its compiled core elsewhere."""
    spec = importlib.util.find_spec("defectflow.parts.registration_search")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_transforms_are_those_of_scipy_bit_by_bit():
    spectrum, picture = spectrum_of(registration_search), np.random.default_rng(4).random((2, 30, 41), np.float32)
    assert spectrum.shape == tuple(fft.next_fast_len(int(side * 1.3), real=True) for side in (30, 41))
    there = spectrum._fft(picture)
    np.testing.assert_array_equal(there, fft.rfft2(picture, spectrum.shape))
    np.testing.assert_array_equal(spectrum._inverse(there), fft.irfft2(there, spectrum.shape))


def test_another_version_of_scipy_is_called_by_its_interface(monkeypatch):
    monkeypatch.setattr(PathFinder, "find_spec", lambda name, path=None, target=None: None)
    monkeypatch.setitem(sys.modules, registration_search._CORE, None)
    monkeypatch.delitem(sys.modules, registration_search._CORE)
    other = apart()
    assert not hasattr(other, "_core")
    pictures = np.random.default_rng(5).normal(size=(2, 30, 41, 2)).astype(np.float32)
    pairs = zip(*(spectrum_of(module).peaks(pictures, [0, 2]) for module in (registration_search, other)), strict=True)
    for one, two in pairs:
        np.testing.assert_array_equal(one, two)


def test_an_inspector_starts_without_what_it_does_not_need():
    code = (
        "import sys, defectflow.inspection.inspector, defectflow.inspection.outputs\n"
        "found = {'scipy.fft', 'numpy.ma', 'tqdm', 'PIL.ImageDraw', 'pandas', 'torch'} & set(sys.modules)\n"
        "assert not found, found\n"
        "import numpy, scipy.fft\n"
        "assert scipy.fft.irfft2(scipy.fft.rfft2(numpy.ones((4, 4)))).sum() == 16"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
