# %% [markdown]
# # Variational inference: log p(x) = ELBO + KL
#
# A latent-variable model draws a latent from a **prior**, and then data from a
# **decoder**:
#
# $$p(x, z) = p(x | z)\, p(z), \qquad p(z) = \mathcal{N}(\mathbf{0}, \mathbf{I}).$$
#
# We observe $x$, but not $z$. Two things are wanted: the **evidence**
# $p(x) = \int p(x, z)\, dz$, which is the likelihood of the data, and the
# **posterior** $p(z | x) = p(x, z) / p(x)$. Both need the integral, and for most
# models it is intractable.
#
# On this page the model is simple enough that *everything* is known. So each line of
# the lecture's derivation can be computed and compared with the truth.

# %%
import torch
from torch import Tensor

from genmod import VAE, data, evaluate, gaussian, training_loop
from genmod.data import Dataset
from genmod.decoders import GaussianDecoder, GlobalScale
from genmod.distributions import Normal
from genmod.encoders import Encoder
from genmod.evaluation import Estimate, baselines
from genmod.plots.style import COLORS, INK, figure, label_axes, plain

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
STEPS = 1_500  # few: 30
DRAWS = 100_000  # few: 2_000

# %% [markdown]
# ## A model whose posterior is known
#
# One latent, one observation: $z \sim \mathcal{N}(0, 1)$ and
# $x | z \sim \mathcal{N}(w z + b,\, s^2)$. Such a model is *linear-Gaussian*, and
# its evidence and posterior are Gaussians, too:
#
# $$p(x) = \mathcal{N}(b,\, w^2 + s^2), \qquad
# p(z | x) = \mathcal{N}\Big(\frac{w (x - b)}{w^2 + s^2},\,
# \frac{s^2}{w^2 + s^2}\Big).$$
#
# `gaussian.LinearGaussian` computes both, for any number of dimensions. Here they
# stand beside the integral, done numerically on a fine grid.

# %%
w, b, s = 1.5, 0.5, 0.6
x = torch.tensor([2.5])

one = torch.ones(1, 1)
model = gaussian.LinearGaussian(
    torch.zeros(1), one, w * one, b * torch.ones(1), s * one
)
evidence_law, posterior_law = model.marginal(), model.posterior(x)
log_p_x = gaussian.log_prob_full(x, *evidence_law)
post_mean, post_std = (part.squeeze() for part in posterior_law)

grid = torch.linspace(-6, 6, 4001)
log_prior = gaussian.log_prob(grid, torch.zeros(()), torch.ones(()))
log_likelihood = gaussian.log_prob(x, w * grid + b, torch.tensor(s))
joint = (log_prior + log_likelihood).exp()
integral = torch.trapezoid(joint, grid)
print(f"log p(x), LinearGaussian.marginal:     {float(log_p_x):.8f}")
print(f"log p(x), the integral on a grid:      {float(integral.log()):.8f}")
print(
    f"p(z | x), LinearGaussian.posterior:    N({post_mean:.4f}, {post_std:.4f}^2)"
)

# %%
# alt: The prior is broad; the posterior is narrow and lies at the side of it.
page = figure(
    8.4, 4.2, f"Prior, likelihood and posterior of z, for x = {float(x)}"
)
axes = plain(page.add_subplot())
axes.plot(grid, log_prior.exp(), color=COLORS[5], lw=2, label="prior p(z)")
axes.plot(
    grid,
    log_likelihood.exp(),
    color=COLORS[3],
    lw=2,
    label="likelihood p(x | z), in z",
)
axes.fill_between(grid, joint, color=COLORS[0], alpha=0.2,
                  label=f"joint p(x, z), with area p(x) = {float(integral):.3f}")  # fmt: skip
axes.plot(
    grid, joint / integral, color=COLORS[0], lw=2.5, label="posterior p(z | x)"
)
label_axes(axes, "z", "density").set(xlim=(-3, 3.5), ylim=(0, None))
axes.legend(frameon=False, fontsize=10.5, loc="upper left")
page

