"""CuPy implementations of orthokern's ops for CUDA devices. Registration only: CuPy loads on first use."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from orthokern.backend import Backend, absence

# Real square matrices up to this size are the ground of the kernels that keep one in shared memory.
SMALL = 32


def _cupy() -> Any:
    import cupy  # pyright: ignore[reportMissingImports]

    return cupy


def _available() -> str | None:
    if find_spec("cupy") is None:
        return "cupy is not installed; pip install 'orthokern[cuda13]'"
    try:
        cupy = _cupy()
    except Exception as reason:  # noqa: BLE001 - a broken install of any kind is a reason not to run
        return f"cupy cannot be imported: {reason}"
    return None if cupy.cuda.is_available() else "no CUDA device"


backend = Backend("cupy", serves={("cupy", "cuda")}, available=_available)


def _wrong_dtype(*arrays: Any, **static: Any) -> str | None:
    names = {str(a.dtype) for a in arrays}
    served = {"float32", "float64", "complex64", "complex128"}
    return None if names <= served else f"serves {', '.join(sorted(served))}"


def _served_elsewhere(x: Any, *, method: str = "auto", **static: Any) -> str | None:
    if method == "svd":
        return "method='svd' is the array-API body"
    m, n = x.shape[-2:]
    if m == n <= SMALL and x.dtype.kind == "f" and absence("numba_cuda") is None:
        return f"real square matrices up to {SMALL} x {SMALL} are served by numba_cuda"
    return _wrong_dtype(x)


@backend.implements("balance", when=_wrong_dtype)
def _balance(x: Any) -> Any:
    from .balance import balance

    return balance(x, cp=_cupy())


@backend.implements("unitary_factor", when=_served_elsewhere)
def _unitary_factor(
    x: Any, *, completion: str, rcond: float | None = None, method: str = "auto"
) -> Any:
    from .spectral import unitary_factor

    return unitary_factor(x, completion=completion, rcond=rcond, cp=_cupy())


@backend.implements("polar_factors", when=_served_elsewhere)
def _polar_factors(
    x: Any, *, completion: str, rcond: float | None = None, method: str = "auto"
) -> Any:
    from .spectral import polar_factors

    return polar_factors(x, completion=completion, rcond=rcond, cp=_cupy())


@backend.implements("scheduled_factor", when=_wrong_dtype)
def _scheduled_factor(x: Any, *, schedule: Any) -> Any:
    from .spectral import scheduled_factor

    return scheduled_factor(x, schedule=schedule, cp=_cupy())


@backend.implements("hermitian_factor", when=_wrong_dtype)
def _hermitian_factor(u: Any, x: Any) -> Any:
    from .spectral import hermitian_factor

    return hermitian_factor(u, x, cp=_cupy())


def _empty(x: Any, *others: Any, **static: Any) -> str | None:
    return "serves matrices with entries" if 0 in x.shape else _wrong_dtype(x, *others)


@backend.implements("gram_whitener", when=_empty)
def _gram_whitener(g: Any) -> Any:
    from .whitening import gram_whitener

    return gram_whitener(g, cp=_cupy())


@backend.implements("triangular_whitener", when=_empty)
def _triangular_whitener(r: Any, *, cutoff: float) -> Any:
    from .whitening import triangular_whitener

    return triangular_whitener(r, cutoff=cutoff, cp=_cupy())


@backend.implements("damped_norms", when=_empty)
def _damped_norms(f: Any, shift: Any, v: Any) -> Any:
    from .whitening import damped_norms

    return damped_norms(f, shift, v, cp=_cupy())


@backend.implements("normal_equations", when=_empty)
def _normal_equations(a: Any, b: Any) -> Any:
    from .rows import normal_equations

    return normal_equations(a, b, cp=_cupy())


@backend.implements("residual_gradient", when=_empty)
def _residual_gradient(a: Any, b: Any, x: Any) -> Any:
    from .rows import residual_gradient

    return residual_gradient(a, b, x, cp=_cupy())


@backend.implements("whitened_gram", when=_empty)
def _whitened_gram(a: Any, p: Any) -> Any:
    from .rows import whitened_gram

    return whitened_gram(a, p, cp=_cupy())


@backend.implements("thin_qr", when=_empty)
def _thin_qr(a: Any, *, seed: int) -> Any:
    from .rows import thin_qr

    return thin_qr(a, cp=_cupy())
