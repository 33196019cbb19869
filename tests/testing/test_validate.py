"""What ``orthokern validate`` runs, how it judges a row, and what its reports say."""

from __future__ import annotations

import json
import math
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from orthokern._core.dispatch import OPS
from orthokern._core.registry import Case, Declaration, Residual, load_all
from orthokern.backend import Backend
from orthokern.testing import (
    Outcome,
    Selection,
    Setting,
    check,
    libraries,
    report,
    to_library,
    to_numpy,
    validate,
    validation,
)
from orthokern.testing.checking import example

from ..helpers.outside import registered

EPS = 2.0**-52
FAST = Selection(kernels=["hermitian_factor"], libraries=["numpy"])


# What is selected


def settings(selection):
    return {job.setting for job in validation.jobs(selection)}


def test_everything_available_is_selected_by_default():
    jobs = validation.jobs(Selection())
    declared = {(name, case.name) for name, d in load_all().items() for case in d.cases}
    assert {(job.declaration.name, job.case.name) for job in jobs} == declared
    assert {job.setting.library for job in jobs} == set(libraries.available())
    assert {job.setting.backend for job in jobs} == set(validation.available_backends())
    assert {job.setting.dtype for job in jobs} == {"float64", "float32"}
    assert len(set(map(str, jobs))) == len(jobs)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"backends": ["array-api"]}, {"backend": {"array-api"}}),
        ({"dtypes": ["float32"]}, {"dtype": {"float32"}}),
        ({"libraries": ["numpy"]}, {"library": {"numpy"}}),
        ({"quick": True}, {"library": {"numpy"}}),
    ],
)
def test_a_selection_keeps_what_it_names(selection, expected):
    found = settings(Selection(kernels=["hermitian_factor"])._replace(**selection))
    for field, values in expected.items():
        assert {getattr(setting, field) for setting in found} == values


@pytest.mark.parametrize("kernel", ["polar", "hermitian_factor"])
def test_kernels_are_selected_by_name(kernel):
    jobs = validation.jobs(Selection(kernels=[kernel]))
    assert {job.declaration.name for job in jobs} == {kernel}


def test_quick_keeps_the_plain_layout():
    assert {job.case.layout for job in validation.jobs(Selection(quick=True))} == {"contiguous"}


def test_layouts_are_tested_where_arrays_have_them():
    for job in validation.jobs(Selection()):
        assert job.case.layout == "contiguous" or job.setting.library in ("numpy", "torch")


