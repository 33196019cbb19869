"""Update rules of optimizers as pure functions of a gradient or momentum: ROOT and AuON. State stays outside."""

from __future__ import annotations

import math
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel, op
from .._core.dtypes import compute_precision, is_complex, real_dtype
from .._core.host import static
from .._core.linalg import frobenius, nan_unless
from .._core.namespace import device, is_array, namespace
from .._core.results import mask_members
from .._core.scaling import balance
from .._core.typing import ArrayT
from .coefficients import Polynomial, polar_express_coefficients
from .factor import POWER_MARGIN
from .polar import newton_schulz

# Coefficients that ROOT's authors publish for the sizes of their models; other sizes take the preset "jordan".
ROOT_TABLE: dict[tuple[int, int], Polynomial] = {
    (2048, 2048): (3.4916, -4.8224, 2.1095),
    (2048, 3072): (3.4509, -4.5790, 1.9325),
    (2048, 8192): (2.9794, -3.6674, 1.6207),
    (2048, 16384): (3.1943, -3.8221, 1.5322),
}
# What the extreme singular values of a Gaussian matrix may exceed their limits by, and the least lower bound.
LOWER_SHARE, UPPER_SHARE, LEAST_LOWER = 0.9, 1.03, 1e-3
# Added to the quantile by ROOT's code, and to the norms by AuON's.
QUANTILE_GUARD, NORM_GUARD, SCALE_GUARD = 1e-9, 1e-7, 1e-8


class OutlierSplit(NamedTuple, Generic[ArrayT]):
    """``x = base + outlier`` with ``|base| <= threshold``."""

    base: ArrayT
    outlier: ArrayT
    threshold: ArrayT


@kernel()
def soft_threshold(x: ArrayT, threshold: Any, /, *, backend: str | None = None) -> ArrayT:
    r"""Entries moved towards zero by ``threshold``: :math:`\operatorname{sign}(x)\max(|x| - t, 0)`.

    Parameters
    ----------
    x : array (...)
        Real or complex floating, of any shape (..., m, n) or (n,); complex numbers keep their phase.
    threshold : float or array
        Not negative; an array broadcasts against ``x``.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array
        In the shape and dtype of ``x``. Flops: 3 for each entry, in one pass.

    References
    ----------
    D. L. Donoho, "De-noising by soft-thresholding", IEEE Trans. Inf. Theory 41 (1995).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> orthokern.soft_threshold(np.array([-3.0, 0.5, 2.0]), 1.0).tolist()
    [-2.0, 0.0, 1.0]
    """
    check.floating(x, kernel="soft_threshold")
    xp = namespace(x)
    y = compute_precision(x)
    if is_array(threshold):
        check.entrywise(threshold, x, kernel="soft_threshold", name="threshold")
        check.all_at_least(threshold, 0.0, kernel="soft_threshold", name="threshold")
        limit = xp.astype(threshold, real_dtype(y), copy=False)
    else:
        number = check.at_least(threshold, 0.0, kernel="soft_threshold", name="threshold")
        limit = xp.asarray(number, dtype=real_dtype(y), device=device(y))
    return xp.astype(shrink(y, limit), x.dtype, copy=False)  # type: ignore[no-any-return]


@op()
def shrink(x: Any, limit: Any, /) -> Any:
    """Entries of ``x`` moved towards zero by ``limit``, a real array that broadcasts against ``x``."""
    return x - _bounded(x, limit)


def _bounded(x: Any, limit: Any) -> Any:
    """``x`` with the modulus of each entry at most ``limit``."""
    xp = namespace(x)
    if not is_complex(x):
        return xp.clip(x, -limit, limit)
    size = xp.abs(x)
    kept = xp.where(size > limit, limit / xp.where(size > 0, size, xp.ones_like(size)), 1.0)
    return x * xp.astype(kept, x.dtype)


