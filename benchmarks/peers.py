"""The routines that orthokern is compared with: how each is called, on whose arrays, and whether it gives ``H``.

``Peer.load()`` imports what the peer needs and returns a callable from one matrix (or stack) to
``(u, h)``, with None for ``h`` where the peer does not make it (those of function_peers.py return what the kernel
returns). A peer that cannot run here says why.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import orthokern
from orthokern.testing import libraries

Factors = tuple[Any, Any]
Factorize = Callable[..., Factors]

# The quintic of Keller Jordan's post on Muon (https://kellerjordan.github.io/posts/muon/) and its defaults.
MUON_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
MUON_STEPS = 5
MUON_EPS = 1e-7


def cannot_run(library: str, dtype: str) -> str | None:
    """None if ``library`` is here and computes in ``dtype``, else the reason."""
    reason = libraries.missing(library)
    if reason is None and dtype not in libraries.dtypes_of(library):
        return f"{library} computes in {', '.join(libraries.dtypes_of(library))} only"
    return reason


@dataclass(frozen=True)
class Peer:
    """A named routine.

    Parameters
    ----------
    name
        As the report prints it.
    library
        Whose arrays it takes; they are made before the clock starts.
    load
        Imports the routine and returns it; ImportError where it is not there.
    gives_h
        Whether it returns the Hermitian factor; orthokern then makes it too.
    stacks
        Whether it takes a stack of matrices.
    """

    name: str
    library: str
    load: Callable[[], Factorize]
    gives_h: bool
    stacks: bool = True

    def missing(self, dtype: str, ndim: int) -> str | None:
        """None if the peer can run on such an array here, else the reason."""
        reason = cannot_run(self.library, dtype)
        if reason is not None:
            return reason
        if ndim > 2 and not self.stacks:
            return "takes one matrix at a time"
        try:
            self.load()
        except ImportError as absent:
            return str(absent)
        return None


def _scipy_polar() -> Factorize:
    from scipy.linalg import polar

    def factorize(x: Any) -> Factors:
        if x.ndim == 2:
            u, h = polar(x)
            return u, h
        pairs = [polar(matrix) for matrix in x]
        return np.stack([u for u, _ in pairs]), np.stack([h for _, h in pairs])

    return factorize


def _numpy_svd() -> Factorize:
    def factorize(x: Any) -> Factors:
        p, _, qh = np.linalg.svd(x, full_matrices=False)
        return p @ qh, None

    return factorize


def _torch_muon() -> Factorize:
    from torch.optim import _muon

    # Private in torch: whoever moves it makes this peer "not available", with the reason.
    routine = getattr(_muon, "_zeropower_via_newtonschulz", None)
    if routine is None:
        message = "this torch has no torch.optim._muon._zeropower_via_newtonschulz"
        raise ImportError(message)
    return lambda x: (routine(x, MUON_COEFFICIENTS, MUON_STEPS, MUON_EPS), None)


def _torch_newton_schulz() -> Factorize:
    """The published formula, in the dtype of its argument and with fused products."""
    import torch

    a, b, c = MUON_COEFFICIENTS

    def factorize(x: Any) -> Factors:
        tall = x.shape[0] > x.shape[1]
        y = x.T if tall else x
        y = y / y.norm().clamp(min=MUON_EPS)
        for _ in range(MUON_STEPS):
            gram = y @ y.T
            y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
        return (y.T if tall else y), None

    return factorize


def _jax_polar(method: str) -> Factorize:
    jax: Any = importlib.import_module("jax")
    importlib.import_module("jax.scipy.linalg")

    def factorize(x: Any) -> Factors:
        u, h = jax.block_until_ready(jax.scipy.linalg.polar(x, method=method))
        return u, h

    return factorize


def _reference() -> Factorize:
    return lambda x: orthokern.polar(x, backend="array-api")[:2]


def _numpy_caller() -> Factorize:
    return lambda x: orthokern.polar(x)[:2]


SCIPY = Peer("scipy.linalg.polar", "numpy", _scipy_polar, gives_h=True)
NUMPY_SVD = Peer("numpy.linalg.svd, u @ vh", "numpy", _numpy_svd, gives_h=False)
MUON_BF16 = Peer(
    "torch.optim.Muon's own routine, bfloat16", "torch", _torch_muon, gives_h=False, stacks=False
)
MUON_FP32 = Peer(
    "Muon's Newton-Schulz in torch, float32",
    "torch",
    _torch_newton_schulz,
    gives_h=False,
    stacks=False,
)
JAX_QDWH = Peer(
    "jax.scipy.linalg.polar (qdwh)", "jax", functools.partial(_jax_polar, "qdwh"), gives_h=True
)
JAX_SVD = Peer(
    "jax.scipy.linalg.polar (svd)", "jax", functools.partial(_jax_polar, "svd"), gives_h=True
)
REFERENCE = Peer('orthokern.polar, backend="array-api"', "numpy", _reference, gives_h=True)
NUMPY_CALLER = Peer("orthokern.polar from NumPy", "numpy", _numpy_caller, gives_h=True)

PEERS = (SCIPY, NUMPY_SVD, MUON_BF16, MUON_FP32, JAX_QDWH, JAX_SVD, REFERENCE, NUMPY_CALLER)
