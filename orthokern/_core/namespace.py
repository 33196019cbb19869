"""What an array is: its namespace, its library, the kind of its device, whether it is being traced.

The only user of array_api_compat. Frameworks are looked up in ``sys.modules`` and never imported.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import array_api_compat

from .errors import ArrayTypeError

HOST_ONLY = frozenset({"numpy", "dask", "array_api_strict"})

# The device of array-api-strict that is the host's memory; its others only see to it that arrays are not mixed.
_STRICT_HOST = "array_api_strict.Device('CPU_DEVICE')"

_SPACES: dict[type, Any] = {}
_LIBRARIES: dict[type, str] = {}


def _learn(kind: type, x: Any) -> None:
    space = array_api_compat.array_namespace(x)
    _LIBRARIES[kind] = space.__name__.removeprefix("array_api_compat.").split(".")[0]
    _SPACES[kind] = space


def namespace(x: Any) -> Any:
    """Array API namespace of ``x``."""
    if compiling():
        # Dynamo warns of the caches inside array_namespace, and compiles anew when ours change.
        import array_api_compat.torch as space

        return space
    kind = type(x)
    if kind not in _SPACES:
        _learn(kind, x)
    return _SPACES[kind]


def library(x: Any) -> str:
    """Name of the library that owns ``x``: ``numpy``, ``torch``, ``jax``, ``dask``, ``cupy``, ..."""
    if compiling():
        return "torch"
    kind = type(x)
    if kind not in _LIBRARIES:
        _learn(kind, x)
    return _LIBRARIES[kind]


def is_array(x: Any) -> bool:
    """Whether ``x`` belongs to a library that the array API layer knows."""
    if compiling():
        return isinstance(x, sys.modules["torch"].Tensor)
    return type(x) in _SPACES or array_api_compat.is_array_api_obj(x)


def same_library(*arrays: Any) -> Any:
    """Common namespace of several arrays; a mixture of libraries is refused, and what is no array."""
    for a in arrays:
        if not is_array(a):
            message = (
                f"expected arrays, got {type(a).__name__}; wrap it, for example by numpy.asarray"
            )
            raise ArrayTypeError(message)
    names = sorted({library(a) for a in arrays})
    if len(names) > 1:
        message = (
            f"expected arrays of one library, got a mixture of {' and '.join(names)}; "
            "convert them to one library first (orthokern never moves data by itself)"
        )
        raise ArrayTypeError(message)
    return namespace(arrays[0])


def device(x: Any) -> Any:
    """Device of ``x``, as the creation functions of its namespace take it."""
    if library(x) in ("torch", "jax", "cupy"):
        # Read directly: JAX tracers may have none, and Dynamo warns of the caches inside array_api_compat.
        place = getattr(x, "device", None)
        # An array spread over several devices: JAX lays out what is made for it by itself.
        return None if hasattr(place, "device_set") else place
    return array_api_compat.device(x)


def device_kind(x: Any) -> str:
    """``cpu``, ``cuda``, ... of a concrete array; ``traced`` for an abstract one."""
    name = library(x)
    if name == "array_api_strict" and str(x.device) != _STRICT_HOST:
        return str(x.device)
    if name in HOST_ONLY:
        return "cpu"
    if name == "torch":
        return str(x.device.type)
    if name == "jax":
        return "traced" if is_traced(x) else _jax_platform(x)
    return "cuda" if name == "cupy" else str(device(x))


def _jax_platform(x: Any) -> str:
    platform = str(next(iter(x.devices())).platform)
    return "cuda" if platform == "gpu" else platform


def loaded(name: str) -> ModuleType | None:
    """The framework ``name`` if the process has imported it already."""
    return sys.modules.get(name)


def compiling() -> bool:
    """Whether torch.compile is tracing the current call."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def is_traced(x: Any) -> bool:
    """Whether ``x`` stands for values that are not known now (jit, vmap, compile, an autodiff wrapper)."""
    name = library(x)
    if name == "jax":
        return isinstance(x, sys.modules["jax"].core.Tracer)
    if name == "torch":
        from . import _torch

        return _torch.is_traced(x)
    return False


def is_lazy(x: Any) -> bool:
    """Whether values of ``x`` are computed only on demand (Dask), so that looking at one is expensive."""
    return library(x) == "dask"


def is_dense(x: Any) -> bool:
    """Whether every entry of ``x`` is stored (torch has sparse tensors of the same type)."""
    if library(x) == "torch":
        from . import _torch

        return _torch.is_dense(x)
    return True


def is_viewable(x: Any) -> bool:
    """Whether the whole of ``x`` lies in the memory of one device, so that another library can view it."""
    name = library(x)
    if name == "torch":
        from . import _torch

        return _torch.is_plain(x)
    if name == "jax":
        return len(x.devices()) == 1
    return not is_lazy(x)
