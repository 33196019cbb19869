"""A stand-in takes CuPy's place, so that the backend runs on the processor as it does on a device."""

from __future__ import annotations

import sys
from types import ModuleType

import array_api_compat.numpy
import numpy as np
import orthokern_cupy
import pytest

from orthokern._core import backends, namespace

from . import fake_cupy

PRECISIONS = {"float64": np.float64, "float32": np.float32}


class Space:
    """The array API of NumPy on arrays of the stand-in."""

    def __init__(self, space=array_api_compat.numpy):
        self._space = space

    def __getattr__(self, name):
        found = getattr(self._space, name)
        if isinstance(found, ModuleType):
            return Space(found)
        if isinstance(found, type) or not callable(found):
            return found
        function = fake_cupy.lifted(found)

        def on_device(*arguments, device=None, **options):
            assert device in (None, fake_cupy.Device())
            return function(*arguments, **options)

        return on_device


@pytest.fixture
def cp(monkeypatch):
    """The stand-in, where ``import cupy`` finds it, and its arrays known to the core."""
    for name, module in fake_cupy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(namespace._SPACES, fake_cupy.ndarray, Space())
    monkeypatch.setitem(namespace._LIBRARIES, fake_cupy.ndarray, "cupy")
    monkeypatch.setattr(orthokern_cupy.backend, "available", lambda: None)
    monkeypatch.setattr(orthokern_cupy, "absence", lambda name: "does not matter here")
    backends._forget()
    fake_cupy.syncs.count = 0
    yield sys.modules["cupy"]
    backends._forget()


def read(x):
    """What the test sees of an array, in double precision."""
    x = fake_cupy.plain(x)
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def orthonormal(rng, rows, columns, dtype):
    z = rng.standard_normal((rows, columns))
    if np.dtype(dtype).kind == "c":
        z = z + 1j * rng.standard_normal((rows, columns))
    return np.linalg.qr(z)[0]


def with_spectrum(rng, m, spectrum, dtype):
    """A random m x n matrix with these singular values."""
    n = len(spectrum)
    left, right = orthonormal(rng, m, n, dtype), orthonormal(rng, n, n, dtype)
    return ((left * spectrum) @ right.conj().T).astype(dtype)


def errors(x, u, h):
    """The errors of one factorization over what the contract allows: orthogonality, backward, definiteness."""
    n, eps = x.shape[-1], np.finfo(fake_cupy.plain(x).dtype).eps
    x, u, h = read(x), read(u), read(h)
    norm = np.linalg.norm(x)
    orthogonality = np.linalg.norm(u.conj().T @ u - np.eye(n)) / (10 * n**0.5 * eps)
    backward = np.linalg.norm(x - u @ h) / (max(60.0, 20 * n**0.5) * eps * (norm or 1))
    lowest = -np.linalg.eigvalsh(h).min() / (10 * n * eps * (np.linalg.norm(x, 2) or 1))
    assert np.array_equal(h, h.conj().T)
    return orthogonality, backward, lowest
