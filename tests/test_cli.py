"""The command line: what it prints where, its exit status, and its sentences."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec

import numpy as np
import pytest

import orthokern
from orthokern.__main__ import main
from orthokern._core import backends
from orthokern._core.dispatch import OPS
from orthokern._core.registry import load_all
from orthokern.backend import Backend
from orthokern.testing.libraries import available
from orthokern.testing.validation import available_backends

from .helpers import outside

FAST = ("--kernel", "hermitian_factor", "--library", "numpy")


@pytest.fixture
def run(capsys, monkeypatch):
    """One command in this process: exit status, standard output, error stream."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return call


def sentence(text, command):
    """The only line of an error stream, without its prefix."""
    (line,) = text.splitlines()
    prefix = f"orthokern {command}: "
    assert line.startswith(prefix)
    return line.removeprefix(prefix)


# validate


def test_validate_prints_table_and_summary(run):
    status, out, err = run("validate", *FAST)
    assert status == 0
    assert "orthokern validate: residuals and distances in eps of the dtype" in out
    rows = len(load_all()["hermitian_factor"].cases) * 2 * len(available_backends())
    assert re.search(rf"^{rows} rows: {rows} pass, 0 fail, 0 refused; \d+ s$", out, re.MULTILINE)
    assert "FAIL" not in out + err


def test_the_table_is_short_unless_every_row_is_asked_for(run):
    counts = [run("validate", *FAST, *more)[1].count("pass") for more in ((), ("--all-rows",))]
    cases = len(load_all()["hermitian_factor"].cases)
    rows = cases * len(available_backends())
    assert counts == [rows + 1, 2 * rows + 1]


def test_json_is_alone_on_standard_output(run):
    status, out, err = run("validate", *FAST, "--json")
    assert status == 0
    document = json.loads(out)
    assert document["passed"] is True
    assert " rows: " in err
    assert "residuals and distances" not in out + err


def test_every_row_of_json_names_what_really_ran(run):
    document = json.loads(run("validate", *FAST, "--json")[1])
    assert {row["backend"] for row in document["rows"]} == set(available_backends())
    for row in document["rows"]:
        assert row["ran"] == {"hermitian_factor": row["backend"]}
        assert (row["kernel"], row["library"], row["verdict"]) == (
            "hermitian_factor",
            "numpy",
            "pass",
        )
    assert {row["dtype"] for row in document["rows"]} == {"float64", "float32"}


