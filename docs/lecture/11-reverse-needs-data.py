# %% [markdown]
# # Why the reverse step needs the whole data set
#
# The lecture: the reverse step $q(x_{t-1} \mid x_t)$ is intractable, "you need to
# use the entire dataset!", and $q(x_{t-1} \mid x_t, x_0)$ is tractable. Both can
# be computed for a data set that is small enough. This page does it, first for
# five numbers, then for 1,294 images.
#
# **Why.** By Bayes' rule the reverse of a forward step is
#
# $$q(x_{t-1} \mid x_t) = \frac{q(x_t \mid x_{t-1})\, q(x_{t-1})}{q(x_t)}.$$
#
# The forward step is known. The marginal
# $q(x_{t-1}) = \int q(x_{t-1} \mid x_0)\, q(x_0)\, dx_0$ is an average over *all*
# data. Given $x_0$, that integral disappears:
#
# $$q(x_{t-1} \mid x_t, x_0) = \frac{q(x_t \mid x_{t-1})\, q(x_{t-1} \mid x_0)}{q(x_t \mid x_0)}
# = \mathcal{N}\big(x_{t-1};\ \tilde\mu_t(x_t, x_0),\ \tilde\beta_t I\big).$$
#
# All three factors are Gaussian, so the result is. For $N$ data points the two
# are related by
#
# $$q(x_{t-1} \mid x_t) = \sum_{n=1}^N w_n(x_t)\; q(x_{t-1} \mid x_t, x_0 = x^{(n)}), \qquad
# w_n \propto q(x_t \mid x^{(n)}).$$

# %%
import torch

from genmod import data, gaussian, plots
from genmod.denoisers import EmpiricalDenoiser
from genmod.diffusion import NoisingEncoder
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.samplers import Ancestral
from genmod.schedules import LinearLogSNR

NOISED = 64  # few: 4

schedule = LinearLogSNR(clean=6.0, noisy=-6.0)
encoder = NoisingEncoder(schedule)


def at(time: float, rows: int = 1) -> torch.Tensor:
    """A time for each row."""
    return torch.full((rows,), time, dtype=torch.float64)


# %% [markdown]
# ## Five numbers
#
# Data: five numbers. We look at a step from $t$ to $s$, and at one state
# $x_t = 0.3$. The left side of the last formula, by Bayes' rule on a grid, is
# compared with its right side, the mixture of the tractable laws
# (`encoder(x).given(s, t, z_t)`, whose mean and variance are $\tilde\mu$ and
# $\tilde\beta$).


# %%
# alt: Densities of the earlier state for a long and a short step: a mixture of
#   five Gaussians, one for each point.
def both_sides(
    points: torch.Tensor, z_t: float, t: float, s: float, grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q(x_s | x_t) by Bayes' rule and as a mixture, on a grid; and the weights of the mixture."""
    posterior, n = encoder(points[:, None]), len(points)
    near, far = posterior.at(at(s, n)), posterior.at(at(t, n))
    state = torch.full((n, 1), z_t, dtype=torch.float64)
    # Bayes: q(x_t | x_s) q(x_s) / q(x_t). A forward step has the mean ratio * x_s
    # and the variance that is left.
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        schedule.scales(at(t)),
        schedule.scales(at(s)),
    )
    ratio = alpha_t / alpha_s
    step_std = (sigma_t**2 - (ratio * sigma_s) ** 2).sqrt()
    step = gaussian.log_prob(state[0], ratio * grid, step_std).exp()
    marginal = gaussian.log_prob(grid, near.mean, near.stddev).exp().mean(0)
    evidence = gaussian.log_prob(state, far.mean, far.stddev).exp().mean()
    # The mixture of the tractable laws.
    weights = (
        gaussian.log_prob(state, far.mean, far.stddev).squeeze(1).softmax(0)
    )
    given = posterior.given(at(s, n), at(t, n), state)
    mixture = weights @ gaussian.log_prob(grid, given.mean, given.stddev).exp()
    return step * marginal / evidence, mixture, weights


