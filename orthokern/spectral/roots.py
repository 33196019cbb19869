"""Inverse p-th roots of positive definite matrices, and the matrix sign function."""

from __future__ import annotations

from typing import Any

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel, op
from .._core.dtypes import compute_precision, eps
from .._core.errors import UnsupportedError, ValuesError
from .._core.linalg import (
    adjoint,
    decomposable,
    frobenius,
    hermitian_part,
    identity_like,
    nan_unless,
)
from .._core.loop import iterate
from .._core.namespace import is_lazy, is_traced, namespace
from .._core.results import mask_members, warn_unconverged
from .._core.scaling import balance
from .._core.typing import ArrayT
from .factor import inverse_adjoint, positive, power_norm

METHODS = ("eigh", "newton")
MOST_ROOT_STEPS = 40
MOST_SIGN_STEPS = 40
# Steps that a derivative of the sign runs under tracing, where their number cannot depend on values.
TRACED_SIGN_STEPS = 16


@kernel(ops=("balance", "inverse_root"))
def inverse_pth_root(
    g: ArrayT,
    /,
    *,
    p: int = 2,
    ridge: float = 0.0,
    method: str = "eigh",
    check_finite: bool = False,
    backend: str | None = None,
) -> ArrayT:
    r""":math:`(G + \rho\, \lambda_{\max} I)^{-1/p}` of symmetric positive definite matrices.

    Parameters
    ----------
    g : array (..., n, n)
        Hermitian positive definite; its Hermitian part is taken for the whole.
    p : int
        The root, at least 1; preconditioners of optimizers use 2 and 4.
    ridge : float
        :math:`\rho`, added relative to the largest eigenvalue. A singular ``g`` needs one.
    method : {"eigh", "newton"}
        By eigenvalues, or by the coupled Newton iteration, which consists of products alone and is meant for
        accelerators.
    check_finite : bool
        True refuses NaN and infinity (eager only); else they stay with the matrices they belong to.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., n, n)
        Hermitian, in the dtype of ``g``. Flops: about 11 n^3 by eigenvalues, 2 n^3 (2 + log2 p) for each Newton step.

    Raises
    ------
    ValuesError
        If an eigenvalue is not positive (eager input only).

    Notes
    -----
    Relative error: about eps times the condition number. The derivative is the closed form for the exact root, of
    first and second order, finite at repeated eigenvalues; the ridge's :math:`\lambda_{\max}` is held constant.

    References
    ----------
    N. J. Higham, *Functions of Matrices* (SIAM 2008), ch. 7; V. Gupta, T. Koren, Y. Singer, "Shampoo: preconditioned
    stochastic tensor optimization", arXiv:1802.09568.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> np.round(orthokern.inverse_pth_root(np.array([[5.0, 4.0], [4.0, 5.0]]), p=2), 6)
    array([[ 0.666667, -0.333333],
           [-0.333333,  0.666667]])
    """
    check.square(g, kernel="inverse_pth_root", name="g")
    root = check.count(p, kernel="inverse_pth_root", name="p")
    ridge = check.at_least(ridge, 0.0, kernel="inverse_pth_root", name="ridge")
    check.choice(method, METHODS, kernel="inverse_pth_root", name="method")
    check.flag(check_finite, kernel="inverse_pth_root", name="check_finite")
    if check_finite:
        check.finite_values(g, kernel="inverse_pth_root", name="g")
    if 0 in g.shape:
        return namespace(g).zeros_like(g)  # type: ignore[no-any-return]
    xp = namespace(g)
    y, undo = balance(compute_precision(g))
    finite = xp.isfinite(undo)
    x, smallest = inverse_root(y, p=root, ridge=ridge, method=method)
    _refuse_indefinite(constant(smallest), finite)
    scale = xp.where(finite, undo, xp.ones_like(undo)) ** (-1.0 / root)
    return xp.astype(mask_members(x * scale, finite), g.dtype, copy=False)  # type: ignore[no-any-return]


