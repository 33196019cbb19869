r"""
Clipping the spectrum of a gradient
===================================

A gradient of a small network has a few singular values that tower above the others. What does clipping make of them, and
what does the usual short iteration make of the smooth variant?
"""

# %%
# The gradient
# ------------
# One layer's gradient early in training. Its largest singular value is far above the median.

import matplotlib.pyplot as plt
import numpy as np

import orthokern
from orthokern.testing import data

gradient = data.load("gradients")["layer2_early"].astype(np.float64)
singular = np.linalg.svd(gradient, compute_uv=False)
c = 0.02 * singular[0]
print(f"{gradient.shape[0]} x {gradient.shape[1]}, norm {singular[0]:.3g}, limit {c:.3g}")
print(f"{np.sum(singular > c)} of {len(singular)} singular values lie above the limit")

# %%
# Hard, soft, and soft in ten steps
# ---------------------------------
# The hard clip cuts at the limit and leaves everything below as it is. The soft clip bends. Ten coupled Newton-Schulz steps,
# which is what the published code runs, do not get there when the norm is fifty times the limit: it is the singular values
# below the limit, which are to stay as they are, that come out too small.

results = {
    "gradient": gradient,
    "hard": orthokern.spectral_clip(gradient, c),
    "soft": orthokern.soft_spectral_clip(gradient, c),
    "soft, 10 steps": orthokern.soft_spectral_clip(gradient, c, steps=10),
}
p, _, qh = np.linalg.svd(gradient, full_matrices=False)
solid = singular > 1e-6 * singular[0]


def gains_of(y):
    """What became of each singular value."""
    return np.sum(p * (y @ qh.T), axis=0)


gains = {name: gains_of(y) for name, y in results.items()}

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for (name, values), style in zip(gains.items(), ("k:", "C0-", "C1-", "C3--"), strict=True):
    left.loglog(np.arange(1, len(values) + 1), np.maximum(values, 1e-8 * c) / c, style, label=name)
left.axhline(1, color="0.8", lw=0.8)
left.set(xlabel="index", ylabel="singular value / limit", title="One gradient", ylim=(1e-4, 100))
left.legend()

# %%
# How far above the limit can one go?
# -----------------------------------
# The error of the soft clip as the limit is lowered: the largest relative one among the singular values.

ratios = np.logspace(0, 4, 25)
for steps, style in ((5, "C4--"), (10, "C3--"), (20, "C5--"), (None, "C1-")):
    errors = []
    for ratio in ratios:
        limit = singular[0] / ratio
        exact = singular / np.sqrt(1 + (singular / limit) ** 2)
        found = gains_of(orthokern.soft_spectral_clip(gradient, limit, steps=steps))
        errors.append(np.abs(found / exact - 1)[solid].max())
    label = "default" if steps is None else f"{steps} steps"
    right.loglog(ratios, np.maximum(errors, 1e-17), style, label=label)
right.set(xlabel="norm / limit", ylabel="relative error of a singular value", title="Soft clip")
right.legend()
plt.show()

# %%
# In figures
# ----------

print(f"{'':16s}{'largest / limit':>16s}{'changed below the limit':>26s}")
below = (singular < 0.5 * c) & solid
for name, values in gains.items():
    change = np.abs(values[below] / singular[below] - 1).max()
    print(f"{name:16s}{values[0] / c:16.4f}{change:26.1e}")
