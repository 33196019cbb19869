"""Every refusal: its class, and one sentence that names what was expected, what came, and the way out."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import scipy.sparse

import orthokern
from orthokern._core import check, errors
from orthokern._core.namespace import namespace, same_library
from orthokern.spectral.request import COMPLETIONS, METHODS
from orthokern.testing import libraries

HIERARCHY = {
    errors.ShapeError: ValueError,
    errors.OptionError: ValueError,
    errors.ValuesError: ValueError,
    errors.ArrayTypeError: TypeError,
    errors.DTypeError: TypeError,
    errors.BackendError: RuntimeError,
    errors.UnsupportedError: NotImplementedError,
}
KERNELS = ("polar", "orthogonalize", "newton_schulz")


def refusal(error, call, *arguments, **options):
    """The text of the refusal, which must be one sentence."""
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text
    assert not re.search(r"[.!?]\s", text)
    assert not text.endswith(".")
    return text


@pytest.mark.parametrize(("error", "base"), HIERARCHY.items())
def test_classes(error, base):
    assert issubclass(error, base)
    assert issubclass(error, errors.OrthokernError)
    assert not issubclass(errors.OrthokernError, base)


def test_every_error_class_is_tested_and_the_warning_is_no_error():
    found = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.OrthokernError)
    }
    assert found == {*HIERARCHY, errors.OrthokernError}
    assert issubclass(errors.ConvergenceWarning, UserWarning)
    assert not issubclass(errors.ConvergenceWarning, errors.OrthokernError)


# What is no array

NO_ARRAYS = [
    ([[1.0, 2.0], [3.0, 4.0]], "list"),
    (((1.0,), (2.0,)), "tuple"),
    (1.5, "float"),
    (2, "int"),
    (1j, "complex"),
    (True, "bool"),
    (None, "NoneType"),
    ("matrix", "str"),
    ({"x": 1}, "dict"),
    (memoryview(b"12345678"), "memoryview"),
]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("x", "kind"), NO_ARRAYS)
def test_what_is_no_array(kernel, x, kind):
    text = refusal(errors.ArrayTypeError, getattr(orthokern, kernel), x)
    assert text == (
        f"{kernel}: expected an array for x (NumPy, torch, JAX, CuPy, Dask, ...), got {kind}; "
        "wrap it, for example numpy.asarray(x)"
    )


def test_sparse_matrices_are_no_arrays():
    text = refusal(errors.ArrayTypeError, orthokern.polar, scipy.sparse.eye_array(3))
    assert "got dia_array;" in text


def masked():
    return np.ma.masked_array(np.eye(2), mask=[[0, 1], [0, 0]])


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("make", "kind"), [(lambda: np.matrix(np.eye(2)), "matrix"), (masked, "MaskedArray")]
)
def test_arrays_whose_operators_mean_something_else(kernel, make, kind):
    text = refusal(errors.ArrayTypeError, getattr(orthokern, kernel), make())
    assert text.startswith(f"{kernel}: expected a plain array for x, got {kind}, whose products")
    assert text.endswith("; pass numpy.asarray(x)")


def test_a_refusal_comes_before_any_later_one():
    # An argument of a wrong kind is named even where an option is wrong as well.
    text = refusal(errors.ArrayTypeError, orthokern.polar, [[1]], side="up")
    assert "for x" in text
    assert "side" not in text


# Dtypes

NO_FLOATS = [
    ("int64", np.int64),
    ("int8", np.int8),
    ("uint8", np.uint8),
    ("bool", np.bool_),
    ("object", object),
    ("str32", "<U1"),
    ("bytes8", "S1"),
    ("datetime64[s]", "M8[s]"),
]
FLOATS = "bfloat16, complex128, complex64, float16, float32, float64"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("name", "dtype"), NO_FLOATS)
def test_dtypes_that_are_not_floating(kernel, name, dtype):
    text = refusal(errors.DTypeError, getattr(orthokern, kernel), np.ones((2, 2)).astype(dtype))
    assert text == (
        f"{kernel}: expected a floating dtype ({FLOATS}) for x, got {name}; "
        "cast to a floating dtype first"
    )


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_longer_numbers_than_double_are_refused(dtype):
    text = refusal(errors.DTypeError, orthokern.polar, np.ones((2, 2), dtype=dtype))
    assert f"got {np.dtype(dtype).name}; cast to a floating dtype first" in text


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_integers_and_booleans_of_every_library(library, dtype):
    x = libraries.to_library(np.ones((2, 2), dtype=dtype), library)
    text = refusal(errors.DTypeError, orthokern.polar, x)
    assert f"for x, got {dtype}; cast to a floating dtype first" in text


def test_low_precision_is_refused_where_a_kernel_says_so():
    x = np.ones((2, 2), dtype=np.float16)
    assert check.floating(x, kernel="k") is x
    text = refusal(errors.DTypeError, check.floating, x, kernel="k", name="y", low_precision=False)
    assert text.startswith("k: expected a floating dtype (")
    assert "for y, got float16;" in text


# Shapes


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(), (5,), (0,)])
def test_too_few_dimensions(kernel, shape, library):
    flat = libraries.to_library(np.ones(math.prod(shape), dtype=np.float32), library)
    x = namespace(flat).reshape(flat, shape)
    text = refusal(errors.ShapeError, getattr(orthokern, kernel), x)
    assert text == (
        f"{kernel}: expected at least 2 dimensions (..., m, n) for x, got shape {shape}; "
        "add axes, for example x[None, :] or x[:, None]"
    )


@pytest.mark.parametrize("number", [np.float64(2.0), np.complex64(1j)])
def test_numpy_scalars_have_no_dimensions(number):
    assert "got shape ();" in refusal(errors.ShapeError, orthokern.polar, number)


# Options


@pytest.mark.parametrize("value", ["up", "", "Right", None, 1, ["right"]])
def test_choices(value):
    text = refusal(errors.OptionError, orthokern.polar, np.eye(2), side=value)
    assert text == f"polar: expected side to be one of 'right', 'left', got {value!r}"


@pytest.mark.parametrize(("name", "allowed"), [("method", METHODS), ("completion", COMPLETIONS)])
def test_choices_list_every_name(name, allowed):
    text = refusal(errors.OptionError, orthokern.polar, np.eye(2), **{name: "best"})
    names = ", ".join(map(repr, allowed))
    assert text == f"polar: expected {name} to be one of {names}, got 'best'"


@pytest.mark.parametrize("name", ["compute_h", "check_finite"])
@pytest.mark.parametrize("value", [1, 0, None, "yes"])
def test_flags(name, value):
    text = refusal(errors.OptionError, orthokern.polar, np.eye(2), **{name: value})
    assert text == f"polar: expected {name} to be True or False, got {value!r}"


@pytest.mark.parametrize("value", [True, False, np.bool_(True), np.bool_(False)])
def test_flags_come_back_as_python_has_them(value):
    assert check.flag(value, kernel="k", name="f") is bool(value)


@pytest.mark.parametrize("value", [0, -3, 2.0, "3", None, True, np.bool_(True), np.array([3]), 1j])
def test_counts(value):
    text = refusal(errors.OptionError, check.count, value, kernel="k", name="steps")
    assert text == f"k: expected steps to be an integer >= 1, got {value!r}"


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3)])
def test_counts_of_every_integer_type(value):
    assert check.count(value, kernel="k", name="steps") == 3
    assert type(check.count(value, kernel="k", name="steps")) is int


def test_counts_from_another_start():
    assert check.count(0, kernel="k", name="seed", least=0) == 0
    text = refusal(errors.OptionError, check.count, -1, kernel="k", name="seed", least=0)
    assert text == "k: expected seed to be an integer >= 0, got -1"


NO_FRACTIONS = [0, 0.0, 1, 1.0, -0.5, 1.5, np.inf, -np.inf, np.nan, True, 1j, [0.5], "half", "0.5"]


@pytest.mark.parametrize("value", [*NO_FRACTIONS, pytest.param(10**400, id="huge")])
@pytest.mark.parametrize("name", ["tol", "rcond"])
def test_intervals(name, value):
    text = refusal(errors.OptionError, orthokern.polar, np.eye(2), **{name: value})
    assert text == f"polar: expected {name} to be a number with 0 < {name} < 1, got {value!r}"


def test_true_is_no_number():
    text = refusal(errors.OptionError, check.interval, True, kernel="k", name="tol", high=2.0)
    assert text == "k: expected tol to be a number with 0 < tol < 2, got True"


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5)])
def test_intervals_take_every_real_number(value):
    found = check.interval(value, kernel="k", name="tol")
    assert (found, type(found)) == (0.5, float)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"steps": 3, "method": "svd"},
            "expected no steps with method='svd'; they belong to gram, newton_schulz, polar_express",
        ),
        (
            {"coefficients": "jordan", "method": "polar_express"},
            "expected no coefficients with method='polar_express'; they belong to gram, newton_schulz",
        ),
        (
            {"steps": 3, "tol": 0.1},
            "expected either tol or steps/coefficients, got both; tol chooses the steps itself",
        ),
    ],
)
@pytest.mark.parametrize("kernel", ["polar", "orthogonalize"])
def test_options_that_exclude_each_other(kernel, options, text):
    found = refusal(errors.OptionError, getattr(orthokern, kernel), np.eye(2), **options)
    assert found == f"{kernel}: {text}"


# Values


@pytest.mark.parametrize("kernel", ["polar", "orthogonalize"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(kernel, value, library):
    x = np.eye(3, dtype=np.float32)
    x[1, 2] = value
    given = libraries.to_library(x, library)
    text = refusal(errors.ValuesError, getattr(orthokern, kernel), given, check_finite=True)
    assert text == (
        f"{kernel}: expected finite values in x, got NaN or infinity; clean x first, or pass "
        "check_finite=False to let them propagate to the matrices they belong to"
    )


@pytest.mark.parametrize("value", [complex(np.nan, 1), complex(1, np.inf)])
def test_complex_values_that_are_not_finite(value):
    x = np.full((2, 2), value)
    assert "finite" in refusal(errors.ValuesError, orthokern.polar, x, check_finite=True)


def test_finite_values_pass():
    check.finite_values(np.full((2, 2), np.finfo(np.float64).max), kernel="k")


TRACED = (
    "polar: check_finite=True looks at the values of x, which a traced call does not have; "
    "pass check_finite=False under jit, vmap, compile and autodiff transforms"
)


def factor(x):
    return orthokern.polar(x, check_finite=True).u.sum()


@pytest.mark.parametrize("transform", ["jit", "vmap", "grad"])
def test_values_are_not_looked_at_under_jax_transforms(jax, transform):
    x = jax.numpy.ones((3, 2, 2)) if transform == "vmap" else jax.numpy.ones((2, 2))
    assert refusal(errors.UnsupportedError, getattr(jax, transform)(factor), x) == TRACED


def test_values_are_not_looked_at_under_torch_transforms(torch):
    x = torch.ones(3, 2, 2)
    assert refusal(errors.UnsupportedError, torch.func.vmap(factor), x) == TRACED


def test_values_are_not_looked_at_under_torch_compile(torch):
    compiled = torch.compile(factor, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="check_finite=True looks at the values of x"):
        compiled(torch.ones(2, 2))


# Mixtures


def test_mixtures_of_libraries(library):
    ours, theirs = np.ones(2), libraries.to_library(np.ones(2, dtype=np.float32), library)
    if library == "numpy":
        assert same_library(ours, theirs) is namespace(ours)
        return
    assert same_library(theirs, theirs) is namespace(theirs)
    for mixture in ((ours, theirs), (theirs, ours), (ours, ours, theirs)):
        first, second = sorted(("numpy", library))
        assert refusal(errors.ArrayTypeError, same_library, *mixture) == (
            f"expected arrays of one library, got a mixture of {first} and {second}; "
            "convert them to one library first (orthokern never moves data by itself)"
        )