points = torch.tensor([-1.0, -0.8, -0.1, 0.6, 1.0], dtype=torch.float64)
grid = torch.linspace(-1.6, 1.6, 1601, dtype=torch.float64)
drawing = figure(
    10.0, 3.8, "From x_t = 0.3: only a short step is nearly Gaussian"
)
for place, (t, s) in enumerate(((0.55, 0.05), (0.55, 0.45))):
    bayes, mixture, weights = both_sides(points, 0.3, t, s, grid)
    torch.testing.assert_close(bayes, mixture, rtol=1e-9, atol=1e-12)
    mean = torch.trapezoid(grid * bayes, grid)
    std = torch.trapezoid((grid - mean).square() * bayes, grid).sqrt()
    normal = gaussian.log_prob(grid, mean, std).exp()
    apart = torch.trapezoid(
        bayes * ((bayes + 1e-300).log() - normal.log()), grid
    )
    print(
        f"from t = {t} to s = {s}: weights {[round(float(w), 2) for w in weights]},\n  "
        f"KL to the Gaussian of the same mean and std {apart:.4f} nats"
    )
    axes = plain(drawing.add_subplot(1, 2, place + 1))
    axes.plot(
        grid,
        bayes,
        color="#3b6fb6",
        lw=2.4,
        label=r"$q(x_{s} | x_t)$: needs all five points",
    )
    axes.plot(
        grid,
        normal,
        color="#22272e",
        lw=1.6,
        ls="--",
        label="Gaussian, same mean and std",
    )
    one = encoder(points[3:4, None]).given(
        at(s), at(t), torch.full((1, 1), 0.3).double()
    )
    narrow = gaussian.log_prob(grid, one.mean, one.stddev).exp().squeeze(0)
    axes.plot(
        grid,
        narrow,
        color="#d1495b",
        lw=1.8,
        label=r"$q(x_{s} | x_t, x_0 = 0.6)$: needs one",
    )
    axes.set_title(f"from t = {t} to s = {s}", fontsize=LABEL)
    axes.set_ylim(0, 1.35 * float(torch.maximum(bayes, narrow).max()))
    axes.legend(frameon=False, fontsize=9.5, loc="upper left")
    label_axes(axes, "$x_s$", "density" if place == 0 else "")
drawing

# %% [markdown]
# Over a long step the true reverse law has several peaks, and no Gaussian fits
# it. Over a short step it is almost Gaussian. This is why the model
# $p_\theta(x_{t-1} \mid x_t)$ may be a Gaussian *if* the steps are short.
#
# ## Take one point away
#
# Without the point 0.6, the law $q(x_s \mid x_t)$ changes (here for the short
# step). The tractable law given $x_0 = 1.0$ cannot change: the other points do
# not occur in its formula.

# %%
fewer = points[[0, 1, 2, 4]]
whole, _, _ = both_sides(points, 0.3, 0.55, 0.45, grid)
without, _, _ = both_sides(fewer, 0.3, 0.55, 0.45, grid)
print(
    f"mean of q(x_s | x_t) with five points   {torch.trapezoid(grid * whole, grid):.4f}"
)
print(
    f"mean of q(x_s | x_t) without 0.6        {torch.trapezoid(grid * without, grid):.4f}"
)
state = torch.full((1, 1), 0.3).double()
law = encoder(points[4:5, None]).given(at(0.45), at(0.55), state)
print(f"mean of q(x_s | x_t, x_0 = 1.0), always {law.mean.item():.4f}")

# %% [markdown]
# ## 1,294 images
#
# The same with the training images of the digits. The mean of
# $q(x_{t-1} \mid x_t)$ is $\tilde\mu_t$ with
# $\mathbb{E}[x_0 \mid x_t] = \sum_n w_n x^{(n)}$ in place of $x_0$.
# `EmpiricalDenoiser(points)` computes that average over the whole data set. We
# noise a *test* image, which is not among the points, and compare.

