"""Prove that a backend agrees with the NumPy float64 reference: the suite, the checks, the validation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checking import Outcome, Setting, check
    from .conformance import ConformanceTests
    from .libraries import to_library, to_numpy
    from .validation import Selection, validate

__all__ = [
    "ConformanceTests",
    "Outcome",
    "Selection",
    "Setting",
    "check",
    "to_library",
    "to_numpy",
    "validate",
]

_HOME_OF = {
    "ConformanceTests": "conformance",
    "Outcome": "checking",
    "Setting": "checking",
    "check": "checking",
    "Selection": "validation",
    "validate": "validation",
    "to_library": "libraries",
    "to_numpy": "libraries",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Lazy: pytest imports this package for its plug-in in every run, also where orthokern is not used.
    if name not in _HOME_OF:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
