"""Numba and LAPACK implementations of orthokern's ops for processors. Registration only: Numba loads on first use."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from orthokern.backend import Backend


def _available() -> str | None:
    return None if find_spec("numba") else "numba is not installed; pip install 'orthokern[numba]'"


backend = Backend("numba", serves={("numpy", "cpu")}, available=_available)


def _not_the_svd(x: Any, *, method: str = "auto", **static: Any) -> str | None:
    return "method='svd' is the array-API body" if method == "svd" else None


def _no_gram_form(x: Any, *, schedule: Any) -> str | None:
    return "the Gram form runs as the array-API body" if schedule.restarts is not None else None


@backend.implements("balance")
def _balance(x: Any) -> Any:
    from .balance import balance

    return balance(x)


@backend.implements("unitary_factor", when=_not_the_svd)
def _unitary_factor(
    x: Any, *, completion: str, rcond: float | None = None, method: str = "auto"
) -> Any:
    from .spectral import unitary_factor

    return unitary_factor(x, completion=completion, rcond=rcond)


@backend.implements("polar_factors", when=_not_the_svd)
def _polar_factors(
    x: Any, *, completion: str, rcond: float | None = None, method: str = "auto"
) -> Any:
    from .spectral import polar_factors

    return polar_factors(x, completion=completion, rcond=rcond)


@backend.implements("scheduled_factor", when=_no_gram_form)
def _scheduled_factor(x: Any, *, schedule: Any) -> Any:
    from .spectral import scheduled_factor

    return scheduled_factor(x, schedule=schedule)


@backend.implements("hermitian_factor")
def _hermitian_factor(u: Any, x: Any) -> Any:
    from .spectral import hermitian_factor

    return hermitian_factor(u, x)


def _too_small(x: Any, *limits: Any) -> str | None:
    from .clipping import too_small

    return too_small(x, *limits)


@backend.implements("clipped", when=_too_small)
def _clipped(x: Any, top: Any, *bottom: Any) -> Any:
    from .clipping import clipped

    return clipped(x, top)


@backend.implements("pressed", when=_too_small)
def _pressed(x: Any, c: Any) -> Any:
    from .clipping import pressed

    return pressed(x, c)


@backend.implements("magnitude_quantile")
def _magnitude_quantile(x: Any, *, quantile: float) -> Any:
    from .statistics import magnitude_quantile

    return magnitude_quantile(x, quantile=quantile)


@backend.implements("cosh_rms")
def _cosh_rms(x: Any, guard: Any, *, gamma: float) -> Any:
    from .statistics import cosh_rms

    return cosh_rms(x, guard, gamma=gamma)


@backend.implements("simplex_projection")
def _simplex_projection(v: Any, z: Any, *, k: int) -> Any:
    from .columns import simplex_projection

    return simplex_projection(v, z, k=k)


@backend.implements("ksupport_prox")
def _ksupport_prox(v: Any, lam: Any, *, k: int) -> Any:
    from .columns import ksupport_prox

    return ksupport_prox(v, lam, k=k)


def _no_fixed_sweeps(*arrays: Any, tol: float | None, **static: Any) -> str | None:
    return "a fixed number of sweeps runs as the array-API body" if tol is None else None


@backend.implements("entropic_potentials", when=_no_fixed_sweeps)
def _entropic_potentials(
    a: Any, b: Any, cost: Any, epsilon: Any, *, tol: float, max_iter: int
) -> Any:
    from .entropic import entropic_potentials

    return entropic_potentials(a, b, cost, epsilon, tol=tol, max_iter=max_iter)


def _not_plain(
    a: Any, b: Any, cost: Any, epsilon: Any, *, tol: float | None, **static: Any
) -> str | None:
    from .entropic_solution import declined

    return declined(a, b, cost, tol=tol)


@backend.implements("entropic_solution", when=_not_plain)
def _entropic_solution(
    a: Any, b: Any, cost: Any, epsilon: Any, *, tol: float, max_iter: int
) -> Any:
    from .entropic_solution import entropic_solution

    return entropic_solution(a, b, cost, epsilon, tol=tol, max_iter=max_iter)


@backend.implements("entropic_potentials_points", when=_no_fixed_sweeps)
def _entropic_potentials_points(*arrays: Any, p: float, tol: float, max_iter: int) -> Any:
    from .entropic import entropic_potentials_points

    return entropic_potentials_points(*arrays, p=p, tol=tol, max_iter=max_iter)


@backend.implements("quadratic_potentials")
def _quadratic_potentials(
    a: Any, b: Any, cost: Any, gamma: Any, *, tol: float, max_iter: int
) -> Any:
    from .quadratic import quadratic_potentials

    return quadratic_potentials(a, b, cost, gamma, tol=tol, max_iter=max_iter)


@backend.implements("quadratic_potentials_points")
def _quadratic_potentials_points(*arrays: Any, p: float, tol: float, max_iter: int) -> Any:
    from .quadratic import quadratic_potentials_points

    return quadratic_potentials_points(*arrays, p=p, tol=tol, max_iter=max_iter)


@backend.implements("proximal_plan")
def _proximal_plan(
    a: Any, b: Any, cost: Any, gamma: Any, *, k: int, tol: float, max_iter: int
) -> Any:
    from .quadratic import proximal_plan

    return proximal_plan(a, b, cost, gamma, k=k, tol=tol, max_iter=max_iter)


@backend.implements("exact_plan")
def _exact_plan(a: Any, b: Any, cost: Any, *, tol: float, max_iter: int | None) -> Any:
    from .simplex import exact_plan

    return exact_plan(a, b, cost, tol=tol, max_iter=max_iter)


@backend.implements("assignment")
def _assignment(cost: Any) -> Any:
    from .assignment import assignment

    return assignment(cost)


@backend.implements("regularized_rows")
def _regularized_rows(g: Any, penalty: Any, r: Any) -> Any:
    from .rows import regularized_rows

    return regularized_rows(g, penalty, r)


@backend.implements("random_bits")
def _random_bits(index: Any, *, seed: int, stream: int, group: int = 0) -> Any:
    from .random import random_bits

    return random_bits(index, seed=seed, stream=stream, group=group)


@backend.implements("normal_equations")
def _normal_equations(a: Any, b: Any) -> Any:
    from .normal_equations import normal_equations

    return normal_equations(a, b)


@backend.implements("residual_gradient")
def _residual_gradient(a: Any, b: Any, x: Any) -> Any:
    from .normal_equations import residual_gradient

    return residual_gradient(a, b, x)


@backend.implements("rough_gram")
def _rough_gram(a: Any) -> Any:
    from .normal_equations import rough_gram

    return rough_gram(a)


@backend.implements("whitened_gram")
def _whitened_gram(a: Any, p: Any) -> Any:
    from .normal_equations import whitened_gram

    return whitened_gram(a, p)


@backend.implements("product")
def _product(a: Any, b: Any) -> Any:
    from .products import stacked_product

    return stacked_product(a, b, adjoint=False)


@backend.implements("adjoint_product")
def _adjoint_product(a: Any, b: Any) -> Any:
    from .products import stacked_product

    return stacked_product(a, b, adjoint=True)


@backend.implements("gram_whitener")
def _gram_whitener(g: Any) -> Any:
    from .whitening import gram_whitener

    return gram_whitener(g)


@backend.implements("triangular_whitener")
def _triangular_whitener(r: Any, *, cutoff: float) -> Any:
    from .whitening import triangular_whitener

    return triangular_whitener(r, cutoff=cutoff)


@backend.implements("damped_norms")
def _damped_norms(f: Any, shift: Any, v: Any) -> Any:
    from .whitening import damped_norms

    return damped_norms(f, shift, v)


@backend.implements("scattered_rows")
def _scattered_rows(
    a: Any, *, rows: int, nnz: int, seed: int, start: int = 0, stream: int = 1, group: int = 0
) -> Any:
    from .hashing import scattered_rows

    return scattered_rows(a, rows=rows, nnz=nnz, seed=seed, start=start, stream=stream, group=group)


@backend.implements("gathered_rows")
def _gathered_rows(
    y: Any, *, stop: int, nnz: int, seed: int, start: int = 0, stream: int = 1, group: int = 0
) -> Any:
    from .hashing import gathered_rows

    return gathered_rows(y, stop=stop, nnz=nnz, seed=seed, start=start, stream=stream, group=group)


@backend.implements("hadamard")
def _hadamard(x: Any, *, scale: float = 1.0) -> Any:
    from .hadamard import hadamard

    return hadamard(x, scale=scale)


@backend.implements("mixed_rows")
def _mixed_rows(a: Any, *, rows: int, seed: int, permute: bool) -> Any:
    from .hadamard import mixed_rows

    return mixed_rows(a, rows=rows, seed=seed, permute=permute)


@backend.implements("unmixed_rows")
def _unmixed_rows(y: Any, *, n: int, seed: int, permute: bool) -> Any:
    from .hadamard import unmixed_rows

    return unmixed_rows(y, n=n, seed=seed, permute=permute)


def _complex(a: Any, *arrays: Any, **static: Any) -> str | None:
    return "complex matrices run as the array-API body" if a.dtype.kind == "c" else None


@backend.implements("gram_solution", when=_complex)
def _gram_solution(a: Any, b: Any, *, damp: float, tol: float, max_refine: int) -> Any:
    from .small_gram import gram_solution

    return gram_solution(a, b, damp=damp, tol=tol, max_refine=max_refine)


@backend.implements("thin_qr")
def _thin_qr(a: Any, *, seed: int) -> Any:
    from .cholesky_qr import thin_qr

    return thin_qr(a, seed=seed)


@backend.implements("lowest_pairs")
def _lowest_pairs(h: Any) -> Any:
    from .eigenpairs import lowest_pairs

    return lowest_pairs(h)
