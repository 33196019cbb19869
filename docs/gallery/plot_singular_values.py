r"""
Muon's five steps, singular value by singular value
===================================================

An optimizer of the Muon family replaces a gradient by something like its polar factor. What do the singular values of that
something look like on a real gradient?
"""

import matplotlib.pyplot as plt
import numpy as np

import orthokern
from orthokern.testing import data

gradient = data.load("gradients")["layer1_middle"].astype(np.float64)
alive = np.abs(gradient) > 0
a = gradient[alive.any(axis=1)][:, alive.any(axis=0)]
p, before, qh = np.linalg.svd(a, full_matrices=False)


def after(u):
    """What became of each singular value: the factors of ``a`` diagonalize every result here."""
    return np.einsum("ik,ij,kj->k", p, u, qh)


# %%
# The polynomial of Muon is steep at zero and does not converge: values that were large end anywhere in a band around 1. Polar
# Express chooses its polynomials for a lower bound of the values and converges above it. A tolerance leaves the choice of
# the steps to the library.

updates = {
    "Muon, 5 steps": orthokern.newton_schulz(a, steps=5, coefficients="jordan"),
    "Polar Express, 5 steps": orthokern.polar(a, method="polar_express", steps=5, lower_bound=1e-3, compute_h=False).u,
    "orthogonalize(tol=0.1)": orthokern.orthogonalize(a, tol=0.1),
    "orthogonalize()": orthokern.orthogonalize(a),
}
STYLES = {
    "Muon, 5 steps": ("#b3171f", "^"),
    "Polar Express, 5 steps": ("#b45309", "D"),
    "orthogonalize(tol=0.1)": ("#2452c7", "o"),
    "orthogonalize()": ("#6b7280", "s"),
}

figure, axes = plt.subplots(figsize=(10, 5.2))
for name, update in updates.items():
    colour, marker = STYLES[name]
    axes.plot(before / before[0], after(update), marker=marker, color=colour, lw=1, markersize=4, label=name)
axes.axhspan(0.9, 1.1, color="#2452c7", alpha=0.08, lw=0)
axes.text(before[-1] / before[0], 1.11, " tol = 0.1", color="#2452c7", fontsize=9, va="bottom")
axes.set(xscale="log", ylim=(0, None))
axes.set_xlabel(r"singular value of the gradient, relative to the largest")
axes.set_ylabel("singular value of the update")
axes.set_title(f"Gradient of a network's first layer, {a.shape[0]} x {a.shape[1]}", loc="left", fontweight="bold", fontsize=11)
axes.grid(True, color="#e5e7eb", lw=0.8)
axes.set_axisbelow(True)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, loc="lower right")
figure.tight_layout()
plt.show()

# %%
# Share of the directions whose size is within 10 % of 1:

for name, update in updates.items():
    print(f"{name:24}{np.mean(np.abs(after(update) - 1) <= 0.1):8.0%}")
