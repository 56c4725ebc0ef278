# %% [markdown]
# # Hard to learn jointly: training over seeds
#
# The lecture says of the consistency term: *unstable optimization*, it is hard to
# jointly learn hierarchical encoders and decoders. A reason is in the formula,
#
# $$\sum_{t=2}^T \mathbb{E}_{q_\phi(z_t|x)}\big[\mathrm{KL}\big(q_\phi(z_{t-1}|z_t, x)
# \,\|\, p_\theta(z_{t-1}|z_t)\big)\big].$$
#
# Both sides of each KL are learned at the same time. Each is the target of the other,
# so the target moves. And one solution is easy to reach: a level whose posterior equals
# its prior has a KL of zero and holds nothing. This is **posterior collapse**. Once the
# decoder ignores a level, the encoder gets no signal to use it.
#
# One run shows nothing about stability. So this page trains each model from several
# random seeds and draws *all* the runs.

# %%
import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import HVAE, Diffusion, data, evaluate, training_loop
from genmod.decoders import DiscretizedLogisticDecoder, PredictedScale
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.nn import MLPs
from genmod.objectives import Bound, Objective, WarmUp
from genmod.plots.style import COLORS, INK, LABEL, figure, label_axes, plain
from genmod.schedules import LinearLogSNR

STEPS = 600  # few: 12
SEEDS = 4  # few: 2
POINTS = 50

digits = data.load("digits")

# %% [markdown]
# ## Four ways to train a hierarchy
#
# * A hierarchical VAE with **bottom-up** inference, on the plain bound.
# * The same with **top-down** inference.
# * Top-down again, with a **warm-up**: the weight of all rates rises from 0 to 1.
# * A **diffusion**: a hierarchy whose encoder is fixed, so that only one side of each KL
#   is learned.
#
# All have networks of the same kind and width, the same optimizer, and the same data.
# `training_loop` is a generator: recording the rate of each level is one line.


# %%
def build(kind: str) -> LatentModel:
    """A hierarchy that learns its encoder, or a diffusion, whose encoder is fixed."""
    small = MLPs(64)
    if kind != "diffusion":
        order = kind.split(",")[0]
        return HVAE(digits, latents=(16, 8, 4), inference=order, networks=small)
    outputs = small.build(digits.shape, (2, *digits.shape))
    decoder = DiscretizedLogisticDecoder(
        outputs, digits.spec, scale=PredictedScale(0.5)
    )
    schedule = LinearLogSNR(clean=2.0, noisy=-6.0)
    return Diffusion(
        digits, schedule=schedule, steps=60, decoder=decoder, networks=small
    )


def levels(elbo: ELBO) -> Tensor:
    """Mean nats of three levels, from the data up (of a diffusion: thirds of time)."""
    if "steps" not in elbo.rates:
        means = {level.name: level.nats.mean() for level in elbo.levels()}
        return torch.stack([means[name] for name in ("z1", "z2", "z3")])
    steps = elbo.rates["steps"]
    third, nats = (3 * steps.level).ceil(), steps.weight * steps.nats
    return torch.stack([(nats * (third == k)).sum(1).mean() for k in (1, 2, 3)])


