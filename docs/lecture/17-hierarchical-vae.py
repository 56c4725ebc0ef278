# %% [markdown]
# # Diffusion as a hierarchical VAE, of any depth
#
# The lecture asks for the differences between diffusion models and hierarchical
# VAEs, and answers: a diffusion *is* a hierarchical VAE, whose encoder is fixed,
# linear and Gaussian. This page computes the same numbers with a tower of VAEs
# and with a `Diffusion`. Then it makes the tower deeper and deeper.
#
# | | hierarchical VAE | diffusion |
# |---|---|---|
# | inference $q$ | learned | fixed: only adds noise |
# | latents | usually smaller than the data | all of the size of the data |
# | bound | one sum over levels, visited together | one sum over levels, any may be visited alone |
# | depth | a few levels | a thousand, or infinitely many |
# | training | the bound | a reweighted bound |

# %%
import torch
from torch import Tensor

from genmod import Diffusion, data, evaluate, fit
from genmod.decoders import Decoder, GaussianDecoder, Identity
from genmod.denoisers import GaussianDenoiser
from genmod.diffusion import DiffusionPrior
from genmod.distributions import Normal
from genmod.encoders import Encoder
from genmod.model import LatentModel
from genmod.models import with_depth, with_steps
from genmod.nn import MLPs
from genmod.path import Latent, run_path
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.priors import NestedPrior, NormalPrior
from genmod.schedules import LinearLogSNR, Schedule

STEPS = 1_000  # few: 10
DEEP_STEPS = 150  # few: 5
DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # few: (1, 2, 8)
DRAWS = 2_000  # few: 50

# %% [markdown]
# ## A tower of VAEs
#
# We build the hierarchy of the slide with $T = 3$ levels from parts that know
# nothing of diffusion. Each level is a VAE: an encoder $q(z_t \mid z_{t-1})$, a
# decoder $p(z_{t-1} \mid z_t)$, and a prior, which is the VAE above
# (`priors.NestedPrior`). The encoders do what a forward step does: scale, and add
# noise.


# %%
class Step(Encoder):
    """q(z_t | z_s) = N(a z_s, b^2 I): one step of the forward process."""

    def __init__(self, schedule: Schedule, s: float | None, t: float) -> None:
        super().__init__()
        alpha, sigma = (
            float(v) for v in schedule.scales(torch.tensor(t).double())
        )
        if s is not None:
            near = [float(v) for v in schedule.scales(torch.tensor(s).double())]
            alpha = alpha / near[0]
            sigma = (sigma**2 - (alpha * near[1]) ** 2) ** 0.5
        self.alpha, self.sigma = alpha, sigma

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        observed: Tensor | None = None,
    ) -> Normal:
        return Normal(self.alpha * x, torch.full_like(x, self.sigma).log())


class Back(Decoder):
    """p(z_s | z_t): one step of the reverse process."""

    def __init__(self, diffusion: DiffusionPrior, t: float, s: float) -> None:
        super().__init__((2,))
        self.diffusion, self.t, self.s = diffusion, t, s

    def forward(self, state: Tensor, context: Tensor | None = None) -> Normal:
        t, s = (torch.full((len(state),), v).double() for v in (self.t, self.s))
        return self.diffusion.reverse.law(state, t, s)


schedule = LinearLogSNR(clean=3.0, noisy=-3.0)
torch.manual_seed(0)
covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
denoiser = GaussianDenoiser(torch.zeros(2, dtype=torch.float64), covariance)
decoder = GaussianDecoder(Identity(), 2)
diffusion = Diffusion(
    2, denoiser=denoiser, schedule=schedule, decoder=decoder, steps=3
).double()

prior = diffusion.diffusion
top = LatentModel(
    Step(schedule, 0.5, 1.0),
    Back(prior, 1.0, 0.5),
    NormalPrior((2,), name="z3"),
)
middle = LatentModel(
    Step(schedule, 0.0, 0.5), Back(prior, 0.5, 0.0), NestedPrior(top, name="z2")
)
tower = LatentModel(
    Step(schedule, None, 0.0), decoder, NestedPrior(middle, name="z1")
).double()
print(diffusion)

