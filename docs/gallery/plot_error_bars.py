r"""
A regression that knows its error
=================================

What does a pixel of a handwritten digit owe to its neighbours? The 1797 digits have 64 692 pixels with eight neighbours; a
polynomial of degree two in these has 45 coefficients. A sketch of the table is enough to estimate them, and to say how far the
estimate may be from the least-squares solution.
"""

# %%
# The table
# ---------
# One row for each pixel that is not on the edge: the grey levels around it, from 0 to 1, their squares and products.

from itertools import combinations_with_replacement

import matplotlib.pyplot as plt
import numpy as np

import orthokern
from orthokern.testing import data

images = data.load("digits")["images"].reshape(-1, 8, 8) / 16.0
steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
around = np.stack([images[:, 1 + i : 7 + i, 1 + j : 7 + j].ravel() for i, j in steps], axis=1)
pixel = images[:, 1:7, 1:7].ravel()
pairs = list(combinations_with_replacement(range(8), 2))
products = np.stack([around[:, i] * around[:, j] for i, j in pairs], axis=1)
table = np.concatenate([np.ones((len(pixel), 1)), around, products], axis=1)

exact = orthokern.lstsq(table, pixel)
share = 1 - float(exact.residuals) / np.sum((pixel - pixel.mean()) ** 2)
print(
    f"{table.shape[0]} rows, {table.shape[1]} columns, condition number {float(exact.info.cond_estimate):.0f}"
)
print(
    f"backward error {float(exact.info.backward_error):.1e}, {share:.1%} of the variance explained"
)

# %%
# Error bars
# ----------
# The bars are ``error_bound``: with a probability of 95 % all 45 of them hold the coefficient of the whole table. They come
# from the sketch alone, which has as many rows as a fortieth of the table.

size = len(table) // 40
sketched = orthokern.sketched_lstsq(table, pixel, sketch_size=size, delta=0.05)
inside = np.abs(sketched.x - exact.x) <= sketched.error_bound
order = np.argsort(exact.x)

figure, axis = plt.subplots(figsize=(10, 4.2), layout="constrained")
places = np.arange(len(order))
axis.errorbar(
    places,
    sketched.x[order],
    yerr=sketched.error_bound[order],
    fmt="none",
    ecolor="#2452c7",
    elinewidth=4,
    alpha=0.35,
    label=f"{size} rows of a sketch, bound for all at 95 %",
)
axis.plot(places, exact.x[order], ".", color="#b3171f", label=f"all {len(table)} rows")
axis.set(xlabel="coefficients, in the order of their values", ylabel="coefficient", xticks=[])
axis.legend(frameon=False, loc="upper left")
plt.show()
print(f"{inside.sum()} of {inside.size} coefficients are within their bars")

# %%
# What the neighbours say
# -----------------------
# The linear part as a picture, and digits whose inner pixels are predicted by their neighbours.

weights = np.zeros((3, 3))
for (i, j), weight in zip(steps, exact.x[1:9], strict=True):
    weights[1 + i, 1 + j] = weight
guessed = np.clip(table @ exact.x, 0, 1).reshape(-1, 6, 6)

figure, axes = plt.subplots(2, 7, figsize=(10, 3), layout="constrained")
limit = np.abs(weights).max()
axes[0, 0].imshow(weights, cmap="RdBu", vmin=-limit, vmax=limit)
axes[0, 0].set_title("weights", fontsize=10)
axes[1, 0].set_visible(False)
for column, digit in enumerate((0, 11, 22, 43, 54, 65), 1):
    for row, picture in enumerate((images[digit, 1:7, 1:7], guessed[digit])):
        axes[row, column].imshow(picture, cmap="gray_r", vmin=0, vmax=1)
axes[0, 1].set_ylabel("pixels")
axes[1, 1].set_ylabel("predicted")
for axis in axes.ravel():
    axis.set(xticks=[], yticks=[])
plt.show()

# %%
# Does the bound hold?
# --------------------
# Over 100 seeds for each size: how often a coefficient left its bar (once in twenty seeds would be allowed), the largest error,
# and the largest bar.

print(f"{'rows':>8s}{'left its bar':>14s}{'largest error':>15s}{'largest bar':>13s}")
for rows in (200, 400, 800, 1600):
    outcomes = []
    for seed in range(100):
        found = orthokern.sketched_lstsq(table, pixel, sketch="srht", sketch_size=rows, seed=seed)
        error = np.abs(found.x - exact.x)
        outcomes.append((np.any(error > found.error_bound), error.max(), found.error_bound.max()))
    left, errors, bars = np.array(outcomes, dtype=float).T
    print(f"{rows:8d}{left.mean():14.1%}{np.median(errors):15.3f}{np.median(bars):13.3f}")
