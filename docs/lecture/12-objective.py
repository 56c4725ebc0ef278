# %% [markdown]
# # The objective: from the ELBO to a KL a step to a noise error
#
# Training a diffusion looks simple: predict the noise. This page derives why,
# from the same lower bound as the VAE's, and runs each line of the derivation on
# digits. Nothing is left as "some steps omitted".

# %%
import torch
from torch import Tensor

from genmod import Diffusion, data, evaluate, fit, gaussian, plots
from genmod.denoisers import Learned, NoiseTarget
from genmod.diffusion import FixedLarge, NoisingEncoder
from genmod.evaluation import log_weights
from genmod.nn import MLPs
from genmod.path import Latent, run_path
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.schedules import LinearBeta

STEPS = 1_000  # few: 10
DRAWS = 60  # few: 4
ROWS = 40  # few: 5

T = 100
schedule = LinearBeta(1000).cut(clean=2.0)
beta = schedule.betas(T)
alpha_bar = schedule.alpha_bars(T)
digits = data.load("digits")
print(schedule)
print(
    "beta_1, beta_2, ..., beta_T:",
    [round(float(b), 4) for b in beta[[0, 1, 2, 50, 99]]],
)

# %% [markdown]
# The schedule is DDPM's linear one, with fewer steps. Its clean end is cut at a
# log-SNR of 2 (see the [schedules](10-schedules.md) page). A pixel has 17 values,
# and the noise in $x_1$ then has a standard deviation of about three of them. So
# $\beta_1$ is large, and the reconstruction $p(x_0 \mid x_1)$ has something to
# do.
#
# The model: a network $\epsilon_\theta(x_t, t)$ predicts the noise
# (`NoiseTarget`). We train it with the bound that this page derives, and keep an
# untrained copy for comparison.

# %%
torch.manual_seed(0)
network = MLPs(width=128, dropout=0.1).denoiser(digits.shape)
denoiser = Learned(network, NoiseTarget())
model = Diffusion(digits, denoiser=denoiser, schedule=schedule, steps=T)
before = evaluate(model, digits.test)
fit(model, digits, steps=STEPS, learning_rate=2e-3, progress=False)
after = evaluate(model, digits.test)
print(after)

# %% [markdown]
# ## 1. The bound of a hierarchical VAE
#
# A diffusion has latents $x_1, \dots, x_T$. Jensen's inequality gives, as for
# every VAE,
#
# $$\log p(x_0) \ge \mathbb{E}_{q(x_{1:T} \mid x_0)}
# \left[ \log \frac{p(x_{0:T})}{q(x_{1:T} \mid x_0)} \right],
# \qquad p(x_{0:T}) = p(x_T) \prod_{t=1}^T p_\theta(x_{t-1} \mid x_t).$$
#
# The expression in brackets can be drawn. `evaluation.log_weights` draws it as
# often as one likes.

# %%
model.double()
x = digits.test[:ROWS]
drawn = log_weights(model, x, importance_samples=DRAWS)
mean, spread = drawn.mean(), drawn.std(1).mean()
error = drawn.std(1).div(DRAWS**0.5).square().sum().sqrt() / ROWS
print(f"log p(x, z) - log q(z | x), mean {mean:.2f} +- {error:.2f} nats")
print(f"one draw of it varies by          {spread:.2f} nats")

# %% [markdown]
# ## 2. Turn the chain around
#
# The numerator goes from noise to data, the denominator from data to noise.
# Bayes' rule, *given* $x_0$, turns each forward step around:
#
# $$q(x_t \mid x_{t-1}) = q(x_t \mid x_{t-1}, x_0)
# = \frac{q(x_{t-1} \mid x_t, x_0)\; q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)}.$$
#
# In the product over $t$ the fractions $q(x_t \mid x_0) / q(x_{t-1} \mid x_0)$
# cancel, except the last numerator:
#
# $$q(x_{1:T} \mid x_0) = \prod_{t=1}^T q(x_t \mid x_{t-1})
# = q(x_T \mid x_0) \prod_{t=2}^T q(x_{t-1} \mid x_t, x_0).$$
#
# `model.diffusion.infer` goes down the right side. It yields each latent with its
# two laws, $q$ and $p$. The function `draw` records both and returns a draw from
# $q$. We score the recorded path in both directions.