# %%
# alt: A test digit noised to six levels, and below the average over all
#   training images and over 50 of them.
torch.manual_seed(0)
digits = data.load("digits")
train = NoisingEncoder(schedule, digits.spec).real(digits.train).double()
test = NoisingEncoder(schedule, digits.spec).real(digits.test).double()
everything, few_images = EmpiricalDenoiser(train), EmpiricalDenoiser(train[:50])
MOMENTS = torch.tensor([0.2, 0.4, 0.5, 0.6, 0.75, 0.95], dtype=torch.float64)
x = test[6:7].expand(len(MOMENTS), -1, -1, -1)
law = encoder(x).at(MOMENTS)
z = law.mean + law.stddev * torch.randn(1, 1, 8, 8, dtype=torch.float64)
level = schedule.log_snr(MOMENTS)


def shown(images: torch.Tensor) -> torch.Tensor:
    """From [-1.5, 1.5] to [0, 1]."""
    return images.clamp(-1.5, 1.5) / 3 + 0.5


rows = [
    plots.Row(
        "$x_t$", shown(z), above=[f"log-SNR {float(v):z.1f}" for v in level]
    ),
    plots.Row(r"$E[x_0|x_t]$, all images", shown(everything(z, level).x_hat)),
    plots.Row(r"$E[x_0|x_t]$, 50 images", shown(few_images(z, level).x_hat)),
    plots.Row("$x_0$", shown(x)),
]
plots.strips(rows, side=1.0, title="The estimate needs all images")

# %% [markdown]
# ## How many images take part?
#
# The weights $w_n$ are a softmax over all images. The exponential of their
# entropy is the number of images that matter. The code also checks `x_hat`
# against the weighted sum. In the figure, the line is the median of 64 states,
# and the band holds the middle 80 % of them. The dotted line is at all 1,294
# images.

# %%
# alt: The number of images that matter against the log-SNR: all of them in
#   noise, one where it is clean.
TIMES = torch.linspace(0, 1, 41, dtype=torch.float64)
flat, numbers = train.flatten(1), []
for moment in TIMES:
    time = moment.expand(NOISED)
    law = encoder(test[:NOISED]).at(time)
    noised = law.rsample()
    alpha, sigma = schedule.scales(moment)
    squares = torch.cdist(noised.flatten(1), alpha * flat).square()
    weights = (-squares / (2 * sigma**2)).softmax(-1)
    entropy = -(weights * (weights + 1e-300).log()).sum(-1)
    numbers.append(entropy.exp())
    expected = (weights @ flat).reshape(noised.shape)
    torch.testing.assert_close(
        everything(noised, schedule.log_snr(time)).x_hat, expected
    )
count = torch.stack(numbers)
levels = schedule.log_snr(TIMES)
for index in (0, 10, 20, 25, 30, 40):
    print(
        f"log-SNR {float(levels[index]):5.1f}: {float(count[index].median()):7.1f} images matter"
        f" (median of {NOISED} states)"
    )
drawing = figure(8.6, 4.0, "The noisier the state, the more images matter")
axes = plain(drawing.add_subplot())
low, middle, high = count.quantile(
    torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), 1
)
axes.fill_between(levels, low, high, color="#3b6fb6", alpha=0.25, linewidth=0)
axes.plot(levels, middle, color="#3b6fb6", lw=2.4, label="median state")
axes.axhline(len(train), color="#22272e", lw=1, ls=":", label="all images")
axes.legend(frameon=False, fontsize=LABEL)
axes.set_yscale("log")
label_axes(
    axes,
    "log-SNR  (noise on the left, data on the right)",
    "images that matter, exp(entropy)",
)
drawing

# %% [markdown]
# ## The cost, and the way out
#
# One reverse step of $B$ states costs $B N$ distances. With $N$ = 1,294 that is
# fast. With a million photographs and a thousand steps it is a billion distances
# for every sample. And there is a worse fault: followed exactly, this reverse
# process ends in a *training image*. We run it with `samplers.Ancestral`.

