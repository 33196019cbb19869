"""Functional maps: linear maps between functions on two shapes, and the maps of points that belong to them."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dispatch import kernel
from .._core.dtypes import compute_precision, dtype_name
from .._core.errors import DTypeError, ShapeError, UnsupportedError, ValuesError
from .._core.linalg import adjoint as transposed
from .._core.linalg import gram, identity_like
from .._core.namespace import is_lazy, is_traced, namespace, same_library
from .._core.results import mask_members
from .._core.typing import ArrayT
from ..spectral import orthogonalize
from .rows import nearest_rows, regularized_rows, spectral_mask


class FmapLosses(NamedTuple, Generic[ArrayT]):
    """Squared Frobenius norms in the batch shape; ``coupling`` is None without targets."""

    bijectivity: ArrayT
    orthogonality: ArrayT
    laplacian: ArrayT
    coupling: ArrayT | None


class RefinedMap(NamedTuple, Generic[ArrayT]):
    """A functional map (..., k, k), and for each vertex of Y the vertex of X that it is sent to."""

    c: ArrayT
    pointmap: ArrayT


@kernel()
def functional_map(
    a: ArrayT,
    b: Any,
    evals_x: Any,
    evals_y: Any,
    /,
    *,
    weight: Any = 100.0,
    mask: Any = "resolvent",
    resolvent_power: float = 0.5,
    backend: str | None = None,
) -> ArrayT:
    r"""Functional map that carries descriptors ``a`` on X to ``b`` on Y and respects the frequencies.

    It minimizes :math:`\|C A - B\|_F^2 + w \sum_{ij} D_{ij} C_{ij}^2`. The rows of ``C`` part: row i solves
    :math:`(A A^T + w \operatorname{diag}(D_i))\, c_i = A b_i`. The mask ``D`` keeps functions of unlike frequency
    apart. With :math:`g = (\lambda / \lambda_{\max})^\rho` over both spectra and :math:`z = (g + i) / (g^2 + 1)`,
    "resolvent" is :math:`D_{ij} = |z(\lambda^Y_i) - z(\lambda^X_j)|^2`; "laplacian" is
    :math:`(\lambda^Y_i - \lambda^X_j)^2`, the commutator with the Laplacians.

    Parameters
    ----------
    a, b : array (..., k_x, d) and (..., k_y, d)
        Coefficients of d descriptors in the bases of X and Y. Low precision is computed in float32.
    evals_x, evals_y : array (..., k_x) and (..., k_y)
        Eigenvalues of the Laplacians; below zero counts as zero under "resolvent".
    weight : float or array
        :math:`w`, not negative; an array broadcasts against the batch shape.
    mask : {"resolvent", "laplacian"} or array (..., k_y, k_x)
        :math:`D`; an array has entries that are not negative.
    resolvent_power : float
        :math:`\rho`, positive.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., k_y, k_x)
        In the dtype of ``a``. Flops: k_y k_x^3 / 3 by Cholesky factors (twice that in the reference, by LU), and
        2 k_x (k_x + k_y) d; memory: blocks of the systems of up to 4 million numbers.

    Notes
    -----
    The normal equations are scaled to a unit diagonal and solved to a relative residual of a few eps. Where the
    minimizer is not unique, which takes fewer descriptors than zeros in a row of ``w D``, one of them is returned.
    Differentiable of any order in every array but at eigenvalues that are zero, whose derivative under "resolvent"
    is infinite and set to zero.

    References
    ----------
    M. Ovsjanikov et al., "Functional maps: a flexible representation of maps between shapes", ACM TOG 31 (2012);
    J. Ren, M. Panine, P. Wonka, M. Ovsjanikov, "Structured regularization of functional map computations", CGF 38
    (2019).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> a = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> b = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]])
    >>> x, y = np.array([0.0, 1.0, 4.0]), np.array([0.0, 2.0, 4.0])
    >>> np.round(orthokern.functional_map(a, b, x, y, weight=10.0)[1:], 4)
    array([[-0.0145,  0.0627,  0.4374],
           [ 0.0909,  0.4545,  0.7727]])
    """
    _descriptors(a, b, evals_x, evals_y)
    power = check.at_least(
        resolvent_power, 0.0, kernel="functional_map", name="resolvent_power", strict=True
    )
    factor = check.per_matrix(weight, a, kernel="functional_map", name="weight")
    xp = namespace(a)
    u, v = compute_precision(a), compute_precision(b)
    lx, ly = (xp.astype(evals, u.dtype, copy=False) for evals in (evals_x, evals_y))
    penalty = factor * spectral_mask(mask, lx, ly, power)
    r = v @ transposed(u)
    _fitting_mask(penalty, r)
    if 0 in r.shape:
        return xp.astype(r, a.dtype, copy=False)  # type: ignore[no-any-return]
    g = gram(transposed(u))
    finite = _finite_members(g) & _finite_members(penalty) & _finite_members(r)
    if is_traced(r) or is_lazy(r) or not bool(xp.all(finite)):
        g, r = (xp.where(finite, part, xp.zeros_like(part)) for part in (g, r))
        penalty = xp.where(finite, penalty, xp.ones_like(penalty))
    c = mask_members(regularized_rows(g, penalty, r), finite)
    return xp.astype(c, a.dtype, copy=False)  # type: ignore[no-any-return]


@kernel()
def fmap_losses(
    c_xy: ArrayT,
    c_yx: Any,
    evals_x: Any,
    evals_y: Any,
    /,
    *,
    target_xy: Any = None,
    target_yx: Any = None,
    backend: str | None = None,
) -> FmapLosses[ArrayT]:
    r"""How far two functional maps are from inverse to one another, orthogonal, and in step with the Laplacians.

    ``bijectivity`` is :math:`\|C_{xy} C_{yx} - I\|^2 + \|C_{yx} C_{xy} - I\|^2`, ``orthogonality``
    :math:`\|C_{xy}^T C_{xy} - I\|^2 + \|C_{yx}^T C_{yx} - I\|^2`, ``laplacian``
    :math:`\|C_{xy} \Lambda_x - \Lambda_y C_{xy}\|^2 + \|C_{yx} \Lambda_y - \Lambda_x C_{yx}\|^2`, and ``coupling`` the
    squared distances to the targets, which are the maps of a soft map of points.

    Parameters
    ----------
    c_xy, c_yx : array (..., k_y, k_x) and (..., k_x, k_y)
        Functional maps from X to Y and back.
    evals_x, evals_y : array (..., k_x) and (..., k_y)
        Eigenvalues of the Laplacians.
    target_xy, target_yx : array (..., k_y, k_x) and (..., k_x, k_y), optional
        What the maps are to be near.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    FmapLosses
        Arrays (...) in the dtype of ``c_xy``, float32 for low precision; published code takes their mean over the
        batch. Flops: 8 products of k_x x k_y matrices.

    References
    ----------
    T. Le, K. Nguyen, S. Sun, N. Ho, X. Xie, "Integrating Efficient Optimal Transport and Functional Maps For
    Unsupervised Shape Correspondence Learning", arXiv:2403.01781.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> c = np.diag([1.0, -1.0, 2.0])
    >>> losses = orthokern.fmap_losses(c, c, np.arange(3.0), np.arange(3.0))
    >>> [float(value) for value in losses[:3]]
    [18.0, 18.0, 0.0]
    """
    _both_ways(c_xy, c_yx, evals_x, evals_y)
    xp = namespace(c_xy)
    u, v = compute_precision(c_xy), compute_precision(c_yx)
    lx, ly = (xp.astype(e, u.dtype, copy=False) for e in (evals_x, evals_y))
    gap = ly[..., :, None] - lx[..., None, :]
    pairs = [(c, t) for c, t in ((u, target_xy), (v, target_yx)) if t is not None]
    return FmapLosses(
        bijectivity=_from_identity(u @ v) + _from_identity(v @ u),
        orthogonality=_from_identity(gram(u)) + _from_identity(gram(v)),
        laplacian=_squared(gap * u) + _squared(transposed(gap) * v),
        coupling=sum(_squared(c - _target(t, c)) for c, t in pairs) if pairs else None,
    )


@kernel()
def fmap_to_pointmap(
    c: ArrayT, phi_x: Any, phi_y: Any, /, *, adjoint: bool = False, backend: str | None = None
) -> ArrayT:
    r"""Map of points that belongs to a functional map: for each vertex of Y the nearest vertex of X.

    Rows of :math:`\Phi_y` are compared with rows of :math:`\Phi_x C^T`; with ``adjoint`` those of :math:`\Phi_y C` with
    those of :math:`\Phi_x`. A basis may have more columns than ``c`` needs: the leading ones are taken.

    Parameters
    ----------
    c : array (..., k_y, k_x)
        Functional map from X to Y.
    phi_x, phi_y : array (..., v_x, >= k_x) and (..., v_y, >= k_y)
        Bases, a vertex in each row.
    adjoint : bool
        Compare on the side of X.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., v_y)
        Integers; of several nearest vertices the lowest. Flops: 2 v_x v_y k, in blocks: memory is linear in the
        vertices. A row with NaN gets some vertex.

    Notes
    -----
    Distances come from a product, with errors of a few eps times the largest squared norm of a row: vertices nearer
    to one another than that are not told apart.

    References
    ----------
    M. Ovsjanikov et al., "Functional maps: a flexible representation of maps between shapes", ACM TOG 31 (2012).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> phi = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> orthokern.fmap_to_pointmap(np.eye(2), phi, phi[[2, 0]]).tolist()
    [2, 0]
    """
    check.flag(adjoint, kernel="fmap_to_pointmap", name="adjoint")
    _bases(c, phi_x, phi_y, "fmap_to_pointmap")
    k_y, k_x = c.shape[-2:]
    u, x, y = (compute_precision(part) for part in (c, phi_x[..., :k_x], phi_y[..., :k_y]))
    if adjoint:
        return nearest_rows(x, y @ u)  # type: ignore[no-any-return]
    return nearest_rows(x @ transposed(u), y)  # type: ignore[no-any-return]


@kernel()
def pointmap_to_fmap(
    p: ArrayT, phi_x: Any, phi_y: Any, mass_y: Any = None, /, *, backend: str | None = None
) -> ArrayT:
    r"""Functional map of a map of points: :math:`\Phi_y^T M_y\, \Phi_x[p]`.

    Parameters
    ----------
    p : array (..., v_y)
        Integers: for each vertex of Y a vertex of X.
    phi_x, phi_y : array (..., v_x, k_x) and (..., v_y, k_y)
        Bases; that of Y is orthonormal for its masses.
    mass_y : array (..., v_y), optional
        Masses of the vertices of Y; 1 by default.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., k_y, k_x)
        In the dtype of ``phi_x``. Flops: 2 v_y k_x k_y. Differentiable in the bases and the masses.

    References
    ----------
    M. Ovsjanikov et al., "Functional maps: a flexible representation of maps between shapes", ACM TOG 31 (2012).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> phi = np.eye(3)[:, :2]
    >>> orthokern.pointmap_to_fmap(np.array([1, 0, 2]), phi, phi).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    _point_map(p, phi_x, phi_y, mass_y)
    xp = namespace(phi_x)
    x, y = compute_precision(phi_x), compute_precision(phi_y)
    if mass_y is not None:
        y = y * xp.astype(mass_y, y.dtype, copy=False)[..., None]
    return xp.astype(transposed(y) @ _gathered(x, p), phi_x.dtype, copy=False)  # type: ignore[no-any-return]


