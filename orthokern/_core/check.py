"""Every refusal of bad input. One sentence each: what was expected, what came, which argument, the way out."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .dtypes import EPS, LOW_PRECISION, dtype_name
from .errors import (
    ArrayTypeError,
    DTypeError,
    OptionError,
    ShapeError,
    UnsupportedError,
    ValuesError,
)
from .namespace import compiling, is_array, is_traced, library, namespace


def array(x: Any, *, kernel: str, name: str = "x") -> Any:
    """Refuse what is no array of a supported library."""
    if isinstance(x, np.matrix | np.ma.MaskedArray):
        message = (
            f"{kernel}: expected a plain array for {name}, got {type(x).__name__}, whose products and masks "
            f"mean something else; pass numpy.asarray({name})"
        )
        raise ArrayTypeError(message)
    if not is_array(x):
        message = (
            f"{kernel}: expected an array for {name} (NumPy, torch, JAX, CuPy, Dask, ...), got "
            f"{type(x).__name__}; wrap it, for example numpy.asarray({name})"
        )
        raise ArrayTypeError(message)
    return x


def floating(x: Any, *, kernel: str, name: str = "x", low_precision: bool = True) -> Any:
    """Refuse arrays that are not real or complex floating."""
    array(x, kernel=kernel, name=name)
    dtype = dtype_name(x)
    if dtype not in EPS or (dtype in LOW_PRECISION and not low_precision):
        message = (
            f"{kernel}: expected a floating dtype ({', '.join(sorted(EPS))}) for {name}, got {dtype}; "
            "cast to a floating dtype first"
        )
        raise DTypeError(message)
    return x


def matrix(x: Any, *, kernel: str, name: str = "x", low_precision: bool = True) -> Any:
    """A floating array of at least two dimensions."""
    floating(x, kernel=kernel, name=name, low_precision=low_precision)
    if x.ndim < 2:
        message = (
            f"{kernel}: expected at least 2 dimensions (..., m, n) for {name}, got shape {tuple(x.shape)}; "
            f"add axes, for example {name}[None, :] or {name}[:, None]"
        )
        raise ShapeError(message)
    return x


def choice(value: Any, allowed: Sequence[str], *, kernel: str, name: str) -> Any:
    """One of a few names."""
    if value not in allowed:
        message = (
            f"{kernel}: expected {name} to be one of {', '.join(map(repr, allowed))}, got {value!r}"
        )
        raise OptionError(message)
    return value


def flag(value: Any, *, kernel: str, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        message = f"{kernel}: expected {name} to be True or False, got {value!r}"
        raise OptionError(message)
    return bool(value)


def count(value: Any, *, kernel: str, name: str, least: int = 1) -> int:
    """An integer of at least ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        message = f"{kernel}: expected {name} to be an integer >= {least}, got {value!r}"
        raise OptionError(message)
    return number


def interval(value: Any, *, kernel: str, name: str, low: float = 0.0, high: float = 1.0) -> float:
    """A number strictly between ``low`` and ``high``."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not low < number < high:
        message = f"{kernel}: expected {name} to be a number with {low:g} < {name} < {high:g}, got {value!r}"
        raise OptionError(message)
    return number


def finite_values(x: Any, *, kernel: str, name: str = "x") -> None:
    """Refuse NaN and infinity; needs concrete values."""
    if (library(x) == "torch" and compiling()) or is_traced(x):
        message = (
            f"{kernel}: check_finite=True looks at the values of {name}, which a traced call does not have; "
            "pass check_finite=False under jit, vmap, compile and autodiff transforms"
        )
        raise UnsupportedError(message)
    if not bool(namespace(x).all(namespace(x).isfinite(x))):
        message = (
            f"{kernel}: expected finite values in {name}, got NaN or infinity; clean {name} first, or pass "
            "check_finite=False to let them propagate to the matrices they belong to"
        )
        raise ValuesError(message)
