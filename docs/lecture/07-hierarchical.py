# %% [markdown]
# # Hierarchical VAEs and the extended ELBO
#
# A VAE has one layer of latents with a simple prior. A **hierarchical VAE** puts
# latents above latents. With three levels, $z_3$ at the top and $z_1$ next to the data:
#
# $$\begin{aligned}
# \text{generative:}\quad & p(x, z_{1:3}) = p(z_3)\, p(z_2 | z_3)\, p(z_1 | z_2)\, p(x | z_1), \\
# \text{inference:}\quad & q(z_{1:3} | x) = q(z_1 | x)\, q(z_2 | z_1)\, q(z_3 | z_2).
# \end{aligned}$$
#
# !!! note "The slide"
#     The slide writes $p_\theta(\mathbf{z}_{1,2,3})$ for the generative product. With the
#     factor $p(x | z_1)$ in it, it is the joint $p(x, z_{1:3})$.

# %%
import torch
from torch import Tensor

from genmod import HVAE, VAE, data, evaluate, fit, gaussian, plots
from genmod.gaussian import LinearGaussian
from genmod.model import LatentModel
from genmod.objectives import WarmUp
from genmod.path import run_path
from genmod.plots.style import COLORS, INK, figure, label_axes, plain

torch.manual_seed(0)
STEPS = 1_500  # few: 20
DRAWS = 100_000  # few: 2_000

# %%
# alt: Arrows up from x to z1, z2, z3 for inference, and down from z3 to x for
#   generation.
page = figure(8.4, 2.1, "Inference goes up, generation comes down")
for place, (title, way, color) in enumerate(
    [
        ("inference model q", "up", COLORS[1]),
        ("generative model p", "down", COLORS[0]),
    ]
):
    axes = page.add_subplot(1, 2, place + 1)
    axes.set(xlim=(-0.5, 3.5), ylim=(-0.6, 0.6), title=title)
    axes.set_axis_off()
    for level, name in enumerate(["$x$", "$z_1$", "$z_2$", "$z_3$"]):
        axes.text(
            level, 0, name, ha="center", va="center", fontsize=15, color="white",
            bbox={"boxstyle": "circle,pad=0.3", "fc": color if level else COLORS[5], "ec": "none"},
        )  # fmt: skip
    for level in range(3):
        ends = (level + 0.25, level + 0.75)
        start, end = ends if way == "up" else ends[::-1]
        axes.annotate(
            "",
            (end, 0),
            (start, 0),
            arrowprops={"arrowstyle": "->", "lw": 2, "color": INK},
        )
page

# %% [markdown]
# ## Why: a richer prior
#
# The density of one Gaussian level is a bell. If its mean is a nonlinear function of
# another Gaussian, the marginal can have many other shapes. In the example,
# $z_2 \sim \mathcal{N}(0, 1)$ and $z_1 | z_2 \sim \mathcal{N}(2 \tanh(4 z_2), 0.5^2)$;
# both laws are Gaussian.

# %%
# alt: The marginal density of z1 has two peaks; a single Gaussian has one.
z_2 = torch.linspace(-5, 5, 2001)
grid = torch.linspace(-4.5, 4.5, 400)
conditional = gaussian.log_prob(
    grid[:, None], 2 * (4 * z_2).tanh(), torch.tensor(0.5)
).exp()
top = gaussian.log_prob(z_2, torch.zeros(()), torch.ones(())).exp()
marginal = torch.trapezoid(conditional * top, z_2)
area = torch.trapezoid(marginal, grid)
std = torch.trapezoid(marginal * grid**2, grid).sqrt()
print(f"area {area:.3f}, standard deviation {std:.2f}")

