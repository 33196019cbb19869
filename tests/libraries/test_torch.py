"""torch tensors in eager code: dtypes, devices, layouts, modes, refusals, what results can be used for."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import numpy as np
import pytest

from orthokern import DTypeError, OrthokernError, explain, newton_schulz, orthogonalize, polar

from . import derivatives

torch = pytest.importorskip("torch")

EPS = {
    "float64": 2.0**-52,
    "complex128": 2.0**-52,
    "float32": 2.0**-23,
    "complex64": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}
CALLS = {
    "polar": polar,
    "orthogonalize": orthogonalize,
    "to a tolerance": lambda x: orthogonalize(x, tol=0.1),
    "newton": lambda x: polar(x, method="newton"),
    "newton_schulz": newton_schulz,
}


def matrices(rng, *shape, dtype="float64"):
    kind = np.complex128 if dtype.startswith("complex") else np.float64
    values = derivatives.well_conditioned(rng, *shape, dtype=kind)
    return torch.tensor(values).to(getattr(torch, dtype))


def arrays_of(result):
    """The tensors of a result, diagnostics included."""
    if isinstance(result, tuple):
        return [leaf for part in result for leaf in arrays_of(part)]
    return [result]


def assert_same_factors(x, expected):
    """Both factors of ``x`` within a few eps of those of ``expected``."""
    torch.testing.assert_close(polar(x)[:2], polar(expected)[:2], rtol=0, atol=4e-15)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (2, 3, 3)])
def test_factors_in_every_dtype(rng, dtype, shape, backend):
    x = matrices(rng, *shape, dtype=dtype)
    result = polar(x, backend=backend)
    exact = x.to(torch.complex128 if x.is_complex() else torch.float64).reshape(-1, *shape[-2:])
    u = np.reshape([derivatives.unitary_factor(a) for a in exact.numpy()], shape)
    h = np.stack([derivatives.hermitian_factor(a) for a in exact.numpy()])
    # The factors change by at most twice a change of the matrix; H has norm 2.
    limit = {"rtol": 0, "atol": 16 * EPS[dtype]}
    for computed, expected in ((result.u, u), (result.h, h.reshape(result.h.shape))):
        assert computed.dtype == x.dtype
        assert computed.device == x.device
        torch.testing.assert_close(computed.to(exact.dtype), torch.tensor(expected), **limit)


@pytest.mark.parametrize("call", CALLS)
def test_backend_serves_tensors_of_the_processor(rng, call, backend):
    x = matrices(rng, 5, 5)
    with explain() as report:
        CALLS[call](x)
    assert {d.library for d in report} == {"torch"}
    assert {d.device for d in report} == {"cpu"}
    with explain() as report:
        polar(x, backend=backend)
    assert {d.backend for d in report} == {backend}


VIEWS = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second entry": lambda x: torch.cat([x, x], -1).reshape(*x.shape, 2).mT.mT[..., 0],
    "offset": lambda x: torch.nn.functional.pad(x, (1, 1, 2, 0))[..., 2:, 1:-1],
    "flipped storage": lambda x: x.flip(-1).contiguous().flip(-1),
    "expanded": lambda x: x[:1].expand(*x.shape),
    "channels last": lambda x: x[None].contiguous(memory_format=torch.channels_last)[0],
}


@pytest.mark.parametrize("view", VIEWS)
def test_layouts(rng, view):
    x = VIEWS[view](matrices(rng, 3, 4, 4))
    before = x.clone()
    assert_same_factors(x, x.contiguous())
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_lazy_conjugates_and_negatives(rng):
    z = matrices(rng, 4, 4, dtype="complex128")
    negative = z.conj().imag
    assert z.conj().is_conj()
    assert negative.is_neg()
    assert_same_factors(z.conj(), z.conj().resolve_conj())
    assert_same_factors(z.mH, z.mH.resolve_conj().contiguous())
    assert_same_factors(negative, negative.resolve_neg())


@pytest.mark.parametrize("call", CALLS)
def test_input_is_kept_and_results_are_new(rng, call):
    x = matrices(rng, 4, 4)
    before, version = x.clone(), x._version
    result = CALLS[call](x)
    for part in arrays_of(result):
        part.zero_()
    assert x._version == version
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_results_do_not_share_memory(rng):
    parts = [part for part in arrays_of(polar(matrices(rng, 2, 3, 3))) if part.numel()]
    starts = {part.untyped_storage().data_ptr() for part in parts}
    assert len(starts) == len(parts)


def test_no_grad_and_parameters(rng):
    x = torch.nn.Parameter(matrices(rng, 3, 3))
    with torch.no_grad():
        silent = polar(x)
    assert not any(part.requires_grad for part in arrays_of(silent))
    result = polar(x)
    assert type(result.u) is torch.Tensor
    assert result.u.requires_grad
    torch.testing.assert_close(result.u, silent.u, rtol=0, atol=0)


@pytest.mark.parametrize("call", CALLS)
def test_inference_mode(rng, call):
    x = torch.nn.Parameter(matrices(rng, 4, 4))
    expected = arrays_of(CALLS[call](x.detach()))[0]
    with torch.inference_mode():
        inside = x.clone()
        results = [arrays_of(CALLS[call](given))[0] for given in (x, inside)]
    results.append(arrays_of(CALLS[call](inside))[0])
    assert not any(result.requires_grad for result in results)
    for result in results:
        torch.testing.assert_close(result.clone(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_default_device_is_not_used(rng, call, requires_grad):
    x = matrices(rng, 4, 4).requires_grad_(requires_grad)
    expected = arrays_of(CALLS[call](x))
    with torch.device("meta"):
        result = arrays_of(CALLS[call](x))
    assert {part.device.type for part in result} == {"cpu"}
    torch.testing.assert_close(result[0], expected[0], rtol=0, atol=0)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_default_dtype_is_not_used(rng, call, requires_grad):
    x = matrices(rng, 4, 4).requires_grad_(requires_grad)
    expected = arrays_of(CALLS[call](x))
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        result = arrays_of(CALLS[call](x))
    finally:
        torch.set_default_dtype(usual)
    assert [part.dtype for part in result] == [part.dtype for part in expected]
    torch.testing.assert_close(result[0], expected[0], rtol=0, atol=0)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_autocast_does_not_lower_the_precision(rng, backend, requires_grad):
    x = matrices(rng, 8, 5, dtype="float32").requires_grad_(requires_grad)
    expected = polar(x, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = polar(x, backend=backend)
    assert result.u.dtype == torch.float32
    torch.testing.assert_close(result[:2], expected[:2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("call", CALLS)
def test_deterministic_algorithms(rng, call):
    x = matrices(rng, 4, 4).requires_grad_()
    torch.use_deterministic_algorithms(mode=True)
    try:
        arrays_of(CALLS[call](x))[0].sum().backward()
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert torch.isfinite(x.grad).all()


def test_anomaly_detection_finds_nothing(rng):
    x = matrices(rng, 4, 3).requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection has been enabled")
        with torch.autograd.detect_anomaly(check_nan=True):
            u, h, *_ = polar(x)
            (u.sum() + h.sum()).backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_meta_tensors_give_shapes(call, requires_grad):
    """What torch's own factorizations do there: results without values."""
    x = torch.empty(2, 5, 3, device="meta", requires_grad=requires_grad)
    expected = arrays_of(CALLS[call](torch.ones(2, 5, 3) + torch.eye(5, 3)))
    result = arrays_of(CALLS[call](x))
    assert {part.device.type for part in result} == {"meta"}
    assert [part.shape for part in result] == [part.shape for part in expected]
    assert [part.dtype for part in result] == [part.dtype for part in expected]
    assert result[0].requires_grad == requires_grad