# %%
path: list[
    tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
] = []  # z, then mean and std of q and p
states: list[Tensor] = []
log_q_down: list[Tensor] = []


def draw(latent: Latent) -> Tensor:
    """Draw a latent from q, and record both laws."""
    assert latent.q is not None
    assert latent.p is not None
    z = latent.q.rsample()
    q, p = latent.q, latent.p
    path.append(
        (
            z,
            q.mean,
            q.stddev.expand_as(z),
            p.mean.expand_as(z),
            p.stddev.expand_as(z),
        )
    )
    log_q_down.append(q.log_prob(z))
    states.append(z)
    return z


encoder = NoisingEncoder(model.diffusion.schedule)
x_0 = model.encoder.real(x).double()
torch.manual_seed(0)
with torch.no_grad():
    run_path(model.diffusion.infer(encoder(x_0)), draw)
states.reverse()  # states[t - 1] is now x_t
path.reverse()  # path[t - 1] has the laws of x_t: those of the step from t + 1 to t

log_q_up = torch.zeros(len(x), dtype=torch.float64)
for t in range(1, T + 1):
    below = x_0 if t == 1 else states[t - 2]
    log_step = gaussian.log_prob(
        states[t - 1], (1 - beta[t - 1]).sqrt() * below, beta[t - 1].sqrt()
    )
    log_q_up = log_q_up + log_step.flatten(1).sum(1)
print("log q of a path, up:  ", [f"{v:.8f}" for v in log_q_up[:3]])
down = torch.stack(log_q_down).sum(0)
print("log q of a path, down:", [f"{v:.8f}" for v in down[:3]])
torch.testing.assert_close(
    log_q_up, torch.stack(log_q_down).sum(0), rtol=1e-9, atol=1e-6
)

# %% [markdown]
# ## 3. A KL divergence a step
#
# Now each factor of $p$ meets a factor of $q$ with the same variables:
#
# $$\begin{aligned}
# &\underbrace{\mathbb{E}[\log p_\theta(x_0 \mid x_1)]}_{\text{reconstruction}}
# - \underbrace{\mathrm{KL}(q(x_T \mid x_0) \,\|\, p(x_T))}_{\text{prior matching}} \\
# &\quad - \sum_{t=2}^T \underbrace{\mathbb{E}_{q(x_t \mid x_0)}
# \mathrm{KL}(q(x_{t-1} \mid x_t, x_0) \,\|\, p_\theta(x_{t-1} \mid x_t))
# }_{\text{denoising matching}}.
# \end{aligned}$$
#
# These are `elbo.reconstruction`, `elbo.rates["prior"]` and
# `elbo.rates["steps"]`. There are $T$ latents and $T - 1$ denoising terms. The
# mean is that of section 1. What is gained: each term needs only
# $x_t \sim q(x_t \mid x_0)$, not a path. So training may visit a single $t$, and
# the sum is estimated from a few.

