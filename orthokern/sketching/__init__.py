"""Sketching: random operators that shrink tall matrices, and what is solved with them."""

from __future__ import annotations

from .certificate import SketchedInfo, SketchedResult, sketched_lstsq
from .embedding import sketch_distortion, suggest_sketch_size
from .hadamard import fwht
from .kronecker import kronecker_srht, tensor_sketch
from .lstsq import lstsq
from .operators import (
    SketchOperator,
    countsketch,
    gaussian_sketch,
    rademacher_sketch,
    sjlt,
    srht,
    uniform_row_sketch,
)
from .results import LstsqInfo, LstsqMethod, LstsqResult, LstsqStatus
from .streaming import StreamingSketch, lstsq_stream

__all__ = [
    "LstsqInfo",
    "LstsqMethod",
    "LstsqResult",
    "LstsqStatus",
    "SketchOperator",
    "SketchedInfo",
    "SketchedResult",
    "StreamingSketch",
    "countsketch",
    "fwht",
    "gaussian_sketch",
    "kronecker_srht",
    "lstsq",
    "lstsq_stream",
    "rademacher_sketch",
    "sjlt",
    "sketch_distortion",
    "sketched_lstsq",
    "srht",
    "suggest_sketch_size",
    "tensor_sketch",
    "uniform_row_sketch",
]