def run(kind: str, seed: int) -> tuple[Tensor, float]:
    """The rates during training, (3, points), and the bound on test images."""
    torch.manual_seed(seed)
    model = build(kind)
    objective: Objective = WarmUp(STEPS // 2) if "warm-up" in kind else Bound()
    loop = training_loop(
        model, digits, objective, steps=STEPS, batch_size=64, learning_rate=2e-3,
        seed=seed, progress=False,
    )  # fmt: skip
    curve = torch.stack([levels(step.elbo) for step in loop], 1)
    smooth = [part.mean(1) for part in curve.split(max(1, STEPS // POINTS), 1)]
    return torch.stack(smooth, 1), evaluate(model, digits.test).value.mean


KINDS = ("bottom-up", "top-down", "top-down, warm-up", "diffusion")
curves: dict[str, list[Tensor]] = {}
bounds: dict[str, list[float]] = {}
print("bound on test images, nats, by seed")
for kind in KINDS:
    results = [run(kind, seed) for seed in range(SEEDS)]
    curves[kind] = [curve for curve, _ in results]
    bounds[kind] = [bound for _, bound in results]
    shown = "  ".join(f"{bound:7.2f}" for bound in bounds[kind])
    apart = max(bounds[kind]) - min(bounds[kind])
    print(f"{kind:18s} {shown}   apart by {apart:.2f}")

# %% [markdown]
# ## Bottom-up
#
# The three panels are the levels, and each line is a seed. A level at zero is unused.


# %%
def draw(kind: str, names: tuple[str, str, str]) -> Figure:
    """The rate of each level during training, a line for each seed."""
    page = figure(10.0, 3.4, f"The rate of each level, {kind}")
    panels = page.subplots(1, 3, sharex=True, sharey=kind != "diffusion")
    for level, axes in enumerate(panels):
        plain(axes).set_title(names[level], fontsize=LABEL, color=INK)
        for seed, curve in enumerate(curves[kind]):
            places = torch.linspace(0, STEPS, curve.shape[1] + 1)[1:]
            axes.plot(
                places,
                curve[level],
                color=COLORS[seed],
                lw=1.8,
                label=f"seed {seed}",
            )
        label_axes(axes, "step of training", "nats" if level == 0 else "")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    panels[1].legend(frameon=False, fontsize=9.5)
    return page


LEVELS = ("z1, next to the data", "z2", "z3, the top")
# alt: Rates of three levels for four seeds; z2 and z3 fall to zero, z1 rises at
#   different times.
draw("bottom-up", LEVELS)

# %% [markdown]
# ## Top-down

# %%
# alt: Rates of three levels for four seeds; all fall to zero, and in one run z3
#   comes back.
draw("top-down", LEVELS)

# %% [markdown]
# ## Top-down, with a warm-up
#
# While the weight of the rates is small, a level can hold many nats at little cost, and
# the decoder learns to use it. `WarmUp` is an objective for training. The bounds above
# are always computed with weight 1.

# %%
# alt: With a warm-up the rates are large at first and settle; levels stay in use.
draw("top-down, warm-up", LEVELS)

# %% [markdown]
# ## A fixed encoder
#
# A diffusion has 60 levels here. We group them by time in three. The curves of the
# seeds lie on each other. The target of each KL is fixed here.

# %%
# alt: Three groups of steps of a diffusion; the curves of all seeds lie on each
#   other.
draw(
    "diffusion",
    ("t ≤ 1/3, next to the data", "1/3 < t ≤ 2/3", "t > 2/3, the noisiest"),
)

# %%
# alt: Final bounds by seed: spread out for learned encoders, one place for the
#   diffusion.
page = figure(8.6, 3.6, "The bound after training, a dot for each seed")
axes = plain(page.add_subplot())
for row, found in enumerate(bounds.values()):
    axes.plot(
        found, [row] * len(found), "o", ms=10, alpha=0.75, color=COLORS[row]
    )
    axes.plot([min(found), max(found)], [row, row], lw=2, color=COLORS[row])
axes.set_yticks(range(len(bounds)), list(bounds), fontsize=11)
axes.set_ylim(len(bounds) - 0.5, -0.5)
label_axes(axes, "ELBO, nats per test image (right is better)", "")
page

# %% [markdown]
# ## What you should see
#
# * On the plain bound, all levels of both hierarchies fall to nearly zero within the
#   first 100 steps: **collapse**. In four of the eight runs one level comes back, at
#   different times. In the other four all levels stay unused.
# * The final bounds of a hierarchy are four to five nats apart. Only the seed differs.
# * With a warm-up each run uses at least its top level, and the mean of the bounds is
#   about eight nats better than for top-down without it. But the seeds still differ in
#   how much each level holds, and the bounds by about eight nats.
# * The curves of the diffusion coincide, and its bounds are within half a nat.
#
# A fixed encoder makes training stable. It does not by itself give a better bound: in
# this short training three of the four runs with a warm-up are ahead. Its bound is a
# sum of many terms, and each of them can be trained alone. Here 60 levels train more
# stably than three. Next: the [forward process](09-forward-process.md) of a diffusion.
#
# ## Exercises
#
# **1.** Why does a rate of zero give no signal to the encoder?
#
# ??? example "Solution"
#     If the decoder ignores $z$, the reconstruction term does not depend on $q$. Then the
#     ELBO's gradient with respect to the encoder is that of minus the KL, which only
#     pushes $q$ to the prior, where it is already.
#
# **2.** What else keeps levels in use?
#
# ??? example "Solution"
#     Free bits: with `objectives.FreeBits`, the rate of a level has no gradient below a
#     floor. A target for the rate: `objectives.CapacityTarget`. Or posteriors that are
#     relative to the prior: `HVAE(..., inference="ladder")`.
#     ```python
#     from genmod.objectives import FreeBits
#
#     torch.manual_seed(0)
#     model = build("top-down")
#     loop = training_loop(
#         model, digits, FreeBits(2.0), steps=STEPS, batch_size=64,
#         learning_rate=2e-3, progress=False,
#     )  # fmt: skip
#     for step in loop:
#         pass
#     print(evaluate(model, digits.test))
#     ```
#
# **3.** The diffusion has 60 levels, the hierarchies three. Would a hierarchy of 60 learned
# levels be worse?
#
# ??? example "Solution"
#     It is harder to start, but it can be trained: with residual blocks, small initial
#     weights and gradient clipping, `HVAE(digits, levels=20)` is a *very deep VAE*
#     (Child 2021).
