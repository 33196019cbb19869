"""Which implementation of an op runs, who decides it, and what ``explain()`` says of it."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest

import orthokern
from orthokern import BackendError, explain, use_backend
from orthokern._core import backends
from orthokern._core.dispatch import kernel
from orthokern.backend import Backend, register

from ..helpers import outside

ONES = np.ones(3)


def ran(op, *arrays, **static):
    """Name of the backend that ran one call of ``op``."""
    with explain() as report:
        op(*arrays, **static)
    return report[-1].backend


def refusals(op, *arrays, **static):
    with explain() as report:
        op(*arrays, **static)
    return report[-1].refused


# The default order

ORDER = """
import json
import numpy as np
from orthokern._core.dispatch import explain, op
from orthokern.backend import Backend, register

@op()
def double(x, /):
    return 2 * x

for name in ("numba", "other", "numba_cuda", "cupy"):
    stranger = register(Backend(name, serves={("numpy", "cpu")}))
    stranger.implements("double", when=lambda x: "declines")(lambda x: 0 * x)
with explain() as report:
    double(np.ones(2))
print(json.dumps([report[0].backend, report[0].refused]))
"""


@pytest.mark.parametrize(
    ("variable", "order"),
    [
        (None, ["cupy", "numba_cuda", "numba"]),
        ("", []),
        ("other", ["other"]),
        ("other,numba", ["other", "numba"]),
        (" numba , cupy,", ["numba", "cupy"]),
        ("array-api", []),
    ],
)
def test_backends_are_asked_in_order(variable, order):
    backend, refused = json.loads(outside.answer(ORDER, ORTHOKERN_BACKENDS=variable))
    assert backend == "array-api"
    assert list(refused.items()) == [(name, "declines") for name in order]


def test_a_name_in_the_environment_that_nobody_has_is_reported():
    done = outside.python("-c", ORDER, ORTHOKERN_BACKENDS="absent,numba")
    _, refused = json.loads(done.stdout)
    assert refused["absent"].startswith("expected the name of an installed backend (")
    assert refused["numba"] == "declines"
    assert "RuntimeWarning: ORTHOKERN_BACKENDS names absent, but installed are cupy" in done.stderr


def test_the_first_in_the_order_that_accepts_runs():
    accepting = ORDER.replace('lambda x: "declines"', '{"cupy": lambda x: "declines"}.get(name)')
    backend, refused = json.loads(outside.answer(accepting, ORTHOKERN_BACKENDS=None))
    assert (backend, refused) == ("numba_cuda", {"cupy": "declines"})


# Named backends


def test_a_stranger_runs_only_when_it_is_named(double, stranger):
    stranger("acme", 7.0)
    assert ran(double, ONES) == "array-api"
    np.testing.assert_array_equal(double(ONES), [2, 2, 2])
    with use_backend("acme"):
        assert ran(double, ONES) == "acme"
        np.testing.assert_array_equal(double(ONES), [7, 7, 7])


def test_the_keyword_holds_for_every_op_and_kernel_below(double, stranger):
    stranger("acme", 7.0)

    @kernel()
    def inner(x, /, *, backend=None):
        return double(x)

    @kernel()
    def outer(x, /, *, backend=None):
        return inner(x) + double(x)

    np.testing.assert_array_equal(outer(ONES, backend="acme"), [14, 14, 14])
    np.testing.assert_array_equal(outer(ONES), [4, 4, 4])


def test_ops_that_the_named_backend_lacks_run_the_body(double, stranger):
    stranger("acme", op="hermitian_factor")
    with use_backend("acme"), explain() as report:
        np.testing.assert_array_equal(double(ONES), [2, 2, 2])
    assert report[0].backend == "array-api"
    assert report[0].refused == {"acme": "does not implement this op"}


@pytest.mark.parametrize("reporting", [False, True])
def test_a_refusal_of_the_named_backend_is_an_error(double, stranger, reporting):
    stranger("acme", when=lambda x, **static: "fewer than 64 rows")

    def call():
        if not reporting:
            return double(ONES)
        with explain():
            return double(ONES)

    with use_backend("acme"), pytest.raises(BackendError) as caught:
        call()
    assert "'acme' refused double: fewer than 64 rows; pass backend=None" in str(caught.value)


def test_a_named_backend_that_cannot_run_here_is_an_error(double, stranger):
    stranger("acme", available=lambda: "no such device")
    with (
        use_backend("acme"),
        pytest.raises(BackendError, match="'acme' refused double: no such device"),
    ):
        double(ONES)


def test_a_named_backend_for_another_device_is_an_error(double, stranger):
    stranger("acme", serves={("cupy", "cuda")})
    with (
        use_backend("acme"),
        pytest.raises(BackendError, match="does not accept numpy arrays on cpu"),
    ):
        double(ONES)


def test_availability_is_asked_once_and_late(double, stranger):
    asked = []
    acme = stranger("acme", available=lambda: asked.append(1))
    assert asked == []
    with use_backend("acme"):
        double(ONES)
    assert acme.available() is None
    assert asked == [1]


def test_the_predicate_sees_arrays_and_options(double, stranger):
    def when(x, *, more):
        return f"{x.shape} with more={more}" if more else None

    stranger("acme", 7.0, when=when)
    with use_backend("acme"):
        assert ran(double, ONES, more=0) == "acme"
        with pytest.raises(BackendError, match=r"\(3,\) with more=1"):
            double(ONES, more=1)
        # A refusal belongs to one call.
        assert ran(double, ONES, more=0) == "acme"


@pytest.mark.parametrize("name", ["array-api", "acme"])
def test_the_body_can_be_forced_inside_a_choice(double, stranger, name):
    stranger("acme", 7.0)
    with use_backend("acme"), use_backend(name):
        assert ran(double, ONES) == name


@pytest.mark.parametrize(
    "call", [use_backend, lambda name: orthokern.polar(np.eye(2), backend=name)]
)
@pytest.mark.parametrize("name", ["absent", "", "Numba", "array_api"])
def test_a_wrong_name_is_answered_with_what_is_installed(stranger, call, name):
    stranger("acme")
    with pytest.raises(BackendError) as caught, call(name):
        pass
    names = ", ".join(("array-api", *backends.installed()))
    assert f"({names}), got {name!r}" in str(caught.value)
    assert "acme" in names


def test_nested_choices_end_where_they_began(double, stranger):
    stranger("one", 1.0)
    stranger("two", 2.0)
    seen = []
    with use_backend("one"):
        seen.append(double(ONES)[0])
        with use_backend("two"):
            seen.append(double(ONES)[0])
            with use_backend(None):
                seen.append(ran(double, ONES))
        seen.append(double(ONES)[0])
    seen.append(ran(double, ONES))
    assert seen == [1.0, 2.0, "array-api", 1.0, "array-api"]


def test_an_exception_ends_the_choice(double, stranger):
    stranger("acme", 7.0)
    with pytest.raises(ZeroDivisionError), use_backend("acme"):
        raise ZeroDivisionError
    assert ran(double, ONES) == "array-api"


# Concurrency


def test_threads_do_not_see_each_others_choice(double, stranger):
    stranger("one", 1.0)
    stranger("two", 2.0)
    meet = threading.Barrier(3, timeout=30)
    seen = {}

    def work(name):
        with use_backend(name):
            meet.wait()
            seen[name] = ran(double, ONES)
            meet.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two", None)]
    with use_backend("one"), explain() as outer:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == {"one": "one", "two": "two", None: "array-api"}
    assert outer == []


def test_tasks_do_not_see_each_others_choice(double, stranger):
    stranger("one", 1.0)
    stranger("two", 2.0)

    async def work(name):
        with use_backend(name), explain() as report:
            for _ in range(3):
                await asyncio.sleep(0)
                double(ONES)
        return [decision.backend for decision in report]

    async def together():
        return await asyncio.gather(*map(work, ("one", "two", "array-api")))

    with use_backend("two"):
        found = asyncio.run(together())
    assert found == [["one"] * 3, ["two"] * 3, ["array-api"] * 3]


# Reports


def test_a_decision_says_what_ran_on_what(double, stranger, library):
    make = orthokern.testing.to_library
    with use_backend("array-api"), explain() as report:
        double(make(np.ones((2, 3), dtype=np.float32), library))
    assert len(report) == 1
    assert report[0][:6] == ("double", "array-api", library, "cpu", "float32", (2, 3))
    assert str(report[0]) == f"double | array-api | {library}/cpu/float32/(2, 3)"


def test_a_report_prints_a_line_for_each_op_with_the_reasons(double, stranger):
    stranger("acme", when=lambda x, **static: "odd" if x.size % 2 else None)
    with explain() as report:
        with use_backend("acme"):
            double(np.ones(4))
        double(ONES)
    header, first, second = str(report).splitlines()
    assert header == "op | backend | library/device/dtype/shape | why others did not run"
    assert first == "double | acme | numpy/cpu/float64/(4,)"
    assert second.startswith("double | array-api | numpy/cpu/float64/(3,)")
    for name in backends.priority():
        assert f"{name}: does not implement this op" in second


def test_an_empty_report_says_why_it_may_be_empty():
    with explain() as report:
        pass
    assert str(report) == "no op ran (a cached jit call or torch.compile records nothing)"


def test_a_closed_report_grows_no_more(double):
    with explain() as report:
        double(ONES)
    double(ONES)
    assert len(report) == 1


def test_an_inner_report_takes_the_records(double):
    with explain() as outer:
        double(ONES)
        with explain() as inner:
            double(np.ones(5))
        double(np.ones(7))
    assert [decision.shape for decision in inner] == [(5,)]
    assert [decision.shape for decision in outer] == [(3,), (7,)]


def test_reporting_does_not_change_what_runs(double, stranger):
    stranger("acme", 7.0)
    with use_backend("acme"):
        quiet = double(ONES)
        with explain():
            observed = double(ONES)
    np.testing.assert_array_equal(quiet, observed)


def test_a_cached_jit_call_records_nothing(double, jax):
    jitted = jax.jit(double)
    x = jax.numpy.ones(3)
    with explain() as traced:
        jitted(x)
    with explain() as cached:
        jitted(x)
    assert [decision.backend for decision in traced] == ["array-api (traced)"]
    assert traced[0][2:6] == (
        "jax",
        "traced",
        "float32" if x.dtype == "float32" else "float64",
        (3,),
    )
    assert set(traced[0].refused) == set(backends.priority())
    assert all(reason.startswith("abstract arrays") for reason in traced[0].refused.values())
    assert cached == []
    assert "cached jit" in str(cached)


def test_a_named_backend_refuses_abstract_arrays(double, stranger, jax):
    stranger("acme", 7.0)
    with (
        use_backend("acme"),
        pytest.raises(BackendError, match="'acme' refused double: abstract arrays"),
    ):
        jax.jit(double)(jax.numpy.ones(3))


@pytest.fixture
def doubled(double):
    """A kernel around the op, as families write them."""

    @kernel(ops=("double",))
    def doubled(x, /, *, backend=None):
        return double(x)

    return doubled


def test_torch_compile_records_nothing(doubled, torch):
    compiled = torch.compile(doubled, backend="eager", fullgraph=True)
    with explain() as report:
        assert compiled(torch.ones(3)).tolist() == [2, 2, 2]
    assert report == []


def test_a_named_backend_refuses_to_be_compiled(doubled, stranger, torch):
    stranger("acme", 7.0)
    compiled = torch.compile(lambda x: doubled(x, backend="acme"), backend="eager", fullgraph=True)
    with pytest.raises(RuntimeError, match=r"'acme' cannot run inside torch\.compile"):
        compiled(torch.ones(3))


def test_a_named_backend_runs_between_compiled_pieces(doubled, stranger, torch):
    stranger("acme", 7.0)
    compiled = torch.compile(lambda x: 1 + doubled(x, backend="acme"), backend="eager")
    assert compiled(torch.ones(3)).tolist() == [8, 8, 8]


# Derivatives


def test_no_backend_takes_derivatives_away(double, stranger, torch):
    stranger("acme", 7.0)
    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(double(x).sum(), x)
    assert gradient.tolist() == [2, 2, 2]
    with use_backend("acme"), pytest.raises(BackendError, match="no derivative rule"):
        double(x)
    with use_backend("acme"), torch.no_grad():
        assert ran(double, x) == "acme"


# Registration


def test_one_op_is_implemented_once():
    backend = Backend("acme", serves={("numpy", "cpu")})
    backend.implements("double")(lambda x: x)
    with pytest.raises(BackendError, match="'acme' implements 'double' twice; remove one"):
        backend.implements("double")(lambda x: x)
    assert repr(backend) == "Backend('acme', ops=['double'])"


def test_a_new_version_of_a_backend_takes_effect_at_once(double, stranger):
    stranger("acme", 1.0)
    with use_backend("acme"):
        assert double(ONES)[0] == 1
        stranger("acme", 2.0)
        assert double(ONES)[0] == 2
    stranger("acme", when=lambda x, **static: "no more")
    with use_backend("acme"), pytest.raises(BackendError, match="no more"):
        double(ONES)


def test_a_version_made_long_before_takes_effect_when_it_is_registered(double, stranger):
    late = Backend("acme", serves={("numpy", "cpu")})
    late.implements("double")(lambda x, **static: 5 * x)
    stranger("acme", 1.0)
    with use_backend("acme"):
        assert double(ONES)[0] == 1
        register(late)
        assert double(ONES)[0] == 5


def test_a_new_version_may_serve_other_arrays(doubled, stranger, torch):
    x = torch.ones(2)
    stranger("acme", 1.0)
    assert doubled(x, backend="acme").tolist() == [1, 1]
    stranger("acme", run=lambda x, **static: x.mul(3), serves={("torch", "cpu")})
    assert doubled(x, backend="acme").tolist() == [3, 3]


def test_an_op_that_a_backend_learns_late_takes_effect_at_once(double, stranger):
    late = stranger("acme", op="hermitian_factor")
    with use_backend("acme"):
        assert ran(double, ONES) == "array-api"
        late.implements("double")(lambda x, **static: 5 * x)
        np.testing.assert_array_equal(double(ONES), [5, 5, 5])


def test_register_makes_a_backend_known_and_returns_it(stranger):
    # The fixture is asked for its clean-up: it forgets what was registered inside.
    stranger("before")
    acme = Backend("acme", serves={("numpy", "cpu")})
    assert register(acme) is acme
    assert backends.load("acme") is acme
    assert "acme" in backends.installed()