@kernel(ops=("magnitude_quantile",))
def outlier_split(
    x: ArrayT,
    /,
    *,
    quantile: float = 0.9,
    threshold: Any = None,
    backend: str | None = None,
) -> OutlierSplit[ArrayT]:
    r"""Split into a base with entries of bounded modulus and the outliers that stick out of it.

    ``outlier = soft_threshold(x, t)`` and ``base = x - outlier``, where ``t`` is the ``quantile`` of ``|x|`` in
    each matrix, interpolated linearly, plus 1e-9. ROOT orthogonalizes the base alone.

    Parameters
    ----------
    x : array (..., m, n)
        Real or complex floating.
    quantile : float
        Share of the entries that are no outliers, between 0 and 1.
    threshold : float or array, optional
        Used in place of the quantile; an array broadcasts against the batch shape.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    OutlierSplit
        ``base`` and ``outlier`` (..., m, n) in the dtype of ``x``, ``threshold`` (...) in its real dtype.
        Flops: a sort of m n numbers, or a selection, and one pass. The derivative holds the threshold constant.

    References
    ----------
    "ROOT: Robust Orthogonalized Optimizer for Neural Network Training", arXiv:2511.20626.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> base, outlier, threshold = orthokern.outlier_split(np.array([[-3.0, 0.5], [1.0, 2.0]]))
    >>> np.round(base, 6).tolist(), np.round(outlier, 6).tolist(), round(float(threshold), 6)
    ([[-2.7, 0.5], [1.0, 2.0]], [[-0.3, 0.0], [0.0, 0.0]], 2.7)
    """
    check.matrix(x, kernel="outlier_split")
    share = check.share(quantile, kernel="outlier_split", name="quantile")
    xp = namespace(x)
    y = compute_precision(x)
    if threshold is None:
        check.not_empty(x, kernel="outlier_split")
        limit = constant(magnitude_quantile(y, quantile=share)) + QUANTILE_GUARD
    else:
        limit = check.per_matrix(threshold, x, kernel="outlier_split", name="threshold")
    bounded = _bounded(y, limit)
    base, outlier = (xp.astype(part, x.dtype, copy=False) for part in (bounded, y - bounded))
    every = limit + xp.zeros((*x.shape[:-2], 1, 1), dtype=limit.dtype, device=device(x))
    return OutlierSplit(base, outlier, every[..., 0, 0])


@op()
def magnitude_quantile(x: Any, /, *, quantile: float) -> Any:
    """Quantile of ``|x|`` in each matrix (..., m, n), interpolated linearly; shape (..., 1, 1). By sorting."""
    xp = namespace(x)
    flat = xp.reshape(xp.abs(x), (*x.shape[:-2], -1))
    place = quantile * (flat.shape[-1] - 1)
    low = math.floor(place)
    ordered = xp.sort(flat, axis=-1)
    lower, upper = ordered[..., low], ordered[..., min(low + 1, flat.shape[-1] - 1)]
    found = lower + (place - low) * (upper - lower)
    unknown = xp.any(xp.isnan(flat), axis=-1)
    return nan_unless(~unknown, found)[..., None, None]


def shape_coefficients(m: int, n: int, steps: int = 4) -> tuple[Polynomial, ...]:
    r"""Polynomials for a Gaussian m x n matrix divided by its Frobenius norm, from its limiting spectrum.

    After that division the singular values fill :math:`(\sqrt{\max} \pm \sqrt{\min}) / \sqrt{m n}`; the result is the
    Polar Express sequence for that interval with a margin. Values below it are inflated less; values above it diverge,
    as the spikes of a real gradient do: there divide by a measured norm (see :func:`orthokern.root_orthogonalize`).

    Parameters
    ----------
    m, n : int
        Shape of the matrix.
    steps : int
        Number of polynomials.

    Returns
    -------
    tuple of tuples
        Coefficients (a, b, c), first step first.

    References
    ----------
    V. A. Marchenko, L. A. Pastur (1967); N. Amsel et al., "The Polar Express", arXiv:2505.16932.

    Examples
    --------
    >>> from orthokern.spectral import shape_coefficients
    >>> len(shape_coefficients(2048, 8192, 3))
    3
    """
    low, high = _gaussian_interval(m, n)
    found = polar_express_coefficients(low / high, steps, safety=0.0)
    return (tuple(c / high ** (2 * i + 1) for i, c in enumerate(found[0])), *found[1:])


def _gaussian_interval(m: int, n: int) -> tuple[float, float]:
    check.count(m, kernel="shape_coefficients", name="m")
    check.count(n, kernel="shape_coefficients", name="n")
    large, small = math.sqrt(max(m, n)), math.sqrt(min(m, n))
    low, high = ((large + sign * small) / (large * small) for sign in (-1, 1))
    return max(LOWER_SHARE * low, LEAST_LOWER), UPPER_SHARE * high