@kernel()
def zoomout(
    c: ArrayT,
    phi_x: Any,
    phi_y: Any,
    mass_y: Any = None,
    /,
    *,
    k_final: int | None = None,
    step: int = 1,
    repeats: int = 0,
    orthogonal: bool = False,
    backend: str | None = None,
) -> RefinedMap[ArrayT]:
    r"""A small functional map refined by going to points and back, each time with ``step`` more basis functions.

    With ``k_final=k``, some ``repeats`` and ``orthogonal`` it is the iteration of closest points in the space of the
    basis: the size stays, and every map is replaced by the nearest orthogonal one.

    Parameters
    ----------
    c : array (..., k, k)
        Where to start; also a rough map of a few low frequencies.
    phi_x, phi_y : array (..., v_x, >= k_final) and (..., v_y, >= k_final)
        Bases, a vertex in each row; that of Y is orthonormal for its masses.
    mass_y : array (..., v_y), optional
        Masses of the vertices of Y; 1 by default.
    k_final : int, optional
        Size of the result; by default all columns that both bases have.
    step : int
        How many basis functions are added at a time.
    repeats : int
        How often to go to points and back once more at the final size.
    orthogonal : bool
        Replace every map that is found by its polar factor: that of shapes that differ by an isometry is orthogonal.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    RefinedMap
        ``c`` (..., k_final, k_final) in the dtype of the bases, and its ``pointmap`` (..., v_y). Flops: those of
        :func:`fmap_to_pointmap` and :func:`pointmap_to_fmap`, (k_final - k) / step + repeats times.

    References
    ----------
    M. Ovsjanikov et al., "Functional maps: a flexible representation of maps between shapes", ACM TOG 31 (2012);
    S. Melzi, J. Ren, E. Rodola, A. Sharma, P. Wonka, M. Ovsjanikov, "ZoomOut: spectral upsampling for efficient
    shape correspondence", arXiv:1904.07865.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> phi = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 12)))[0]
    >>> turn = np.random.default_rng(1).permutation(40)
    >>> refined = orthokern.zoomout(np.eye(4), phi, phi[turn])
    >>> bool((refined.pointmap == turn).all()), refined.c.shape
    (True, (12, 12))
    """
    _bases(c, phi_x, phi_y, "zoomout")
    stride = check.count(step, kernel="zoomout", name="step")
    more = check.count(repeats, kernel="zoomout", name="repeats", least=0)
    check.flag(orthogonal, kernel="zoomout", name="orthogonal")
    k = c.shape[-1]
    if c.shape[-2] != k:
        message = f"zoomout: expected a square map (..., k, k) in c, got shape {tuple(c.shape)}"
        raise ShapeError(message)
    most = min(phi_x.shape[-1], phi_y.shape[-1])
    last = most if k_final is None else k_final
    last = check.count(last, kernel="zoomout", name="k_final", least=k, most=most)
    found: Any = namespace(c).astype(c, phi_x.dtype, copy=False)
    growing = (*range(k + stride, last, stride), last) if last > k else ()
    for size in (*growing, *(last,) * more):
        p = fmap_to_pointmap(found, phi_x, phi_y)
        found = pointmap_to_fmap(p, phi_x[..., :size], phi_y[..., :size], mass_y)
        found = orthogonalize(found) if orthogonal else found
    return RefinedMap(found, fmap_to_pointmap(found, phi_x, phi_y))


