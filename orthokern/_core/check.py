"""Every refusal of bad input. One sentence each: what was expected, what came, which argument, the way out."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .dtypes import (
    EPS,
    LOW_PRECISION,
    compute_precision,
    dtype_name,
    is_complex,
    real_dtype,
)
from .errors import (
    ArrayTypeError,
    DTypeError,
    OptionError,
    ShapeError,
    UnsupportedError,
    ValuesError,
)
from .namespace import (
    compiling,
    device,
    is_array,
    is_dense,
    is_lazy,
    is_traced,
    library,
    namespace,
    same_library,
)


def array(x: Any, *, kernel: str, name: str = "x") -> Any:
    """Refuse what is no array of a supported library."""
    if isinstance(x, np.matrix | np.ma.MaskedArray):
        message = (
            f"{kernel}: expected a plain array for {name}, got {type(x).__name__}, whose products and masks "
            f"mean something else; pass numpy.asarray({name})"
        )
        raise ArrayTypeError(message)
    if not is_array(x):
        sparse = type(x).__module__.startswith("scipy.sparse")
        way_out = f"{name}.toarray()" if sparse else f"numpy.asarray({name})"
        message = (
            f"{kernel}: expected an array for {name} (NumPy, torch, JAX, CuPy, Dask, ...), got "
            f"{type(x).__name__}; wrap it, for example {way_out}"
        )
        raise ArrayTypeError(message)
    if not is_dense(x):
        message = f"{kernel}: expected a dense array for {name}, got layout {x.layout}; pass {name}.to_dense()"
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
    if is_lazy(x) and any(math.isnan(size) for size in x.shape):
        shape = tuple(x.shape)
        message = f"{kernel}: expected known sizes for {name}, got shape {shape}; call {name}.compute_chunk_sizes()"
        raise UnsupportedError(message)
    return x


def real(x: Any, *, kernel: str, name: str = "x") -> Any:
    """A floating array that is not complex."""
    floating(x, kernel=kernel, name=name)
    if is_complex(x):
        message = (
            f"{kernel}: expected a real dtype for {name}, got {dtype_name(x)}; pass its real part"
        )
        raise DTypeError(message)
    return x


def not_empty(x: Any, *, kernel: str, name: str = "x") -> Any:
    """An array with entries."""
    if 0 in x.shape:
        message = f"{kernel}: expected at least one entry in {name}, got shape {tuple(x.shape)}"
        raise ShapeError(message)
    return x


def square(x: Any, *, kernel: str, name: str = "x") -> Any:
    """A floating array of square matrices."""
    matrix(x, kernel=kernel, name=name)
    if x.shape[-2] != x.shape[-1]:
        message = (
            f"{kernel}: expected square matrices (..., n, n) in {name}, got shape {tuple(x.shape)}"
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


def count(value: Any, *, kernel: str, name: str, least: int = 1, most: int | None = None) -> int:
    """An integer of at least ``least`` and at most ``most``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        above = "" if most is None else f" and <= {most}"
        message = f"{kernel}: expected {name} to be an integer >= {least}{above}, got {value!r}"
        raise OptionError(message)
    return number


def interval(
    value: Any,
    *,
    kernel: str,
    name: str,
    low: float = 0.0,
    high: float = 1.0,
    closed: bool = False,
) -> float:
    """A number strictly between ``low`` and ``high``; ``closed`` admits ``high`` itself."""
    number = _number(value)
    if not low < number < high and not (closed and number == high):
        sign = "<=" if closed else "<"
        message = f"{kernel}: expected {name} to be a number with {low:g} < {name} {sign} {high:g}, got {value!r}"
        raise OptionError(message)
    return number


def _number(value: Any) -> float:
    """``value`` as a number; NaN for what is none."""
    if isinstance(value, bool | np.bool_ | str):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def at_least(value: Any, least: float, *, kernel: str, name: str, strict: bool = False) -> float:
    """A finite number that is at least (``strict``: above) ``least``."""
    number = _number(value)
    if not -math.inf < number < math.inf or number < least or (strict and number == least):
        sign = ">" if strict else ">="
        message = f"{kernel}: expected {name} to be a finite number {sign} {least:g}, got {value!r}"
        raise OptionError(message)
    return number


def all_at_least(
    values: Any, least: float, *, kernel: str, name: str, strict: bool = False
) -> None:
    """An array of finite numbers that are at least (``strict``: above) ``least``; looks at concrete values only."""
    if is_traced(values) or is_lazy(values):
        return
    xp = namespace(values)
    good = xp.isfinite(values) & ((values > least) if strict else (values >= least))
    if not bool(xp.all(good)):
        sign = ">" if strict else ">="
        message = f"{kernel}: expected every entry of {name} to be finite and {sign} {least:g}; correct {name} first"
        raise ValuesError(message)


