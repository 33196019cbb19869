"""The suite for strangers' backends passes a right one and fails each kind of wrong one."""

from __future__ import annotations

import functools
import re
from importlib.metadata import entry_points
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from orthokern._core.dispatch import OPS
from orthokern._core.registry import load_all
from orthokern.backend import Backend
from orthokern.testing import Setting, check
from orthokern.testing.conformance import pairs

from ..helpers import outside

load_all()

# As an outside package


PACKAGE = """
import orthokern.spectral
from orthokern._core.dispatch import OPS
from orthokern.backend import Backend


def always(x):
    return True


def odd(x):
    return x.shape[-1] % 2 == 1


def batch(x):
    return x.ndim > 2


def strided(x):
    return not x.flags.c_contiguous


def declared(name, ops, *, when=None, spoils=lambda x: False):
    backend = Backend(name, serves={("numpy", "cpu")})
    for op in ops:

        def run(*arrays, op=op, **static):
            out = OPS[op].body(*arrays, **static)
            if not any(map(spoils, arrays)):
                return out
            return (out[0] * (1 + 1e-9), *out[1:]) if isinstance(out, tuple) else out * (1 + 1e-9)

        backend.implements(op, when=when)(run)
    return backend


right = declared("right", ["unitary_factor", "hermitian_factor"])
scaled = declared("scaled", ["unitary_factor"], spoils=always)
odd_only = declared("odd_only", ["unitary_factor"], spoils=odd)
batch_only = declared("batch_only", ["hermitian_factor"], spoils=batch)
strided_only = declared("strided_only", ["hermitian_factor"], spoils=strided)
idle = declared("idle", ["hermitian_factor"], when=lambda *arrays: "never in the mood")
unknown = declared("unknown", ["hermitian_factor", "no_such_op"])
"""
NAMES = ("right", "scaled", "odd_only", "batch_only", "strided_only", "idle", "unknown")
TEST = """from orthokern.testing import ConformanceTests
class TestIt(ConformanceTests):
    backend = "{name}"
"""
OUTCOMES = ("failure", "error", "skipped")
ROW = "test_agrees_with_reference"
EVERY = "test_every_declared_op_ran"


class Verdict(NamedTuple):
    """What pytest says of one test."""

    outcome: str
    message: str


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """What pytest says of each backend: the test cases of its class by outcome."""
    folder = tmp_path_factory.mktemp("outside")
    outside.install(folder, "stranger", PACKAGE, **{name: name for name in NAMES})
    for name in NAMES:
        folder.joinpath(f"test_{name}.py").write_text(TEST.format(name=name))
    known = any(p.value == "orthokern.testing.plugin" for p in entry_points(group="pytest11"))
    plugin = () if known else ("-p", "orthokern.testing.plugin")
    report = folder / "report.xml"
    options = ("-q", "-p", "no:cacheprovider", f"--rootdir={folder}", f"--junitxml={report}")
    # The right one meets every case, the others those that their ops run in.
    some = ("-k", f"test_right or polar or hermitian or {EVERY}")
    arguments = ("-m", "pytest", *plugin, *options, *some, str(folder))
    done = outside.python(*arguments, path=[folder], PYTEST_ADDOPTS=None)
    assert report.exists(), done.stdout + done.stderr
    found = {name: {} for name in NAMES}
    for case in ET.parse(report).iter("testcase"):
        name = case.get("classname").partition(".")[0].removeprefix("test_")
        outcome = next((child for child in case if child.tag in OUTCOMES), None)
        found[name][case.get("name")] = Verdict(
            "passed" if outcome is None else outcome.tag,
            "" if outcome is None else outcome.get("message"),
        )
    return found


def failed(found):
    return {name for name, verdict in found.items() if verdict.outcome in ("failure", "error")}


def test_a_right_backend_passes(verdicts):
    assert {verdict.outcome for verdict in verdicts["right"].values()} == {"passed"}
    rows = len(pairs()) * len(("float64", "float32"))
    assert len(verdicts["right"]) == rows + len([EVERY])


