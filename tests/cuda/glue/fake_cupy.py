"""A stand-in for the part of CuPy that the backend uses, over NumPy and SciPy, as strict as a device is.

Plain NumPy arrays are refused as operands, every look of the host at an array is counted in ``syncs``, factorizations
that fail return numbers without meaning, and kernels run their own C++ text, compiled for the processor, on arguments
of exactly the declared dtypes. What CuPy offers and the backend does not use is not here.
"""

from __future__ import annotations

import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import scipy.linalg

from . import compiled

float32, float64, int32 = np.float32, np.float64, np.int32


class Counter:
    """How often the host waited for the device."""

    count = 0


syncs = Counter()


class Device:
    """A CUDA device by number; it cannot be hashed."""

    __hash__ = None

    def __init__(self, number=0):
        self.id = number

    def __eq__(self, other):
        return isinstance(other, Device) and other.id == self.id

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


class Stream:
    """Work in order, which is how everything here is done."""

    def __init__(self, ptr=0):
        self.ptr = ptr

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


Stream.null = Stream()
cuda = SimpleNamespace(
    Device=Device, ExternalStream=Stream, Stream=Stream, is_available=lambda: True
)


class ndarray(np.ndarray):  # noqa: N801 - CuPy's name
    """An array that only this module and its own operators work on."""

    @property
    def device(self):
        return Device()

    def get(self):
        syncs.count += 1
        return np.array(plain(self))

    def copy(self, order="C"):
        return wrapped(plain(self).copy(order))

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            options["out"] = tuple(plain(a) for a in out)
        with np.errstate(all="ignore"):
            return wrapped(getattr(ufunc, method)(*map(plain, inputs), **options))

    def __array_function__(self, function, types, arguments, options):
        message = f"numpy.{function.__name__} was handed an array on a device"
        raise TypeError(message)

    def __getitem__(self, index):
        return wrapped(plain(self)[plain(index)])

    def __setitem__(self, index, value):
        plain(self)[plain(index)] = plain(value)

    def __bool__(self):
        syncs.count += 1
        return bool(plain(self))

    def __float__(self):
        syncs.count += 1
        return float(plain(self))

    def __int__(self):
        syncs.count += 1
        return int(plain(self))

    def item(self):
        syncs.count += 1
        return plain(self).item()

    tolist = item


def plain(x):
    """``x`` as NumPy sees it; a NumPy array in its place is refused, as it lies in other memory."""
    if isinstance(x, ndarray):
        return x.view(np.ndarray)
    if isinstance(x, np.ndarray):
        message = f"Unsupported type {type(x)}: an array in host memory among arrays on a device"
        raise TypeError(message)
    if isinstance(x, tuple | list):
        return type(x)(plain(part) for part in x)
    return x


def wrapped(result):
    """Results as device arrays; what NumPy returns as scalars are arrays there, and no array is read-only."""
    if isinstance(result, np.ndarray | np.generic):
        found = np.asarray(result)
        with warnings.catch_warnings():
            # Of arrays that were broadcast NumPy says that they will be read-only.
            warnings.simplefilter("ignore", FutureWarning)
            is_own = found.flags.writeable
        return (found if is_own else found.copy()).view(ndarray)
    if isinstance(result, tuple | list):
        parts = [wrapped(part) for part in result]
        return parts if type(result) is list else tuple(parts)
    return result


def lifted(function):
    """``function`` of NumPy on device arrays."""

    def on_device(*arguments, **options):
        given = {name: plain(value) for name, value in options.items()}
        # Devices do not warn.
        with np.errstate(all="ignore"):
            return wrapped(function(*map(plain, arguments), **given))

    return on_device


NAMES = """
    abs all arange ascontiguousarray broadcast_to concatenate conj cos diagonal empty eye full isfinite matmul max
    maximum min minimum ones_like real sqrt stack sum swapaxes triu where zeros zeros_like
"""
for _name in NAMES.split():
    globals()[_name] = lifted(getattr(np, _name))


def asarray(x, dtype=None):
    """From host memory to the device."""
    return wrapped(np.array(x, dtype=dtype, subok=False))


# Factorizations