def _finite_members(x: Any) -> Any:
    xp = namespace(x)
    return xp.all(xp.isfinite(x), axis=(-2, -1), keepdims=True)


def _squared(x: Any) -> Any:
    """``||x||_F^2`` of each matrix."""
    return namespace(x).sum(x * x, axis=(-2, -1))


def _from_identity(x: Any) -> Any:
    return _squared(x - identity_like(x))


def _target(target: Any, c: Any) -> Any:
    check.real(target, kernel="fmap_losses", name="target")
    xp = same_library(target, c)
    if target.ndim < 2 or target.shape[-2:] != c.shape[-2:]:
        message = (
            f"fmap_losses: expected a target (..., {c.shape[-2]}, {c.shape[-1]}) like its map, "
            f"got shape {tuple(target.shape)}"
        )
        raise ShapeError(message)
    return xp.astype(target, c.dtype, copy=False)


def _gathered(x: Any, p: Any) -> Any:
    """Rows ``p`` (..., w) of ``x`` (..., v, k)."""
    xp = namespace(x)
    if p.ndim == 1:
        return xp.take(x, p, axis=-2)
    if is_lazy(x):
        message = "pointmap_to_fmap: expected one map of points with Dask arrays, got a stack; map it over the blocks"
        raise UnsupportedError(message)
    rows, _ = xp.broadcast_arrays(p[..., None], x[..., :1, :])
    whole = xp.broadcast_to(x, (*rows.shape[:-2], *x.shape[-2:]))
    return xp.take_along_axis(whole, rows, axis=-2)


