"""Self-calibration: gains of sensors and unknown signals from the same measurements, by linear least squares."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel
from .._core.dtypes import compute_precision, eps
from .._core.errors import OptionError, ShapeError, ValuesError
from .._core.namespace import device, is_traced, namespace, same_library
from .._core.results import mask_members
from .._core.scaling import balance
from .._core.typing import ArrayT
from .elimination import alternating_gains, images, inverse_gains, norms, phase

MODELS = ("auto", "shared", "diverse", "snapshots")
METHODS = ("spectral", "lstsq", "als")
NORMALIZATIONS = ("norm", "mean")
MOST_ALTERNATIONS = 200
# Singular values nearer to one another than this leave the direction between them open.
LEAST_GAP = 1.5


class SelfCalModel(IntEnum):
    """Codes of ``info.model``."""

    SHARED = 1
    DIVERSE = 2
    SNAPSHOTS = 3


class SelfCalStatus(IntEnum):
    """Codes of ``info.status``."""

    IDENTIFIED = 0
    AMBIGUOUS = 1
    NOT_FINITE = 2


# As numbers, because Dynamo does not convert members of an enumeration.
IDENTIFIED, AMBIGUOUS, NOT_FINITE = map(int, SelfCalStatus)
CODES = {model.name.lower(): int(model) for model in SelfCalModel}


class SelfCalInfo(NamedTuple, Generic[ArrayT]):
    """How well the data determine the gains; arrays in the batch shape.

    iterations
        Alternating steps.
    residual
        ``||y - D A x|| / ||y||``, the Frobenius norm over all measurements.
    converged
        Whether the status is IDENTIFIED.
    status
        Code (:class:`SelfCalStatus`). AMBIGUOUS: a second solution fits almost as well.
    sigma
        The two smallest singular values of the linear problem; shape (..., 2).
    gap, cond
        Second smallest singular value over the smallest, and largest over second smallest: the relative error of the
        gains is about ``cond`` times that of the data.
    masked
        Gains that nothing determines, NaN in the result; shape (..., m).
    model
        Code (:class:`SelfCalModel`), 0-d.
    """

    iterations: ArrayT
    residual: ArrayT
    converged: ArrayT
    status: ArrayT
    sigma: ArrayT
    gap: ArrayT
    cond: ArrayT
    masked: ArrayT
    model: ArrayT


class SelfCalResult(NamedTuple, Generic[ArrayT]):
    """Gains (..., m), signals (..., n) or (..., p, n), and the inverse gains (..., m)."""

    gains: ArrayT
    x: ArrayT
    inverse_gains: ArrayT
    info: SelfCalInfo[ArrayT]


@kernel()
def self_calibrate(
    y: ArrayT,
    a: ArrayT,
    /,
    *,
    model: str = "auto",
    method: str = "spectral",
    w: Any = None,
    normalize: str | None = "norm",
    refine: int = 0,
    noise_weight: bool = True,
    check_finite: bool = False,
    backend: str | None = None,
) -> SelfCalResult[ArrayT]:
    r"""Gains and signals from uncalibrated measurements :math:`y_l = D A_l x_l`, :math:`D = \operatorname{diag}(d)`.

    In the inverse gains :math:`s_i = 1 / d_i` the problem is linear and homogeneous, :math:`\operatorname{diag}(y_l) s
    = A_l x_l`. The signals are eliminated, which leaves a Hermitian m x m problem.

    Parameters
    ----------
    y : array (..., p, m)
        p measurements of m sensors each. Real or complex; low precision is computed in float32.
    a : array (..., m, n) or (..., p, m, n)
        One matrix for all measurements ("snapshots"), or one for each.
    model : {"auto", "shared", "diverse", "snapshots"}
        Whether there is one signal for all measurements ("shared") or one for each; "auto" is "snapshots" where ``a``
        has no more dimensions than ``y``, and else has to be named.
    method : {"spectral", "lstsq", "als"}
        "spectral" takes the smallest singular direction. "lstsq" adds the equation :math:`w^H s = 1` to the least
        squares, which needs gains whose phases are roughly known. "als" goes on from "spectral" with
        alternating least squares on the gains themselves until the residual settles.
    w : array (..., m), optional
        Weights of that equation, and what fixes the phase of "spectral"; ones by default.
    normalize : {"norm", "mean", None}
        The scalar that is free: gains with a norm of :math:`\sqrt m` and a real mean :math:`\ge 0`, or a mean of 1.
        None leaves the scale of the method.
    refine : int
        Alternating steps after "spectral" or "lstsq".
    noise_weight : bool
        Measure "spectral" directions in the metric of white noise in ``y``, without which noise biases the gains.
    check_finite : bool
        True refuses NaN and infinity (eager only); else they stay with the members that they belong to.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    SelfCalResult
        In the dtype of ``y`` and ``a`` together. Flops: 2 p m n^2 (once only for snapshots), 2 m^2 (n p) and about
        10 m^3; memory: 4 m^2 and the matrices.

    Notes
    -----
    Counting equations, "shared" needs p m >= m + n - 1 and m > 1, the others p m >= m + n p - 1 and m > n. A gain of
    zero cannot be represented: a sensor that measures nothing at all is masked. Without noise the error is a few eps
    times ``info.cond``, which is no square: the eigenvector of the squared problem is corrected with residuals of
    the problem itself.

    References
    ----------
    S. Ling, T. Strohmer, "Self-calibration and bilinear inverse problems via linear least squares", arXiv:1611.04196.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> rng = np.random.default_rng(0)
    >>> a, x = rng.standard_normal((8, 3)), rng.standard_normal((5, 3))
    >>> gains = np.array([1.0, 0.5, 2.0, 1.0, 1.5, 1.0, 0.7, 1.0])
    >>> found = orthokern.self_calibrate(gains * (x @ a.T), a, normalize="mean")
    >>> np.round(found.gains * gains.mean(), 6).tolist()
    [1.0, 0.5, 2.0, 1.0, 1.5, 1.0, 0.7, 1.0]
    """
    kind = _checked(y, a, model)
    check.choice(method, METHODS, kernel="self_calibrate", name="method")
    if normalize is not None:
        check.choice(normalize, NORMALIZATIONS, kernel="self_calibrate", name="normalize")
    check.flag(noise_weight, kernel="self_calibrate", name="noise_weight")
    check.flag(check_finite, kernel="self_calibrate", name="check_finite")
    steps = check.count(refine, kernel="self_calibrate", name="refine", least=0)
    if method == "als" and steps:
        message = "self_calibrate: expected refine=0 with method='als', which takes the steps it needs; drop refine"
        raise OptionError(message)
    if check_finite:
        check.finite_values(y, kernel="self_calibrate", name="y")
        check.finite_values(a, kernel="self_calibrate", name="a")
    u, v, undo = _balanced(y, a, kind)
    weights = _weights(w, u)
    xp = namespace(u)
    finite = xp.isfinite(undo)[..., 0, 0]
    linear = "lstsq" if method == "lstsq" else "spectral"
    options = {"model": kind, "method": linear, "weighted": noise_weight}
    s, x, sigma, lost = inverse_gains(u, v, weights, **options)
    _refuse_silence(lost, finite)
    d, lost = _inverted(s, lost)
    count = xp.astype(xp.zeros_like(finite), xp.int32)
    if method == "als" or steps:
        until = {"steps": steps or MOST_ALTERNATIONS, "until_done": method == "als"}
        d, x, count = alternating_gains(u, v, d, model=kind, **until)
    residual = _misfit(u, v, d, x)
    info = _info(kind, count, residual, sigma, lost, finite)
    factor = _scale(d, lost, normalize)
    x = x * xp.astype(undo, x.dtype) / factor[..., None, :]
    x = x[..., 0, :] if kind == "shared" else x
    return _packed(xp.result_type(y, a), d * factor, x, info, finite)


def _checked(y: Any, a: Any, model: Any) -> str:
    """The model, where the shapes fit it and there are enough equations."""
    for name, array in (("y", y), ("a", a)):
        check.matrix(array, kernel="self_calibrate", name=name)
    same_library(y, a)
    check.choice(model, MODELS, kernel="self_calibrate", name="model")
    if model == "auto" and a.ndim > y.ndim:
        message = (
            f"self_calibrate: expected a model for one matrix per measurement, shape {tuple(a.shape)}; "
            "pass model='shared' (one signal) or model='diverse' (one for each)"
        )
        raise OptionError(message)
    kind = "snapshots" if model == "auto" else str(model)
    p, m = y.shape[-2:]
    wanted = (m,) if kind == "snapshots" else (p, m)
    if a.ndim <= len(wanted) or tuple(a.shape[-1 - len(wanted) : -1]) != wanted:
        shape = ", ".join(map(str, wanted))
        message = f"self_calibrate: expected a (..., {shape}, n) for y {tuple(y.shape)}, got shape {tuple(a.shape)}"
        raise ShapeError(message)
    heads = [tuple(y.shape[:-2]), tuple(a.shape[: -1 - len(wanted)])]
    check.common_shape(heads, kernel="self_calibrate", names="y and a")
    _enough_equations(kind, p, m, a.shape[-1])
    return kind


def _enough_equations(kind: str, p: int, m: int, n: int) -> None:
    if kind == "shared":
        rule, good = "p m >= m + n - 1 and m > 1", p * m >= m + n - 1 and m > 1
    else:
        rule, good = "p m >= m + n p - 1 and m > n", p * m >= m + n * p - 1 and m > n
    if not good or 0 in (p, m, n):
        message = (
            f"self_calibrate: expected {rule} for the model {kind!r}, got p={p}, m={m}, n={n}; "
            "take more measurements or sensors"
        )
        raise ShapeError(message)


def _balanced(y: Any, a: Any, kind: str) -> tuple[Any, Any, Any]:
    """``y``, and ``a`` (..., p or 1, m, n), scaled and in one dtype, and the factor (..., 1, 1) of the signals."""
    xp = namespace(y)
    y, a = compute_precision(y), compute_precision(a)
    dtype = xp.result_type(y, a)
    y, a = (xp.astype(part, dtype, copy=False) for part in (y, a))
    a = a[..., None, :, :] if kind == "snapshots" else a
    heads = [tuple(y.shape[:-2]), tuple(a.shape[:-3])]
    batch = check.common_shape(heads, kernel="self_calibrate", names="y and a")
    y, undo_y = balance(xp.broadcast_to(y, (*batch, *y.shape[-2:])))
    # One scale for all matrices of a member.
    tall, undo_a = balance(xp.reshape(a, (*a.shape[:-3], -1, a.shape[-1])))
    return y, xp.reshape(tall, a.shape), undo_y / undo_a


def _weights(w: Any, u: Any) -> Any:
    xp = namespace(u)
    m = u.shape[-1]
    if w is None:
        return xp.ones((m,), dtype=u.dtype, device=device(u))
    check.floating(w, kernel="self_calibrate", name="w")
    same_library(w, u)
    if w.ndim < 1 or w.shape[-1] != m:
        message = f"self_calibrate: expected w (..., {m}), a weight for each sensor, got shape {tuple(w.shape)}"
        raise ShapeError(message)
    return xp.astype(w, u.dtype, copy=False)


def _refuse_silence(lost: Any, finite: Any) -> None:
    """Refuse members without a single gain; looks at concrete values only."""
    if is_traced(lost):
        return
    xp = namespace(lost)
    if bool(xp.any(xp.all(lost, axis=-1) & finite)):
        message = (
            "self_calibrate: expected measurements that determine some gain, got none in a member; "
            "leave out members of y that are zero"
        )
        raise ValuesError(message)


def _inverted(s: Any, lost: Any) -> tuple[Any, Any]:
    """Gains, zero where nothing determines them, and where that is."""
    xp = namespace(s)
    lost = lost | (s == 0)
    return xp.where(lost, xp.zeros_like(s), 1 / xp.where(lost, xp.ones_like(s), s)), lost


def _misfit(y: Any, a: Any, d: Any, x: Any) -> Any:
    xp = namespace(y)
    left = y - d[..., None, :] * images(a, x)
    whole = (*y.shape[:-2], -1)
    return (norms(xp.reshape(left, whole)) / norms(xp.reshape(y, whole)))[..., 0]


def _scale(d: Any, lost: Any, normalize: str | None) -> Any:
    """What the gains are multiplied by, shape (..., 1)."""
    xp = namespace(d)
    if normalize is None:
        return xp.ones_like(d[..., :1])
    count = xp.sum(xp.astype(~lost, d.dtype), axis=-1, keepdims=True)
    mean = xp.sum(d, axis=-1, keepdims=True) / count
    if normalize == "mean":
        some = mean != 0
        return xp.where(some, 1 / xp.where(some, mean, xp.ones_like(mean)), xp.ones_like(mean))
    size = xp.astype(norms(d), d.dtype)
    return xp.sqrt(count) / (size * phase(mean))


def _packed(dtype: Any, d: Any, x: Any, info: SelfCalInfo[Any], finite: Any) -> SelfCalResult[Any]:
    """NaN where nothing is known, in the dtype of the input."""
    xp = namespace(d)
    known = finite[..., None] & ~info.masked
    s = 1 / xp.where(d != 0, d, xp.ones_like(d))
    d, s = mask_members(d, known), mask_members(s, known)
    x = mask_members(x, xp.reshape(finite, (*finite.shape, *(1,) * (x.ndim - finite.ndim))))
    d, x, s = (xp.astype(part, dtype, copy=False) for part in (d, x, s))
    return SelfCalResult(d, x, s, info)


def _info(
    kind: str, count: Any, residual: Any, sigma: Any, lost: Any, finite: Any
) -> SelfCalInfo[Any]:
    xp = namespace(sigma)
    least, second, largest = (constant(sigma[..., i]) for i in range(3))
    floor = lost.shape[-1] * eps(sigma) * largest
    # A smallest value that is rounding alone tells nothing about the gap.
    unclear = (second <= floor) | (second < LEAST_GAP * least)
    status = xp.where(unclear, xp.full_like(count, AMBIGUOUS), xp.full_like(count, IDENTIFIED))
    status = xp.where(finite, status, xp.full_like(count, NOT_FINITE))
    return SelfCalInfo(
        iterations=count,
        residual=mask_members(constant(residual), finite),
        converged=status == IDENTIFIED,
        status=status,
        sigma=mask_members(constant(sigma[..., :2]), finite[..., None]),
        gap=_ratio(second, least),
        cond=_ratio(largest, second),
        masked=lost,
        model=xp.asarray(CODES[kind], dtype=xp.int32, device=device(sigma)),
    )


def _ratio(above: Any, below: Any) -> Any:
    """Quotient, infinite over zero."""
    xp = namespace(below)
    some = below > 0
    quotient = above / xp.where(some, below, xp.ones_like(below))
    return xp.where(some, quotient, xp.full_like(below, float("inf")))