# %% [markdown]
# ## The same joint law
#
# Take any three latents, likely or not. Both models must give the same
# $\log p(x, z_{1:3}) - \log q(z_{1:3} \mid x)$, although the tower scores the
# latents from the data upwards and the diffusion from the noise downwards.
# `run_path` lets the caller choose the draws.


# %%
def log_weight_at(
    model: LatentModel, x: Tensor, given: dict[str, Tensor]
) -> Tensor:
    """The log-ratio: log p(x, z) - log q(z | x) at latents that are given."""
    total = torch.zeros(len(x), dtype=x.dtype)

    def draw(latent: Latent) -> Tensor:
        nonlocal total
        z = given[latent.name]
        if latent.q is not None:
            total = total - latent.q.log_prob(z)
        if latent.p is not None:
            total = total + latent.p.log_prob(z)
        return z

    state = run_path(model.prior.infer(model.posterior(x)), draw)
    return total + model.decoder(state).log_prob(x)


x = torch.randn(5, 2, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
latents = {f"z{i}": 1.5 * torch.randn_like(x) for i in (1, 2, 3)}
print("row      tower, bottom up      diffusion, top down")
pairs = zip(
    log_weight_at(tower, x, latents),
    log_weight_at(diffusion, x, latents),
    strict=True,
)
for row, (a, b) in enumerate(pairs):
    print(f"{row:3} {a.item():21.12f} {b.item():24.12f}")

# %% [markdown]
# ## The same bound, in another order
#
# For one draw the terms differ: the tower has a log-ratio for each level, the
# diffusion a KL in closed form for each step. In the mean they agree. The names
# of the terms show the two orders.

# %%
torch.manual_seed(0)
many = x[:1].expand(DRAWS, -1)
for name, model in (("tower", tower), ("diffusion", diffusion)):
    with torch.no_grad():
        bound = model.elbo(many)
    error = bound.value.std() / DRAWS**0.5
    kinds = {level.name: level.kind.value for level in bound.levels()}
    print(f"{name:10} {bound.value.mean():.3f} +- {error:.3f} nats, {kinds}")

# %% [markdown]
# ## To infinite depth
#
# The encoder is fixed, so more levels need no more parameters: the same denoiser
# serves a chain of every length (`with_steps`). For Gaussian data the best
# denoiser is known, and so is $\log p(x)$. The bound is loose mainly because the
# reverse steps have the posterior's variance, which is too small for a long step.
# As $T$ grows, this part of the gap vanishes. A small part can stay, because the
# schedule ends at a finite log-SNR on both sides.

# %%
# alt: The gap between log p(x) and the bound against the number of latents,
#   falling towards zero.
fine = LinearLogSNR(clean=9.0, noisy=-9.0)
law = torch.distributions.MultivariateNormal(
    torch.zeros(2).double(), covariance
)
sample = law.sample((400,))
exact = law.log_prob(sample).mean()
gaps = []
base = Diffusion(2, denoiser=denoiser, schedule=fine).double()
for depth in DEPTHS[1:]:
    torch.manual_seed(0)
    with torch.no_grad():
        value = (
            with_steps(base, depth).elbo(sample, timesteps=None).value.mean()
        )
    gaps.append(float(exact - value))
    print(
        f"T = {depth:4}: bound {value:.3f} nats, log p(x) {exact:.3f}, gap {gaps[-1]:.3f}"
    )
drawing = figure(7.6, 3.8, "The bound of a Gaussian under its best denoiser")
axes = plain(drawing.add_subplot())
axes.plot(DEPTHS[1:], gaps, marker="o", lw=2.4, color="#3b6fb6")
axes.set_xscale("log", base=2)
axes.set_yscale("log")
label_axes(
    axes, "T, the number of latents", r"$\log p(x)$ minus the bound, nats"
)
drawing

# %% [markdown]
# ## Digits: one network, every depth
#
# Now with a trained network. It is trained in continuous time (`steps=None`),
# where the bound is an integral over noise levels, and scored as a chain of each
# length.

# %%
# alt: Bits per dimension of one trained network as a chain of each length,
#   against the continuous limit.
digits = data.load("digits")
torch.manual_seed(0)
model = Diffusion(
    digits,
    networks=MLPs(width=128, depth=3, dropout=0.1),
    schedule=LinearLogSNR(clean=3.0, noisy=-6.0),
)
fit(model, digits, steps=STEPS, learning_rate=2e-3, progress=False)
bits = {}
for depth in DEPTHS:
    report = evaluate(with_steps(model, depth), digits.test)
    assert report.bits_per_dim is not None
    bits[depth] = report.bits_per_dim
    print(
        f"T = {depth:4}: {report.bits_per_dim} bits/dim ({report.stamp.value})"
    )
report = evaluate(model, digits.test, timesteps=64)
assert report.bits_per_dim is not None
limit = report.bits_per_dim.mean
print(f"infinite: {report.bits_per_dim} bits/dim ({report.stamp.value})")
drawing = figure(7.6, 3.8, "One network as a hierarchical VAE of each depth")
axes = plain(drawing.add_subplot())
axes.plot(
    list(bits),
    [b.mean for b in bits.values()],
    marker="o",
    lw=2.4,
    color="#3b6fb6",
)
axes.axhline(limit, color="#22272e", ls="--", lw=1.4)
axes.annotate(
    "infinitely many",
    (2, limit),
    (0, 5),
    textcoords="offset points",
    fontsize=LABEL,
)
axes.set_xscale("log", base=2)
axes.set_yscale("log")
axes.set_yticks([2, 3, 5, 10], ["2", "3", "5", "10"])
axes.minorticks_off()
label_axes(axes, "T, the number of latents", "bits/dim (test)")
drawing

# %% [markdown]
# ## What a learned encoder costs
#
# With a *learned* encoder the marginals $q(z_t \mid x)$ are not known, so a
# training step must go through all levels
# (`with_depth(..., learned_encoder=True)`). With the fixed one it visits a single
# level. We count how many states the denoiser is given in one training step, and
# train both for a moment.

# %%
# alt: States given to the denoiser in a training step, for one image, against
#   the number of levels.
counts: dict[str, list[int]] = {"fixed encoder": [], "learned encoder": []}
LEVELS = (2, 4, 8, 16)
for name in counts:
    for levels in LEVELS:
        torch.manual_seed(0)
        base = Diffusion(
            digits,
            networks=MLPs(width=64, depth=1),
            schedule=LinearLogSNR(3.0, -6.0),
            steps=levels,
        )
        deep = with_depth(
            base, levels, learned_encoder=name == "learned encoder"
        )
        rows = 0

        def count(
            _: torch.nn.Module, inputs: tuple[Tensor, ...], __: object
        ) -> None:
            global rows
            rows += len(inputs[0])

        handle = base.diffusion.denoiser.register_forward_hook(count)
        if name == "fixed encoder":
            deep.elbo(digits.train[:10], timesteps=1)
        else:
            deep.elbo(digits.train[:10])
        handle.remove()
        counts[name].append(rows // 10)
    print(f"{name:16} {dict(zip(LEVELS, counts[name], strict=True))}")
drawing = figure(
    7.6, 3.6, "States through the denoiser in a training step, for one image"
)
axes = plain(drawing.add_subplot())
for (name, found), color in zip(
    counts.items(), ("#3b6fb6", "#d1495b"), strict=True
):
    axes.plot(LEVELS, found, marker="o", lw=2.4, color=color, label=name)
axes.legend(frameon=False, fontsize=LABEL)
label_axes(axes, "levels", "states")
drawing

# %% [markdown]
# ## Is a learned encoder worth it?
#
# We train the same denoiser with both encoders, 8 levels each, for the same small
# number of steps and from three seeds. The learned encoder starts as the fixed
# one.

# %%
spread: dict[str, list[float]] = {"fixed encoder": [], "learned encoder": []}
for name, found_bits in spread.items():
    for seed in range(3):
        torch.manual_seed(seed)
        base = Diffusion(
            digits,
            networks=MLPs(width=64, depth=1),
            schedule=LinearLogSNR(3.0, -6.0),
            steps=8,
        )
        deep = with_depth(base, 8, learned_encoder=name == "learned encoder")
        fit(
            deep,
            digits,
            steps=DEEP_STEPS,
            learning_rate=5e-3,
            batch_size=64,
            seed=seed,
            progress=False,
        )
        report = evaluate(deep, digits.test)
        assert report.bits_per_dim is not None
        found_bits.append(report.bits_per_dim.mean)
    print(
        f"{name:16} bits/dim of three seeds: {[round(b, 2) for b in found_bits]}"
    )

# %% [markdown]
# ## What you should see
#
# * At any latents, tower and diffusion have the same log-ratio, to all printed
#   digits. In the mean they have the same bound, from different terms.
# * With its best denoiser the bound of a Gaussian gets close to $\log p(x)$: from
#   $T = 32$ on, doubling $T$ about halves the gap.
# * On the digits the bound of one network falls with $T$ towards that of
#   infinitely many latents. $T = 1$ is a VAE and has no long step, so it is
#   better than $T = 2$ and 4.
# * With the fixed encoder a training step asks the denoiser for two states, at
#   any depth: one step of the chain, and the decoder, which is the denoiser's
#   last step. With a learned one it asks for one at each level.
# * For the same number of steps the learned encoder is better, and the three
#   seeds agree. It starts as the fixed one, in top-down order. But each of its
#   steps gives 8 states to the denoiser, and not 2. With a thousand levels it
#   would be a thousand.
# * The lecture warns of unstable joint training. This run does not show it. We
#   read the warning as one about encoders that start at random.
#
# !!! note "The slides"
#     The slide of the hierarchical bound puts
#     $\mathrm{KL}(q(z_{t-1} \mid z_t, x) \,\|\, p(z_{t-1} \mid z_t))$ beside a
#     picture with bottom-up arrows. For a learned bottom-up $q$ this KL has no
#     closed form. For the fixed linear Gaussian one of a diffusion it has: that
#     is what turns the unstable sum into a fast one. And its generative side
#     $p(z_3)\, p(z_2 \mid z_3)\, p(z_1 \mid z_2)\, p(x \mid z_1)$ is the joint
#     $p(x, z_{1:3})$.
#
# ## Exercises
#
# **1.** How many latents and how many denoising terms has a diffusion with
# $T = 1$? What model is it?
#
# ??? example "Solution"
#     One latent, no denoising term. It is a VAE whose encoder adds a fixed noise:
#     reconstruction minus $\mathrm{KL}(q(z_1 \mid x) \,\|\, p(z_1))$.
#
# **2.** Why does the bound improve with $T$ although the network is the same?
#
# ??? example "Solution"
#     The sum over steps is a Riemann sum of
#     $\frac12 \int \mathbb{E}\|x - \hat x\|^2 \, d\,\mathrm{SNR}$. The error
#     falls as the SNR grows, and each step counts the error at its noisier end
#     for the whole step. Halving a step lets the second half use a better
#     estimate (Kingma et al. 2021).
#
# **3.** Could a diffusion have latents smaller than the data?
#
# ??? example "Solution"
#     Not by adding noise alone. But the data of the diffusion may themselves be
#     the latents of a VAE: [latent diffusion](19-latent-and-prompted.md).
#
# Next: [fewer steps](18-fewer-steps.md).
