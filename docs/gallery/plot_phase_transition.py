r"""
When can an array calibrate itself?
===================================

Sensors with unknown gains measure unknown signals, and both are to be found from the same data. Counting equations says when that is
possible; the picture shows that the count is right, and what noise makes of it.
"""

# %%
# The count
# ---------
# Each of p snapshots :math:`y_l = D A x_l` of m sensors gives m equations for n new unknowns, and the gains are m unknowns that all share.
# One scalar stays free. So :math:`p m \ge m + n p - 1` equations are enough, and :func:`orthokern.self_calibrate` refuses fewer. To see
# what happens there the kernel is asked for each case it takes, and its error, after the best scalar, is drawn.

import matplotlib.pyplot as plt
import numpy as np

import orthokern

m = 32
signals, snapshots = np.arange(1, 33), np.arange(1, 13)


def draw(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def error(n, p, snr, seed):
    """Relative error of the gains, and NaN where the count refuses."""
    rng = np.random.default_rng([n, p, seed])
    a, x = draw(rng, m, n), draw(rng, p, n)
    gains = (0.5 + rng.random(m)) * np.exp(2j * np.pi * rng.random(m))
    y, noise = gains * (x @ a.T), draw(rng, p, m)
    y = y + 10 ** (-snr / 20) * np.linalg.norm(y) / np.linalg.norm(noise) * noise
    try:
        found = orthokern.self_calibrate(y, a)
    except orthokern.ShapeError:
        return np.nan
    factor = np.vdot(found.gains, gains) / np.vdot(found.gains, found.gains)
    return np.linalg.norm(factor * found.gains - gains) / np.linalg.norm(gains)


def table(snr, seeds=3):
    return np.array(
        [[np.median([error(n, p, snr, seed) for seed in range(seeds)]) for n in signals] for p in snapshots]
    )


tables = {"no noise": table(np.inf), "noise 60 dB below": table(60.0), "noise 30 dB below": table(30.0)}
for name, errors in tables.items():
    known = np.isfinite(errors)
    print(f"{name:18} cases {known.sum():4d}  median error {np.median(errors[known]):.1e}  worst {errors[known].max():.1e}")

# %%
# Errors
# ------
# White: too few equations. Along the border the problem is solvable but ill-conditioned, and the noise is multiplied.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
for axis, (name, errors) in zip(axes, tables.items(), strict=True):
    extent = (signals[0] - 0.5, signals[-1] + 0.5, snapshots[0] - 0.5, snapshots[-1] + 0.5)
    picture = axis.imshow(
        np.log10(errors), origin="lower", aspect="auto", extent=extent, vmin=-16, vmax=0, cmap="viridis_r"
    )
    p = np.linspace(1, 12.5, 200)
    axis.plot((p * m - m + 1) / p, p, "k--", lw=1)
    axis.set(title=name, xlabel="unknowns in a signal, n", xlim=extent[:2], ylim=extent[2:])
axes[0].set_ylabel("snapshots, p")
figure.colorbar(picture, ax=axes, label="log10 of the relative error of the gains")
plt.show()
