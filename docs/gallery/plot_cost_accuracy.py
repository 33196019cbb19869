r"""
Cost against accuracy
=====================

How much work does each method spend on the polar factor of a real gradient, and how accurate is what it returns?

The matrix is a momentum-averaged gradient of the second layer of a small network, in float32 as the network computes it.
Units that never fire are left out, so that the matrix has full rank and every method is asked the same question.
"""

# %%
# The question
# ------------
# The singular values fall by more than three orders of magnitude, without a gap.

import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg

import orthokern
from orthokern.spectral import StepKind
from orthokern.testing import data

gradient = data.load("gradients")["layer2_early"]
alive = np.abs(gradient) > 0
a = np.ascontiguousarray(gradient[alive.any(axis=1)][:, alive.any(axis=0)])
m, n = a.shape
singular = np.linalg.svd(a.astype(np.float64), compute_uv=False)
print(f"{m} x {n}, {a.dtype}, condition number {singular[0] / singular[-1]:.0f}")

# %%
# The methods
# -----------
# ``auto`` and the three tolerances run as any user gets them. The named iterations run as array-API code, step by step,
# with the lower bound that their authors assume where they are given a number of steps. SciPy is the peer; its function
# forms the Hermitian factor as well, which costs it two products more.

REFERENCE = {"backend": "array-api"}
METHODS = {
    "svd": {"method": "svd"},
    "auto": {},
    "auto, tol=1e-3": {"tol": 1e-3},
    "auto, tol=1e-2": {"tol": 1e-2},
    "auto, tol=1e-1": {"tol": 1e-1},
    "newton": {"method": "newton", **REFERENCE},
    "dwh": {"method": "dwh", **REFERENCE},
    "Muon, 5 steps": {"method": "newton_schulz", "steps": 5, "coefficients": "jordan", **REFERENCE},
    "Polar Express, 5 steps": {"method": "polar_express", "steps": 5, "lower_bound": 1e-3, **REFERENCE},
    "Polar Express, 7 steps": {"method": "polar_express", "steps": 7, "lower_bound": 1e-3, **REFERENCE},
}


def calls():
    """One function without arguments for each method; it returns the unitary factor."""
    found = {name: lambda o=options: orthokern.polar(a, compute_h=False, **o).u for name, options in METHODS.items()}
    return found | {"scipy.linalg.polar": lambda: scipy.linalg.polar(a)[0]}


# %%
# Accuracy
# --------
# Both errors are root mean squares over the singular directions. The reference is the factor of the same matrix
# computed in float64. Rounding the matrix to float32 alone moves its factor by about :math:`\varepsilon \kappa` in the weakest
# direction, so no method in float32 can come much nearer to the reference than the accurate ones do here.

reference = orthokern.polar(a.astype(np.float64), backend="array-api").u


def errors(u):
    u = u.astype(np.float64)
    orthogonality = np.linalg.norm(u.T @ u - np.eye(n)) / np.sqrt(n)
    return orthogonality, np.linalg.norm(u - reference) / np.sqrt(n)


# %%
# Cost, counted
# -------------
# The unit is one product :math:`A^T A`, :math:`2 m n^2` flops. Symmetric products count half, a triangular solve as many flops as
# it has multiplications and additions, an SVD with both factors :math:`6 m n^2 + 20 n^3`, a QR factorization with its factor
# applied twice :math:`6 m n^2`, two Cholesky-based orthonormalizations with their solves :math:`5 m n^2`.

PRODUCT = 2 * m * n**2
SVD = 6 * m * n**2 + 20 * n**3 + 2 * m * n**2


def step_flops(kind, rows):
    return {
        StepKind.NEWTON: 2 * n**3,
        StepKind.HALLEY: 3 * rows * n**2 + n**3 / 3,
        StepKind.CUBIC: 3 * rows * n**2,
        StepKind.QUINTIC: 3 * rows * n**2 + n**3,
    }[kind]


def counted(name):
    """Products of ``name``: what surrounds the steps, and the steps that ``info.schedule`` says have run."""
    if name == "scipy.linalg.polar":
        return (SVD + 4 * n**3) / PRODUCT
    with orthokern.explain() as report:
        info = orthokern.polar(a, compute_h=False, **METHODS[name]).info
    kinds = [StepKind(code) for code in info.schedule.tolist() if code]
    kinds += [StepKind.QUINTIC] * (int(info.iterations) - len(kinds))  # appended by the check of the result
    factored = {line.op: line.backend for line in report}
    planned = factored.get("unitary_factor", factored.get("scheduled_factor")) == "numba"
    around = 0.0
    if "unitary_factor" in factored and not planned:
        around = SVD
    elif planned:
        around = 5 * m * n**2
    elif StepKind.NEWTON in kinds:
        around = 6 * m * n**2
    rows = n if planned or StepKind.NEWTON in kinds else m
    return (around + sum(step_flops(kind, rows) for kind in kinds)) / PRODUCT


