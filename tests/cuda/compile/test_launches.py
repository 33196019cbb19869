"""The launches: they give the types that are compiled here, and the libraries have what they call."""

from __future__ import annotations

import inspect

import cupy
import numba as nb
import numpy as np
import pytest
from numba import cuda
from orthokern_numba.gpu import columns, elementwise, hadamard, hashing, polar, random, sweep

from .specialisations import EVERY


class Recorder:
    """A launcher that only writes down what it is asked for."""

    def __init__(self):
        self.calls = []

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def __call__(self, kernel, blocks, threads, *arguments):
        assert np.prod(blocks) > 0
        assert np.prod(threads) in (32, 64, 96, 128, 256)
        self.calls.append((kernel, tuple(map(nb.typeof, arguments))))


def launched():
    """Every launch of every op, for each dtype and size."""
    launch = Recorder()
    for dtype in ("float32", "float64"):
        for n in range(1, 33):
            x = np.ones((3, n, n), dtype)
            polar.unitary_factor(launch, x, completion="partial", rcond=None)
            polar.polar_factors(launch, x[0], completion="unitary", rcond=0.1)
        x = np.ones((3, 4, 5), dtype)
        for shape in ((), (3, 1, 1), (5,)):
            elementwise.shrink(launch, x, np.ones(shape, dtype))
        elementwise.cosh_rms(launch, x, np.ones((3, 1, 1), dtype), gamma=1.5)
        columns.simplex_projection(launch, x, np.ones((3, 4, 1), dtype), k=2)
        columns.ksupport_prox(launch, x, np.ones((3, 4, 1), dtype), k=2)
        beta, weight = (np.ones((3, *s), dtype) for s in ((5,), (1, 1)))
        sweep.entropic_sweep(launch, beta, x, weight)
        for y in (x[:, :, :1].copy(), np.ones((3, 4, 2), np.result_type(dtype, np.complex64))):
            hadamard.hadamard(launch, y)
            hashed = {"nnz": 2, "seed": 3, "start": 0, "stream": 1, "group": 0}
            hashing.scattered_rows(launch, y, rows=8, **hashed)
            hashing.gathered_rows(launch, y, stop=9, **hashed)
        with np.errstate(all="ignore"):
            elementwise.magnitude_quantile(launch, x, quantile=0.9)
    for dtype in ("int32", "int64", "uint32", "uint64"):
        random.random_bits(launch, np.arange(5, dtype=dtype), seed=2**63, stream=1, group=0)
    return launch.calls


def test_what_is_launched_is_what_is_compiled():
    assert set(launched()) == {(s.kernel, s.arguments.args) for s in EVERY}


@pytest.mark.parametrize("name", ["as_cuda_array", "default_stream", "external_stream", "gpus"])
def test_numba_has_what_the_launcher_calls(name):
    assert hasattr(cuda, name)


def test_numba_can_take_an_array_without_waiting_for_it():
    assert "sync" in inspect.signature(cuda.as_cuda_array).parameters


def test_cupy_has_what_the_launcher_calls():
    assert isinstance(cupy.ndarray, type)
    assert callable(cupy.empty)
    assert callable(cupy.cuda.get_current_stream)
    assert {"__enter__", "__exit__", "id"} <= set(dir(cupy.cuda.Device))
    assert hasattr(cupy.cuda.Stream, "ptr") or hasattr(cupy.cuda.Stream.null, "ptr")