def test_backends_are_not_asked_for_arrays_that_they_cannot_view():
    for setting in settings(Selection()):
        if setting.library in ("dask", "array_api_strict"):
            assert setting.backend == "array-api"


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        ({"kernels": ["polarr"]}, "expected kernel to be one of {kernels}, got 'polarr'"),
        ({"dtypes": ["float16"]}, "expected dtype to be one of float64, float32, got 'float16'"),
        ({"backends": ["absent"]}, "expected backend to be one of {backends}, got 'absent'"),
        ({"libraries": ["absent"]}, "expected library to be one of {libraries}, got 'absent'"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(selection, text):
    with pytest.raises(ValueError, match="expected") as caught:
        validation.jobs(Selection(**selection))
    known = {
        "kernels": load_all(),
        "backends": validation.available_backends(),
        "libraries": libraries.MODULES,
    }
    assert str(caught.value) == text.format(**{k: ", ".join(v) for k, v in known.items()})


def test_a_backend_that_cannot_run_here_says_why():
    backend = Backend("acme", serves={("numpy", "cpu")}, available=lambda: "no licence")
    with registered(backend):
        with pytest.raises(ValueError, match="got 'acme': no licence"):
            validation.jobs(Selection(backends=["acme"]))
        assert "acme" not in validation.available_backends()
        assert "backend acme: no licence" in validation.not_run()


def test_a_backend_for_another_device_says_so():
    with registered(Backend("acme", serves={("cupy", "cuda")})):
        with pytest.raises(ValueError, match="got 'acme': it serves no arrays on cpu"):
            validation.jobs(Selection(backends=["acme"]))
        assert "acme" in validation.available_backends("cuda:1")


# How a row is judged


def made(result, *, limit=4.0, forward=None, options=None):
    """A declaration of a kernel that returns what ``result`` makes of 1, and its only case."""

    def kernel(x, **static):
        return result(x)

    def residuals(arrays, out, options, eps):
        return {"error": Residual(float(np.abs(out - arrays[0]).max()) / eps, limit)}

    case = Case("ones", lambda g: (np.ones((2, 2)),), options or {}, forward=forward)
    return Declaration("kernel", kernel, (case,), residuals, lambda a, o: 1.0, (0,)), case


@pytest.mark.parametrize("error", [0, 3, 4])
def test_within_the_limit_passes(error):
    row = check(*made(lambda x: x * (1 + error * EPS)), Setting())
    assert (row.verdict, row.reason) == ("pass", "")
    assert row.residuals == {"error": Residual(error, 4.0)}


def test_beyond_the_limit_fails_with_the_error_in_eps():
    row = check(*made(lambda x: x * (1 + 5 * EPS)), Setting())
    assert (row.verdict, row.reason) == ("fail", "error 5 eps exceeds 4 eps")


def test_errors_are_in_eps_of_the_dtype():
    row = check(*made(lambda x: x * (1 + 3 * 2.0**-23)), Setting(dtype="float32"))
    assert row.residuals["error"].value == 3
    assert row.dtype == "float32"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_fails(value):
    row = check(*made(lambda x: x * value), Setting())
    assert row.verdict == "fail"
    assert f"error {value} eps exceeds 4 eps" in row.reason


def test_the_distance_to_the_reference_counts_where_it_has_a_limit():
    calls = []

    def drifting(x):
        calls.append(1)
        return x * (1 + 2 * EPS) if len(calls) == 1 else x

    row = check(*made(drifting, forward=1.0), Setting())
    assert row.forward == Residual(2, 1.0)
    assert row.reason == "distance 2 eps exceeds 1 eps"
    calls.clear()
    assert check(*made(drifting), Setting()).forward is None


@pytest.mark.parametrize(
    ("error", "verdict", "text"),
    [
        (ZeroDivisionError("oh"), "fail", "ZeroDivisionError: oh"),
        (TypeError("bad"), "fail", "TypeError: bad"),
    ],
)
def test_an_exception_is_a_failed_row(error, verdict, text):
    def raising(x):
        raise error

    row = check(*made(raising), Setting())
    assert (row.verdict, row.reason) == (verdict, text)


def test_a_refusal_is_neither_passed_nor_failed():
    backend = Backend("acme", serves={("numpy", "cpu")})
    backend.implements("hermitian_factor", when=lambda u, x: "not today")(None)
    with registered(backend):
        rows = list(validate(FAST._replace(backends=["acme"]), repeats=0))
    assert {row.verdict for row in rows} == {"refused"}
    assert all("not today" in row.reason for row in rows)
    assert not report.succeeded(rows)


@pytest.fixture
def broken():
    """A backend whose Hermitian factor errs by one part in 10**9."""
    backend = Backend("broken", serves={("numpy", "cpu")})

    @backend.implements("hermitian_factor")
    def hermitian_factor(u, x):
        return OPS["hermitian_factor"].body(u, x) * (1 + 1e-9)

    with registered(backend):
        yield backend


def test_a_broken_op_fails_in_every_kernel_that_runs_it(broken):
    selection = Selection(kernels=["polar"], backends=["broken"], quick=True, dtypes=["float64"])
    rows = list(validate(selection, repeats=0))
    ran = [row for row in rows if row.ran.get("hermitian_factor") == "broken"]
    assert ran
    assert all(row.verdict == "fail" for row in ran if "backward" in row.residuals)
    assert not report.succeeded(rows)


def test_rows_name_what_really_ran():
    for row in validate(FAST, repeats=0):
        assert row.ran == {"hermitian_factor": row.backend}
        assert row.verdict == "pass"


def test_rows_name_the_body_where_a_backend_lacks_an_op(broken):
    selection = Selection(kernels=["polar"], backends=["broken"], quick=True, dtypes=["float32"])
    first = next(validate(selection, repeats=0))
    assert first.backend == "broken"
    assert first.ran["balance"] == "array-api"
    assert first.ran["hermitian_factor"] == "broken"


def test_times_are_taken_when_they_are_asked_for(broken):
    (job, *_) = validation.jobs(FAST._replace(backends=["broken"], dtypes=["float64"]))
    untimed, timed = validation.run(job, repeats=0), validation.run(job, repeats=1)
    assert (untimed.seconds, untimed.speedup) == (None, None)
    assert timed.seconds > 0
    assert timed.speedup > 0
    (reference, *_) = validation.jobs(FAST._replace(backends=["array-api"]))
    assert validation.run(reference, repeats=1).speedup is None


def test_examples_depend_on_nothing_but_their_names():
    declaration = load_all()["polar"]
    by_name = {case.name: case for case in declaration.cases}
    (first,) = example(declaration, by_name["square"], "float64")
    generator = np.random.default_rng(zlib.crc32(b"polar/square"))
    np.testing.assert_array_equal(first, by_name["square"].arrays(generator)[0])
    single = example(declaration, by_name["square"], "float32")[0]
    np.testing.assert_array_equal(single, first.astype(np.float32))
    assert example(declaration, by_name["complex"], "float32")[0].dtype == np.complex64


# Reports


def outcome(**changes):
    plain = Outcome(
        kernel="polar",
        case="square",
        real=False,
        backend="auto",
        ran={"balance": "acme", "unitary_factor": "array-api"},
        library="numpy",
        device="cpu",
        dtype="float64",
        residuals={"orthogonality": Residual(2.0, 8.0), "backward": Residual(30.0, 60.0)},
        forward=Residual(1.0, 500.0),
        seconds=0.5,
        speedup=2.0,
        verdict="pass",
        reason="",
    )
    return plain._replace(**changes)


FAILED = outcome(
    case="<tall & wide>",
    verdict="fail",
    residuals={"backward": Residual(math.nan, 60.0)},
    forward=None,
    speedup=None,
    reason="""it's "quoted": backward nan eps exceeds 60 eps <script>alert(1)</script>""",
)
REFUSED = outcome(verdict="refused", residuals={}, forward=None, ran={}, reason="not today")


@pytest.mark.parametrize(
    ("row", "worst"),
    [
        (outcome(), ("backward", 30.0)),
        (outcome(forward=Residual(450.0, 500.0)), ("distance", 450.0)),
        (outcome(residuals={"skew": Residual(1e-9, 0.0)}), ("skew", 1e-9)),
        (outcome(residuals={"skew": Residual(0.0, 0.0)}, forward=None), ("skew", 0.0)),
    ],
)
def test_the_worst_figure_is_the_one_nearest_to_its_limit(row, worst):
    name, figure = row.worst
    assert (name, figure.value) == worst


def test_a_figure_that_is_no_number_is_the_worst():
    assert (
        outcome(residuals={"a": Residual(math.nan, 9.0), "b": Residual(90.0, 9.0)}).worst[0] == "a"
    )
    assert REFUSED.worst is None


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (outcome(), "acme + array-api"),
        (outcome(ran={"a": "array-api"}), "array-api"),
        (outcome(ran={"a": "zeta", "b": "acme"}), "acme + zeta"),
        (REFUSED, "auto"),
    ],
)
def test_ran_on(row, text):
    assert report.ran_on(row) == text