# %%
# Cost, measured
# --------------
# Every call alternates with one product, on the machine and with the threads of this build; the ratio of the medians is
# reported. The matrix is small, so that the overhead of Python and of the library calls is a visible part of all of these times.


def measured(call, repeats=60):
    left, times, products = np.ascontiguousarray(a.T), [], []
    call()
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        middle = time.perf_counter()
        left @ a
        times.append(middle - start)
        products.append(time.perf_counter() - middle)
    return np.median(times) / np.median(products)


results = {
    name: (*errors(call()), counted(name), measured(call)) for name, call in calls().items()
}
print(f"{'':24}{'|U^T U - I|':>12}{'|U - ref|':>12}{'products':>10}{'time':>8}")
for name, (orthogonality, distance, products, ratio) in results.items():
    print(f"{name:24}{orthogonality:12.1e}{distance:12.1e}{products:10.1f}{ratio:8.0f}")

# %%
# The figure
# ----------
# Down is more accurate, left is cheaper.

FAMILIES = {
    "SVD": ("#6b7280", "s", ["svd", "scipy.linalg.polar"]),
    "planned by measurement": ("#2452c7", "o", ["auto", "auto, tol=1e-3", "auto, tol=1e-2", "auto, tol=1e-1"]),
    "one kind of step to the end": ("#b45309", "D", ["newton", "dwh"]),
    "a fixed number of polynomials": ("#b3171f", "^", ["Muon, 5 steps", "Polar Express, 5 steps", "Polar Express, 7 steps"]),
}


def spread(heights, gap):
    """Heights moved apart to at least ``gap``, in the same order and as near to their places as that allows."""
    order = np.argsort(heights)
    placed = np.array(heights, dtype=float)
    for low, high in zip(order, order[1:]):
        placed[high] = max(placed[high], placed[low] + gap)
    return placed - np.mean(placed - heights)


def panel(axes, column, title, label):
    names = [name for _, _, members in FAMILIES.values() for name in members]
    costs = {name: results[name][column] for name in names}
    right = max(costs.values()) * 1.5
    heights = dict(zip(names, spread([np.log10(results[name][0]) for name in names], 0.42)))
    for family, (colour, marker, members) in FAMILIES.items():
        x = [costs[name] for name in members]
        axes.plot(x, [results[name][0] for name in members], marker, color=colour, markersize=8, label=family, zorder=3)
        axes.plot(x, [results[name][1] for name in members], marker, color=colour, markersize=6,
                  markerfacecolor="white", markeredgewidth=1.4, zorder=2)
        axes.vlines(x, *np.sort([[results[name][i] for name in members] for i in (0, 1)], axis=0), colour, lw=1, alpha=0.45)
        if len(members) == 4:
            axes.plot(x, [results[name][0] for name in members], color=colour, lw=1.2, alpha=0.5, zorder=1)
        for name in members:
            axes.annotate(name, (costs[name], results[name][0]), (right, 10 ** heights[name]), color=colour, fontsize=9,
                          va="center", arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.35, "shrinkB": 5})
    axes.set(xscale="log", yscale="log", xlabel=label)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.grid(True, which="major", color="#e5e7eb", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


figure, (first, second) = plt.subplots(1, 2, figsize=(12.5, 5.6), sharey=True)
panel(first, 2, "Counted", "flops, in products $A^T A$")
panel(second, 3, "Measured when this page was built", "time, in products $A^T A$")
first.set_ylabel(r"filled: $\|U^T U - I\|_F/\sqrt{n}$     hollow: $\|U - U_{\mathrm{ref}}\|_F/\sqrt{n}$")
handles, labels = first.get_legend_handles_labels()
figure.suptitle(f"Polar factor of a network's gradient, {m} x {n}, float32", x=0.01, ha="left", fontsize=13)
figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=9.5)
figure.tight_layout(rect=(0, 0.05, 1, 0.99), w_pad=3)
plt.show()

# %%
# What it shows
# -------------
# - Five steps of Muon's polynomial stop far from an orthogonal factor, and by design: the singular values end in a band
#   around 1, the small ones below it. See :ref:`sphx_glr_generated_gallery_plot_singular_values.py`.
# - A tolerance buys cheaper plans, and the result keeps the tolerance because the spectrum was measured.
# - At full accuracy all routes end at the rounding errors of float32. Their distance to the reference is the same for all, and
#   larger than their orthogonality error: it is the condition of the problem, not a fault of a method.