def sparse_csr(x):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        return x.to_sparse_csr()


@pytest.mark.parametrize("layout", [torch.Tensor.to_sparse, sparse_csr])
def test_sparse_tensors_are_refused_in_one_sentence(rng, backend, layout):
    x = layout(matrices(rng, 4, 3))
    for kernel in (polar, orthogonalize, newton_schulz):
        with pytest.raises(OrthokernError, match=r"to_dense\(\)") as caught:
            kernel(x, backend=backend)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["int64", "uint8", "bool", "float8_e4m3fn", "float8_e5m2"])
def test_other_dtypes_are_refused(name):
    x = torch.eye(3).to(getattr(torch, name))
    with pytest.raises(DTypeError, match=f"got {name}; cast to a floating dtype first"):
        polar(x)


def copies(result):
    yield copy.deepcopy(result)
    yield pickle.loads(pickle.dumps(result))
    file = io.BytesIO()
    torch.save(result, file)
    file.seek(0)
    yield torch.load(file, weights_only=False)


def test_results_can_be_copied_and_stored(rng):
    result = polar(matrices(rng, 2, 4, 3))
    for twin in copies(result):
        assert type(twin) is type(result)
        assert type(twin.info) is type(result.info)
        pairs = zip(arrays_of(twin), arrays_of(result), strict=True)
        assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)


def test_broken_members_stay_alone(rng, backend):
    x = matrices(rng, 3, 5, 5)
    with_identity, broken = x.clone(), x.clone()
    with_identity[1] = torch.eye(5)
    broken[1, 2, 3] = torch.nan
    result, expected = polar(broken, backend=backend), polar(with_identity, backend=backend)
    for part, other in zip(result[:2], expected[:2], strict=True):
        assert torch.isnan(part[1]).all()
        assert torch.equal(part[[0, 2]], other[[0, 2]])
    assert result.info.converged.tolist() == [True, False, True]


def test_check_finite(rng):
    x = matrices(rng, 3, 3)
    x[0, 0] = torch.inf
    with pytest.raises(ValueError, match="finite values in x"):
        polar(x, check_finite=True)


def test_newton_schulz_of_bfloat16_rounds_only_at_the_end(rng):
    x = torch.tensor(rng.standard_normal((24, 10))).to(torch.bfloat16)
    exact = newton_schulz(x.double())
    computed = newton_schulz(x)
    assert computed.dtype == torch.bfloat16
    torch.testing.assert_close(computed.double(), exact, rtol=2.0**-7, atol=2.0**-9)