# %%
# alt: Twelve samples of the exact reverse process, each above the nearest
#   training image: they are the same.
torch.manual_seed(0)
backwards = torch.linspace(1, 0, 201, dtype=torch.float64)
start = torch.randn(12, 1, 8, 8, dtype=torch.float64)
ends = Ancestral(everything, schedule).run(start, backwards)
cleaned = everything(ends, schedule.log_snr(at(0.0, 12))).x_hat
distance = torch.cdist(cleaned.flatten(1), flat)
print(
    "distance of each sample from the nearest training image:",
    f"{distance.min(1).values.max():.2g}",
)
rows = [
    plots.Row("sample", shown(cleaned)),
    plots.Row("nearest training image", shown(train[distance.argmin(1)])),
]
plots.strips(rows, title="The exact reverse process of a finite data set")

# %% [markdown]
# The way out is the key idea of the lecture. A network
# $p_\theta(x_{t-1} \mid x_t)$ is trained against the *tractable* law,
#
# $$\mathbb{E}_{q(x_t \mid x_0)} \big[\mathrm{KL}\big(q(x_{t-1} \mid x_t, x_0)
# \,\|\,p_\theta(x_{t-1} \mid x_t)\big)\big],$$
#
# one image at a time. Averaged over images, the best mean is that of
# $q(x_{t-1} \mid x_t)$: the average over the data set comes from training, not
# from a sum at every step. And a network that cannot store all images exactly
# has to generalize.
#
# ## What you should see
#
# * Bayes' rule and the mixture give the same density. The long step has several
#   peaks. The short step is Gaussian to within a few thousandths of a nat.
# * Without one of five points the reverse law moves. Given $x_0$, it does not
#   depend on other points.
# * In pure noise the average over all images is a blurred mean digit. At high
#   log-SNR it is close to one training image. With 50 images it is often another
#   digit.
# * At the noisy end almost all 1,294 images matter, at the clean end one.
# * Samples of the exact reverse process are training images.
#
# ## Exercises
#
# **1.** Derive
# $\tilde\beta_t = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t}\beta_t$ from the
# product of two Gaussians in $x_{t-1}$.
#
# ??? example "Solution"
#     $q(x_t \mid x_{t-1})$ has, as a function of $x_{t-1}$, the precision
#     $\alpha_t / \beta_t$, and $q(x_{t-1} \mid x_0)$ has
#     $1 / (1 - \bar\alpha_{t-1})$. Precisions add:
#
#     $$\frac{\alpha_t}{\beta_t} + \frac{1}{1 - \bar\alpha_{t-1}}
#     = \frac{\alpha_t (1 - \bar\alpha_{t-1}) + \beta_t}{\beta_t (1 - \bar\alpha_{t-1})}
#     = \frac{1 - \bar\alpha_t}{\beta_t (1 - \bar\alpha_{t-1})}.$$
#
#     The variance $\tilde\beta_t$ is the inverse. `gaussian.product` multiplies
#     two Gaussians.
#
# **2.** Why does $q(x_{t-1} \mid x_t)$ become Gaussian when the step is short?
#
# ??? example "Solution"
#     As a function of $x_{t-1}$, $q(x_t \mid x_{t-1})$ is then a very narrow
#     Gaussian. Over its width the smooth $\log q(x_{t-1})$ is nearly linear, and
#     a Gaussian times the exponential of a linear function is a Gaussian with a
#     shifted mean. The shift is about $\beta_t \nabla \log q(x_{t-1})$, where
#     $\nabla \log q$ is the score.
#
# **3.** The optimal denoiser of the training set gives samples that are copies.
# Why do trained networks usually not copy?
#
# ??? example "Solution"
#     Usually they do not reach that optimum. A network with far fewer numbers
#     than the data set, or one that is stopped early, learns a smoother function
#     of $x_t$. In genmod, the weights are chosen by the bound on validation
#     data. A network that is large enough and trained long enough does begin to
#     copy.
#
# Next: [the objective](12-objective.md).
