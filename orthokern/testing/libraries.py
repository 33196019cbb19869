"""The array libraries that conformance runs on: how arrays of each are made, laid out and read back."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from .._core.namespace import HOST_ONLY

MODULES = {
    "numpy": "numpy",
    "torch": "torch",
    "jax": "jax",
    "dask": "dask.array",
    "array_api_strict": "array_api_strict",
    "cupy": "cupy",
}
# Devices that array-api-strict pretends to have; a mixture of arrays of two is an error there.
STRICT_DEVICES = ("device1", "device2")
_COMPLEX = {"float32": "complex64", "float64": "complex128"}


@functools.cache
def missing(library: str, device: str = "cpu") -> str | None:
    """None if ``library`` can be used on ``device`` here, else the reason; an unknown name is an error."""
    if library not in MODULES:
        message = f"expected library to be one of {', '.join(MODULES)}, got {library!r}"
        raise ValueError(message)
    if importlib.util.find_spec(MODULES[library].partition(".")[0]) is None:
        return f"{library} is not installed"
    try:
        importlib.import_module(MODULES[library])
    except Exception as reason:  # noqa: BLE001 - a broken install of any kind is a reason, not an error of ours
        return f"{library} cannot be imported: {reason}"
    return _without(library, device)


def _without(library: str, device: str) -> str | None:
    """Why ``library``, which is installed, has no arrays on ``device``."""
    on_host = device == "cpu" or (library == "array_api_strict" and device in STRICT_DEVICES)
    if library in HOST_ONLY or (library == "cupy" and on_host):
        return None if on_host and library != "cupy" else f"{library} has no arrays on {device}"
    try:
        to_library(np.ones((1, 1), dtype=np.float32), library, device=device)
    except Exception as reason:  # noqa: BLE001 - each library has its own way to say that it lacks a device
        return f"{library} has no arrays on {device}: {str(reason).splitlines()[0]}"
    return None


def available(device: str = "cpu") -> tuple[str, ...]:
    """Names of the libraries that can be used on ``device`` here."""
    return tuple(name for name in MODULES if missing(name, device) is None)


def dtypes_of(library: str) -> tuple[str, ...]:
    """Precisions in which ``library`` computes by default here, the most accurate first."""
    if library == "jax" and not importlib.import_module("jax").config.jax_enable_x64:
        return ("float32",)
    return ("float64", "float32")


def dtype_for(array: np.ndarray, precision: str) -> str:
    """The dtype name of ``array`` in that precision: complex stays complex, integers stay as they are."""
    if array.dtype.kind in "iu":
        return array.dtype.name
    return _COMPLEX[precision] if np.iscomplexobj(array) else precision


def _strided(a: np.ndarray) -> np.ndarray:
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), dtype=a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _transposed(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(np.ascontiguousarray(np.swapaxes(a, -1, -2)), -1, -2)


def _reversed(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1]


def _read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": lambda a: np.array(a, order="C"),
    "transposed": _transposed,
    "strided": _strided,
    "reversed": _reversed,
    "read-only": _read_only,
}


def with_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers laid out in memory as ``layout`` says."""
    return _LAYOUTS[layout](array)


def to_library(
    array: np.ndarray, library: str, *, device: str = "cpu", layout: str = "contiguous"
) -> Any:
    """``array`` as an array of ``library`` on ``device``; strides survive where the library has them."""
    laid = with_layout(array, layout)
    if library == "numpy":
        return laid
    module = importlib.import_module(MODULES[library])
    if library == "torch":
        shared = layout in ("transposed", "strided")
        tensor = module.from_numpy(laid) if shared else module.tensor(np.array(array, order="C"))
        return tensor.to(device)
    if library == "jax":
        kind, _, number = device.partition(":")
        place = module.devices("gpu" if kind == "cuda" else kind)[int(number or 0)]
        return module.device_put(module.numpy.asarray(array), place)
    if library == "dask":
        return module.from_array(laid, chunks=-1)
    if library == "array_api_strict" and device != "cpu":
        return module.asarray(array, device=module.Device(device))
    return module.asarray(array)


def to_numpy(x: Any) -> np.ndarray:
    """``x`` of any library as a NumPy array in float64 or complex128; for tests only, since it moves data."""
    if hasattr(x, "compute"):
        x = x.compute()
    if hasattr(x, "detach"):
        x = x.detach().cpu().resolve_conj()
        x = x if x.is_complex() else x.double()
    if hasattr(x, "get") and not hasattr(x, "keys"):
        x = x.get()
    if getattr(getattr(x, "device", None), "_device", None) in STRICT_DEVICES:
        x = x.to_device(type(x.device)("CPU_DEVICE"))
    array = np.asarray(x)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