def _sizes(kernel_name: str, wanted: str, *arrays: Any) -> None:
    shapes = ", ".join(str(tuple(array.shape)) for array in arrays)
    message = f"{kernel_name}: expected {wanted}, got shapes {shapes}"
    raise ShapeError(message)


def _real_matrices(kernel_name: str, **arrays: Any) -> None:
    for name, array in arrays.items():
        check.matrix(array, kernel=kernel_name, name=name)
        check.real(array, kernel=kernel_name, name=name)
    same_library(*arrays.values())


def _spectrum(evals: Any, size: int, like: Any, kernel_name: str, name: str) -> None:
    check.real(evals, kernel=kernel_name, name=name)
    same_library(evals, like)
    if evals.ndim < 1 or evals.shape[-1] != size:
        _sizes(kernel_name, f"{size} eigenvalues (..., {size}) in {name}", evals)


def _descriptors(a: Any, b: Any, evals_x: Any, evals_y: Any) -> None:
    _real_matrices("functional_map", a=a, b=b)
    if a.shape[-1] != b.shape[-1]:
        _sizes(
            "functional_map", "as many descriptors in a (..., k_x, d) as in b (..., k_y, d)", a, b
        )
    _spectrum(evals_x, a.shape[-2], a, "functional_map", "evals_x")
    _spectrum(evals_y, b.shape[-2], a, "functional_map", "evals_y")