def test_progress_is_shown_on_a_terminal_and_not_in_the_json(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, out, err = run("validate", *FAST, "--json")
    assert json.loads(out)["passed"] is True
    rows = len(json.loads(out)["rows"])
    assert f"{rows}/{rows}" in err
    assert re.search(r"hermitian_factor / [\w-]+ \d+x\d+ on \S+ numpy float\d\d", err)


def test_rows_of_json_name_the_body_where_a_backend_lacks_an_op(run, broken):
    options = ("--kernel", "polar", "--quick", "--backend", "broken", "--dtype", "float32")
    rows = json.loads(run("validate", *options, "--json")[1])["rows"]
    assert {row["ran"]["balance"] for row in rows} == {"array-api"}
    assert {row["ran"].get("hermitian_factor", "broken") for row in rows} == {"broken"}


def test_json_can_go_to_a_file(run, tmp_path):
    file = tmp_path / "rows.json"
    status, out, _ = run("validate", *FAST, "--json", str(file))
    assert status == 0
    assert json.loads(file.read_text())["passed"] is True
    assert "rows: " in out


def test_html_is_one_self_contained_file(run, tmp_path):
    file = tmp_path / "page.html"
    status, _, _ = run("validate", *FAST, "--html", str(file))
    assert status == 0
    text = file.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert text.startswith("<!doctype html>")
    assert not re.search(r"https?://|src=|href=|@import|url\(", text)
    for case in load_all()["hermitian_factor"].cases:
        assert case.name in text


@pytest.mark.parametrize(
    ("options", "field", "values"),
    [
        (("--backend", "array-api"), "backend", {"array-api"}),
        (("--dtype", "float32"), "dtype", {"float32"}),
        (("--dtype", "float32", "--dtype", "float64"), "dtype", {"float32", "float64"}),
        (("--kernel", "newton_schulz"), "kernel", {"hermitian_factor", "newton_schulz"}),
        (("--quick",), "library", {"numpy"}),
    ],
)
def test_selections(run, options, field, values):
    document = json.loads(run("validate", *FAST, *options, "--json")[1])
    assert {row[field] for row in document["rows"]} == values


def test_real_matrices_are_among_the_cases(run):
    options = ("--kernel", "orthogonalize", "--quick", "--backend", "array-api")
    document = json.loads(run("validate", *options, "--json")[1])
    assert {row["case"] for row in document["rows"] if row["real"]} >= {"gradients"}


@pytest.fixture
def broken():
    """A backend whose Hermitian factor errs by one part in 10**9."""
    backend = Backend("broken", serves={("numpy", "cpu")})

    @backend.implements("hermitian_factor")
    def hermitian_factor(u, x):
        return OPS["hermitian_factor"].body(u, x) * (1 + 1e-9)

    with outside.registered(backend):
        yield


FAILURE = (
    r"^FAIL hermitian_factor / contiguous 33x33 on broken \(numpy, float64\): "
    r"product \d(\.\d+)?e\+06 eps exceeds \d+(\.\d+)? eps$"
)


def test_a_broken_op_exits_with_one_and_is_named(run, broken):
    status, out, _ = run("validate", *FAST, "--backend", "broken")
    assert status == 1
    assert re.search(FAILURE, out, re.MULTILINE)
    # A part in 10**9 is nothing in float32.
    assert not re.search(r"^FAIL .*float32", out, re.MULTILINE)


def test_a_broken_op_with_json_is_named_on_the_error_stream(run, broken):
    status, out, err = run("validate", *FAST, "--backend", "broken", "--json")
    assert status == 1
    assert json.loads(out)["passed"] is False
    assert re.search(FAILURE, err, re.MULTILINE)


def test_refusals_alone_are_no_success(run):
    acme = Backend("acme", serves={("numpy", "cpu")})
    acme.implements("hermitian_factor", when=lambda u, x: "not today")(None)
    with outside.registered(acme):
        status, out, _ = run("validate", *FAST, "--backend", "acme")
    assert status == 1
    rows = 2 * len(load_all()["hermitian_factor"].cases)
    assert f"{rows} rows: 0 pass, 0 fail, {rows} refused" in out


@pytest.mark.parametrize("command", ["validate", "bench"])
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--kernel", "polarr"), "expected kernel to be one of "),
        (("--backend", "absent"), "expected backend to be one of array-api"),
        (("--library", "absent"), "expected library to be one of numpy, torch"),
        (("--dtype", "float16"), "expected dtype to be one of float64, float32, got 'float16'"),
    ],
)
def test_unknown_names_give_one_sentence_and_exit_with_two(run, command, options, text):
    status, out, err = run(command, *options)
    assert (status, out) == (2, "")
    assert sentence(err, command).startswith(text)
    assert err.endswith(f"got {options[1]!r}\n")


DEVICES = [
    ("numpy", "cuda"),
    ("numpy", "nonsense"),
    ("torch", "cuda:99"),
    ("torch", "nonsense"),
    ("jax", "nonsense"),
]


@pytest.mark.parametrize(("library", "device"), [d for d in DEVICES if d[0] in available()])
def test_devices_that_are_not_here_give_one_sentence_and_exit_with_two(run, library, device):
    options = ("--kernel", "hermitian_factor", "--library", library, "--device", device)
    status, out, err = run("validate", *options)
    assert (status, out) == (2, "")
    assert device in sentence(err, "validate")


def test_a_file_that_cannot_be_written_gives_one_sentence_and_exits_with_two(run, tmp_path):
    target = tmp_path / "no" / "such" / "folder.html"
    status, _, err = run("validate", *FAST, "--backend", "array-api", "--html", str(target))
    assert status == 2
    assert str(target) in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [(), ("prove",), ("validate", "--speed"), ("--help", "x")])
def test_commands_that_are_not_understood_show_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert caught.value.code == (0 if "--help" in arguments else 2)
    assert "usage: orthokern" in out + err


# info, backends, bench


def test_info_shows_versions_and_the_machine(run):
    status, out, err = run("info")
    assert (status, err) == (0, "")
    rows = table_rows(out)
    assert {"python", "processor", "cores"} <= set(rows)
    assert rows["numpy"] == [np.__version__]
    assert rows["orthokern"] == [orthokern.__version__]


