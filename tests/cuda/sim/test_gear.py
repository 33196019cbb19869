"""The simulator finds what it is there for: each test plants a mistake and reads the message."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numba import cuda

from .fibers import ORDERS, Place
from .memory import KernelError

THREADS = 64


def line_of(kernel, text):
    """``file:line`` of the line of ``kernel`` that ends in the comment ``text``."""
    code = kernel.py_func.__code__
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    found = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {text}")]
    return f"test_gear.py:{found[0]}"


def run(kernel, order="forward", threads=THREADS):
    place = Place(order)
    out = place.empty((threads,), np.float32)
    place(kernel, 1, threads, np.arange(threads, dtype=np.float32), out)
    return out


@cuda.jit
def reversing(x, out):
    room = cuda.shared.array(THREADS, np.float32)
    i = cuda.threadIdx.x
    room[i] = x[i]
    cuda.syncthreads()
    out[i] = room[THREADS - 1 - i]


@cuda.jit
def racing(x, out):
    room = cuda.shared.array(THREADS, np.float32)
    i = cuda.threadIdx.x
    room[i] = x[i]  # written
    out[i] = room[i - i % 2]  # read


@cuda.jit
def overwriting(x, out):
    room = cuda.shared.array(THREADS, np.float32)
    i = cuda.threadIdx.x
    room[i] = x[i]
    cuda.syncthreads()
    out[i] = room[(i + 1) % THREADS]  # used
    room[i] = out[i]  # overwritten


@cuda.jit
def across_warps(x, out):
    room = cuda.shared.array(THREADS, np.float32)
    i = cuda.threadIdx.x
    room[i] = x[i]
    cuda.syncwarp()
    out[i] = room[THREADS - 1 - i]  # other warp


@cuda.jit
def within_warps(x, out):
    room = cuda.shared.array(THREADS, np.float32)
    i = cuda.threadIdx.x
    room[i] = x[i]
    cuda.syncwarp()
    out[i] = room[i ^ 31]


@cuda.jit
def shuffling_for_a_barrier(x, out):
    room = cuda.shared.array(THREADS, np.float32)
    i = cuda.threadIdx.x
    room[i] = x[i]
    other = cuda.shfl_xor_sync(0xFFFFFFFF, x[i], 1)
    out[i] = other + room[i ^ 1]  # not ordered


@cuda.jit
def divergent(x, out):
    i = cuda.threadIdx.x
    if x[i] < 5:
        cuda.syncthreads()  # few
    else:
        cuda.syncthreads()  # many
    out[i] = x[i]


@cuda.jit
def leaving(x, out):
    i = cuda.threadIdx.x
    if i < 60:
        out[i] = x[i]
        cuda.syncthreads()  # for ever


@cuda.jit
def beyond(x, out):
    i = cuda.threadIdx.x
    out[i] = x[i + 1]  # beyond


@cuda.jit
def before(x, out):
    i = cuda.threadIdx.x
    out[i] = x[i - 1]  # before


@cuda.jit
def unwritten(x, out):
    room = cuda.shared.array(THREADS, np.float32)
    out[cuda.threadIdx.x] = room[cuda.threadIdx.x]


@cuda.jit(device=True)
def stepping_out(row, i):
    return row[i + 60]  # in a row of a row


@cuda.jit
def in_a_view(x, out):
    rooms = cuda.shared.array((2, THREADS), np.float32)
    i = cuda.threadIdx.x
    rooms[0, i] = x[i]
    out[i] = stepping_out(rooms[0], i)


@cuda.jit
def racing_in_a_view(x, out):
    rooms = cuda.shared.array((2, THREADS), np.float32)
    i = cuda.threadIdx.x
    row = rooms[1]
    row[i] = x[i]  # in a view
    out[i] = rooms[1, i ^ 1]


@cuda.jit
def waiting_with_a_truth_value(x, out):
    out[cuda.threadIdx.x] = cuda.syncthreads_or(x[0] < 1)  # truth


@cuda.jit
def counting(x, out):
    bins = cuda.shared.array(1, np.int32)
    i = cuda.threadIdx.x
    if i == 0:
        bins[0] = 0
    cuda.syncthreads()
    cuda.atomic.add(bins, 0, 1)
    cuda.syncthreads()
    out[i] = bins[0]


@cuda.jit
def summing(x, out):
    value = x[cuda.threadIdx.x]
    for step in (16, 8, 4, 2, 1):
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, step)
    out[cuda.threadIdx.x] = value


@pytest.mark.parametrize("order", ORDERS)
def test_a_right_kernel_is_right_in_every_order(order):
    np.testing.assert_array_equal(run(reversing, order), np.arange(THREADS)[::-1])
    np.testing.assert_array_equal(run(within_warps, order), np.arange(THREADS) ^ 31)
    np.testing.assert_array_equal(run(counting, order), THREADS)
    sums = np.repeat([sum(range(32)), sum(range(32, 64))], 32)
    np.testing.assert_array_equal(run(summing, order), sums)


def test_a_missing_barrier_is_found_with_both_lines():
    with pytest.raises(KernelError) as caught:
        run(racing)
    message = str(caught.value)
    assert "no barrier is between them" in message
    assert f"{line_of(racing, 'read')} reads" in message
    assert f"{line_of(racing, 'written')} wrote" in message


def test_a_missing_barrier_shows_as_a_difference_between_orders():
    results = [run(overwriting, order) for order in ORDERS[1:]]
    assert not np.array_equal(*results, equal_nan=True)


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (overwriting, "overwritten"),
        (across_warps, "other warp"),
        (shuffling_for_a_barrier, "not ordered"),
        (racing_in_a_view, "in a view"),
    ],
)
def test_other_accesses_that_nothing_orders_are_found(kernel, text):
    with pytest.raises(KernelError, match="no barrier is between them") as caught:
        run(kernel)
    assert line_of(kernel, text) in str(caught.value)


def test_barriers_in_different_places_are_found_with_both_lines():
    with pytest.raises(KernelError, match="different places") as caught:
        run(divergent)
    for text in ("few", "many"):
        assert line_of(divergent, text) in str(caught.value)


def test_threads_that_leave_while_others_wait_are_found():
    with pytest.raises(KernelError, match=re.escape("for ever, 4 have left")) as caught:
        run(leaving)
    assert line_of(leaving, "for ever") in str(caught.value)


@pytest.mark.parametrize(
    ("kernel", "text", "index"),
    [(beyond, "beyond", 64), (before, "before", -1), (in_a_view, "in a row of a row", 64)],
)
def test_an_index_outside_is_found_with_its_line(kernel, text, index):
    with pytest.raises(KernelError) as caught:
        run(kernel)
    assert str(caught.value) == f"{line_of(kernel, text)}: index {index} is outside of 0..63"


def test_shared_memory_holds_no_zeros_by_chance():
    assert np.isnan(run(unwritten)).all()


def test_a_barrier_takes_integers_as_on_a_device():
    with pytest.raises(KernelError, match="takes an integer") as caught:
        run(waiting_with_a_truth_value)
    assert line_of(waiting_with_a_truth_value, "truth") in str(caught.value)


def test_a_failure_leaves_nothing_behind():
    for _ in range(2):
        with pytest.raises(KernelError):
            run(beyond)
        np.testing.assert_array_equal(run(reversing), np.arange(THREADS)[::-1])
