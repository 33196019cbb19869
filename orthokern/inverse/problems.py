"""What a bilevel problem has to offer, and ridge regression with learned weights as one."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from .._core import check
from .._core.dtypes import compute_precision, eps
from .._core.errors import ShapeError, UnsupportedError, ValuesError
from .._core.linalg import adjoint
from .._core.namespace import device, is_lazy, is_traced, namespace, same_library


class Constants(NamedTuple):
    r"""What the bound of a hypergradient's error is made of; None is estimated, and then nothing is certified.

    strong_convexity
        :math:`\mu`, a lower bound of the eigenvalues of the lower Hessian at ``theta``.
    upper_smoothness
        Lipschitz constant of the upper gradient.
    cross_norm
        Norm of the mixed derivative :math:`B = h_{x\theta}` at the given point.
    cross_smoothness, inverse_smoothness
        Lipschitz constants, as functions of x, of :math:`B` and of the inverse lower Hessian.
    """

    strong_convexity: float | None
    upper_smoothness: float | None
    cross_norm: float | None
    cross_smoothness: float | None
    inverse_smoothness: float | None


class BilevelProblem(Protocol):
    r"""Minimize :math:`g(x(\theta))` where :math:`x(\theta)` minimizes a strongly convex :math:`h(\cdot, \theta)`.

    ``theta`` (T,) and ``x`` (d,) are arrays of one library.
    """

    def start(self, theta: Any) -> Any:
        """Where to look for the minimizer first, (d,)."""
        ...

    def gradient(self, x: Any, theta: Any) -> Any:
        """Gradient of the lower function in x."""
        ...

    def hessian_product(self, x: Any, theta: Any, v: Any) -> Any:
        """The lower Hessian times ``v``."""
        ...

    def cross_adjoint(self, x: Any, theta: Any, q: Any) -> Any:
        r"""Adjoint of the mixed derivative, :math:`h_{x\theta}^T q`, (T,)."""
        ...

    def upper(self, x: Any) -> Any:
        """Value of the upper function, 0-d."""
        ...

    def upper_gradient(self, x: Any) -> Any:
        """Gradient of the upper function."""
        ...

    def constants(self, x: Any, theta: Any) -> Constants:
        """Bounds that hold at ``theta``; the norm of the mixed derivative at ``x``."""
        ...


class RidgeProblem:
    r"""Ridge regression whose weights are chosen by the error on other data.

    Lower level :math:`\tfrac12 \|A x - b\|^2 + \tfrac12 \sum_g e^{\theta_g} \|x_g\|^2`, upper level
    :math:`\tfrac12 \|C x - e\|^2`: coefficients in groups, each with the logarithm of a weight.

    Parameters
    ----------
    a, b : array (n, d) and (n,)
        Training data, real.
    c, e : array (r, d) and (r,)
        Validation data.
    groups : sequence of d integers, optional
        The group of each coefficient, from 0 to T - 1; by default all are in one.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> one = np.ones((1, 1))
    >>> problem = orthokern.RidgeProblem(one, np.ones(1), one, np.array([0.25]))
    >>> float(problem.upper(np.array([0.5])))
    0.03125
    """

    def __init__(self, a: Any, b: Any, c: Any, e: Any, groups: Any = None) -> None:
        pairs = {"a": (a, "b", b), "c": (c, "e", e)}
        for name, (matrix, other, vector) in pairs.items():
            _fitting(matrix, vector, name, other)
        xp = same_library(a, b, c, e)
        if a.shape[-1] != c.shape[-1]:
            message = (
                f"RidgeProblem: expected as many columns in a as in c, got shapes "
                f"{tuple(a.shape)} and {tuple(c.shape)}"
            )
            raise ShapeError(message)
        self.a, self.b, self.c, self.e = (compute_precision(part) for part in (a, b, c, e))
        members = _one_hot(groups, a.shape[-1])
        self.count = members.shape[1]
        self._members = xp.asarray(members, dtype=self.a.dtype, device=device(a))
        self._least, self._upper = _extreme_squares(self.a), _extreme_squares(self.c)

    def _weights(self, theta: Any) -> Any:
        return self._members @ namespace(theta).exp(theta)

    def start(self, theta: Any) -> Any:
        """Zeros."""
        return namespace(self.a).zeros_like(self._members[:, 0])

    def gradient(self, x: Any, theta: Any) -> Any:
        """Gradient of the lower function in x."""
        return adjoint(self.a) @ (self.a @ x - self.b) + self._weights(theta) * x

    def hessian_product(self, x: Any, theta: Any, v: Any) -> Any:
        """The lower Hessian times ``v``."""
        return adjoint(self.a) @ (self.a @ v) + self._weights(theta) * v

    def cross_adjoint(self, x: Any, theta: Any, q: Any) -> Any:
        """Adjoint of the mixed derivative times ``q``."""
        return adjoint(self._members) @ (self._weights(theta) * x * q)

    def upper(self, x: Any) -> Any:
        """Half the squared error on the validation data."""
        r = self.c @ x - self.e
        return namespace(r).sum(r * r) / 2

    def upper_gradient(self, x: Any) -> Any:
        """Gradient of the upper function."""
        return adjoint(self.c) @ (self.c @ x - self.e)

    def constants(self, x: Any, theta: Any) -> Constants:
        """Exact, but for rounding errors, which are on the safe side: the Hessian does not depend on x."""
        xp = namespace(theta)
        weights = xp.exp(theta)
        wx = self._weights(theta) * x
        return Constants(
            strong_convexity=self._least[0] + float(xp.min(weights)),
            upper_smoothness=self._upper[1],
            cross_norm=float(xp.max(adjoint(self._members) @ (wx * wx))) ** 0.5,
            cross_smoothness=float(xp.max(weights)),
            inverse_smoothness=0.0,
        )


def _fitting(matrix: Any, vector: Any, name: str, other: str) -> None:
    """Refuse what is no real matrix and a vector with an entry for each of its rows."""
    for label, part in ((name, matrix), (other, vector)):
        check.real(part, kernel="RidgeProblem", name=label)
        if is_traced(part) or is_lazy(part):
            message = (
                f"RidgeProblem: expected an array with values for {label}, got a traced or lazy one; "
                "make the problem outside jit, and compute lazy arrays first"
            )
            raise UnsupportedError(message)
    if matrix.ndim != 2 or tuple(vector.shape) != (matrix.shape[0],) or 0 in matrix.shape:
        message = (
            f"RidgeProblem: expected a matrix {name} (n, d) and a vector {other} (n,), got shapes "
            f"{tuple(matrix.shape)} and {tuple(vector.shape)}"
        )
        raise ShapeError(message)


def _one_hot(groups: Any, d: int) -> np.ndarray:
    """Matrix (d, T) of zeros and ones."""
    index = [0] * d if groups is None else [int(g) for g in groups]
    count = max(index, default=-1) + 1
    if len(index) != d or sorted(set(index)) != list(range(count)):
        message = (
            f"RidgeProblem: expected {d} groups numbered from 0 without a gap, got {index[:8]}"
        )
        raise ValuesError(message)
    return np.eye(count)[index]


def _extreme_squares(a: Any) -> tuple[float, float]:
    """Bounds of the eigenvalues of ``a^T a``; with fewer rows than columns the smallest is zero."""
    values = namespace(a).linalg.svdvals(a)
    top = float(values[0])
    margin = max(a.shape) * eps(a) * top
    least = max(float(values[-1]) - margin, 0.0) if a.shape[0] >= a.shape[1] else 0.0
    return least**2, (top + margin) ** 2
