"""Make the real matrices that orthokern ships: ``orthokern/testing/data/*.npz``.

The sources are data sets that scikit-learn bundles, so nothing is downloaded::

    pip install ".[sklearn]" pillow
    python benchmarks/make_data.py            # write the files and print what is in them
    python benchmarks/make_data.py --check    # compare with the files that are there

Digits, counts and patches are exact. The network is trained in float64 and its gradients are stored
in float32, so two machines agree up to the last rounding; ``--check`` allows 1e-5.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits, load_sample_image

FOLDER = Path(__file__).resolve().parents[1] / "orthokern" / "testing" / "data"
TOLERANCE = 1e-5

Arrays = dict[str, np.ndarray]

PATCH = 8
PATCH_GRID = (16, 32)
BINS = 8

LAYERS = (64, 128, 64, 10)
BATCH = 32
STEPS = {"early": 10, "middle": 200, "late": 2000}
RATE = 0.1
MOMENTUM = 0.95


def digits() -> Arrays:
    """The handwritten digits, one image of 8 x 8 grey levels (0..16) a row."""
    bunch = load_digits()
    return {"images": bunch.data.astype(np.uint8), "labels": bunch.target.astype(np.uint8)}


def patches() -> Arrays:
    """Patches of 8 x 8 pixels on a regular grid over a photograph, the mean of each removed.

    The green channel is an integer and a patch has 2**6 pixels: float32 holds the result exactly.
    """
    green = load_sample_image("china.jpg")[..., 1].astype(np.float64)
    tops, lefts = (
        np.linspace(0, length - PATCH, count).astype(int)
        for length, count in zip(green.shape, PATCH_GRID, strict=True)
    )
    windows = np.lib.stride_tricks.sliding_window_view(green, (PATCH, PATCH))
    chosen = windows[np.ix_(tops, lefts)].reshape(-1, PATCH * PATCH)
    return {"patches": (chosen - chosen.mean(axis=1, keepdims=True)).astype(np.float32)}


def histograms() -> Arrays:
    """Pixel counts of two photographs over one grid of colours; both sum to the same total."""
    counts = {}
    for key, name in (("source", "china.jpg"), ("target", "flower.jpg")):
        pixels = load_sample_image(name).reshape(-1, 3).astype(int) * BINS // 256
        index = np.ravel_multi_index(tuple(pixels.T), (BINS,) * 3)
        counts[key] = np.bincount(index, minlength=BINS**3).astype(np.float32)
    centres = (np.indices((BINS,) * 3).reshape(3, -1).T + 0.5) / BINS
    return {**counts, "colours": centres.astype(np.float32)}


def gradients() -> Arrays:
    """Weight gradients of a small network in training, averaged as momentum does.

    A 64-128-64-10 network with ReLU learns the digits by stochastic gradient descent on the cross
    entropy. ``layer1_early`` is what the optimizer applies to the first weight matrix (inputs along
    the rows) after ``STEPS["early"]`` steps, and so on.
    """
    generator = np.random.default_rng(20240229)
    bunch = load_digits()
    inputs, classes = bunch.data / 16, np.eye(10)[bunch.target]
    weights = [generator.standard_normal((m, n)) * np.sqrt(2 / m) for m, n in pairwise(LAYERS)]
    biases = [np.zeros(n) for n in LAYERS[1:]]
    averages = [np.zeros_like(w) for w in weights]
    recorded: Arrays = {}
    stages = {step: stage for stage, step in STEPS.items()}
    for step in range(1, max(stages) + 1):
        rows = generator.choice(len(inputs), BATCH, replace=False)
        slopes = _slopes(weights, biases, inputs[rows], classes[rows])
        for k, (slope, offset) in enumerate(slopes):
            averages[k] += (1 - MOMENTUM) * (slope - averages[k])
            weights[k] -= RATE * averages[k]
            biases[k] -= RATE * offset
        if step in stages:
            for k, average in enumerate(averages, start=1):
                recorded[f"layer{k}_{stages[step]}"] = average.astype(np.float32)
    return recorded


def _slopes(
    weights: list[np.ndarray], biases: list[np.ndarray], x: np.ndarray, classes: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Back-propagation: for each layer the gradients of its weights and of its biases."""
    activity = [x]
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = activity[-1] @ w + b
        activity.append(z if k == len(weights) - 1 else np.maximum(z, 0))
    top = activity.pop()
    soft = np.exp(top - top.max(axis=1, keepdims=True))
    delta = (soft / soft.sum(axis=1, keepdims=True) - classes) / len(x)
    slopes = []
    for w, a in zip(reversed(weights), reversed(activity), strict=True):
        slopes.append((a.T @ delta, delta.sum(axis=0)))
        delta = (delta @ w.T) * (a > 0)
    return slopes[::-1]


MAKERS = {
    "digits": digits,
    "gradients": gradients,
    "histograms": histograms,
    "patches": patches,
}


def describe(name: str, arrays: Arrays) -> None:
    """Print shapes, and of floating matrices the spectrum in three figures."""
    for key, array in arrays.items():
        line = f"{name + '.' + key:28} {array.dtype!s:8} {array.shape!s:12}"
        if array.ndim == 2:
            s = np.linalg.svd(array.astype(np.float64), compute_uv=False)
            rank = int(np.sum(s > s[0] * np.finfo(np.float32).eps * max(array.shape)))
            stable = np.sum(s**2) / s[0] ** 2
            line += f" cond {s[0] / max(s[-1], 1e-300):.1e}  rank {rank}/{s.size}"
            line += f"  cond within it {s[0] / s[rank - 1]:.1e}  stable rank {stable:.1f}"
        print(line)


def difference(new: Arrays, old: Arrays) -> float:
    """Largest distance of an array from the stored one, relative to the stored one."""
    shapes = [{k: (a.shape, a.dtype) for k, a in arrays.items()} for arrays in (new, old)]
    if shapes[0] != shapes[1]:
        return float("inf")
    pairs = ((a.astype(np.float64), old[k].astype(np.float64)) for k, a in new.items())
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def main() -> int:
    """Write or check every file; 1 when a check fails."""
    parser = argparse.ArgumentParser(description="Make the real matrices that orthokern ships.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are")
    options = parser.parse_args()
    failed = False
    for name, make in MAKERS.items():
        arrays, path = make(), options.folder / f"{name}.npz"
        if options.check:
            with np.load(path) as stored:
                distance = difference(arrays, dict(stored))
            failed |= not distance <= TOLERANCE
            print(f"{path.name}: relative distance {distance:.1e} (at most {TOLERANCE:.0e})")
        else:
            np.savez_compressed(path, allow_pickle=False, **arrays)
            describe(name, arrays)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
