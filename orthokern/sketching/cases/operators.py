"""Examples of the transforms and of the ops behind the operators; every judge makes the matrix by itself.

Words are made in Python's own integers and the matrices entry by entry, as the text of their definition says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..._core.cases import exact_words
from ..._core.registry import Case, Residual, declare
from ..hadamard import fwht, hadamard, mixed_rows, unmixed_rows
from ..hashing import gathered_rows, scattered_rows

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]
FORWARD = 30.0
LAYOUTS = ("transposed", "strided", "reversed", "read-only")


def sylvester(q: int) -> np.ndarray:
    """H by doubling."""
    h = np.ones((1, 1))
    while len(h) < q:
        h = np.block([[h, h], [h, -h]])
    return h


def hash_matrix(rows: int, columns: range, options: Options) -> np.ndarray:
    """The given columns of a sparse sketch."""
    nnz, block = options["nnz"], rows // options["nnz"]
    stream, first = options.get("stream", 1), options.get("group", 0)
    matrix = np.zeros((rows, len(columns)))
    for place, i in enumerate(columns):
        for k in range(nnz):
            word = exact_words(i, options["seed"], first + k // 4, stream)[k % 4]
            target = k * block + ((word >> 1) * block >> 31)
            matrix[target, place] = (1 if word & 1 else -1) / nnz**0.5
    return matrix


def mixing_matrix(rows: int, n: int, options: Options) -> np.ndarray:
    """``R H D P / sqrt(rows)`` without the columns that meet padding."""
    q = 1 << (n - 1).bit_length()
    words = np.array([exact_words(i, options["seed"], 0, 2)[:2] for i in range(q)])
    h = sylvester(q)[np.argsort(words[:, 1], kind="stable")[:rows]]
    matrix = h * np.where(words[:, 0] & 1, 1.0, -1.0)
    if options["permute"]:
        keys = np.array([exact_words(i, options["seed"], 0, 3)[0] for i in range(q)])
        moved = np.empty_like(matrix)
        moved[:, np.argsort(keys, kind="stable")] = matrix
        matrix = moved
    return np.asarray(matrix[:, :n] / rows**0.5)


def _against(exact: np.ndarray, out: np.ndarray, size: float, eps: float) -> dict[str, Residual]:
    """Largest difference; every entry is a sum of at most ``size`` terms."""
    scale = max(float(np.max(np.abs(exact), initial=0.0)), np.finfo(float).tiny)
    error = float(np.max(np.abs(out - exact), initial=0.0)) / scale / eps
    return {"product": Residual(error, 4.0 + size**0.5)}


def _judge(matrix: Callable[[Arrays, Options], np.ndarray]) -> Any:
    def residuals(arrays: Arrays, out: Any, options: Options, eps: float) -> dict[str, Residual]:
        s = matrix(arrays, options)
        return _against(s @ arrays[0], out, max(s.shape), eps)

    return residuals


def _transform_residuals(
    arrays: Arrays, out: Any, options: Options, eps: float
) -> dict[str, Residual]:
    axis = 0 if arrays[0].ndim == 1 else options.get("axis", -2)
    x, y = (np.moveaxis(a, axis, 0) for a in (arrays[0], out))
    h = sylvester(len(x)) * options.get("scale", 1.0)
    h = h * (len(x) ** -0.5 if options.get("normalized") else 1.0)
    return _against(np.tensordot(h, x, 1), y, len(x), eps)


def _scattered(arrays: Arrays, options: Options) -> np.ndarray:
    start = options.get("start", 0)
    return hash_matrix(options["rows"], range(start, start + arrays[0].shape[-2]), options)


def _gathered(arrays: Arrays, options: Options) -> np.ndarray:
    columns = range(options.get("start", 0), options["stop"])
    return hash_matrix(arrays[0].shape[-2], columns, options).T


def _normal(*shape: int) -> Callable[[np.random.Generator], Arrays]:
    return lambda g: (g.standard_normal(shape),)


def _complex(*shape: int) -> Callable[[np.random.Generator], Arrays]:
    return lambda g: (g.standard_normal(shape) + 1j * g.standard_normal(shape),)


def _laid_out(options: Options, *shape: int) -> list[Case]:
    return [
        Case(layout, _normal(*shape), options, forward=FORWARD, layout=layout) for layout in LAYOUTS
    ]


declare(
    fwht,
    residuals=_transform_residuals,
    flops=lambda arrays, options: arrays[0].size * np.log2(max(arrays[0].shape[-2:])),
    cases=[
        Case("vector", _normal(64), forward=FORWARD),
        Case("one", _normal(1, 3), forward=FORWARD),
        Case("stack", _normal(2, 32, 5), forward=FORWARD),
        Case("last axis", _normal(3, 16), {"axis": -1, "normalized": True}, forward=FORWARD),
        Case("complex", _complex(8, 3), {"normalized": True}, forward=FORWARD),
    ],
)

declare(
    hadamard,
    residuals=_transform_residuals,
    flops=lambda arrays, options: arrays[0].size * np.log2(arrays[0].shape[-2]),
    cases=[
        Case("whole registers", _normal(64, 16), forward=FORWARD),
        Case("one column", _normal(2, 128, 1), forward=FORWARD),
        Case("few rows", _normal(3, 2, 3), {"scale": 0.3}, forward=FORWARD),
        Case("scaled", _normal(1024, 8), {"scale": 0.7}, forward=FORWARD),
        Case("one row", _normal(1, 8), {"scale": -2.0}, forward=FORWARD),
        *_laid_out({}, 16, 5),
    ],
)

SPARSE = {"rows": 24, "nnz": 6, "seed": 7}
declare(
    scattered_rows,
    residuals=_judge(_scattered),
    flops=lambda arrays, options: 2.0 * options["nnz"] * arrays[0].size,
    cases=[
        Case("sparse signs", _normal(90, 17), SPARSE, forward=FORWARD),
        Case("one each", _normal(2, 40, 3), {"rows": 8, "nnz": 1, "seed": 3}, forward=FORWARD),
        Case("later rows", _normal(30, 4), SPARSE | {"start": 70}, forward=FORWARD),
        Case("complex", _complex(20, 5), SPARSE, forward=FORWARD),
        Case(
            "other stream",
            _normal(20, 1),
            {"rows": 5, "nnz": 1, "seed": 2**64 - 1, "stream": 6, "group": 2},
            forward=FORWARD,
        ),
        *_laid_out(SPARSE, 20, 9),
    ],
)

declare(
    gathered_rows,
    residuals=_judge(_gathered),
    flops=lambda arrays, options: 2.0 * options["nnz"] * options["stop"] * arrays[0].shape[-1],
    cases=[
        Case("sparse signs", _normal(24, 17), {"stop": 90, "nnz": 6, "seed": 7}, forward=FORWARD),
        Case(
            "some rows",
            _complex(2, 8, 3),
            {"stop": 50, "start": 30, "nnz": 1, "seed": 3},
            forward=FORWARD,
        ),
        Case("strided", _normal(24, 9), {"stop": 40, "nnz": 6, "seed": 7}, layout="strided"),
    ],
)

MIXED = {"rows": 9, "seed": 7, "permute": True}
declare(
    mixed_rows,
    residuals=_judge(lambda arrays, o: mixing_matrix(o["rows"], arrays[0].shape[-2], o)),
    flops=lambda arrays, options: arrays[0].size * np.log2(arrays[0].shape[-2]),
    cases=[
        Case("permuted", _normal(64, 8), MIXED, forward=FORWARD),
        Case("padded", _normal(2, 21, 3), MIXED | {"permute": False}, forward=FORWARD),
        Case("complex", _complex(10, 3), MIXED, forward=FORWARD),
        Case("one row", _normal(1, 2), {"rows": 1, "seed": 1, "permute": True}, forward=FORWARD),
        Case("strided", _normal(20, 6), MIXED, layout="strided"),
    ],
)

declare(
    unmixed_rows,
    residuals=_judge(lambda arrays, o: mixing_matrix(arrays[0].shape[-2], o["n"], o).T),
    flops=lambda arrays, options: arrays[0].shape[-1] * options["n"] * np.log2(options["n"] + 1),
    cases=[
        Case("permuted", _normal(9, 8), {"n": 64, "seed": 7, "permute": True}, forward=FORWARD),
        Case("padded", _complex(2, 9, 3), {"n": 21, "seed": 7, "permute": False}, forward=FORWARD),
        Case("strided", _normal(9, 6), {"n": 40, "seed": 7, "permute": True}, layout="strided"),
    ],
)