# %%
# alt: The three terms of the negative bound, before and after training: the
#   denoising terms fall by far.
torch.manual_seed(0)
with torch.no_grad():
    bounds = [model.elbo(x, timesteps=None) for _ in range(max(2, DRAWS // 10))]
values = torch.stack([bound.value for bound in bounds])
error = values.std(0).div(len(bounds) ** 0.5).square().sum().sqrt() / ROWS
print(
    f"the bound with closed KLs, mean   {values.mean():.2f} +- {error:.2f} nats"
)
print(f"one draw of it varies by          {values.std(0).mean():.2f} nats")
print("a term for each step:", tuple(bounds[0].rates["steps"].nats.shape))

drawing = figure(
    9.6, 2.9, "Minus the bound on log p(x), in its three terms (test digits)"
)
axes = plain(drawing.add_subplot())
for row, report in enumerate((before, after)):
    left = 0.0
    for term, color in (
        ("reconstruction", "#3b6fb6"),
        ("prior", "#e09f3e"),
        ("steps", "#d1495b"),
    ):
        part = abs(report.terms[term].mean)
        axes.barh(
            row, part, left=left, color=color, label=term if row == 0 else None
        )
        left += part
    axes.text(left, row, f"  {left:.0f} nats", va="center", fontsize=LABEL)
axes.set_yticks([0, 1], ["untrained", "trained"], fontsize=LABEL)
axes.set_xlim(0, 1.2 * abs(before.value.mean))
axes.legend(frameon=False, fontsize=LABEL, loc="upper right")
label_axes(axes, "nats an image", "")
drawing

# %% [markdown]
# ## 4. From the KL to a difference of means
#
# Both laws are Gaussian. For one dimension
#
# $$\mathrm{KL}(\mathcal{N}(\mu_0, \sigma_0^2) \,\|\, \mathcal{N}(\mu_1, \sigma_1^2))
# = \tfrac12 \Big\{ \frac{\sigma_0^2}{\sigma_1^2} + \frac{(\mu_1 - \mu_0)^2}{\sigma_1^2} - 1
# + \ln \frac{\sigma_1^2}{\sigma_0^2} \Big\},$$
#
# which is `gaussian.kl`. With the same variance in both,
# $\sigma_t^2 = \tilde\beta_t$, only the means remain:
# $\frac{1}{2 \sigma_t^2} \|\tilde\mu_t - \mu_\theta\|^2$, and the slide's
# constant $C$ is zero.
#
# ## 5. From means to noise
#
# Put $x_0 = (x_t - \sqrt{1 - \bar\alpha_t}\, \epsilon) / \sqrt{\bar\alpha_t}$
# into the posterior's mean, and let the network predict the noise in the same
# formula:
#
# $$\tilde\mu_t = \frac{1}{\sqrt{1 - \beta_t}}
# \Big( x_t - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}} \epsilon \Big), \qquad
# \mu_\theta = \frac{1}{\sqrt{1 - \beta_t}}
# \Big( x_t - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}} \epsilon_\theta(x_t, t) \Big).$$
#
# $x_t$ cancels in the difference:
#
# $$L_{t-1} = \mathbb{E} \Big[ \underbrace{\frac{\beta_t^2}
# {2 \sigma_t^2 (1 - \beta_t)(1 - \bar\alpha_t)}}_{\lambda_t}
# \big\| \epsilon - \epsilon_\theta(\underbrace{\sqrt{\bar\alpha_t}\, x_0
# + \sqrt{1 - \bar\alpha_t}\, \epsilon}_{x_t},\ t) \big\|^2 \Big].$$
#
# Three routes to the same number, at the states of our path: the KL of the
# recorded laws, the difference of means, and the noise error with $\lambda_t$.


# %%
def noise_error(t: int) -> tuple[Tensor, Tensor, Tensor]:
    """The merged noise in x_t, the predicted noise, and the squared error of each row."""
    x_t, keep = states[t - 1], alpha_bar[t - 1]
    eps = (x_t - keep.sqrt() * x_0) / (1 - keep).sqrt()
    log_snr = (keep / (1 - keep)).log().expand(len(x_t))
    with torch.no_grad():
        eps_hat = denoiser.output(x_t, log_snr)
    return eps, eps_hat, (eps - eps_hat).square().flatten(1).sum(1)


small = torch.cat(
    [beta[:1], (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * beta[1:]]
)
weight = beta**2 / (2 * small * (1 - beta) * (1 - alpha_bar))
print(
    "   t   lambda_t   KL of the laws   difference of means   weighted noise error"
)
for t in (2, 5, 20, 50, 80, 100):
    _, q_mean, q_std, p_mean, p_std = path[
        t - 2
    ]  # the laws of x_{t-1} given x_t
    by_kl = gaussian.kl(q_mean, q_std, p_mean, p_std).flatten(1).sum(1)
    by_means = (q_mean - p_mean).square().flatten(1).sum(1) / (2 * small[t - 1])
    by_noise = weight[t - 1] * noise_error(t)[2]
    print(
        f"{t:4}   {weight[t - 1]:8.4f}   {by_kl.mean():14.8f}   {by_means.mean():19.8f}"
        f"   {by_noise.mean():20.8f}"
    )
    torch.testing.assert_close(by_kl, by_noise, rtol=1e-6, atol=1e-9)

# %% [markdown]
# ## 6. Where the nats are
#
# The left panel is the error of the predicted noise. A loss without weights sums
# these errors. The middle panel is $\lambda_t$. The right panel is their product,
# the KL of each step. The bound sums these.

# %%
# alt: Against the step t: the error of the predicted noise, the weight lambda,
#   and their product, the KL.
rates = [bound.rates["steps"] for bound in bounds]
nats = torch.stack([rate.nats.mean(0) for rate in rates]).mean(0)
squares = nats / weight[1:]  # the same as rate.noise.error
counted = torch.arange(2, T + 1)
drawing = figure(11.0, 3.8, "Noise error times weight is the KL of a step")
panels: tuple[tuple[Tensor, str, str], ...] = (
    (squares, r"$\|\epsilon - \epsilon_\theta\|^2$, all 64 pixels", "#3b6fb6"),
    (weight[1:], r"$\lambda_t$", "#22272e"),
    (nats, "KL of the step, nats", "#d1495b"),
)
for place, (curve, name, color) in enumerate(panels):
    axes = plain(drawing.add_subplot(1, 3, place + 1))
    axes.plot(counted, curve, color=color, lw=2.4)
    axes.set_ylim(bottom=0)
    label_axes(axes, "step t", name)
half = int((nats.cumsum(0) < nats.sum() / 2).sum()) + 2
print(f"error at t = 2: {squares[0]:.1f}, at t = 100: {squares[-1]:.1f} of 64")
print(f"half of the nats are in the steps up to t = {half}")
drawing

# %% [markdown]
# ## 7. What the network predicts

# %%
# alt: One digit at five noise levels: noised, the true noise, the predicted
#   noise, and the implied image.
SHOWN = (2, 10, 25, 50, 100)
parts: dict[str, list[Tensor]] = {
    "$x_t$": [],
    r"$\epsilon$": [],
    r"$\epsilon_\theta$": [],
    r"$\hat x_0$": [],
}
for t in SHOWN:
    eps, eps_hat, _ = noise_error(t)
    implied = (
        states[t - 1] - (1 - alpha_bar[t - 1]).sqrt() * eps_hat
    ) / alpha_bar[t - 1].sqrt()
    for name, image in zip(
        parts, (states[t - 1], eps, eps_hat, implied), strict=True
    ):
        parts[name].append(image[3].clamp(-1.5, 1.5) / 3 + 0.5)
rows = [plots.Row(name, torch.stack(images)) for name, images in parts.items()]
rows[0] = plots.Row(
    rows[0].name, rows[0].images, above=[f"t = {t}" for t in SHOWN]
)
plots.strips(rows, "What the network predicts, by noise level", side=1.0)

# %% [markdown]
# ## 8. The constant C
#
# With another reverse variance, $\sigma_t^2 = \beta_t$ (`FixedLarge`), the two
# stds differ, and the KL keeps the terms $\frac{D}{2} (r - 1 - \ln r)$ with
# $r = \tilde\beta_t / \beta_t$ and $D = 64$ pixels. They do not depend on the
# network, so they add nothing to its gradients. But they count in the bound. The
# weight $\lambda_t$ also changes: its $\sigma_t^2$ is now $\beta_t$.

# %%
ratio = small[1:] / beta[1:]
constant = 32 * (ratio - 1 - ratio.log())
large = Diffusion(
    digits, denoiser=denoiser, schedule=schedule, steps=T, variance=FixedLarge(),
    decoder=model.decoder,
).double()  # fmt: skip
torch.manual_seed(0)
with torch.no_grad():
    two = [large.elbo(x, timesteps=None) for _ in range(max(2, DRAWS // 10))]
mean_large = torch.stack([bound.rates["steps"].total for bound in two]).mean()
print(
    f"C at t = 2: {constant[0]:.2f} nats, at t = 10: {constant[8]:.3f}, "
    f"at t = 100: {constant[-1]:.5f}"
)
print(f"sum of C over all steps                   {constant.sum():6.2f} nats")
print(f"denoising terms, variance beta_tilde      {nats.sum():6.2f} nats")
print(f"denoising terms, variance beta            {mean_large:6.2f} nats")

# %% [markdown]
# ## What you should see
#
# * The drawn log-ratio and the sum with closed KLs have the same mean, within
#   their errors. Both vary by about 4 nats from draw to draw.
# * A path has the same $\log q$ from both ends: the cancellation is exact.
# * KL, difference of means, and weighted noise error agree in all printed digits.
# * The noise error is large where there is little noise: it is hard to see small
#   noise in an image. Near $t = 100$ nearly everything is noise, and the error is
#   small.
# * Half of the nats of the steps are in the first dozen of them.
# * At $t = 100$ the implied image $\hat x_0$ is useless: a small error of the
#   noise is divided by a tiny $\sqrt{\bar\alpha_t}$. The page on
#   [data prediction](16-data-prediction.md) returns to this.
# * With $\sigma_t^2 = \beta_t$ the sum of the KLs is larger, but by less than the
#   sum of $C$: the larger variance makes the weights $\lambda_t$ smaller.
#
# !!! note "The slides"
#     * In one formula of $L_{t-1}$ the $\epsilon$ after $\sqrt{1 - \bar\alpha_t}$
#       is missing. The network's input is
#       $x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon$.
#     * The slide with the weight $\lambda_t$ leaves out $+\,C$. It is zero for
#       $\sigma_t^2 = \tilde\beta_t$ only.
#     * $\tilde\mu_t$ is written as a function of $x_t$ and $x_0$, and then with
#       $\epsilon$. This is the same: two of $x_0$, $x_t$ and $\epsilon$ give the
#       third.
#     * The loss $L_\text{simple}$ draws $t$ from 1 to $T$. The bound has a
#       denoising term for $t = 2, \dots, T$; the term of $t = 1$ is the
#       reconstruction.
#
# ## Exercises
#
# **1.** Show that
# $\lambda_t = \frac12 \big( \mathrm{SNR}(t-1) / \mathrm{SNR}(t) - 1 \big)$ for
# $\sigma_t^2 = \tilde\beta_t$.
#
# ??? example "Solution"
#     With $\sigma_t^2 = \tilde\beta_t$,
#
#     $$\lambda_t = \frac{\beta_t^2 (1 - \bar\alpha_t)}
#     {2 (1 - \bar\alpha_{t-1}) \beta_t \alpha_t (1 - \bar\alpha_t)}
#     = \frac{\beta_t}{2 \alpha_t (1 - \bar\alpha_{t-1})}.$$
#
#     And because $\bar\alpha_t = \alpha_t \bar\alpha_{t-1}$,
#
#     $$\frac{\mathrm{SNR}(t-1)}{\mathrm{SNR}(t)} - 1
#     = \frac{1 - \bar\alpha_t}{\alpha_t (1 - \bar\alpha_{t-1})} - 1
#     = \frac{1 - \alpha_t}{\alpha_t (1 - \bar\alpha_{t-1})}
#     = \frac{\beta_t}{\alpha_t (1 - \bar\alpha_{t-1})}.$$
#
#     In the code it is `0.5 * rate.noise.gap`.
#
# **2.** Why may the expectation of the KL of step $t$ be taken over
# $q(x_t \mid x_0)$ alone, not over whole paths?
#
# ??? example "Solution"
#     The KL of step $t$ depends on the path through $x_t$ only. And $x_t$ can be
#     drawn from $x_0$ in one step. So training can visit any single $t$ without
#     drawing the others.
#
# **3.** A network predicts $\epsilon_\theta = 0$ everywhere. What is the sum of
# its denoising terms? Compare with the bar of the untrained network in section 3.
#
# ??? example "Solution"
#     $\mathbb{E}\|\epsilon\|^2 = 64$ at every step, so the sum is
#     $64 \sum_{t \ge 2} \lambda_t$. Compute `64 * weight[1:].sum()`. The last
#     layer of the network starts at zero, so the untrained network predicts zero.
#     The sum is the part *steps* of its bar.
#
# Next: [weighting](13-weighting.md).
