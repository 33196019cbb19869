r"""
An acoustic camera that calibrates itself
=========================================

An array of microphones makes a picture of where sound comes from, out of differences of phase. If every channel has a gain and a phase of
its own, the picture is lost. To get it back no sound has to be known: recordings of the scene itself are enough.
"""

# %%
# Waves in a room
# ---------------
# 40 microphones are scattered over a square plate. Sound of 1700 Hz comes from some of 16 loudspeakers in a plane 1.5 m in front of it:
# their places are known, what they play is not, nor which of them play. A point source at the distance r is received as
# :math:`e^{2 \pi i r / \lambda} / r`. Each channel multiplies by an unknown complex gain. 60 short recordings are taken, in which five
# speakers play independent noise, with errors of measurement 20 dB below.

import matplotlib.pyplot as plt
import numpy as np

import orthokern

rng = np.random.default_rng(7)
microphones, recordings, distance = 40, 60, 1.5
wavelength = 343.0 / 1700.0
plate = np.column_stack([rng.uniform(-0.5, 0.5, (microphones, 2)), np.zeros(microphones)])


def waves(x, y):
    """A column for each point of the plane in front: what ideal microphones would receive from it."""
    points = np.stack([np.ravel(x), np.ravel(y), np.full(np.size(x), distance)])
    r = np.linalg.norm(plate[:, :, None] - points, axis=1)
    return np.exp(2j * np.pi * r / wavelength) / r


def noise(*shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


places = np.linspace(-0.9, 0.9, 4)
speakers = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
playing = np.array([1, 6, 8, 11, 14])
sound = np.zeros((recordings, 16), dtype=complex)
sound[:, playing] = noise(recordings, 5) * np.array([1.0, 0.7, 1.0, 0.5, 0.8])
gains = rng.uniform(0.5, 1.5, microphones) * np.exp(2j * np.pi * rng.random(microphones))
received = gains * (sound @ waves(*speakers.T).T)
error = noise(recordings, microphones)
received = received + 10 ** (-20 / 20) * np.linalg.norm(received) / np.linalg.norm(error) * error

# %%
# Calibration
# -----------
# The model is that of snapshots: one matrix, one vector of gains, another signal each time.

found = orthokern.self_calibrate(received, waves(*speakers.T), method="als")
factor = np.vdot(found.gains, gains) / np.vdot(found.gains, found.gains)
estimate = factor * found.gains
wrong = np.linalg.norm(estimate - gains) / np.linalg.norm(gains)
print(f"relative error of the gains {wrong:.4f}, residual {found.info.residual:.4f}")
print(f"status {orthokern.SelfCalStatus(int(found.info.status)).name}, gap {found.info.gap:.1f}, condition {found.info.cond:.1f}")

# %%
# Before and after
# ----------------
# The picture is the energy of a beam that is steered to each point. Crosses are the speakers that play.

side = np.linspace(-1.4, 1.4, 113)
steering = waves(*np.meshgrid(side, side))
steering = steering / np.linalg.norm(steering, axis=0)


def picture(y):
    energy = np.sum(np.abs(y @ steering.conj()) ** 2, axis=0).reshape(len(side), -1)
    return 10 * np.log10(energy / energy.max())


images = {
    "as received": received,
    "calibrated by itself": received / estimate,
    "true gains": received / gains,
}
figure, axes = plt.subplots(1, 4, figsize=(12.5, 3.2), layout="constrained", width_ratios=(1, 1, 1, 0.9))
for axis, (name, y) in zip(axes, images.items(), strict=False):
    level = picture(y)
    shown = axis.imshow(level, origin="lower", extent=(side[0], side[-1]) * 2, vmin=-12, vmax=0, cmap="magma")
    axis.plot(*speakers[playing].T, "c+", ms=9)
    axis.set(title=name, xlabel="x in m", yticks=[-1, 0, 1])
    print(f"{name:22} mean level {level.mean():6.1f} dB")
axes[0].set_ylabel("y in m")
figure.colorbar(shown, ax=axes[:3], label="dB", shrink=0.9)
axes[3].plot(gains.real, gains.imag, "o", mfc="none", label="true")
axes[3].plot(estimate.real, estimate.imag, ".", label="found")
axes[3].set(title="gains of the channels", aspect="equal", ylim=(-1.6, 2.2))
axes[3].legend(fontsize=8, loc="upper right")
plt.show()