@kernel(ops=("balance", "sign_factor"))
def matrix_sign(x: ArrayT, /, *, check_finite: bool = False, backend: str | None = None) -> ArrayT:
    r"""Matrix sign function: :math:`S = A (A^2)^{-1/2}`, with :math:`S^2 = I` and the invariant subspaces of ``x``.

    Its eigenvalues are 1 where those of ``x`` lie right of the imaginary axis, and -1 left of it. The sign of a
    Hermitian matrix is its unitary polar factor.

    Parameters
    ----------
    x : array (..., n, n)
        Real or complex, without eigenvalues on the imaginary axis.
    check_finite : bool
        True refuses NaN and infinity (eager only); else they stay with the matrices they belong to.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., n, n)
        In the dtype of ``x``. Flops: 2 n^3 for each of about 5 to 15 Newton steps, and 4 n^3.

    Notes
    -----
    The condition number is that of the separation of the two invariant subspaces; ConvergenceWarning tells of
    eigenvalues too near the imaginary axis. Derivatives of first and second order are those of the limit.

    References
    ----------
    N. J. Higham, *Functions of Matrices* (SIAM 2008), ch. 5.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> np.round(orthokern.matrix_sign(np.array([[3.0, 10.0], [0.0, -2.0]])), 6)
    array([[ 1.,  4.],
           [ 0., -1.]])
    """
    check.square(x, kernel="matrix_sign")
    check.flag(check_finite, kernel="matrix_sign", name="check_finite")
    if check_finite:
        check.finite_values(x, kernel="matrix_sign")
    if 0 in x.shape:
        return namespace(x).zeros_like(x)  # type: ignore[no-any-return]
    xp = namespace(x)
    y, undo = balance(compute_precision(x))
    finite = xp.isfinite(undo)
    s, change = sign_factor(y)
    change = constant(change)
    hint = "move the eigenvalues away from the imaginary axis, for example by a shift"
    good = change <= eps(y) ** 0.5
    warn_unconverged("matrix_sign", good, finite[..., 0, 0], change, hint=hint)
    return xp.astype(mask_members(s, finite), x.dtype, copy=False)  # type: ignore[no-any-return]


def _refuse_indefinite(smallest: Any, finite: Any) -> None:
    """Refuse matrices whose smallest eigenvalue is not positive, where values are known."""
    xp = namespace(smallest)
    if (
        is_traced(smallest)
        or is_lazy(smallest)
        or bool(xp.all((smallest > 0) | ~finite[..., 0, 0]))
    ):
        return
    worst = float(xp.min(xp.where(finite[..., 0, 0], smallest, xp.ones_like(smallest))))
    found = (
        "one on which Newton's iteration fails"
        if worst != worst  # noqa: PLR0124 - NaN, in every library
        else f"a smallest eigenvalue of {worst:.1e} times the largest entry"
    )
    message = (
        f"inverse_pth_root: expected positive definite matrices in g, got {found}; "
        "pass ridge=1e-6, or a larger one"
    )
    raise ValuesError(message)


def _powers(a: Any, count: int) -> list[Any]:
    """``[I, A, A^2, ..., A^count]``."""
    xp = namespace(a)
    found = [identity_like(a) + xp.zeros_like(a)]
    for _ in range(count):
        found.append(found[-1] @ a)
    return found


def _root_tangent(
    arrays: Any, tangents: Any, out: Any, *, p: int, ridge: float, method: str
) -> Any:
    """``sum_k X^k dX X^(p-1-k) = -X^p dG X^p`` for ``X = G^(-1/p)``.

    Solved in the eigenbasis of X, which is held constant, and refined twice with plain products, which makes the
    rule differentiable again, also at repeated eigenvalues.
    """
    (dg,), (x, smallest) = tangents, out
    xp = namespace(x)
    powers = _powers(x, p)

    def applied(d: Any) -> Any:
        return sum(powers[k] @ d @ powers[p - 1 - k] for k in range(p))

    values, q = xp.linalg.eigh(constant(x))
    values, q = constant(values), constant(q)
    a, b = values[..., :, None], values[..., None, :]
    weights = xp.astype(1 / sum(a**k * b ** (p - 1 - k) for k in range(p)), x.dtype)

    def solved(k: Any) -> Any:
        return q @ ((adjoint(q) @ k @ q) * weights) @ adjoint(q)

    known = -powers[p] @ hermitian_part(dg) @ powers[p]
    dx = solved(known)
    for _ in range(2):
        dx = dx + solved(known - applied(dx))
    return hermitian_part(dx), xp.zeros_like(smallest)


