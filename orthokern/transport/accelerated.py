"""First-order engine of quadratic transport: a fixed number of steps without a decision, so that it can be traced."""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.errors import UnsupportedError
from .._core.loop import repeat
from .._core.namespace import is_lazy, namespace
from .canonical import INFINITY, fixed_stats
from .columns import simplex_projection

State = tuple[Any, ...]


@op()
def accelerated_potentials(
    a: Any, b: Any, cost: Any, gamma: Any, /, *, max_iter: int
) -> tuple[Any, Any, Any]:
    """``(alpha, beta, stats)`` after ``max_iter`` accelerated gradient steps on the semi-dual in ``alpha``.

    Every column of the plan is a projection on a simplex, so that the columns have their masses exactly. The step
    follows the number of active entries of the fullest row, which is far below the worst case; momentum starts anew
    where it points downhill.
    """
    if is_lazy(cost):
        message = (
            "accelerated_potentials: expected arrays in memory, because each step of a graph would hold all before it; "
            "pass cost.compute()"
        )
        raise UnsupportedError(message)
    xp = namespace(cost)
    closed = xp.matrix_transpose(cost == INFINITY)
    # A column without mass may be closed as a whole, and has no projection then.
    shut = closed & (b > 0)[..., :, None]
    costs = xp.where(closed, xp.zeros_like(a[..., None, :]), xp.matrix_transpose(cost))

    def lifted(alpha: Any) -> Any:
        slack = (alpha[..., None, :] - costs) / gamma
        return xp.where(shut, xp.full_like(slack, -INFINITY), slack)

    def columns(alpha: Any) -> Any:
        """The columns of the plan as rows."""
        return simplex_projection(lifted(alpha), b[..., :, None], k=int(cost.shape[-2]))

    def step(state: State) -> State:
        alpha, y, momentum, steepness = state
        plan = columns(y)
        gradient = a - xp.sum(plan, axis=-2)
        degree = xp.max(xp.sum(xp.astype(plan > 0, a.dtype), axis=-2), axis=-1, keepdims=True)
        steepness = xp.maximum(0.9 * steepness, degree / gamma[..., 0])
        moved = y + gradient / steepness
        downhill = xp.sum(gradient * (moved - alpha), axis=-1, keepdims=True) < 0
        faster = (1 + xp.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = moved + (momentum - 1) / faster * (moved - alpha)
        momentum = xp.where(downhill, xp.ones_like(faster), faster)
        return moved, xp.where(downhill, moved, ahead), momentum, steepness

    one = xp.ones_like(a[..., :1])
    start = (xp.zeros_like(a), xp.zeros_like(a), one, xp.zeros_like(one))
    alpha = repeat(step, start, count=max_iter)[0]
    plan = columns(alpha)
    level = xp.max(plan, axis=-1) - xp.max(lifted(alpha), axis=-1)
    beta = xp.where(b > 0, gamma[..., 0] * level, xp.zeros_like(b))
    return alpha, beta, fixed_stats(xp.sum(xp.abs(a - xp.sum(plan, axis=-2)), axis=-1), max_iter)
