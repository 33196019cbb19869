r"""
How few directions do handwritten digits need?
==============================================

1797 images of 64 pixels each are a matrix of 64 columns. A few random directions find what most of its rows are made of, and
a sketch of a few rows, filled as the images pass by, can say how much it misses.
"""

# %%
# Digits from k directions
# ------------------------
# The singular value decomposition is that of the images minus their mean, with one product with random directions and two
# more that sharpen it.

import matplotlib.pyplot as plt
import numpy as np

import orthokern
from orthokern.testing import data

digits = data.load("digits")
images = digits["images"].astype(float)
mean = images.mean(axis=0)
a = images - mean
exact = np.linalg.svd(a, compute_uv=False)
ranks = (1, 3, 8, 16, 32)
shown = [int(np.flatnonzero(digits["labels"] == label)[2]) for label in range(10)]

rows = {"image": images[shown]}
for k in ranks:
    u, s, vh = orthokern.randomized_svd(a, k=k)
    rows[f"k = {k}"] = ((u * s) @ vh + mean)[shown]

figure, axes = plt.subplots(len(rows), 10, figsize=(10, 6.4), layout="constrained")
for line, (name, pictures) in zip(axes, rows.items(), strict=True):
    for axis, picture in zip(line, pictures, strict=True):
        axis.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()

# %%
# What the random directions cost
# -------------------------------
# The error against that of the best matrix of rank k, over 20 seeds and without directions to spare: the range of the seeds is
# shaded. Each step of ``power`` costs two more products with the matrix.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
counts = np.arange(1, 41, 3)
for power, colour in ((0, "#b3171f"), (1, "#b45309"), (2, "#2452c7")):
    excess = np.empty((20, len(counts)))
    for seed in range(20):
        for i, k in enumerate(counts):
            u, s, vh = orthokern.randomized_svd(a, k=int(k), oversample=0, power=power, seed=seed)
            excess[seed, i] = np.linalg.norm(a - (u * s) @ vh) / np.linalg.norm(exact[k:]) - 1
    left.fill_between(counts, excess.min(axis=0), excess.max(axis=0), color=colour, alpha=0.15, lw=0)
    left.plot(counts, np.median(excess, axis=0), color=colour, label=f"power = {power}")
    print(f"power {power}: at most {excess.max():.1%} above the best, half of the time below {np.median(excess):.2%}")
left.set(yscale="log", xlabel="directions k", ylabel="error above the best, relative", title="Random directions")
left.legend(frameon=False)

# %%
# A stream that knows its error
# -----------------------------
# Frequent directions see each image once. ``shed`` bounds the error, and a theorem bounds ``shed``, before anything is seen, by
# the singular values.

sizes = np.arange(4, 61, 4)
error, shed, theory = np.empty((3, len(sizes)))
for i, size in enumerate(sizes):
    stream = orthokern.FrequentDirections(int(size), 64)
    for block in np.array_split(a, 20):
        stream.update(block)
    b = stream.sketch
    error[i] = np.linalg.norm(a.T @ a - b.T @ b, 2)
    shed[i] = stream.shed
    theory[i] = min(np.sum(exact[k:] ** 2) / (size - k) for k in range(size))

total = exact[0] ** 2
for values, style, name in ((theory, ":", "theorem"), (shed, "-", "shed"), (error, "--", "error")):
    right.semilogy(sizes, np.maximum(values / total, 1e-7), style, label=name)
right.set(xlabel="rows l of the sketch", ylabel=r"$\|A^TA - B^TB\|$ / $\|A^TA\|$", title="Frequent directions")
right.legend(frameon=False)
plt.show()

# %%
# In figures
# ----------
# The directions that a tolerance asks for, in blocks of 16, beside the fewest there could be:

tails = np.sqrt(np.cumsum(exact[::-1] ** 2)[::-1])
print(f"{'tol':>8s}{'directions':>12s}{'fewest':>8s}{'error':>10s}")
for tol in (0.5, 0.2, 0.1, 0.01):
    q = orthokern.randomized_range_finder(a, tol=tol)
    fewest = int(np.argmax(tails <= tol * tails[0]))
    left_over = np.linalg.norm(a - q @ (q.T @ a)) / tails[0]
    print(f"{tol:8.2f}{q.shape[1]:12d}{fewest:8d}{left_over:10.4f}")
