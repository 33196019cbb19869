"""Pytest plug-in: the parameters of ConformanceTests subclasses. Imports nothing heavy until one is collected."""

from __future__ import annotations

from typing import Any


def pytest_generate_tests(metafunc: Any) -> None:
    """Give each conformance test its kernels, cases and dtypes."""
    if "declared_case" in metafunc.fixturenames:
        from .conformance import pairs

        found = pairs()
        metafunc.parametrize("declared_case", found, ids=[f"{d.name}-{c.name}" for d, c in found])
    if "conformance_dtype" in metafunc.fixturenames:
        metafunc.parametrize("conformance_dtype", metafunc.cls.dtypes)