@pytest.mark.parametrize(
    ("rows", "succeeded"),
    [
        ([], False),
        ([outcome()], True),
        ([REFUSED], False),
        ([outcome(), REFUSED], True),
        ([outcome(), FAILED], False),
    ],
)
def test_success_is_something_passed_and_nothing_failed(rows, succeeded):
    assert report.succeeded(rows) is succeeded


def test_summary():
    rows = [outcome(), outcome(), FAILED, REFUSED]
    assert report.summary(rows, 12.4) == "4 rows: 2 pass, 1 fail, 1 refused; 12 s"


def test_failures_name_kernel_case_place_and_error():
    assert report.failures([outcome(), REFUSED, FAILED]) == [
        "FAIL polar / <tall & wide> on acme + array-api (numpy, float64): " + FAILED.reason
    ]


def test_the_short_table_keeps_the_tightest_of_each_case_and_every_failure():
    tight = outcome(residuals={"backward": Residual(59.0, 60.0)}, dtype="float32")
    other = outcome(case="tall")
    rows = [outcome(), tight, FAILED, FAILED, other, REFUSED]
    assert report.condensed(rows) == [tight, FAILED, FAILED, other, REFUSED]


def printed(table):
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_table_shows_figures_and_verdicts():
    text = printed(report.table([outcome(device="cuda", real=True), FAILED, REFUSED]))
    for part in ("square (real data)", "numpy cuda", "backward 30", "60", "2.00x", "pass"):
        assert part in text
    for part in ("<tall & wide>", "backward nan", "fail", "refused", "in eps of the dtype"):
        assert part in text