page = figure(8.0, 3.6, "Two Gaussian levels make a prior with two peaks")
axes = plain(page.add_subplot())
axes.plot(
    grid, marginal, color=COLORS[0], lw=2.5, label="p(z1), with z2 above it"
)
bell = gaussian.log_prob(grid, torch.zeros(()), std).exp()
axes.plot(
    grid,
    bell,
    color=COLORS[5],
    lw=2,
    ls="--",
    label="one Gaussian of the same std",
)
label_axes(axes, "z1", "density").set_ylim(top=0.45)
axes.legend(frameon=False, fontsize=10.5)
page

# %% [markdown]
# ## Extending the ELBO
#
# All latents together are one latent, $z_{1:T}$. So the derivation of
# [the ELBO](03-variational-inference.md) is unchanged:
#
# $$\log p(x) \ge \mathbb{E}_{q(z_{1:T}|x)}\Big[\log \frac{p(x, z_{1:T})}{q(z_{1:T}|x)}\Big]
# = \mathbb{E}_q\Big[\log \frac{p(z_T) \prod_{t=2}^T p(z_{t-1} | z_t)\; p(x | z_1)}
# {q(z_1 | x) \prod_{t=2}^T q(z_t | z_{t-1})}\Big].$$
#
# The slide omits the next steps; here they are. The two products run in opposite
# directions. Bayes' rule turns each factor of $q$ around (given $z_{t-1}$, the next
# level does not depend on $x$, so conditioning on $x$ changes nothing):
#
# $$q(z_t | z_{t-1}) = q(z_t | z_{t-1}, x)
# = \frac{q(z_{t-1} | z_t, x)\; q(z_t | x)}{q(z_{t-1} | x)}.$$
#
# In the product the marginals cancel, all but the last one and the first one:
#
# $$q(z_1 | x) \prod_{t=2}^T q(z_t | z_{t-1})
# = q(z_1 | x) \cdot \frac{q(z_T | x)}{q(z_1 | x)} \prod_{t=2}^T q(z_{t-1} | z_t, x)
# = q(z_T | x) \prod_{t=2}^T q(z_{t-1} | z_t, x).$$
#
# Now $q$ runs from the top down, as $p$ does. Pair the factors, and each pair is a KL
# divergence:
#
# $$\begin{aligned}
# \log p(x) \ge{} & \underbrace{\mathbb{E}_{q(z_1|x)}[\log p(x | z_1)]}_{\text{reconstruction}}
# - \underbrace{\mathrm{KL}\big(q(z_T|x) \,\|\, p(z_T)\big)}_{\text{prior matching}} \\
# & - \sum_{t=2}^T \underbrace{\mathbb{E}_{q(z_t|x)}\big[\mathrm{KL}\big(q(z_{t-1}|z_t, x)
# \,\|\, p(z_{t-1}|z_t)\big)\big]}_{\text{consistency}}.
# \end{aligned}$$
#
# ## The same, in numbers
#
# We take a hierarchy in which every law is a Gaussian with a linear mean and one
# dimension. Then `LinearGaussian` gives all the conditionals in closed form. $q$ is *not*
# the posterior: its numbers are made up.


