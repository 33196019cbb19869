"""A test class for backends of strangers: subclass it, name the backend, run pytest.

from orthokern.testing import ConformanceTests

class TestAcme(ConformanceTests):
    backend = "acme"
"""

from __future__ import annotations

import itertools
from typing import ClassVar

from .._core.backends import ARRAY_API, load
from .._core.dispatch import OPS
from .._core.registry import Case, Declaration, load_all
from .checking import Outcome, Setting, check


def pairs() -> list[tuple[Declaration, Case]]:
    """Every declared kernel with each of its cases."""
    return [
        (declaration, case) for declaration in load_all().values() for case in declaration.cases
    ]


class ConformanceTests:
    """Every declared case on one backend, and proof that each op it declares has run.

    Attributes
    ----------
    backend
        Name of an installed (or registered) backend; None tests the default choice.
    library, device, dtypes
        Arrays that the cases are run with.
    """

    backend: ClassVar[str | None] = None
    library: ClassVar[str] = "numpy"
    device: ClassVar[str] = "cpu"
    dtypes: ClassVar[tuple[str, ...]] = ("float64", "float32")

    def _check(self, declaration: Declaration, case: Case, dtype: str) -> Outcome:
        return check(declaration, case, Setting(self.library, dtype, self.backend, self.device))

    def test_agrees_with_reference(
        self, declared_case: tuple[Declaration, Case], conformance_dtype: str
    ) -> None:
        """Residuals within their limits, and near the NumPy float64 reference where the problem allows."""
        import pytest

        row = self._check(*declared_case, conformance_dtype)
        if row.verdict == "refused":
            pytest.skip(row.reason)
        assert row.verdict == "pass", f"{row.kernel} / {row.case}: {row.reason}"

    def test_every_declared_op_ran(self) -> None:
        """An op that a backend declares but that never runs was never tested."""
        if self.backend in (None, ARRAY_API):
            return
        declared = set(load(str(self.backend)).entries)
        unknown = declared - set(OPS)
        assert not unknown, (
            f"backend {self.backend!r} declares ops that orthokern does not have: {sorted(unknown)}"
        )
        missing = declared
        for (declaration, case), dtype in itertools.product(pairs(), self.dtypes):
            if not missing:
                break
            ran = self._check(declaration, case, dtype).ran
            missing = {op for op in missing if ran.get(op) != self.backend}
        assert not missing, (
            f"backend {self.backend!r} declares ops that never ran: {sorted(missing)}"
        )