def test_json_holds_every_figure():
    document = json.loads(report.to_json([outcome(), FAILED], {"python": "3"}))
    assert set(document) == {"machine", "passed", "rows"}
    assert document["machine"] == {"python": "3"}
    assert document["passed"] is False
    first, second = document["rows"]
    assert first["ran"] == {"balance": "acme", "unitary_factor": "array-api"}
    assert first["residuals"]["backward"] == {"value": 30.0, "limit": 60.0}
    assert first["distance"] == {"value": 1.0, "limit": 500.0}
    assert second["residuals"]["backward"] == {"value": "nan", "limit": 60.0}
    assert second["distance"] is None
    expected = {*Outcome._fields, "distance"} - {"forward"}
    assert set(first) == set(second) == expected


class Page(HTMLParser):
    """Tags, attributes that load something, titles, and cells of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.cells, self.titles, self.open = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open += [tag] if tag != "meta" else []
        self.loads += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action")]
        self.titles += [value for key, value in attributes if key == "title"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_the_page_is_one_file_that_loads_nothing():
    text = report.to_html([outcome(), FAILED, REFUSED], {"python": "3 <b>"}, 1.0)
    page = Page(text)
    assert page.loads == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "$" not in text


def test_the_page_shows_every_row_and_bars():
    text = report.to_html([outcome(), FAILED, REFUSED], {"python": "3 <b>"}, 1.0)
    page = Page(text)
    assert page.tags.count("tr") >= 4
    for row in (outcome(), FAILED, REFUSED):
        for cell in filter(None, report.cells(row)):
            assert cell in page.cells
    assert page.titles == ["", FAILED.reason, REFUSED.reason]
    assert "3 rows: 1 pass, 1 fail, 1 refused; 1 s" in text
    assert '<i class="over"' in text
    assert 'style="width:50.0%"' in report.to_html([outcome()], {}, 1.0)
    assert "<b>" not in text
    assert "alert(1)" in text
    assert "<script>" not in text


def test_the_page_of_nothing():
    page = Page(report.to_html([], {}, 0.0))
    assert page.tags.count("tr") == 1


# Arrays for tests

LAYOUTS = {
    "contiguous": lambda a: a.flags.c_contiguous,
    "transposed": lambda a: np.swapaxes(a, -1, -2).flags.c_contiguous,
    "strided": lambda a: a.strides[-1] == 2 * a.itemsize,
    "reversed": lambda a: a.strides[-1] < 0 and a.strides[-2] < 0,
    "read-only": lambda a: not a.flags.writeable,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_layouts_hold_the_same_numbers(layout, shape, rng):
    x = rng.standard_normal(shape)
    laid = libraries.with_layout(x, layout)
    np.testing.assert_array_equal(laid, x)
    assert LAYOUTS[layout](laid)
    assert not np.shares_memory(laid, x) or layout == "contiguous"


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (3, 4)])
@pytest.mark.parametrize("kind", ["float32", "complex64"])
def test_arrays_go_to_every_library_and_back(library, shape, kind):
    x = np.asarray(np.random.default_rng(1).standard_normal(shape)).astype(kind)
    given = to_library(x, library)
    assert tuple(given.shape) == shape
    back = to_numpy(given)
    assert back.dtype == {"float32": "float64", "complex64": "complex128"}[kind]
    np.testing.assert_array_equal(back, x)


def test_bfloat16_and_conjugates_are_read():
    torch = pytest.importorskip("torch")
    assert to_numpy(torch.tensor([1.5, -2.0], dtype=torch.bfloat16)).tolist() == [1.5, -2.0]
    assert to_numpy(torch.tensor([1 + 2j]).conj()).tolist() == [1 - 2j]
    assert to_numpy(torch.tensor([1.0], requires_grad=True)).tolist() == [1.0]