# %%
def linear(
    weight: float, std: float, mean: Tensor, tril: Tensor
) -> LinearGaussian:
    """The pair (a, b): a ~ N(mean, tril^2), b | a ~ N(weight a, std^2)."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return LinearGaussian(mean, tril, weight * one, 0 * mean, std * one)


zero, one = (
    torch.zeros(1, dtype=torch.float64),
    torch.ones(1, 1, dtype=torch.float64),
)
P = {"z2|z3": (0.8, 0.6), "z1|z2": (1.2, 0.5), "x|z1": (0.9, 0.4)}
Q = {"z1|x": (0.8, 0.5), "z2|z1": (0.6, 0.5), "z3|z2": (0.6, 0.7)}
x = torch.tensor([1.5], dtype=torch.float64)

# The evidence: push p(z3) = N(0, 1) through the chain.
law = (zero, one)
for name in ("z2|z3", "z1|z2", "x|z1"):
    law = linear(*P[name], *law).marginal()
log_p_x = float(gaussian.log_prob_full(x, *law))

# q(z1 | x), q(z2 | x), q(z3 | x): push x upward. The pairs hold q(z_{t-1} | z_t, x).
q_1 = (Q["z1|x"][0] * x, Q["z1|x"][1] * one)
pair_12 = linear(*Q["z2|z1"], *q_1)
q_2 = pair_12.marginal()
pair_23 = linear(*Q["z3|z2"], *q_2)
q_3 = pair_23.marginal()

# %% [markdown]
# First route: draw upward from $q$ and average the log-ratio. It needs nothing but
# densities. Second route: the three terms of the last formula. `pair.posterior(z_t)` is
# $q(z_{t-1} | z_t, x)$, and `gaussian.kl` is the KL between two Gaussians. Only the
# outer expectation over $z_t$ needs draws.

# %%
draw = {"z1": q_1[0] + q_1[1][0] * torch.randn(DRAWS, 1, dtype=torch.float64)}
for below, above, name in (("z1", "z2", "z2|z1"), ("z2", "z3", "z3|z2")):
    weight, std_of = Q[name]
    noise = torch.randn(DRAWS, 1, dtype=torch.float64)
    draw[above] = weight * draw[below] + std_of * noise


def log_normal(
    value: Tensor, given: Tensor, law: tuple[float, float]
) -> Tensor:
    """The log-density of N(weight given, std^2)."""
    return gaussian.log_prob(
        value, law[0] * given, torch.tensor(law[1])
    ).squeeze(-1)


z1, z2, z3 = draw["z1"], draw["z2"], draw["z3"]
log_p = (
    log_normal(z3, z3, (0.0, 1.0))
    + log_normal(z2, z3, P["z2|z3"])
    + log_normal(z1, z2, P["z1|z2"])
    + log_normal(x, z1, P["x|z1"])
)
log_q = (
    log_normal(z1, x, Q["z1|x"])
    + log_normal(z2, z1, Q["z2|z1"])
    + log_normal(z3, z2, Q["z3|z2"])
)
ratio = log_p - log_q


def consistency(
    pair: LinearGaussian, above: Tensor, law: tuple[float, float]
) -> Tensor:
    """KL(q(z below | z above, x) || p(z below | z above)) at each draw of z above."""
    mean, tril = pair.posterior(above)
    return gaussian.kl(
        mean, tril[0], law[0] * above, torch.tensor(law[1])
    ).squeeze(-1)


terms = {
    "reconstruction": log_normal(x, z1, P["x|z1"]),
    "prior matching": gaussian.kl_standard(q_3[0], q_3[1][0]).expand(DRAWS),
    "consistency, t = 3": consistency(pair_23, z3, P["z2|z3"]),
    "consistency, t = 2": consistency(pair_12, z2, P["z1|z2"]),
}
kls = torch.stack([t for name, t in terms.items() if name != "reconstruction"])
second = terms["reconstruction"] - kls.sum(0)
for name, values in terms.items():
    print(f"{name:28s} {values.mean():8.4f} ± {values.std() / DRAWS**0.5:.4f}")
print(
    f"{'ELBO, the three terms':28s} {second.mean():8.4f} ± {second.std() / DRAWS**0.5:.4f}"
)
print(
    f"{'ELBO, the log-ratio':28s} {ratio.mean():8.4f} ± {ratio.std() / DRAWS**0.5:.4f}"
)
weighted = ratio.logsumexp(0) - torch.tensor(float(DRAWS)).log()
print(f"{'importance-weighted':28s} {weighted:8.4f}")
print(f"{'log p(x), exact':28s} {log_p_x:8.4f}")

# %% [markdown]
# The two routes agree, and both stay below $\log p(x)$. The slide gives the KL between two
# Gaussians of one dimension. It is `gaussian.kl`:
#
# $$\mathrm{KL}\big(\mathcal{N}(\mu_0, \sigma_0^2) \,\|\, \mathcal{N}(\mu_1, \sigma_1^2)\big)
# = \tfrac12 \Big\{ \Big(\frac{\sigma_0}{\sigma_1}\Big)^2 + \frac{(\mu_1 - \mu_0)^2}
# {\sigma_1^2} - 1 + \ln \frac{\sigma_1^2}{\sigma_0^2} \Big\}.$$

# %%
# alt: KL against the ratio of the stds for three distances of the means; zero only
#   where both agree.
ratios = torch.logspace(-1, 0.7, 200, dtype=torch.float64)
page = figure(8.0, 3.8, "KL between two Gaussians")
axes = plain(page.add_subplot())
for apart, color in zip((0.0, 1.0, 2.0), COLORS, strict=False):
    ours = gaussian.kl(
        torch.tensor(0.0), ratios, torch.tensor(apart), torch.ones(())
    )
    slide = (ratios**2 + apart**2 - 1 - (ratios**2).log()) / 2
    print(
        f"means apart by {apart:.0f}: largest difference {float((ours - slide).abs().max()):.0e}"
    )
    axes.plot(
        ratios, ours, color=color, lw=2, label=f"means apart by {apart:.0f} σ1"
    )
axes.set_xscale("log")
axes.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
label_axes(axes, "σ0 / σ1", "nats").set_ylim(0, 8)
axes.legend(frameon=False, fontsize=10.5)
page

# %% [markdown]
# ## When is the consistency term closed?
#
# In our example $q(z_{t-1} | z_t, x)$ was a Gaussian, because all of $q$ was linear. With
# a *network* between $z_1$ and $z_2$ it is not, and then this KL has no closed form.
#
# !!! note "The slide"
#     The slide puts the closed KL beside a learned bottom-up $q$. It holds where $q$ is
#     written top-down, $q(z_T|x) \cdots q(z_1 | z_2, x)$, or is fixed, linear and Gaussian,
#     as in diffusion. For a learned bottom-up $q$ one takes the log-ratio at a draw, our
#     first route.
#
# `HVAE` has both orders, and `elbo.levels()` shows how each number was computed.

# %%
digits = data.load("digits")
orders = ("bottom-up", "top-down")
models: dict[str, LatentModel] = {
    order: HVAE(digits, latents=(16, 8, 4), inference=order, width=64)
    for order in orders
}
for order, model in models.items():
    with torch.no_grad():
        levels = model.elbo(digits.test[:4]).levels()
    print(order, {level.name: level.kind.value for level in levels})

# %% [markdown]
# Now we train both, and a flat VAE with the same number of latents, 28. `WarmUp` raises
# the weight of the rates from 0 to 1 over the first third of the training. Without it,
# upper levels tend to stay unused; [the next page](08-instability.md) shows this.

# %%
models["flat VAE"] = VAE(digits, latents=28, width=64)
rates = {}
for name, model in models.items():
    fit(
        model,
        digits,
        WarmUp(STEPS // 3),
        steps=STEPS,
        learning_rate=2e-3,
        progress=False,
    )
    report = evaluate(model, digits.test, importance_samples=32)
    shown = {
        term: each
        for term, each in report.terms.items()
        if term != "reconstruction"
    }
    if report.scores is not None and name == "top-down":
        with torch.no_grad():
            levels = model.elbo(digits.test).levels()
        spread = len(digits.test) ** 0.5
        rates[name] = {
            e.name: (float(e.nats.mean()), float(e.nats.std()) / spread)
            for e in levels
        }
    else:
        rates[name] = {
            term: (each.mean, each.error) for term, each in shown.items()
        }
    print(
        f"{name:10s} bound {report.value}, importance-weighted {report.importance} nats"
    )

# %%
# alt: The rate of each level, in nats, for the two hierarchies and the flat VAE.
plots.level_rates(rates, title="What each level holds")

# %% [markdown]
# ## What do the levels draw?
#
# Sampling goes from the top down. `model.prior.generate` yields the distribution of one
# level after another, and we give it a value of that level. So *we* can decide which
# draws to keep. In the first row everything is drawn anew for each picture. In each row
# below, one more level is kept.


# %%
def sample(model: LatentModel, kept: dict[str, Tensor], count: int) -> Tensor:
    """Decoded samples, where the named latents are not drawn but given."""

    def take(step: tuple[str, torch.distributions.Distribution]) -> Tensor:
        name, law = step
        drawn = law.sample()
        return kept[name].expand(count, -1) if name in kept else drawn

    with torch.no_grad():
        return model.law(run_path(model.prior.generate(count), take)).mean / 16


# alt: Four rows of samples: the more levels are kept, the more alike the pictures.
model = models["top-down"]
fixed: dict[str, Tensor] = {}


def remember(step: tuple[str, torch.distributions.Distribution]) -> Tensor:
    """Draw a latent, and keep it."""
    fixed[step[0]] = step[1].sample()
    return fixed[step[0]]


with torch.no_grad():
    run_path(model.prior.generate(1), remember)
names = list(fixed)
rows = []
for count in range(len(names) + 1):
    kept = {name: fixed[name] for name in names[:count]}
    pictures = sample(model, kept, 10)
    rows.append(plots.Row("keep " + (", ".join(kept) or "nothing"), pictures))
    print(
        f"keep {', '.join(kept) or 'nothing':12s} std of a pixel {pictures.std(0).mean():.3f}"
    )
plots.strips(rows, title="Samples of the top-down hierarchy")

# %% [markdown]
# ## What you should see
#
# * The two routes to the extended ELBO agree within their errors: about -2.37, half a
#   nat below $\log p(x) = -1.867$. The log-ratio and the three terms have the same
#   mean, but not the same noise.
# * The slide's formula and `gaussian.kl` agree to rounding.
# * Bottom-up, two levels are log-ratios at a draw ("monte carlo"). Top-down, all
#   three are closed.
# * The levels are not used equally. Bottom-up, $z_1$ holds all 14.4 nats, and the
#   levels above are unused, in spite of the warm-up: the hierarchy is a flat VAE.
#   Top-down, $z_3$ holds the most, 6.4 nats. After this short training neither
#   hierarchy is clearly better than the flat VAE: the three bounds differ by about
#   twice their error.
# * Keeping $z_3$ keeps the digit in this example: the spread of a pixel falls from
#   0.185 to 0.058. $z_2$ and $z_1$ change details.
#
# Which level is used depends on the random seed, too. Next:
# [the instability of joint training](08-instability.md).
#
# ## Exercises
#
# **1.** Choose $q$ as the exact posterior in the linear example. Are the KL terms zero?
# What is the ELBO?
#
# ??? example "Solution"
#     The posterior upward is $p(z_1|x)\, p(z_2|z_1)\, p(z_3|z_2)$, and
#     `LinearGaussian.reverse` gives each factor. Then $q(z_{t-1} | z_t, x)$ is still
#     not $p(z_{t-1} | z_t)$, because it depends on $x$. So the KL terms are not zero.
#     But the log-ratio is $\log p(x)$ at every single draw, and so is the ELBO.
#
# **2.** Why is the consistency term called that?
#
# ??? example "Solution"
#     It compares two ways to get $z_{t-1}$ from the level above: downward by the
#     generative model, $p(z_{t-1}|z_t)$, and by the inference model, which knows $x$.
#     Training makes them consistent.
#
# **3.** With $T$ levels that all have the dimension of $x$, and a $q$ that adds Gaussian
# noise and has nothing to learn: which model is this?
#
# ??? example "Solution"
#     A diffusion. Its consistency terms are closed, because $q$ is linear and
#     Gaussian, and they become the denoising terms.
