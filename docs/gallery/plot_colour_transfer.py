r"""
The colours of a flower for a palace
====================================

Optimal transport between the colours of two photographs. An entropic plan mixes many colours for each pixel and washes the
picture out; a plan with at most four entries in each column keeps it saturated, and both come with a proof of how good they are.
"""

# %%
# Two photographs
# ---------------
# Six hundred pixels of each stand for all. Rows are colours of the flower, columns those of the palace, so that a limit on the
# entries of a column limits how many colours one pixel is made of.

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import cKDTree
from sklearn.datasets import load_sample_image

import orthokern

palace, flower = (load_sample_image(name)[::2, ::2] / 255 for name in ("china.jpg", "flower.jpg"))
rng = np.random.default_rng(0)
ours, theirs = (p.reshape(-1, 3)[rng.choice(p[..., 0].size, 600, replace=False)] for p in (palace, flower))
masses = np.full(600, 1 / 600)
cost = ((theirs[:, None] - ours[None]) ** 2).sum(-1)

# %%
# Three plans
# -----------
# What is printed: the linear cost, how far the marginals are off, how far the value can be from the best one, and how many
# colours of the flower a colour of the palace is made of.

regularizers = {
    "linear": orthokern.Unregularized(),
    "four entries": orthokern.SparsityConstrained(4, 30.0, "feasible"),
    "squares": orthokern.SquaredL2(30.0),
    "entropy": orthokern.Entropy(0.02),
}
results = {
    name: orthokern.solve_ot(masses, masses, cost, regularizer=r) for name, r in regularizers.items()
}
for name, result in results.items():
    entries = np.count_nonzero(result.plan > 1e-9 / 600, axis=0)
    print(
        f"{name:12} cost {result.linear_cost:.5f}  marginals {result.marginal_error:.0e}  "
        f"gap {abs(result.gap):.0e}  colours in one: {entries.mean():.1f}"
    )

# %%
# The pictures
# ------------
# Each sampled colour moves to the mean of its column; the other pixels move as the nearest sampled one does.

tree = cKDTree(ours)
nearest = tree.query(palace.reshape(-1, 3))[1]


def repainted(plan):
    moved = plan.T @ theirs / plan.sum(0)[:, None]
    return np.clip(palace + (moved - ours)[nearest].reshape(palace.shape), 0, 1)


pictures = {"palace": palace, "flower": flower}
pictures |= {name: repainted(result.plan) for name, result in results.items()}
figure, axes = plt.subplots(2, 3, figsize=(10, 4.8), layout="constrained")
for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=True):
    axis.imshow(picture)
    axis.set(title=name, xticks=[], yticks=[])

# %%
# How colourful they are
# ----------------------
# The mean distance of a pixel from grey, and the plans of a few colours of the palace.


def saturation(picture):
    return float(np.mean(picture.max(-1) - picture.min(-1)))


for name, picture in pictures.items():
    print(f"{name:12} saturation {saturation(picture):.3f}")

order = np.argsort(ours.sum(-1))[::40]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
for axis, name in zip(axes, ("four entries", "squares", "entropy"), strict=True):
    shares = np.sort(results[name].plan[:, order] * 600, axis=0)[::-1][:12]
    bottom = np.zeros(order.size)
    for share in shares:
        axis.bar(np.arange(order.size), share, bottom=bottom, width=0.9, edgecolor="w", lw=0.3)
        bottom += share
    axis.set(title=name, xlabel="colour of the palace")
axes[0].set_ylabel("shares of the twelve largest entries")
plt.show()
