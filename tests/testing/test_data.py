"""The real matrices are what their README says, and can be made again."""

import importlib.util
import pathlib

import numpy as np
import pytest

from orthokern.testing import data

SHAPES = {
    "digits": {"images": (1797, 64), "labels": (1797,)},
    "gradients": {
        f"layer{k}_{stage}": shape
        for k, shape in enumerate([(64, 128), (128, 64), (64, 10)], start=1)
        for stage in ("early", "middle", "late")
    },
    "histograms": {"source": (512,), "target": (512,), "colours": (512, 3)},
    "patches": {"patches": (512, 64)},
}


def singular_values(matrix):
    return np.linalg.svd(matrix.astype(np.float64), compute_uv=False)


def test_every_data_set_is_listed():
    assert data.names() == tuple(sorted(SHAPES))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes_and_dtypes(name):
    arrays = data.load(name)
    expected = np.dtype(np.uint8 if name == "digits" else np.float32)
    assert {key: array.shape for key, array in arrays.items()} == SHAPES[name]
    assert {array.dtype for array in arrays.values()} == {expected}
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_load_gives_arrays_of_the_callers_own():
    data.load("patches")["patches"][:] = 0
    assert np.any(data.load("patches")["patches"])


@pytest.mark.parametrize("name", ["", "digit", "digits.npz", "../data/digits"])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"\(digits, gradients, histograms, patches\)") as caught:
        data.load(name)
    assert repr(name) in str(caught.value)


def test_digits():
    digits = data.load("digits")
    assert digits["images"].max() == 16
    assert np.bincount(digits["labels"]).tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]
    assert np.linalg.matrix_rank(digits["images"].astype(np.float64)) == 61


def test_patches_have_no_mean_not_even_a_rounded_one():
    patches = data.load("patches")["patches"].astype(np.float64)
    assert np.array_equal(patches.sum(axis=1), np.zeros(512))
    assert np.linalg.matrix_rank(patches) == 63


def test_histograms_have_equal_masses():
    histograms = data.load("histograms")
    for key in ("source", "target"):
        counts = histograms[key].astype(np.float64)
        assert counts.sum() == 427 * 640
        assert counts.min() == 0
    assert len(np.unique(histograms["colours"], axis=0)) == 512


@pytest.mark.parametrize("key", sorted(SHAPES["gradients"]))
def test_gradients_are_ill_conditioned_and_of_low_rank(key):
    s = singular_values(data.load("gradients")[key])
    assert s[-1] < 1e-7 * s[0]
    assert np.sum(s**2) < 3 * s[0] ** 2


def test_all_files_together_stay_small():
    folder = pathlib.Path(data.__file__).parent
    assert sum(file.stat().st_size for file in folder.glob("*.npz")) < 400_000


def test_the_script_makes_the_same_arrays_again():
    script = pathlib.Path(__file__).parents[2] / "benchmarks" / "make_data.py"
    pytest.importorskip("sklearn", reason="the data are made from data sets of scikit-learn")
    pytest.importorskip("PIL", reason="the photographs are JPEG files")
    spec = importlib.util.spec_from_file_location("make_data", script)
    make_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_data)
    assert tuple(sorted(make_data.MAKERS)) == data.names()
    for name, make in make_data.MAKERS.items():
        assert make_data.difference(make(), data.load(name)) <= make_data.TOLERANCE, name
