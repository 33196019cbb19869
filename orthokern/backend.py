"""The plug-in interface: all that a package which accelerates orthokern may import.

A backend is a named bag of op implementations. In the package ``acme``::

    from orthokern.backend import Backend

    backend = Backend("acme", serves={("numpy", "cpu")})

    @backend.implements("hermitian_factor")
    def hermitian_factor(u, x):
        ...

and in its ``pyproject.toml``::

    [project.entry-points."orthokern.backends"]
    acme = "acme:backend"

Installing it changes nothing; ``polar(x, backend="acme")``, ``use_backend("acme")`` or
``ORTHOKERN_BACKENDS="acme"`` switch it on.
"""

from __future__ import annotations

from ._core.backends import Backend, absence, register
from ._core.errors import BackendError
from ._core.progress import is_heard, tell

__all__ = ["Backend", "BackendError", "absence", "is_heard", "register", "tell"]