# %% [markdown]
# ## The variational approximation
#
# We introduce a distribution of our choice, $q(z | x) = \mathcal{N}(m, v^2)$, in
# place of the posterior. (The lecture writes $q_\phi$; here the parameters $\phi$ are
# $m$ and $v$.) For **any** $q$ the following holds, with no approximation:
#
# $$\underbrace{\log p(x)}_{\text{evidence}}
# = \underbrace{\mathbb{E}_{q}\Big[\log \frac{p(x, z)}{q(z|x)}\Big]}_{\text{ELBO}}
# + \underbrace{\mathrm{KL}\big(q(z|x) \,\|\, p(z|x)\big)}_{\text{gap, never negative}}.$$
#
# Here are the numbers for five choices of $q$. The reconstruction term of this model
# has a closed form, too: $\mathbb{E}_q[\log p(x|z)]$ is the log-density at the mean
# $m$, minus $w^2 v^2 / 2 s^2$. The two KL terms are `gaussian.kl_standard` and
# `gaussian.kl`.


# %%
def terms(m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction, KL to the prior, KL to the posterior, for q = N(m, v^2)."""
    at_mean = gaussian.log_prob(x, w * m + b, torch.tensor(s))
    reconstruction = at_mean - (w * v / s).square() / 2
    to_prior = gaussian.kl_standard(m, v)
    to_posterior = gaussian.kl(m, v, post_mean, post_std)
    return reconstruction, to_prior, to_posterior


choices = {
    "the prior": (torch.tensor(0.0), torch.tensor(1.0)),
    "too wide": (post_mean, 2 * post_std),
    "too narrow": (post_mean, post_std / 3),
    "off by one std": (post_mean - post_std, post_std),
    "the posterior": (post_mean, post_std),
}
print("q                 ELBO   + KL(q || p(z|x)) =  log p(x)")
bars = {}
for name, (m, v) in choices.items():
    rec, to_prior, gap = terms(m, v)
    bars[name] = (float(rec - to_prior), float(gap))
    print(
        f"{name:15s} {bars[name][0]:8.4f} + {bars[name][1]:8.4f}"
        f"         = {sum(bars[name]):9.6f}"
    )

# %%
# alt: For every q, the ELBO plus the KL ends at the same line, log p(x).
page = figure(8.4, 4.0, "ELBO + KL is log p(x), whatever q is")
axes = plain(page.add_subplot())
for row, (low, width) in enumerate(bars.values()):
    axes.barh(row, width, left=low, color=COLORS[1], height=0.55,
              label="KL(q || p(z|x))" if row == 0 else None)  # fmt: skip
    axes.plot(
        [low],
        [row],
        "D",
        color=COLORS[0],
        ms=9,
        label="ELBO" if row == 0 else None,
    )
axes.axvline(float(log_p_x), color=INK, lw=1.5, ls="--", label="log p(x)")
axes.set_yticks(range(len(bars)), list(bars), fontsize=11)
axes.invert_yaxis()
label_axes(axes, "nats", "").set_xlim(-9.5, -1.5)
axes.legend(frameon=False, fontsize=10.5, loc="lower left")
page

# %% [markdown]
# A KL divergence is never negative. So the ELBO is a **lower bound** on $\log p(x)$,
# and it is tight exactly if $q$ is the posterior. Raising the ELBO over $m$ and $v$
# must therefore lead to the posterior, and it does. Gradient ascent climbs the hill
# below, and never uses $p(z | x)$.

# %%
# alt: Contours of the ELBO over mean and std of q; a path climbs to the posterior.
m, log_v = (
    torch.tensor(-1.0, requires_grad=True),
    torch.tensor(0.0, requires_grad=True),
)
optimizer = torch.optim.Adam([m, log_v], lr=0.05)
path = []
for _ in range(400):
    path.append((m.item(), log_v.exp().item()))
    reconstruction, to_prior = terms(m, log_v.exp())[:2]
    loss = to_prior - reconstruction
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(
    f"found     N({m.item():.4f}, {log_v.exp().item():.4f}^2), ELBO {-loss.item():.6f}"
)
print(
    f"posterior N({post_mean:.4f}, {post_std:.4f}^2), log p(x) {float(log_p_x):.6f}"
)

ms, vs = torch.meshgrid(
    torch.linspace(-1.3, 3, 120), torch.linspace(0.1, 1.3, 120), indexing="ij"
)
reconstruction, to_prior = terms(ms.flatten(), vs.flatten())[:2]
hill = (reconstruction - to_prior).reshape(ms.shape)
page = figure(8.4, 4.4, "Maximizing the ELBO finds the posterior")
axes = plain(page.add_subplot())
steps = [-20, -14, -10, -7, -5, -4, -3, -2.5, -2.2, -2]
shades = axes.contourf(ms, vs, hill, levels=steps, cmap="Blues", extend="both")
axes.plot(
    *zip(*path, strict=True), color=COLORS[1], lw=2.5, label="gradient ascent"
)
axes.plot(post_mean, post_std, "*", color=INK, ms=16, label="the posterior")
label_axes(axes, "mean m of q", "standard deviation v of q")
axes.legend(frameon=True, fontsize=10.5, loc="upper right")
page.colorbar(shades, ax=axes).set_label("ELBO, nats")
page

# %% [markdown]
# ## The derivation, line by line
#
# The lecture derives the ELBO in a few equalities. Every line is an expectation
# over $q$, so we draw $z \sim q$ many times and average. `Normal` is the
# distribution, and its methods are the code beside each line.
#
# $$\begin{aligned}
# \log p(x) &= \mathbb{E}_q[\log p(x)]
# && \text{1. it does not depend on } z \\
# &= \mathbb{E}_q\Big[\log \frac{p(x, z)}{p(z | x)}\Big]
# && \text{2. chain rule, } p(x, z) = p(z | x)\, p(x) \\
# &= \mathbb{E}_q\Big[\log \frac{p(x, z)}{q(z | x)} + \log \frac{q(z | x)}{p(z | x)}\Big]
# && \text{3. multiply and divide by } q \\
# &= \mathrm{ELBO} + \mathrm{KL}(q \,\|\, p(z | x))
# && \text{4. definition of KL}
# \end{aligned}$$
#
# The second half rewrites the ELBO until it holds only things that we can compute:
#
# $$\begin{aligned}
# \mathrm{ELBO} &= \mathbb{E}_q\Big[\log \frac{p(x | z)\, p(z)}{q(z | x)}\Big]
# && \text{5. chain rule, } p(x, z) = p(x | z)\, p(z) \\
# &= \mathbb{E}_q[\log p(x | z)] + \mathbb{E}_q\Big[\log \frac{p(z)}{q(z | x)}\Big]
# && \text{6. split the expectation} \\
# &= \underbrace{\mathbb{E}_q[\log p(x | z)]}_{\text{reconstruction term}}
# - \underbrace{\mathrm{KL}(q \,\|\, p(z))}_{\text{prior matching term}}
# && \text{7. definition of KL}
# \end{aligned}$$
#
# Line 7 is the form that is trained. In the code below, the comment beside each
# number is its line.

# %%
m, v = torch.tensor(1.5), torch.tensor(0.6)
q = Normal(m.expand(DRAWS, 1), v.log().expand(DRAWS, 1))
prior = Normal(torch.zeros(DRAWS, 1), torch.zeros(DRAWS, 1))
posterior = Normal(post_mean.expand(DRAWS, 1), post_std.log().expand(DRAWS, 1))
z = q.sample()
likelihood = Normal(w * z + b, torch.tensor(s).log())

log_q, log_prior_z, log_post = (
    q.log_prob(z),
    prior.log_prob(z),
    posterior.log_prob(z),
)
log_lik = likelihood.log_prob(x.expand(DRAWS, 1))
log_joint = log_lik + log_prior_z
lines = {
    "2. log p(x,z)/p(z|x)": log_joint - log_post,  # line 2
    "3. log p(x,z)/q + log q/p(z|x)": (log_joint - log_q)
    + (log_q - log_post),  # line 3
    "4. ELBO, by draws": log_joint - log_q,  # line 4, left
    "4. KL(q || p(z|x)), by draws": log_q - log_post,  # line 4, right
    "5. log p(x|z)p(z)/q, by draws": (log_lik + log_prior_z) - log_q,  # line 5
    "6. E[log p(x|z)], by draws": log_lik,  # line 6, left
    "6. E[log p(z)/q], by draws": log_prior_z - log_q,  # line 6, right
}
closed = dict(
    zip(
        ("reconstruction", "to prior", "to posterior"), terms(m, v), strict=True
    )
)
print(f"1. log p(x)                        {float(log_p_x):8.4f}")
for name, values in lines.items():
    print(f"{name:33s} {values.mean():9.4f} ± {values.std() / DRAWS**0.5:.4f}")
print(
    f"7. reconstruction term, closed     {float(closed['reconstruction']):8.4f}"
)
print(f"7. prior matching term, closed     {float(closed['to prior']):8.4f}")
elbo_closed = float(closed["reconstruction"] - closed["to prior"])
print(f"7. ELBO, closed                    {elbo_closed:8.4f}")
print(
    f"4. KL(q || p(z|x)), closed         {float(closed['to posterior']):8.4f}"
)

# %% [markdown]
# Line 2 has no noise at all: $p(x, z) / p(z | x)$ is $p(x)$ for *every* $z$. Line 3
# adds and takes away the same number. Its two parts, in line 4, vary from draw
# to draw, and only their means add up.
#
# ## The same numbers from a `VAE`
#
# `genmod.VAE` takes an encoder and a decoder of your own. With the $q$ above as
# the encoder and the linear decoder it computes line 7, with the KL in
# closed form: `elbo.reconstruction` and `elbo.rates["prior"]`.


# %%
class FixedEncoder(Encoder):
    """The same q(z | x) = N(m, v^2) for every x."""

    latent_shape = (1,)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        observed: Tensor | None = None,
    ) -> Normal:
        return Normal(m.expand(len(x), 1), v.log().expand(len(x), 1))


network = torch.nn.Linear(1, 1)
with torch.no_grad():
    network.weight.fill_(w)
    network.bias.fill_(b)
vae = VAE(
    1,
    latents=1,
    encoder=FixedEncoder(1),
    decoder=GaussianDecoder(network, 1, scale=s),
)
with torch.no_grad():
    elbo_of_rows = vae.elbo(x.expand(DRAWS, 1))
print(elbo_of_rows)
report = evaluate(vae, x.expand(200, 1), importance_samples=256)
print(
    f"importance-weighted, 256 draws: {report.importance} nats; log p(x): {float(log_p_x):.4f}"
)

# %% [markdown]
# With many draws the importance-weighted estimate closes the gap. Its limit is
# $\log p(x)$ for every $q$ that is positive everywhere. If $q$ is narrower than the
# posterior, it gets there slowly. `evaluate(..., importance_samples=k)` computes it for
# any VAE, also where the truth is not known.
#
# ## Either of two: better likelihood, or better posterior
#
# The lecture rearranges the identity: $\mathrm{ELBO} = \log p(x) - \mathrm{KL}$. So
# training, which raises the ELBO, either raises the likelihood of the data or
# improves the approximation of the posterior. To *see* both, we train a linear VAE
# on the digits. Its decoder is $W z + b$ with one standard deviation. So at every
# step of training its own $\log p(x)$ is known exactly, and so is the gap.

# %%
digits = data.load("digits")
train, validation, test = (
    part.flatten(1).double() / 16
    for part in (digits.train, digits.validation, digits.test)
)
pixels = Dataset("digits as vectors", train, validation, test)
LATENTS = 8


class LinearEncoder(Encoder):
    """q(z | x) = N(V x + c, diag v^2)."""

    latent_shape = (LATENTS,)

    def __init__(self) -> None:
        super().__init__(64)
        self.mean = torch.nn.Linear(64, LATENTS)
        self.log_std = torch.nn.Parameter(torch.zeros(LATENTS))

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        observed: Tensor | None = None,
    ) -> Normal:
        return Normal(self.mean(x), self.log_std)


weights = torch.nn.Linear(LATENTS, 64)
scale = GlobalScale(initial=0.3, gain=5.0)
linear = VAE(pixels, latents=LATENTS, encoder=LinearEncoder(),
             decoder=GaussianDecoder(weights, 64, scale))  # fmt: skip


@torch.no_grad()
def exact(vae: VAE, x: Tensor) -> Tensor:
    """The mean log p(x) of the linear VAE, from its weights."""
    layer = vae.decoder.get_submodule("network")
    assert isinstance(layer, torch.nn.Linear)
    std = vae.decode(torch.zeros(1, LATENTS)).stddev.flatten()
    eye = torch.eye(LATENTS)
    model = gaussian.LinearGaussian(
        torch.zeros(LATENTS), eye, layer.weight, layer.bias, torch.diag(std)
    )
    return gaussian.log_prob_full(x, *model.marginal()).mean()


curve = []
for step in training_loop(
    linear, pixels, steps=STEPS, learning_rate=1e-2, ema=0.0, progress=False
):
    if step.number % 10 == 0:
        with torch.no_grad():
            value = linear.elbo(pixels.test).value.mean()
        curve.append(
            (step.number, float(value), float(exact(linear, pixels.test)))
        )

bound, truth = evaluate(linear, pixels.test).value, exact(linear, pixels.test)
best = Estimate.of(
    baselines.ppca(pixels.train, pixels.test, bins=None, rank=LATENTS).log_prob
)
print(f"ELBO of the trained linear VAE        {bound} nats")
print(f"its own log p(x)                      {truth:.2f} nats")
print(f"probabilistic PCA, maximum likelihood {best} nats")

# %%
# alt: ELBO and exact log-likelihood rise together; the gap between them closes.
number, lower, upper = zip(*curve, strict=True)
page = figure(8.4, 4.4, "Training a linear VAE: the bound and the truth")
axes = plain(page.add_subplot())
axes.fill_between(
    number,
    lower,
    upper,
    color=COLORS[1],
    alpha=0.3,
    lw=0,
    label="KL(q || p(z|x))",
)
axes.plot(number, upper, color=INK, lw=2, label="log p(x), exact")
axes.plot(number, lower, color=COLORS[0], lw=2, label="ELBO")
axes.axhline(
    best.mean,
    color=COLORS[2],
    lw=1.5,
    ls="--",
    label="best linear model (pPCA)",
)
axes.set_xscale("log")
label_axes(axes, "step of training", "nats per test image").set(
    ylim=(-60, 30), xlim=(20, STEPS)
)
axes.legend(frameon=False, fontsize=10.5, loc="lower right")
page

# %% [markdown]
# ## Why "intractable"?
#
# Could we not estimate the integral by draws from the prior,
# $p(x) \approx \frac1K \sum_k p(x | z_k)$ with $z_k \sim p(z)$? In one dimension, yes.
# With more latents almost no draw of the prior explains a given $x$. Here the true
# $\log p(x)$ is known in every dimension, so the error can be measured. The other
# curve uses the same number of draws from a $q$ that is the posterior, but twice
# as wide: importance sampling, as `evaluate` does it.


# %%
def errors(dims: int, draws: int, repeats: int = 40) -> tuple[Tensor, Tensor]:
    """The mean error of log p(x), by draws of the prior and by importance sampling."""
    mean, eye = torch.zeros(dims), torch.eye(dims)
    known = gaussian.LinearGaussian(mean, eye, w * eye, b + mean, s * eye)
    x = (w**2 + s**2) ** 0.5 * torch.randn(repeats, dims) + b
    truth = gaussian.log_prob_full(x, *known.marginal())
    center, tril = known.posterior(x)
    std = 2 * tril.diagonal()
    found = []
    for loc, scale in (
        (torch.zeros(1, 1), torch.ones(1)),
        (center[:, None], std),
    ):
        z = loc + scale * torch.randn(repeats, draws, dims)
        log_q = gaussian.log_prob(z, loc, scale)
        log_p = gaussian.log_prob(z, torch.zeros(()), torch.ones(()))
        log_x = gaussian.log_prob(x[:, None], w * z + b, torch.tensor(s))
        log_weight = (log_x + log_p - log_q).sum(-1)
        estimate = log_weight.logsumexp(1) - torch.tensor(draws).log()
        found.append((estimate - truth).abs().mean())
    return found[0], found[1]


DIMS = [1, 2, 4, 8, 16, 32]
found = torch.tensor([errors(dims, 1000) for dims in DIMS])
print(
    "latents   error by draws of the prior   by importance sampling (1000 draws, nats)"
)
for dims, (by_prior, by_weights) in zip(DIMS, found.tolist(), strict=True):
    print(f"{dims:7d}   {by_prior:27.3f}   {by_weights:22.3f}")

# %%
# alt: The error of prior draws grows fast with the number of latents.
page = figure(8.0, 4.0, "Estimating log p(x) from 1000 draws")
axes = plain(page.add_subplot())
axes.plot(
    DIMS, found[:, 0], "o-", color=COLORS[1], lw=2, label="draws of the prior"
)
axes.plot(
    DIMS,
    found[:, 1],
    "o-",
    color=COLORS[0],
    lw=2,
    label="draws of a q near the posterior",
)
axes.set_xscale("log", base=2)
axes.set_yscale("log")
axes.set_xticks(DIMS, [str(each) for each in DIMS])
label_axes(axes, "number of latents", "mean error of log p(x), nats")
axes.legend(frameon=False, fontsize=10.5)
page

# %% [markdown]
# ## What you should see
#
# * In the table of five choices the last column is the same number, to all
#   digits: ELBO and KL always add up to $\log p(x)$.
# * Gradient ascent on the ELBO ends at the posterior, and its ELBO at $\log p(x)$.
# * Each mean over draws agrees with its closed form within two standard
#   errors, and line 2 has no error at all.
# * In training, the gap is wide in the first steps and closes to 0.15 nats. From then
#   on a higher ELBO is, almost exactly, a higher likelihood. The linear VAE ends at
#   probabilistic PCA, its known optimum.
# * Draws of the prior fail as the number of latents grows: with 32 latents their error
#   is 56 nats. With a $q$ near the posterior it is 2.7 nats. This is what an encoder is
#   for.
#
# Next: [an architecture for Gaussians](04-gaussians.md), and how gradients
# get through a draw.
#
# ## Exercises
#
# **1.** $q$ is fixed, but $x$ changes. For which $x$ is the gap of
# $q = \mathcal{N}(1.5, 0.6^2)$ smallest? Is it zero there?
#
# ??? example "Solution"
#     Where the posterior's mean is 1.5: $x = b + 1.5\,(w^2 + s^2)/w = 3.11$. The
#     gap is not zero, because the posterior's standard deviation is 0.371, for
#     every $x$, and not 0.6:
#     ```python
#     print(gaussian.kl(m, v, m, post_std))  # 0.325 nats
#     ```
#
# **2.** The derivation uses $\mathrm{KL}(q \,\|\, p)$. Why not
# $\mathrm{KL}(p(z|x) \,\|\, q)$?
#
# ??? example "Solution"
#     Its expectation is over the posterior, from which we cannot draw. The
#     expectations of the ELBO are over $q$, which we chose so that drawing is easy.
#
# **3.** Show that line 2 has no noise, in code.
#
# ??? example "Solution"
#     ```python
#     print((log_joint - log_post).std())  # 0 up to rounding
#     ```
#     So if $q$ is the posterior, the ELBO at a single draw is $\log p(x)$: an
#     estimate of the bound has less noise the better $q$ is.
