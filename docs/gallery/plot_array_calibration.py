r"""
A sensor array that calibrates itself
=====================================

An array of microphones, antennas or hydrophones finds the directions of sources from differences of phase. If every channel has a gain and
a phase of its own, the picture is lost. No source has to be known to get it back: a few snapshots of the scene itself are enough.
"""

# %%
# Waves on an array
# -----------------
# 24 sensors stand along a line, at uneven distances of about half a wavelength. A plane wave from the angle :math:`\theta` arrives at
# the position z with the phase :math:`2 \pi z \sin(\theta) / \lambda`. The sources are known to lie in a sector; a grid of ten directions
# spans the waves that come from there. Each channel multiplies by an unknown complex gain. Of the scene 40 snapshots are taken, in
# each of which the sources have other amplitudes, with noise 30 dB below.

import matplotlib.pyplot as plt
import numpy as np

import orthokern

rng = np.random.default_rng(7)
sensors, count, wavelength = 24, 40, 1.0
positions = np.cumsum(0.5 * wavelength * (1 + 0.25 * rng.uniform(-1, 1, sensors)))


def waves(degrees):
    """A column for each direction: what ideal sensors would receive."""
    return np.exp(2j * np.pi / wavelength * positions[:, None] * np.sin(np.deg2rad(degrees)))


grid = np.linspace(-30.0, 30.0, 10)
truth = np.deg2rad(grid[[2, 5, 6]])
loud = np.zeros((count, 10), dtype=complex)
loud[:, [2, 5, 6]] = rng.standard_normal((count, 3)) + 1j * rng.standard_normal((count, 3))
gains = rng.uniform(0.5, 1.5, sensors) * np.exp(2j * np.pi * rng.random(sensors))
clean = gains * (loud @ waves(grid).T)
noise = rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)
received = clean + 10 ** (-30 / 20) * np.linalg.norm(clean) / np.linalg.norm(noise) * noise

# %%
# Calibration
# -----------
# The model is that of snapshots: one matrix, one vector of gains, another signal each time. Nothing is told about which directions are
# occupied.

found = orthokern.self_calibrate(received, waves(grid), refine=5)
factor = np.vdot(found.gains, gains) / np.vdot(found.gains, found.gains)
estimate = factor * found.gains
error = np.linalg.norm(estimate - gains) / np.linalg.norm(gains)
print(f"relative error of the gains {error:.4f}, residual {found.info.residual:.4f}")
print(f"status {orthokern.SelfCalStatus(int(found.info.status)).name}, gap {found.info.gap:.1f}, condition {found.info.cond:.1f}")