def share(value: Any, *, kernel: str, name: str) -> float:
    """A number from 0 to 1, the ends included."""
    number = _number(value)
    if not 0 <= number <= 1:
        message = f"{kernel}: expected {name} to be a number from 0 to 1, got {value!r}"
        raise OptionError(message)
    return number


def entrywise(value: Any, x: Any, *, kernel: str, name: str) -> None:
    """A floating array of the library of ``x`` that broadcasts against it without enlarging it."""
    floating(value, kernel=kernel, name=name)
    same_library(value, x)
    shape, given = tuple(x.shape), tuple(value.shape)
    tail = shape[len(shape) - len(given) :] if len(given) <= len(shape) else ()
    if len(given) > len(shape) or any(
        size not in (1, whole) for size, whole in zip(given, tail, strict=True)
    ):
        message = f"{kernel}: expected {name} to broadcast against the shape {shape} of x, got shape {given}"
        raise ShapeError(message)


def batch_of(value: Any, x: Any, *, kernel: str, name: str) -> None:
    """An array of the library of ``x`` that broadcasts against its batch shape without enlarging it."""
    same_library(value, x)
    batch = tuple(x.shape[:-2])
    fits = value.ndim <= len(batch) and all(
        size in (1, batch[len(batch) - value.ndim + i]) for i, size in enumerate(value.shape)
    )
    if not fits:
        message = (
            f"{kernel}: expected {name} to broadcast against the batch shape {batch} of x, got shape "
            f"{tuple(value.shape)}; one number for each matrix has shape {batch}"
        )
        raise ShapeError(message)


def common_shape(shapes: Sequence[Any], *, kernel: str, names: str) -> tuple[int, ...]:
    """The batch shape that all of several broadcast to."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    common = tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*padded, strict=True))
    if any(n not in (1, whole) for p in padded for n, whole in zip(p, common, strict=True)):
        found = ", ".join(str(tuple(shape)) for shape in shapes)
        message = (
            f"{kernel}: expected batch shapes of {names} that broadcast, got {found}; "
            "give each of them one batch, or none"
        )
        raise ShapeError(message)
    return common


def per_matrix(
    value: Any, x: Any, *, kernel: str, name: str, least: float = 0.0, strict: bool = False
) -> Any:
    """A number for all matrices of ``x``, or an array of one for each, as an array (..., 1, 1) of its real dtype."""
    xp = namespace(x)
    dtype = real_dtype(compute_precision(x))
    if not is_array(value):
        number = at_least(value, least, kernel=kernel, name=name, strict=strict)
        return xp.full((1, 1), number, dtype=dtype, device=device(x))
    floating(value, kernel=kernel, name=name)
    batch_of(value, x, kernel=kernel, name=name)
    all_at_least(value, least, kernel=kernel, name=name, strict=strict)
    return xp.astype(value, dtype, copy=False)[..., None, None]


def axis(value: Any, x: Any, *, kernel: str, name: str = "x") -> int:
    """The number of an axis of ``x``, counted from its last one: -1, -2, ..."""
    try:
        number = operator.index(value)
    except TypeError:
        number = x.ndim
    if isinstance(value, bool) or not -x.ndim <= number < x.ndim:
        message = (
            f"{kernel}: expected axis to be one of {name} with shape {tuple(x.shape)}, got {value!r}; "
            f"pass an integer from {-x.ndim} to {x.ndim - 1}"
        )
        raise OptionError(message)
    return number if number < 0 else number - x.ndim


def per_vector(
    value: Any, rows: Any, *, kernel: str, name: str, least: float = 0.0, strict: bool = False
) -> Any:
    """A number for all vectors of ``rows`` (..., n), or an array of one for each, as an array (..., 1) of its rank."""
    xp = namespace(rows)
    if not is_array(value):
        number = at_least(value, least, kernel=kernel, name=name, strict=strict)
        return xp.full((1,) * rows.ndim, number, dtype=rows.dtype, device=device(rows))
    real(value, kernel=kernel, name=name)
    same_library(value, rows)
    batch, given = tuple(rows.shape[:-1]), tuple(value.shape)
    lifted = (1,) * (len(batch) - len(given)) + given
    if len(lifted) > len(batch) or any(
        size not in (1, whole) for size, whole in zip(lifted, batch, strict=True)
    ):
        message = (
            f"{kernel}: expected {name} to broadcast against {batch}, got shape {given}; "
            "pass one number, or an array with one for each vector"
        )
        raise ShapeError(message)
    all_at_least(value, least, kernel=kernel, name=name, strict=strict)
    return xp.reshape(xp.astype(value, rows.dtype, copy=False), (*lifted, 1))


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
