r"""
A map between two poses of one shape
====================================

A body with bumps is bent, and its vertices are shuffled. Which vertex of the bent body is which of the straight one? Functional maps
answer from a handful of landmarks.
"""

# %%
# Two poses
# ---------
# A tube along an axis, closed at both ends, with two bumps that break its symmetries. In the second pose the axis is an arc of a circle.

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

import orthokern

rings, around, length = 60, 36, 4.0
s = (np.arange(1, rings) / rings)[:, None]
angle = (2 * np.pi * np.arange(around) / around)[None, :]
bumps = np.exp(-((s - 0.25) ** 2) / 0.004 - (1 - np.cos(angle - 1)) * 6) + 0.7 * np.exp(
    -((s - 0.65) ** 2) / 0.01 - (1 - np.cos(angle - 3)) * 4
)
radius = 0.32 * np.sqrt(np.sin(np.pi * s)) * (1 + 0.15 * np.cos(7 * s)) * (1 + 0.8 * bumps)


def pose(curvature):
    """Vertices with the axis bent to this curvature; the ends of the axis come last."""
    turn = curvature * length * s
    if curvature:
        axis = np.stack([np.sin(turn), 1 - np.cos(turn), 0 * turn], axis=-1) / curvature
    else:
        axis = np.stack([length * s, 0 * s, 0 * s], axis=-1)
    normal = np.stack([-np.sin(turn), np.cos(turn), 0 * turn], axis=-1)
    across = np.array([0.0, 0.0, 1.0])
    ring = np.cos(angle)[..., None] * normal + np.sin(angle)[..., None] * across
    body = axis + radius[..., None] * ring
    ends = [2 * axis[0, 0] - axis[1, 0], 2 * axis[-1, 0] - axis[-2, 0]]
    return np.concatenate([body.reshape(-1, 3), ends])


def triangles():
    """Two for each cell of the grid, and fans at the ends."""
    index = np.arange((rings - 1) * around).reshape(rings - 1, around)
    right = np.roll(index, -1, axis=1)
    a, b, c, d = index[:-1], right[:-1], index[1:], right[1:]
    first, last = (rings - 1) * around, (rings - 1) * around + 1
    fans = [(np.full(around, first), right[0], index[0]), (np.full(around, last), index[-1], right[-1])]
    parts = [(a, b, c), (b, d, c), *fans]
    return np.concatenate([np.stack([np.ravel(v) for v in part], axis=-1) for part in parts])


faces = triangles()
straight = pose(0.0)
rng = np.random.default_rng(0)
truth = rng.permutation(len(straight))
place = np.argsort(truth)
bent, bent_faces = pose(0.7)[truth], place[faces]
print(f"{len(straight)} vertices, {len(faces)} triangles")

# %%
# Eigenfunctions
# --------------
# The Laplacian with the weights of cotangents, and the area that belongs to each vertex.


def laplacian(vertices, faces):
    """Stiffness matrix and masses."""
    n = len(vertices)
    stiffness, mass = scipy.sparse.csr_array((n, n)), np.zeros(n)
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        i, j, k = faces[:, order].T
        u, v = vertices[i] - vertices[k], vertices[j] - vertices[k]
        area = np.linalg.norm(np.cross(u, v), axis=1)
        weight = np.sum(u * v, axis=1) / area / 2
        stiffness = stiffness + scipy.sparse.coo_array((weight, (i, j)), shape=(n, n)).tocsr()
        np.add.at(mass, k, area / 6)
    stiffness = stiffness + stiffness.T
    return scipy.sparse.diags_array(stiffness.sum(axis=1)) - stiffness, mass


def spectrum(vertices, faces, count=60):
    """The lowest eigenvalues, and eigenfunctions that are orthonormal for the masses."""
    stiffness, mass = laplacian(vertices, faces)
    evals, phi = scipy.sparse.linalg.eigsh(
        stiffness.tocsc(), count, scipy.sparse.diags_array(mass).tocsc(), sigma=-0.01, v0=np.ones(len(mass))
    )
    return np.maximum(evals, 0.0), phi, mass


evals_x, phi_x, mass_x = spectrum(straight, faces)
evals_y, phi_y, mass_y = spectrum(bent, bent_faces)

# %%
# Map of functions
# ----------------
# Descriptors: heat that spreads from six landmarks, at eight times.

landmarks = np.array([150, 500, 905, 1310, 1700, 2050])
times = np.geomspace(0.01, 1.0, 8)


def heat(evals, phi, where):
    """Coefficients of the heat at each time from each landmark, of norm 1."""
    spread = np.exp(-evals[:, None, None] * times) * phi[where].T[:, :, None]
    flat = spread.reshape(len(evals), -1)
    return flat / np.linalg.norm(flat, axis=0)


k = 25
a, b = heat(evals_x[:k], phi_x[:, :k], landmarks), heat(evals_y[:k], phi_y[:, :k], place[landmarks])
c = orthokern.functional_map(a, b, evals_x[:k], evals_y[:k], weight=1.0)
pointmap = orthokern.fmap_to_pointmap(c, phi_x, phi_y)
refined = orthokern.zoomout(c, phi_x, phi_y, mass_y, step=5)


def error(p):
    """Distance on the straight body from where a vertex is sent to where it belongs, over the length."""
    return np.linalg.norm(straight[p] - straight[truth], axis=1) / length


for name, p in (("functional map", pointmap), ("after ZoomOut", refined.pointmap)):
    print(f"{name:16s} mean error {100 * error(p).mean():.2f} %, exact {100 * np.mean(p == truth):.0f} %")

# %%
# In colours
# ----------
# Vertices of the bent body have the colour of the vertex that they are sent to.

colours = (straight - straight.min(0)) / np.ptp(straight, axis=0)
figure = plt.figure(figsize=(11, 6), layout="constrained")
shapes = (
    ("straight", straight, faces, colours),
    ("bent: functional map", bent, bent_faces, colours[pointmap]),
    ("bent: after ZoomOut", bent, bent_faces, colours[refined.pointmap]),
)
for i, (title, vertices, triangles_of, colour) in enumerate(shapes):
    axes = figure.add_subplot(2, 3, 1 + i, projection="3d")
    surface = axes.plot_trisurf(*vertices.T, triangles=triangles_of, shade=False, linewidth=0)
    surface.set_facecolor(colour[triangles_of].mean(axis=1))
    axes.set(title=title, box_aspect=np.ptp(vertices, axis=0))
    axes.set_axis_off()

for i, (title, matrix) in enumerate((("functional map", c), ("after ZoomOut", refined.c))):
    axes = figure.add_subplot(2, 3, 5 + i)
    axes.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
    axes.set(title=title, xlabel="function on the straight body", ylabel="on the bent one")
axes = figure.add_subplot(2, 3, 4)
for name, p in (("functional map", pointmap), ("after ZoomOut", refined.pointmap)):
    axes.plot(100 * np.sort(error(p)), np.linspace(0, 100, len(p)), label=name)
axes.set(xlabel="error in % of the length", ylabel="% of the vertices", xlim=(0, 10))
axes.legend()
plt.show()
