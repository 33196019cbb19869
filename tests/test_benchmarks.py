"""The benchmark scripts run and report ratios beside accuracies. No test looks at a speed."""

import importlib
import json
import pathlib
import sys

import numpy as np
import pytest

from orthokern._core.backends import installed
from orthokern._core.registry import load_all
from orthokern.testing import Setting, libraries
from orthokern.testing.validation import Job

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = (
    "peers",
    "function_peers",
    "tasks",
    "interleave",
    "accuracy",
    "measure",
    "report",
    "overhead",
    "gpu_timing",
    "gpu_polar",
    "gpu_sketching",
    "gpu_transport",
    "gpu_validation",
    "gpu",
    "transport",
    "points",
    "comparison",
)


@pytest.fixture
def scripts(monkeypatch):
    """The modules of the benchmarks, importable as they are for ``python benchmarks/report.py``."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def tasks(scripts):
    return {task.name: task for task in scripts("tasks").all_tasks()}


def targets(tasks, peer):
    return {
        name: rival.target
        for name, task in tasks.items()
        for rival in task.rivals
        if rival.peer.name == peer and rival.target is not None
    }


@pytest.mark.parametrize("name", MODULES)
def test_scripts_import(scripts, name):
    assert scripts(name).__doc__


def test_products_are_compared_with_those_of_blas(scripts, monkeypatch, capsys):
    products = pytest.importorskip("orthokern_numba.products")
    monkeypatch.setattr(products, "tiles_pay", lambda dtype, work=0: True)
    assert scripts("products").main(["--quick"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "| numpy x" in line]
    assert len(rows) == 3
    assert all(float(row.split("|")[7]) < 1e-14 for row in rows)
    monkeypatch.setattr(products, "tiles_pay", lambda dtype, work=0: False)
    assert scripts("products").main([]) == 0
    assert not capsys.readouterr().out


def test_every_target_is_a_task(scripts, tasks):
    peers = scripts("peers")
    square = {
        f"square {dtype} n={n}": target
        for dtype, wanted in {
            "float64": (1.3, 1.15, 1.15, 1.1),
            "float32": (1.3, 1.2, 1.3, 1.35),
        }.items()
        for n, target in zip((128, 256, 512, 1024), wanted, strict=True)
    }
    tall = {f"tall {dtype} n={n}": 2.5 for dtype in ("float64", "float32") for n in (128, 256, 512)}
    assert targets(tasks, peers.SCIPY.name) == square | tall
    assert targets(tasks, peers.NUMPY_SVD.name) == {
        f"stack {dtype} {shape}": target
        for dtype in ("float64", "float32")
        for shape, target in {"1000x3x3": 6.0, "64x32x32": 1.5}.items()
    }
    assert targets(tasks, peers.MUON_FP32.name) == {"loose float32 n=1024": 2.0}
    assert set(targets(tasks, peers.NUMPY_CALLER.name).values()) == {1 / 1.1}


def test_every_benchmark_case_of_the_registry_is_a_task(tasks):
    for declaration in load_all().values():
        for case in declaration.cases:
            for dtype in ("float64", "float32"):
                named = f"registry {declaration.name}/{case.name} {dtype}" in tasks
                assert named == case.bench


def test_every_peer_is_a_rival(scripts, tasks):
    used = {rival.peer for task in tasks.values() for rival in task.rivals}
    assert used == {*scripts("peers").PEERS, *scripts("function_peers").PEERS}


def test_names_are_distinct(scripts, tasks):
    assert len(tasks) == len(scripts("tasks").all_tasks())


def test_inputs_differ_between_seeds_only(tasks):
    for task in tasks.values():
        first, *_ = task.arrays(0)
        assert first.dtype == task.dtype
        np.testing.assert_array_equal(first, task.arrays(0)[0])
        assert np.any(first != task.arrays(1)[0])


def test_peers_factorize(scripts, rng):
    """Every peer that is here gives a factor of its accuracy, and ``H`` exactly if it says so."""
    peers, accuracy = scripts("peers"), scripts("accuracy")
    x = rng.standard_normal((40, 20)).astype(np.float32)
    approximate = {peers.MUON_BF16, peers.MUON_FP32}
    for peer in peers.PEERS:
        if peer.missing("float32", 2):
            continue
        factors = peer.load()(libraries.to_library(x, peer.library))
        assert (factors[1] is not None) == peer.gives_h, peer.name
        bound = 4.0 if peer in approximate else 1e-4
        assert accuracy.factor_errors((x,), factors)["orthogonality"] < bound, peer.name


def test_peers_of_functions_compute_them(scripts, tasks):
    """Each that is here, within the limits that the kernel itself has to keep."""
    accuracy = scripts("accuracy")
    for task in tasks.values():
        if task.factors or task.dtype != "float64":
            continue
        arrays = task.arrays(0)
        for rival in task.rivals:
            if rival.peer.missing(task.dtype, arrays[0].ndim):
                continue
            figures = accuracy.contract(task, arrays, rival.peer.load()(*arrays))
            assert next(iter(figures.values())).value < 1e5, rival.peer.name


def test_float32_newton_schulz_is_the_routine_of_torch(scripts, rng):
    torch = pytest.importorskip("torch")
    peers = scripts("peers")
    x = torch.tensor(rng.standard_normal((24, 10)), dtype=torch.float32)
    if peers.MUON_BF16.missing("float32", 2):
        pytest.skip("this torch has no Muon")
    ours, theirs = peers.MUON_FP32.load()(x)[0], peers.MUON_BF16.load()(x)[0]
    assert theirs.dtype == torch.bfloat16
    assert float((ours - theirs.float()).abs().max()) < 0.05


def test_a_quick_run_reports_ratio_and_accuracy(scripts, tmp_path, capsys):
    arguments = ["--quick", "--only", "stack float64 1000x3x3", "--output", str(tmp_path)]
    assert scripts("report").main(arguments) == 0
    written = json.loads((tmp_path / "polar.json").read_text(encoding="utf-8"))
    (record,) = written["records"]
    svd = record["comparisons"][0]
    assert svd["ratio"] > 0
    assert svd["peer"].startswith("numpy.linalg.svd")
    assert 0 < svd["our_errors"]["orthogonality"] < 1e-13
    assert 0 < svd["peer_errors"]["backward"] < 1e-13
    assert record["contract_met"]
    assert record["rounds"] == [3]
    assert {"polar_factors", "unitary_factor"} & set(record["ran"])
    assert written["quick"]
    assert written["machine"]["processor"]
    text = (tmp_path / "polar.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert f"{svd['ratio']:.2f}" in text
    assert f"{svd['our_errors']['orthogonality']:.1e}" in text
    assert "kept" in text


def test_an_unknown_task_is_answered_with_the_known_ones(scripts, capsys):
    assert scripts("report").main(["--only", "cube"]) == 2
    assert "square float64 n=128" in capsys.readouterr().err


@pytest.fixture
def record(scripts):
    """Compared once, with a target of 1."""
    measure = scripts("measure")
    row = measure.Comparison(
        peer="peer",
        h_included=True,
        target=1.0,
        must_be_more_orthogonal=True,
        missing=None,
        ratios=[1.5, 0.5, 2.0],
        our_errors={"orthogonality": 1e-15, "backward": 1e-15},
        peer_errors={"orthogonality": 2e-15, "backward": 1e-15},
    )
    return measure.Record("group", "name", "polar", {}, "numpy", "float64", (3, 3), [row])


def test_a_target_is_met_by_ratio_contract_and_orthogonality(scripts, record):
    verdict = scripts("report").verdict
    (row,) = record.comparisons
    assert (row.ratio, row.spread) == (1.5, (0.5, 2.0))
    assert verdict(record, row) == "met"
    row.target = 1.6
    assert verdict(record, row) == "missed (ratio)"
    record.contract_met = False
    row.peer_errors["orthogonality"] = 1e-15
    assert verdict(record, row) == "missed (ratio, contract, orthogonality)"
    row.missing = "it is not installed"
    assert verdict(record, row) == "not available: it is not installed"


def test_a_broken_contract_is_seen(scripts, rng):
    accuracy, all_tasks = scripts("accuracy"), scripts("tasks").all_tasks
    task = next(task for task in all_tasks() if task.name == "stack float64 64x32x32")
    arrays = task.arrays(0)
    p, s, qh = np.linalg.svd(*arrays, full_matrices=False)
    u, h = p @ qh, (np.swapaxes(qh, -1, -2) * s[..., None, :]) @ qh
    h = (h + np.swapaxes(h, -1, -2)) / 2
    assert accuracy.kept(accuracy.contract(task, arrays, (u, None)))
    assert not accuracy.kept(accuracy.contract(task, arrays, (u * (1 + 1e-12), None)))
    assert not accuracy.kept(accuracy.contract(task, arrays, (u, h * (1 + 1e-10))))
    assert not accuracy.kept(accuracy.contract(task, arrays, (u * np.nan, None)))


def test_the_script_for_gpus_runs_dry(scripts, tmp_path, capsys):
    gpu = scripts("gpu")
    present = {name for name in gpu.LIBRARIES if not libraries.missing(name)}
    code = gpu.main(["--dry", "--seed", "3", "--budget", "9", "--output", str(tmp_path)])
    assert code == 0
    written = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert written["validation"]["verdicts"]["pass"] > 10
    assert not written["validation"]["failures"]
    assert {row["library"] for row in written["rows"] if row["seconds"]} == present
    for row in written["rows"]:
        assert all(seconds > 0 for seconds in row["seconds"].values())
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out


def test_backends_on_devices_are_validated_first_and_jax_last(scripts):
    validation = scripts("gpu_validation")
    settings = [
        Setting(library, "float32", backend, "cuda")
        for backend in ("array-api", "cupy", "numba_cuda")
        for library in ("jax", "torch", "cupy")
    ]
    wanted = [Job(None, None, setting) for setting in settings]
    found = [settings[place] for place in validation.ordered(wanted)]
    assert [s.library for s in found[-3:]] == ["jax"] * 3
    assert [s.backend for s in found[4:6]] == ["array-api"] * 2
    assert found[0] == Setting("cupy", "float32", "numba_cuda", "cuda")


def test_a_look_at_a_device_is_judged_in_double_precision(scripts):
    """Both sides get an error, and one that fails is named and stops nothing."""
    timing = scripts("gpu_timing")
    x = np.ones((3, 3))

    def calls(library, a):
        return {"orthokern.twice": lambda: 2 * a, "peer": lambda: 3 * a, "broken": lambda: a @ "x"}

    task = timing.Task(
        "double", "float32", lambda: (x,), calls, lambda a, y: abs(y - 2 * a).max(), 54.0
    )
    row = timing.measured(task, "numpy", "cpu")
    assert row.errors == {"orthokern.twice": 0.0, "peer": 1.0}
    assert set(row.seconds) == {"orthokern.twice", "peer"}
    assert set(row.ratios()) == {"orthokern.twice"}
    assert list(row.failed) == ["broken"]
    assert list(row.fraction_of_peak) == ["orthokern.twice"]


def test_the_script_for_gpus_says_that_there_is_none(scripts, capsys):
    gpu = scripts("gpu")
    if any(libraries.missing(name, "cuda") is None for name in gpu.LIBRARIES):
        return
    assert gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_entrants_run_in_turns(scripts):
    interleave = scripts("interleave")
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    interleave.MOST_REPEATS = 1
    laps = interleave.race(calls, interleave.Rounds(least=3, most=3, seconds=0.0))
    timed = "".join(order[interleave.WARM_UPS * 3 :])
    assert timed == "abcbcacab"
    assert {name: len(lap.seconds) for name, lap in laps.items()} == dict.fromkeys("abc", 3)


def test_rounds_end_when_the_time_is_spent(scripts):
    rounds = scripts("interleave").Rounds
    assert list(rounds(least=2, most=9, seconds=0.0).turns()) == [0, 1]
    assert list(rounds(least=2, most=4, seconds=60.0).turns()) == [0, 1, 2, 3]


def test_ratio_is_the_median_of_ratios_within_rounds(scripts):
    interleave = scripts("interleave")
    peer, ours = (
        interleave.Laps(seconds, 1.0, None) for seconds in ([2.0, 30.0, 4.0], [1.0, 10.0, 1.0])
    )
    assert interleave.ratio(peer, ours) == 3.0


def test_the_environment_of_one_thread_is_set_once(scripts, monkeypatch):
    interleave = scripts("interleave")
    for key, value in interleave.ONE_THREAD.items():
        monkeypatch.setenv(key, value)
    assert interleave.restarted() is None


def test_dispatch_overhead_is_measured(scripts):
    overhead = scripts("overhead")
    before = set(overhead.OPS), installed()
    lines = overhead.probes(overhead.Rounds(least=3, most=3, seconds=0.0))
    assert len(lines) == 2
    assert all(line.bare > 0 for line in lines)
    assert (set(overhead.OPS), installed()) == before


def test_the_first_kernel_loads_no_framework(scripts):
    seconds, loaded = scripts("overhead").first_kernel(runs=1)
    assert seconds[0] > 0
    assert not loaded


def test_import_time_is_read_from_the_log(scripts):
    overhead = scripts("overhead")
    log = "import time:       400 |      90000 | orthokern\nimport time: 1 | 2 | orthokernel\n"
    assert overhead.cumulative(log) == 0.09
    with pytest.raises(ValueError, match="importtime"):
        overhead.cumulative("nothing")


def test_transport_is_measured_beside_scipy(scripts):
    """The one peer that is always there; both find pairings of the same cost."""
    transport = scripts("transport")
    task = next(t for t in transport.tasks(quick=True) if t.name.startswith("assignment"))
    (row,) = transport.measure(task, (0,), transport.QUICK_ROUNDS)
    assert row["our_error"] < 1e-12
    assert abs(row["our_cost"] - row["peer_cost"]) < 1e-12
    content = {"date": "", "machine": {}, "threads": "", "versions": {}, "rows": [row]}
    assert "linear_sum_assignment" in transport.markdown(content)


def test_absent_peers_of_transport_are_said(scripts):
    transport = scripts("transport")
    nobody = transport.Peer("nobody", "a_package_that_is_not_there", lambda *arrays: None)
    task = transport.Task("nothing", None, None, (nobody,))
    (row,) = transport.measure(task, (0,), transport.QUICK_ROUNDS)
    content = {"date": "", "machine": {}, "threads": "", "versions": {}, "rows": [row]}
    assert "nobody | not installed" in transport.markdown(content)