# A case that the defect reaches, and one that it does not reach.
CAUGHT = {
    "scaled": ("polar-square-float64", "polar-square-float32"),
    "odd_only": ("polar-odd square-float64", "polar-square-float64"),
    "batch_only": ("polar-batch-float64", "polar-square-float64"),
    "strided_only": ("hermitian_factor-transposed 33x33-float64", "polar-square-float64"),
}


@pytest.mark.parametrize("name", CAUGHT)
def test_a_wrong_backend_fails_where_it_is_wrong(verdicts, name):
    wrong, right = CAUGHT[name]
    assert f"{ROW}[{wrong}]" in failed(verdicts[name])
    assert verdicts[name][f"{ROW}[{right}]"].outcome == "passed"
    # A part in 10**9 lies below the precision of float32.
    assert not any(test.endswith("float32]") for test in failed(verdicts[name]))


@pytest.mark.parametrize("name", CAUGHT)
def test_a_failure_names_kernel_case_and_error(verdicts, name):
    wrong = CAUGHT[name][0]
    kernel, case, _ = wrong.split("-")
    message = verdicts[name][f"{ROW}[{wrong}]"].message
    assert f"{kernel} / {case}: " in message
    # One part in 10**9 is 4.5e6 units of 2**-52.
    assert re.search(r"\d(\.\d+)?e\+0[67] eps exceeds \d+(\.\d+)? eps", message)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("idle", "declares ops that never ran: ['hermitian_factor']"),
        ("unknown", "declares ops that orthokern does not have: ['no_such_op']"),
    ],
)
def test_an_op_that_never_ran_fails(verdicts, name, text):
    assert failed(verdicts[name]) == {EVERY}
    assert text in verdicts[name][EVERY].message


def test_a_refusal_is_a_skip_with_its_reason(verdicts):
    skipped = [v for v in verdicts["idle"].values() if v.outcome == "skipped"]
    assert skipped
    assert all("refused hermitian_factor: never in the mood" in v.message for v in skipped)


# In this process, for every op


# What sums in single precision, whatever it is given, hides smaller defects.
COARSE = {"rough_gram": 1e-4}


def spoiled(part, share):
    return part ^ 1 if part.dtype.kind in "iu" else part * (1 + share)


DEFECTS = {
    "always": lambda x: True,
    "odd": lambda x: x.shape[-1] % 2 == 1,
    "batch": lambda x: x.ndim > (2 if x.dtype.kind in "fc" else 1),
    "strided": lambda x: not x.flags.c_contiguous,
}


def stranger(op, spoils):
    """A backend that runs the body of one op and spoils what the defect reaches; and what it was called with."""
    backend, calls = Backend("stranger", serves={("numpy", "cpu")}), []
    share = COARSE.get(op, 1e-9)

    @backend.implements(op)
    def run(*arrays, **static):
        calls.append(arrays)
        out = OPS[op].body(*arrays, **static)
        if not any(map(spoils, arrays)):
            return out
        if isinstance(out, tuple):
            return (spoiled(out[0], share), *out[1:])
        return spoiled(out, share)

    return backend, calls


SETTING = Setting(backend="stranger")


@functools.cache
def reaching():
    """The pairs of kernel and case that run each op."""
    backend, found = Backend("stranger", serves={("numpy", "cpu")}), {op: [] for op in OPS}
    for op in OPS:
        backend.implements(op)(OPS[op].body)
    with outside.registered(backend):
        for pair in pairs():
            for op in check(*pair, SETTING).ran:
                found[op].append(pair)
    return found


@pytest.mark.parametrize("op", sorted(OPS))
def test_the_declared_cases_run_every_op(op):
    backend, calls = stranger(op, lambda x: False)
    with outside.registered(backend):
        rows = [check(*pair, SETTING) for pair in reaching()[op]]
    assert calls
    assert {row.ran[op] for row in rows if op in row.ran} == {"stranger"}
    assert [row.reason for row in rows if row.verdict != "pass"] == []


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("op", sorted(OPS))
def test_the_declared_cases_find_every_defect_of_every_op(op, defect):
    backend, _ = stranger(op, DEFECTS[defect])
    with outside.registered(backend):
        reasons = [check(*pair, SETTING).reason for pair in reaching()[op]]
    assert any("eps exceeds" in reason for reason in reasons)
