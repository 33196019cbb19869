"""Functions of plain Python values: computed once, and constants to every tracer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
# Results kept of one function: options may be measured anew at every call.
MOST = 4096


def static(function: Callable[P, R]) -> Callable[P, R]:
    """Remember the results of ``function``: numbers, text and tuples of them, determined by hashable arguments.

    Unlike ``functools.cache`` it is not looked into by torch.compile, which takes the result as a constant.
    """
    known: dict[Any, R] = {}

    @functools.wraps(function)
    def remembered(*args: P.args, **kwargs: P.kwargs) -> R:
        key = (args, tuple(sorted(kwargs.items())))
        if key not in known:
            if len(known) >= MOST:
                known.clear()
            known[key] = function(*args, **kwargs)
        return known[key]

    # What torch.compiler.assume_constant_result sets, without loading torch.
    vars(remembered)["_dynamo_marked_constant"] = True
    return remembered
