"""The CuPy backend where it cannot run: it says why, and costs nobody an import."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import orthokern_cupy
import pytest

import orthokern
from orthokern import BackendError, explain

from ..helpers import outside

NOT_INSTALLED = "cupy is not installed; pip install 'orthokern[cuda13]'"
KERNELS = ["polar", "orthogonalize", "newton_schulz"]
# A framework that must not be loaded.
MINE = "raise RuntimeError('loaded without need')\n"


@pytest.mark.parametrize("name", KERNELS)
def test_naming_it_here_is_an_error_with_the_reason(name):
    reason = orthokern_cupy.backend.available() or "does not accept numpy arrays on cpu"
    if find_spec("cupy") is None:
        assert reason == NOT_INSTALLED
    with pytest.raises(BackendError) as caught:
        getattr(orthokern, name)(np.eye(3), backend="cupy")
    assert str(caught.value).startswith(f"backend 'cupy' refused balance: {reason}; pass backend=")


@pytest.mark.parametrize("reason", ["no CUDA device", NOT_INSTALLED])
def test_both_reasons_reach_the_caller(monkeypatch, reason):
    monkeypatch.setattr(orthokern_cupy.backend, "available", lambda: reason)
    orthokern._core.backends._forget()
    with pytest.raises(BackendError, match="refused balance: ") as caught:
        orthokern.polar(np.eye(3), backend="cupy")
    assert reason in str(caught.value)
    orthokern._core.backends._forget()


def test_it_is_passed_over_for_host_arrays():
    with explain() as report:
        orthokern.polar(np.eye(3))
    assert report[0].refused["cupy"] == "does not accept numpy arrays on cpu"


def test_host_arrays_and_registration_load_no_cupy(tmp_path):
    tmp_path.joinpath("cupy.py").write_text(MINE, encoding="utf-8")
    code = """
import sys
import numpy as np
import orthokern
import orthokern_cupy
orthokern.polar(np.eye(3))
print("cupy" in sys.modules, sorted(orthokern_cupy.backend.entries)[0])
"""
    assert outside.answer(code, path=[tmp_path]) == "False balance\n"


def test_a_broken_cupy_is_told_to_who_names_it(tmp_path):
    tmp_path.joinpath("cupy.py").write_text(MINE, encoding="utf-8")
    code = """
import numpy as np
import orthokern
try:
    orthokern.polar(np.eye(3), backend="cupy")
except orthokern.BackendError as refusal:
    print(refusal)
"""
    told = outside.answer(code, path=[tmp_path])
    assert told.startswith("backend 'cupy' refused balance: cupy cannot be imported: ")
    assert "loaded without need" in told
