"""Exception and warning classes. Every refusal of orthokern is one of these and one sentence long."""

from __future__ import annotations


class OrthokernError(Exception):
    """Base of every error that orthokern raises on purpose."""


class ShapeError(OrthokernError, ValueError):
    """An array has the wrong number of dimensions or incompatible sizes."""


class OptionError(OrthokernError, ValueError):
    """A keyword option has a value outside what the kernel accepts."""


class ValuesError(OrthokernError, ValueError):
    """An array holds values that the contract of a kernel forbids (checked on eager input only)."""


class ArrayTypeError(OrthokernError, TypeError):
    """An argument is no array of a supported library, or arrays of several libraries were mixed."""


class DTypeError(OrthokernError, TypeError):
    """An array has a dtype that the kernel does not compute in."""


class BackendError(OrthokernError, RuntimeError):
    """A backend that was named explicitly is absent, broken, or refused the call."""


class UnsupportedError(OrthokernError, NotImplementedError):
    """The array library or the tracing mode lacks what this call needs; the message names the way out."""


class ConvergenceWarning(UserWarning):
    """An iteration stopped before it reached the accuracy that was asked for."""