def _fitting_mask(penalty: Any, r: Any) -> None:
    """Refuse a mask that does not have a number for each entry of C, or that would enlarge the batch."""
    batch, other = tuple(r.shape[:-2]), tuple(penalty.shape[:-2])
    fits = len(other) <= len(batch) and all(
        s in (1, t) for s, t in zip(reversed(other), reversed(batch), strict=False)
    )
    if penalty.shape[-2:] != r.shape[-2:] or not fits:
        _sizes(
            "functional_map", f"eigenvalues and a mask for maps of shape {tuple(r.shape)}", penalty
        )


def _both_ways(c_xy: Any, c_yx: Any, evals_x: Any, evals_y: Any) -> None:
    _real_matrices("fmap_losses", c_xy=c_xy, c_yx=c_yx)
    k_y, k_x = c_xy.shape[-2:]
    if tuple(c_yx.shape[-2:]) != (k_x, k_y):
        _sizes("fmap_losses", "maps c_xy (..., k_y, k_x) and c_yx (..., k_x, k_y)", c_xy, c_yx)
    _spectrum(evals_x, k_x, c_xy, "fmap_losses", "evals_x")
    _spectrum(evals_y, k_y, c_xy, "fmap_losses", "evals_y")


def _bases(c: Any, phi_x: Any, phi_y: Any, kernel_name: str) -> None:
    _real_matrices(kernel_name, c=c, phi_x=phi_x, phi_y=phi_y)
    k_y, k_x = c.shape[-2:]
    if phi_x.shape[-1] < k_x or phi_y.shape[-1] < k_y or phi_x.shape[-2] == 0:
        wanted = f"vertices in phi_x, and at least {k_x} and {k_y} columns in phi_x and phi_y"
        _sizes(kernel_name, wanted, phi_x, phi_y)


def _point_map(p: Any, phi_x: Any, phi_y: Any, mass_y: Any) -> None:
    check.array(p, kernel="pointmap_to_fmap", name="p")
    if "int" not in dtype_name(p):
        message = f"pointmap_to_fmap: expected integers in p, got {dtype_name(p)}; cast to an integer dtype first"
        raise DTypeError(message)
    _real_matrices("pointmap_to_fmap", phi_x=phi_x, phi_y=phi_y)
    xp = same_library(p, phi_x)
    if p.ndim < 1 or p.shape[-1] != phi_y.shape[-2]:
        _sizes("pointmap_to_fmap", "a vertex (..., v_y) in p for each row of phi_y", p, phi_y)
    if mass_y is not None:
        check.real(mass_y, kernel="pointmap_to_fmap", name="mass_y")
        same_library(mass_y, phi_x)
        if mass_y.ndim < 1 or mass_y.shape[-1] != phi_y.shape[-2]:
            _sizes("pointmap_to_fmap", "a mass (..., v_y) for each row of phi_y", mass_y, phi_y)
    if is_traced(p) or is_lazy(p):
        return
    if not bool(xp.all((p >= 0) & (p < phi_x.shape[-2]))):
        message = f"pointmap_to_fmap: expected vertices from 0 to {phi_x.shape[-2] - 1} in p; correct p first"
        raise ValuesError(message)