def table_rows(text):
    """Cells of the rows of a printed table by their first cell; a row may take several lines."""
    rows = {}
    for line in filter(re.compile("[│┃]").match, text.splitlines()):
        first, *cells = [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
        above = rows.popitem() if rows and not first else (first, [""] * len(cells))
        rows[above[0]] = [f"{a} {b}".strip() for a, b in zip(above[1], cells, strict=True)]
    return rows


def test_backends_shows_who_implements_what(run):
    acme = Backend("acme", serves={("numpy", "cpu")}, available=lambda: "no licence")
    acme.implements("hermitian_factor")(lambda u, x: None)
    with outside.registered(acme):
        status, out, err = run("backends")
    assert (status, err) == (0, "")
    rows = table_rows(out)
    place = rows["op"].index("acme")
    assert set(OPS) <= set(rows)
    assert {op for op in OPS if rows[op][place] == "yes"} == {"hermitian_factor"}
    assert rows["available"][place] == "no licence"
    assert rows["asked by default"][place] == "only when named"


def test_backends_shows_the_own_backend(run):
    rows = table_rows(run("backends")[1])
    place = rows["op"].index("numba")
    here = "yes" if find_spec("numba") else "numba is not installed"
    assert rows["available"][place].startswith(here)
    assert rows["unitary_factor"][place] == "yes"


def test_backends_shows_the_own_backend_for_devices(run, monkeypatch):
    monkeypatch.setattr(backends.load("numba_cuda"), "available", lambda: "no CUDA device")
    rows = table_rows(run("backends")[1])
    place = rows["op"].index("numba_cuda")
    assert rows["available"][place] == "no CUDA device"
    assert [rows[op][place] for op in ("polar_factors", "random_bits")] == ["yes", "yes"]
    assert [rows[op][place] for op in ("balance", "scheduled_factor")] == ["-", "-"]


def test_bench_times_the_cases_for_it(run):
    options = ("--kernel", "polar", "--library", "numpy", "--backend", "array-api")
    status, out, _ = run("bench", *options, "--dtype", "float32", "--json")
    assert status == 0
    rows = json.loads(out)["rows"]
    wanted = {case.name for case in load_all()["polar"].cases if case.bench}
    assert {row["case"] for row in rows} == wanted
    assert all(row["seconds"] > 0 for row in rows)
    assert {row["verdict"] for row in rows} == {"pass"}


def test_bench_prints_a_table(run):
    options = ("--kernel", "polar", "--library", "numpy", "--backend", "array-api")
    status, out, _ = run("bench", *options, "--dtype", "float32")
    assert status == 0
    assert "gaussian tall" in out


# As a process


def test_as_a_module():
    done = outside.python("-m", "orthokern", "validate", *FAST, "--backend", "array-api", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["passed"] is True
    assert "rows: " in done.stderr


BROKEN = """
import orthokern.spectral
from orthokern._core import backends
from orthokern._core.dispatch import OPS
from orthokern.backend import Backend

backend = Backend("outside", serves={("numpy", "cpu")})


@backend.implements("hermitian_factor")
def hermitian_factor(u, x):
    return OPS["hermitian_factor"].body(u, x) * (1 + 1e-9)
"""


def test_an_installed_broken_op_makes_the_process_exit_with_one(tmp_path):
    outside.install(tmp_path, "outside_broken", BROKEN, outside="backend")
    arguments = ("-m", "orthokern", "validate", *FAST)
    done = outside.python(*arguments, path=[tmp_path])
    assert done.returncode == 1
    assert "FAIL hermitian_factor / contiguous 33x33 on outside (numpy, float64): " in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("backends",), ("validate", *FAST)])
def test_a_package_that_cannot_be_loaded_disturbs_nobody(tmp_path, command):
    outside.install(tmp_path, "outside_raises", "raise OSError('no library')", outside="backend")
    done = outside.python("-m", "orthokern", *command, path=[tmp_path])
    assert done.returncode == 0, done.stderr
    # A table breaks the reason over the lines of a narrow column.
    cells = table_rows(done.stdout)["available"] if command == ("backends",) else [done.stdout]
    assert "no library" in re.sub(r"\s+", " ", " ".join(cells))


def test_an_unknown_name_makes_the_process_exit_with_two():
    done = outside.python("-m", "orthokern", "validate", "--kernel", "polarr")
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence(done.stderr, "validate").endswith("got 'polarr'")


def test_a_reader_that_leaves_early_causes_no_traceback():
    code = f"""
import subprocess, sys
arguments = [sys.executable, "-m", "orthokern", "validate", *{FAST!r}, "--all-rows"]
child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
child.stdout.close()
print(child.communicate()[1])
"""
    assert "Traceback" not in outside.answer(code)