def root_orthogonalize(
    x: ArrayT, /, *, steps: int = 5, coefficients: str = "shape", backend: str | None = None
) -> ArrayT:
    r"""ROOT's orthogonalizer: Newton-Schulz steps with coefficients that fit the shape of the matrix.

    Parameters
    ----------
    x : array (..., m, n)
        Real or complex floating; low precision is computed in float32.
    steps : int
        Number of steps, run exactly.
    coefficients : {"shape", "table"}
        "shape": the Polar Express sequence for the spectrum of a Gaussian matrix of this shape, after division by
        a measured spectral norm, so that spikes do not diverge. "table": the coefficients that the authors
        publish, "jordan" for the shapes that they do not list, after division by the Frobenius norm.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., m, n)
        In the dtype of ``x``; a zero matrix gives exactly zero. Flops: steps (4 m n^2 + 2 n^3), m >= n.

    References
    ----------
    "ROOT: Robust Orthogonalized Optimizer for Neural Network Training", arXiv:2511.20626.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> g = np.random.default_rng(0).standard_normal((64, 256))
    >>> s = np.linalg.svd(orthokern.root_orthogonalize(g), compute_uv=False)
    >>> bool(abs(s - 1).max() < 1e-3)
    True
    """
    check.matrix(x, kernel="root_orthogonalize")
    check.choice(coefficients, ("shape", "table"), kernel="root_orthogonalize", name="coefficients")
    count = check.count(steps, kernel="root_orthogonalize", name="steps")
    m, n = x.shape[-2:]
    if coefficients == "table" or 0 in (m, n):
        entry = ROOT_TABLE.get((min(m, n), max(m, n)))
        chosen: Any = "jordan" if entry is None else (entry,)
        return newton_schulz(x, steps=count, coefficients=chosen, backend=backend)
    sequence = _measured_sequence(m, n, count)
    return newton_schulz(
        x, steps=count, coefficients=sequence, normalization="spectral", backend=backend
    )


@static
def _measured_sequence(m: int, n: int, steps: int) -> tuple[Polynomial, ...]:
    """The sequence for a Gaussian m x n matrix that was divided by an upper bound of its measured norm."""
    low, high = _gaussian_interval(m, n)
    return polar_express_coefficients(low / (POWER_MARGIN * high), steps, safety=0.0)


@kernel(ops=("balance", "cosh_rms"))
def cosh_rms_scale(
    x: ArrayT, /, *, gamma: float = 1.0, normalize: bool = True, backend: str | None = None
) -> ArrayT:
    r"""AuON's update: the matrix over the root mean square of its hyperbolic cosines.

    With :math:`G = A / (\|A\|_F + 10^{-7})` and :math:`R = (\operatorname{mean} \cosh^2(\gamma G))^{1/2}` the result is
    :math:`G / (R + 10^{-8})`. ``R`` lies between 1 and :math:`\cosh \gamma` and tends to 1 for large matrices: in
    essence this is division by the Frobenius norm. It does not orthogonalize; for Hybrid-AuON apply it to the
    result of :func:`newton_schulz` with few steps.

    Parameters
    ----------
    x : array (..., m, n)
        Real floating; low precision is computed in float32.
    gamma : float
        Positive; the paper has 1, its repository 1.5.
    normalize : bool
        False divides ``x`` itself by ``R``, as the repository does.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., m, n)
        In the dtype of ``x``. Flops: about 12 m n, in three passes.

    References
    ----------
    "AuON: A Linear-time Alternative to Semi-Orthogonal Momentum Updates", arXiv:2509.24320.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> np.round(orthokern.cosh_rms_scale(np.array([[1.0, -2.0], [3.0, 4.0]])), 6)
    array([[ 0.161069, -0.322137],
           [ 0.483206,  0.644275]])
    """
    check.matrix(x, kernel="cosh_rms_scale")
    check.real(x, kernel="cosh_rms_scale")
    gamma = check.at_least(gamma, 0.0, kernel="cosh_rms_scale", name="gamma", strict=True)
    check.flag(normalize, kernel="cosh_rms_scale", name="normalize")
    xp = namespace(x)
    if 0 in x.shape:
        return xp.zeros_like(x)  # type: ignore[no-any-return]
    y, undo = balance(compute_precision(x))
    finite = xp.isfinite(undo)
    scale = xp.where(finite, undo, xp.ones_like(undo))
    z = cosh_rms(y, NORM_GUARD / scale, gamma=gamma)
    z = z if normalize else z * ((frobenius(y) + NORM_GUARD / scale) * scale)
    return xp.astype(mask_members(z, finite), x.dtype, copy=False)  # type: ignore[no-any-return]


@op()
def cosh_rms(x: Any, guard: Any, /, *, gamma: float) -> Any:
    """``G / (R + 1e-8)`` with ``G = x / (||x||_F + guard)``, ``R^2 = mean cosh^2(gamma G)``, ``guard`` (..., 1, 1)."""
    xp = namespace(x)
    g = x / (frobenius(x) + guard)
    # cosh^2 z = 1 + (cosh 2z - 1) / 2, and cosh 2z - 1 = 2 sinh^2 z, which does not cancel for small z.
    sinh = xp.sinh(gamma * g)
    mean = 1 + xp.mean(sinh * sinh, axis=(-2, -1), keepdims=True)
    return g / (xp.sqrt(mean) + SCALE_GUARD)
