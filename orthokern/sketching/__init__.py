"""Sketching: random operators that shrink tall matrices, and what is solved with them."""

from __future__ import annotations

from .certificate import SketchedInfo, SketchedResult, sketched_lstsq
from .cholesky_qr import CholQRInfo, CholQRResult, rand_cholqr
from .embedding import sketch_distortion, suggest_sketch_size
from .frequent_directions import FrequentDirections
from .hadamard import fwht
from .kronecker import kronecker_srht, tensor_sketch
from .lstsq import lstsq
from .nystrom import NystromResult, PCGInfo, PCGResult, nystrom, nystrom_pcg
from .operators import (
    SketchOperator,
    countsketch,
    gaussian_sketch,
    rademacher_sketch,
    sjlt,
    srht,
    uniform_row_sketch,
)
from .randomized import SVDResult, leverage_scores, randomized_range_finder, randomized_svd
from .results import LstsqInfo, LstsqMethod, LstsqResult, LstsqStatus
from .streaming import StreamingSketch, lstsq_stream

__all__ = [
    "CholQRInfo",
    "CholQRResult",
    "FrequentDirections",
    "LstsqInfo",
    "LstsqMethod",
    "LstsqResult",
    "LstsqStatus",
    "NystromResult",
    "PCGInfo",
    "PCGResult",
    "SVDResult",
    "SketchOperator",
    "SketchedInfo",
    "SketchedResult",
    "StreamingSketch",
    "countsketch",
    "fwht",
    "gaussian_sketch",
    "kronecker_srht",
    "leverage_scores",
    "lstsq",
    "lstsq_stream",
    "nystrom",
    "nystrom_pcg",
    "rademacher_sketch",
    "rand_cholqr",
    "randomized_range_finder",
    "randomized_svd",
    "sjlt",
    "sketch_distortion",
    "sketched_lstsq",
    "srht",
    "suggest_sketch_size",
    "tensor_sketch",
    "uniform_row_sketch",
]
