r"""
When can an array calibrate itself?
===================================

Sensors with unknown gains measure unknown signals, and both are to be found from the same data. Counting equations says when that is
possible; the pictures show that the count is right on both sides, and what noise makes of it.
"""

# %%
# The count
# ---------
# Each of p snapshots :math:`y_l = D A x_l` of m sensors gives m equations for n new unknowns, and the gains are m unknowns that all share.
# One scalar stays free, so that there are enough equations if :math:`p m \ge m + n p - 1`. The linear system in inverse gains and signals,
# written out in full, tells how many unknowns really stay free.

import matplotlib.pyplot as plt
import numpy as np

import orthokern

m = 16
signals, snapshots = np.arange(1, 17), np.arange(1, 11)


def draw(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def measured(n, p, snr, seed):
    """Measurements, the matrix and the gains."""
    rng = np.random.default_rng([n, p, seed])
    a, x = draw(rng, m, n), draw(rng, p, n)
    gains = (0.5 + rng.random(m)) * np.exp(2j * np.pi * rng.random(m))
    y, noise = gains * (x @ a.T), draw(rng, p, m)
    return y + 10 ** (-snr / 20) * np.linalg.norm(y) / np.linalg.norm(noise) * noise, a, gains


def free(n, p):
    """Dimension of the null space of the whole system."""
    y, a, _ = measured(n, p, np.inf, 0)
    system = np.hstack([np.vstack([np.diag(row) for row in y]), np.kron(np.eye(p), -a)])
    values = np.linalg.svd(system, compute_uv=False)
    return system.shape[1] - np.sum(values > 1e-10 * values[0])


def error(n, p, snr, seed):
    """Relative error of the gains after the best scalar, and NaN where the kernel refuses."""
    y, a, gains = measured(n, p, snr, seed)
    try:
        found = orthokern.self_calibrate(y, a)
    except orthokern.ShapeError:
        return np.nan
    factor = np.vdot(found.gains, gains) / np.vdot(found.gains, found.gains)
    return np.linalg.norm(factor * found.gains - gains) / np.linalg.norm(gains)


def table(snr, seeds=3):
    return np.array([[np.median([error(n, p, snr, s) for s in range(seeds)]) for n in signals] for p in snapshots])


unknown = np.array([[free(n, p) for n in signals] for p in snapshots])
tables = {"error without noise": table(np.inf), "error with noise 60 dB below": table(60.0)}
for name, errors in tables.items():
    known = np.isfinite(errors)
    print(f"{name:28} cases {known.sum():4d}  median {np.median(errors[known]):.1e}  worst {errors[known].max():.1e}")
solved = np.isfinite(tables["error without noise"])
print(f"one scalar free and solved: {np.sum((unknown == 1) & solved)}, one free and refused: {np.sum((unknown == 1) & ~solved)}")
print(f"more free and solved: {np.sum((unknown > 1) & solved)}, more free and refused: {np.sum((unknown > 1) & ~solved)}")

# %%
# Both sides of the border
# ------------------------
# On the left, how many unknowns are free; then the errors of :func:`orthokern.self_calibrate`, which refuses the white part by the count.
# The line is the count. Along it the problem is solvable but ill-conditioned, and noise is multiplied.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
extent = (signals[0] - 0.5, signals[-1] + 0.5, snapshots[0] - 0.5, snapshots[-1] + 0.5)
options = {"origin": "lower", "aspect": "auto", "extent": extent}
shown = axes[0].imshow(unknown, vmin=1, vmax=8, cmap="Blues", **options)
figure.colorbar(shown, ax=axes[0], label="dimension", extend="max")
axes[0].set(title="unknowns that stay free", ylabel="snapshots, p")
for axis, (name, errors) in zip(axes[1:], tables.items(), strict=True):
    shown = axis.imshow(np.log10(errors), vmin=-16, vmax=0, cmap="viridis_r", **options)
    axis.set(title=name)
figure.colorbar(shown, ax=axes[1:], label="log10 of the relative error of the gains")
p = np.linspace(1, snapshots[-1] + 0.5, 200)
for axis in axes:
    axis.plot((p * m - m + 1) / p + 0.5, p, "k--", lw=1)
    axis.set(xlabel="unknowns in a signal, n", xlim=extent[:2], ylim=extent[2:])
plt.show()