@op(jvp=_root_tangent)
def inverse_root(g: Any, /, *, p: int, ridge: float, method: str) -> Any:
    """``(X, smallest)`` with ``X = (G + ridge lambda_max I)^(-1/p)`` of Hermitian ``G`` and its smallest eigenvalue.

    The Newton iteration reports 1 in its place when it converged, else NaN.
    """
    if method == "newton":
        return _root_by_newton(g, p, ridge)
    if is_lazy(g):
        message = (
            "inverse_pth_root: expected an array whose library has eigenvalues, got one of Dask; "
            "pass method='newton'"
        )
        raise UnsupportedError(message)
    xp = namespace(g)
    values, q = xp.linalg.eigh(hermitian_part(g))
    values = values + ridge * values[..., -1:]
    safe = xp.where(values > 0, values, xp.ones_like(values))
    scaled = q * xp.astype(safe ** (-1.0 / p), g.dtype)[..., None, :]
    return hermitian_part(scaled @ adjoint(q)), values[..., 0]


def _root_by_newton(g: Any, p: int, ridge: float) -> Any:
    """Coupled iteration ``X <- X T``, ``M <- T^p M`` with ``T = ((p + 1) I - M) / p``; M tends to I."""
    xp = namespace(g)
    eye = identity_like(g)
    g = hermitian_part(g)
    g = g + xp.astype(ridge * power_norm(g), g.dtype) * eye
    start = (1 + p) / (2 * positive(frobenius(g)))
    enough = 10 * g.shape[-1] ** 0.5 * eps(g)
    # Positive definite matrices start below half of this and come down.
    hopeless = 2 * (g.shape[-1] ** 0.5 + p + 1)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, m, error = state
        t = ((p + 1) * eye - m) / p
        goes_on = error <= hopeless
        x = xp.where(goes_on, x @ t, x)
        m = xp.where(goes_on, hermitian_part(_power(t, p) @ m), m)
        return x, m, frobenius(m - eye)

    def done(state: tuple[Any, ...]) -> Any:
        return xp.all((state[2] <= enough) | (state[2] > hopeless))

    x = xp.astype(start ** (1 / p), g.dtype) * (eye + xp.zeros_like(g))
    m = xp.astype(start, g.dtype) * g
    (x, _, error), _ = iterate(
        step, (x, m, frobenius(m - eye)), done=done, max_steps=MOST_ROOT_STEPS
    )
    converged = error <= 1e3 * enough
    return hermitian_part(x), nan_unless(converged, xp.ones_like(error))[..., 0, 0]


def _power(a: Any, p: int) -> Any:
    """``A^p`` by repeated squaring."""
    if p == 1:
        return a
    half = _power(a, p // 2)
    return half @ half @ a if p % 2 else half @ half


def _average(x: Any, inverse: Any) -> tuple[Any, Any]:
    """A scaled Newton step, and the scale: sqrt(||X^-1||_F / ||X||_F), which balances both parts.

    The limit does not depend on the scale, which derivatives hold constant.
    """
    xp = namespace(x)
    scale = xp.sqrt(frobenius(inverse) / positive(frobenius(x)))
    scale = xp.astype(constant(positive(scale)), x.dtype)
    return (scale * x + inverse / scale) / 2, scale


def _sign_tangent(arrays: Any, tangents: Any, out: Any) -> Any:
    """The derivative of each Newton step, from the first to the last; linear in the tangent."""
    (x,), (d,), (s, change) = arrays, tangents, out
    for _ in range(_sign_steps(x)):
        inverse = namespace(x).linalg.inv(x)
        y, scale = _average(x, inverse)
        d = (scale * d - inverse @ d @ inverse / scale) / 2
        x = y
    # The last step projects on the tangent space of S^2 = I.
    return (d - s @ d @ s) / 2, namespace(x).zeros_like(change)


def _sign_steps(x: Any) -> int:
    return TRACED_SIGN_STEPS if is_traced(x) else _sign_iteration(constant(x))[1]


def _sign_iteration(x: Any) -> tuple[Any, Any]:
    """``((S, change), steps)`` of Newton's iteration; ``change`` is the relative one of the last step."""
    xp = namespace(x)
    x = decomposable(x)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, _ = state
        y, _ = _average(x, adjoint(inverse_adjoint(x, singular="nan")))
        return y, frobenius(y - x) / positive(frobenius(y))

    def done(state: tuple[Any, ...]) -> Any:
        # Quadratic convergence: the next change would be of the size of eps.
        return xp.all(state[1] <= eps(x) ** 0.5)

    return iterate(step, (x, frobenius(x) * 0 + 1), done=done, max_steps=MOST_SIGN_STEPS)


@op(jvp=_sign_tangent)
def sign_factor(x: Any, /) -> Any:
    """``(S, change)``: the matrix sign by scaled Newton steps, closed by one Newton-Schulz step."""
    (s, change), _ = _sign_iteration(x)
    return 1.5 * s - 0.5 * (s @ s @ s), change[..., 0, 0]
