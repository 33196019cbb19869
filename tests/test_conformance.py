"""Every declared case on every array library installed here, on every backend, against the NumPy float64 reference."""

from __future__ import annotations

import os

import numpy as np
import pytest

from orthokern._core.registry import Case, Declaration
from orthokern.testing import ConformanceTests, Setting, check, libraries, plugin
from orthokern.testing.conformance import pairs
from orthokern.testing.validation import available_backends

REQUIRED = set(os.environ.get("ORTHOKERN_REQUIRE", "").split(","))
# Libraries whose arrays no backend of the processor can view.
UNSEEN = frozenset({"dask"})
# What decomposes nothing.
PRODUCTS_ALONE = frozenset(
    {
        "adjoint_product",
        "balance",
        "c_transform",
        "cosh_rms",
        "cosh_rms_scale",
        "entropic_sweep",
        "fmap_losses",
        "fmap_to_pointmap",
        "fwht",
        "gathered_rows",
        "hadamard",
        "hermitian_factor",
        "ksupport_norm_squared",
        "ksupport_prox",
        "magnitude_quantile",
        "mixed_rows",
        "nearest_rows",
        "newton_schulz",
        "normal_equations",
        "outlier_split",
        "product",
        "project_simplex",
        "project_sparse_simplex",
        "prox_ksupport",
        "residual_gradient",
        "root_orthogonalize",
        "rough_gram",
        "round_to_marginals",
        "scattered_rows",
        "simplex_projection",
        "sketched_lstsq",
        "sliced_wasserstein",
        "soft_threshold",
        "spectral_norm_bounds",
        "unmixed_rows",
        "wasserstein_1d",
        "whitened_gram",
        "zoomout",
    }
)
# What solves stacks of systems, even for one matrix, or decides by values.
NOT_LAZY = frozenset(
    {
        "accelerated_potentials",
        "alternating_gains",
        "assignment",
        "entropic_potentials",
        "entropic_potentials_points",
        "entropic_solution",
        "exact_plan",
        "functional_map",
        "gram_solution",
        "gram_whitener",
        "inverse_gains",
        "leverage_scores",
        "linear_assignment",
        "lowest_pairs",
        "nystrom",
        "proximal_plan",
        "quadratic_potentials",
        "quadratic_potentials_points",
        "randomized_svd",
        "regularized_rows",
        "ridge_curve",
        "ridge_path",
        "ridge_solution",
        "ridge_solve",
        "self_calibrate",
        "sinkhorn",
        "sinkhorn_route",
        "solve_ot",
        "unbalanced_potentials",
    }
)
# What needs eigenvalues but where it iterates.
EIGENVALUES = frozenset({"inverse_pth_root", "inverse_root"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A plain checkout has no entry points, and so no plug-in."""
    if not metafunc.config.pluginmanager.is_registered(plugin):
        plugin.pytest_generate_tests(metafunc)


class Everywhere(ConformanceTests):
    """The shipped suite without its skips: only what cannot be done is refused."""

    def test_agrees_with_reference(
        self, declared_case: tuple[Declaration, Case], conformance_dtype: str
    ) -> None:
        row = self._check(*declared_case, conformance_dtype)
        expected = "refused" if self._cannot_run(*declared_case) else "pass"
        assert row.verdict == expected, f"{row.kernel} / {row.case}: {row.reason}"

    def _cannot_run(self, declaration: Declaration, case: Case) -> bool:
        if self.library == "dask":
            arrays = case.arrays(np.random.default_rng(0))
            if declaration.name in NOT_LAZY:
                return True
            if declaration.name == "wasserstein_1d":
                # Dask gathers by no array.
                return len(arrays) > 2
            if declaration.name == "thin_qr":
                # Chunks of rows alone: of a wide matrix there is but one.
                return arrays[0].ndim > 2 or arrays[0].shape[0] < arrays[0].shape[1]
            if declaration.name in EIGENVALUES and case.options.get("method") != "newton":
                return True
            # Dask decomposes no stacks.
            stacked = any(a.ndim > 2 for a in arrays)
            return stacked and declaration.name not in PRODUCTS_ALONE
        # Those are the reference itself.
        return self.backend == "numba" and case.options.get("method") in {"svd", "gram"}


def suites() -> dict[str, type[Everywhere]]:
    """A class for each library installed here and each backend that takes its arrays."""
    found = {}
    for library in libraries.available():
        for backend in (None, *(() if library in UNSEEN else available_backends())):
            name = f"Test_{library}_on_{backend or 'default'}".replace("-", "_")
            where = {"library": library, "backend": backend, "dtypes": libraries.dtypes_of(library)}
            found[name] = type(name, (Everywhere,), where)
    if "array_api_strict" in libraries.available():
        # Arrays made without naming the device are refused there beside the others, as on a GPU.
        where = {"library": "array_api_strict", "device": "device1"}
        found["Test_array_api_strict_on_another_device"] = type("Device", (Everywhere,), where)
    return found


globals().update(suites())


def test_the_libraries_of_this_environment_are_tested() -> None:
    """One that is promised and not tested would pass unseen."""
    tested = {suite.library for suite in suites().values()}
    assert REQUIRED & set(libraries.MODULES) <= tested
    assert "numpy" in tested


@pytest.mark.parametrize("library", libraries.available())
def test_the_suite_judges_what_the_library_computed(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that is off by a part in a hundred thousand fails on each library."""
    declaration, case = next((d, c) for d, c in pairs() if d.name == "polar" and c.name == "tall")
    setting = Setting(library, libraries.dtypes_of(library)[0])
    assert check(declaration, case, setting).verdict == "pass"
    read = libraries.to_numpy
    monkeypatch.setattr(libraries, "to_numpy", lambda x: (1 + 1e-5) * read(x))
    row = check(declaration, case, setting)
    assert (row.verdict, row.library) == ("fail", library)
    assert "orthogonality" in row.reason
