r"""
Tokens for experts
==================

A mixture of experts sends each token to the expert that scores best, and some experts drown. Transport with exact loads sends
every token somewhere and gives no expert more than its share.
"""

# %%
# Digits as tokens
# ----------------
# The scores are how well each of 1600 images of digits fits ten centroids, found from the first images of a few classes only, as
# an undertrained router would have them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import orthokern

digits = load_digits()
tokens = digits.data[:1600] / 16
seeds = np.flatnonzero(np.isin(digits.target[:200], (0, 1, 3)))[:10]
scores = -((tokens[:, None] - tokens[seeds][None]) ** 2).sum(-1) / 10
capacity = len(tokens) // len(seeds)

# %%
# Three routers
# -------------
# The best expert for each token; the plan with at most ``capacity`` entries in each column, which is solved with a proof; and the
# fixed number of Sinkhorn iterations that can be traced into a training step.

a, b = np.full(len(tokens), 1 / len(tokens)), np.full(len(seeds), 1 / len(seeds))
feasible = orthokern.SparsityConstrained(capacity, 1.0, "feasible")
exact = orthokern.solve_ot(a, b, -scores, regularizer=feasible)
routed = orthokern.sinkhorn_route(scores, capacity=capacity, n_iter=20, epsilon=0.01)

best = np.zeros_like(scores)
best[np.arange(len(tokens)), scores.argmax(1)] = 1
fixed = np.zeros_like(scores)
for expert, chosen in enumerate(routed.tokens):
    fixed[chosen, expert] = 1
assigned = {
    "best expert": best,
    "transport": (exact.plan > 0).astype(float),
    "20 iterations": fixed,
}
for name, share in assigned.items():
    loads, places = share.sum(0), share.sum(1)
    print(
        f"{name:14} largest load {loads.max():5.0f}  smallest {loads.min():5.0f}  "
        f"tokens without an expert {np.sum(places == 0):4d}  mean score {np.sum(share * scores) / share.sum():.4f}"
    )
print(f"value {exact.value:.6f}, no plan of this kind is below {exact.lower_bound:.6f}")

# %%
# Loads, and who goes where
# -------------------------

figure, axes = plt.subplots(1, 4, figsize=(11, 3.6), layout="constrained", width_ratios=(1.4, 1, 1, 1))
for shift, (name, share) in enumerate(assigned.items()):
    axes[0].bar(np.arange(10) + 0.27 * (shift - 1), share.sum(0), width=0.26, label=name)
axes[0].axhline(capacity, color="k", lw=0.8, ls=":")
axes[0].set(xlabel="expert", ylabel="tokens")
axes[0].legend()
order = np.argsort(digits.target[:1600], kind="stable")
for axis, (name, share) in zip(axes[1:], assigned.items(), strict=True):
    axis.imshow(share[order], aspect="auto", interpolation="nearest", cmap="Greys")
    axis.set(title=name, xlabel="expert", yticks=[])
axes[1].set_ylabel("tokens, by digit")
plt.show()