def _member_by_member(function, garbage):
    """``function`` of each matrix; ``garbage`` where it fails, as cuSOLVER leaves it when nobody asks."""

    def safely(*members):
        try:
            return function(*members)
        except (np.linalg.LinAlgError, ValueError):
            return garbage(*members)

    def on_stack(*arrays):
        arrays = [plain(a) for a in arrays]
        batch = arrays[0].shape[:-2]
        flat = [a.reshape(-1, *a.shape[-2:]) for a in arrays]
        with np.errstate(all="ignore"):
            found = [safely(*members) for members in zip(*flat, strict=True)]
        return wrapped(np.stack(found).reshape(*batch, *found[0].shape))

    return on_stack


def _svd(a, full_matrices=True):
    assert not full_matrices
    return wrapped(tuple(np.linalg.svd(plain(a), full_matrices=False)))


def _qr(a):
    return wrapped(tuple(np.linalg.qr(plain(a))))


linalg = SimpleNamespace(
    cholesky=_member_by_member(np.linalg.cholesky, np.tril),
    inv=_member_by_member(np.linalg.inv, lambda a: np.full_like(a, np.inf)),
    solve=_member_by_member(np.linalg.solve, lambda a, b: np.full_like(b, np.nan)),
    svd=_svd,
    qr=_qr,
)


def solve_triangular(a, b, trans=0, lower=False):
    """Single matrices alone: stacks are new in CuPy 14."""
    assert a.ndim == b.ndim == 2
    a, b = plain(a), plain(b)
    try:
        solved = scipy.linalg.solve_triangular(a, b, trans, lower, check_finite=False)
    except np.linalg.LinAlgError:
        solved = np.full_like(b, np.inf)
    return wrapped(np.asfortranarray(solved))


def syrk(trans, a, out=None):
    """One triangle of ``a^T a``; the other one stays as it was, here with numbers that would be noticed."""
    assert trans == "T"
    assert a.dtype.kind == "f"
    a, result = plain(a), plain(out)
    assert a.flags.c_contiguous
    assert result.flags.c_contiguous
    result[...] = np.nan
    upper = np.triu_indices(a.shape[1])
    result[upper] = (a.T @ a)[upper]
    return out


# Kernels


class ElementwiseKernel:
    """The statements of a kernel for each entry of broadcast arguments."""

    def __init__(self, in_params, out_params, operation, name, *, preamble):
        self.inputs, self.outputs = compiled.parameters(in_params), compiled.parameters(out_params)
        self.name = name
        self.source = (out_params, operation, preamble)

    def __call__(self, *arguments):
        count = len(self.inputs)
        assert len(arguments) in (count, count + len(self.outputs)), self.name
        types = compiled.types(self.name, (*self.inputs, *self.outputs), arguments)
        given = [plain(a) for a in arguments]
        shapes = [
            np.shape(a)
            for a, p in zip(given, (*self.inputs, *self.outputs), strict=False)
            if not p.raw
        ]
        shape = np.broadcast_shapes(*shapes)
        results = given[count:] or [np.empty(shape, types[p.type]) for p in self.outputs]
        assert {(a.flags.c_contiguous, a.shape) for a in results} == {(True, shape)}
        compiled.elementwise(self.source, types, given[:count], results, shape, self.inputs)
        found = wrapped(tuple(results))
        return found[0] if len(found) == 1 else found


class ReductionKernel:
    """The contributions of entries joined along axes."""

    def __init__(
        self, in_params, out_params, map_expr, reduce_expr, post, identity, name, *, preamble
    ):
        self.parameters = (*compiled.parameters(in_params), *compiled.parameters(out_params))
        self.name = name
        self.source = (map_expr, reduce_expr, post, identity, preamble)

    def __call__(self, x, out, *, axis, keepdims):
        assert keepdims
        types = compiled.types(self.name, self.parameters, (x, out))
        compiled.reduction(self.source, types, plain(x), plain(out), axis)
        return out


# Modules


def modules():
    """What ``import`` shall find while the stand-in stands in."""

    def module(name, **names):
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        made.__dict__.update(names)
        return made

    this = module("cupy", **{k: v for k, v in globals().items() if not k.startswith("_")})
    decompositions = module("cupyx.scipy.linalg", solve_triangular=solve_triangular)
    return {
        "cupy": this,
        "cupy.cublas": module("cupy.cublas", syrk=syrk),
        "cupyx": module("cupyx"),
        "cupyx.scipy": module("cupyx.scipy", linalg=decompositions),
        "cupyx.scipy.linalg": decompositions,
    }
