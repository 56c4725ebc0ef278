# %% [markdown]
# # Schedules: linear and cosine, alpha-bar, SNR and log-SNR
#
# The forward process is fixed by one curve: how fast the noise grows. The lecture
# writes it as $\bar\alpha_t$, "some monotonically decreasing function from 1 to
# 0",
#
# $$x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
# \mathrm{SNR}(t) = \frac{\bar\alpha_t}{1 - \bar\alpha_t}, \qquad
# \lambda_t = \log \mathrm{SNR}(t).$$
#
# Each of the three gives the other two. This page shows why the **log-SNR** is
# the most useful of them, and what a choice of schedule changes and what it does
# not. Time $t$ is 0 for data and 1 for noise from here on. (The lecture uses
# $\lambda_t$ for the [weight of a step](13-weighting.md). Here it is the
# log-SNR.)

# %%
import math

import torch

from genmod import data, plots
from genmod.denoisers import GaussianDenoiser
from genmod.diffusion import NoisingEncoder
from genmod.models import Diffusion, with_steps
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR

IMAGES = 300  # few: 20
LENGTHS = (4, 8, 16, 32, 64, 128, 256, 512)  # few: (4, 8)

linear, cosine = LinearBeta(1000), Cosine(clean=9.21, noisy=-10.12)
log_linear = LinearLogSNR(clean=9.21, noisy=-10.12)
print(linear)
print(cosine)
print(log_linear)

# %% [markdown]
# ## The two formulas of the lecture
#
# **Linear**: $\beta_i$ rises linearly in 1000 steps, and $\bar\alpha$ is a
# product. **Cosine**: $\bar\alpha_t = \cos^2(\tfrac{\pi}{2} t / T)$. The log-SNR
# of the cosine has a short formula:
# $\lambda_t = \log(\cos^2 / \sin^2) = -2 \log \tan(\tfrac{\pi}{2} t / T)$.
#
# At $t = 0$ this log-SNR is $+\infty$ and at $t = T$ it is $-\infty$. Then the
# last $\beta_T$ is exactly 1, and the noise of the first state is 0. Programs
# avoid both. `schedules.Cosine` is the same curve between two finite ends, and
# it prints them. Between the ends the angle $\theta$ is linear in $t$.

# %%
t = torch.linspace(0, 1, 5, dtype=torch.float64)
start, end = (
    math.atan(math.exp(-level / 2)) for level in (9.21, -10.12)
)  # the angles of the two ends
theta = start + t * (end - start)
print(
    "    t   angle/(pi/2)   -2 log tan(angle)   Cosine.log_snr   alpha_bar = cos^2"
)
for moment, angle in zip(t, theta, strict=True):
    print(
        f"{moment:5.2f}   {angle / (math.pi / 2):12.4f}   {-2 * angle.tan().log():17.6f}"
        f"   {cosine.log_snr(moment):14.6f}   {angle.cos() ** 2:17.6f}"
    )
torch.testing.assert_close(
    cosine.log_snr(t), -2 * theta.tan().log(), rtol=1e-10, atol=1e-8
)

# %% [markdown]
# ## Three views of one curve

# %%
# alt: Alpha-bar, SNR and log-SNR of the linear, the cosine and the log-linear
#   schedule against time.
plots.schedules(
    {"linear beta": linear, "cosine": cosine, "linear log-SNR": log_linear},
    title="Three views of each schedule",
)

# %% [markdown]
# The middle panel shows only one steep fall, because the SNR runs over eight
# orders of magnitude. The left panel hides both ends, where $\bar\alpha$ is
# close to 1 or to 0. The right panel shows all of it. In genmod a network gets
# the log-SNR as its "time". So one network works under every schedule.

# %%
print(
    "   t   alpha_bar: linear  cosine   SNR: linear   cosine   log-SNR: linear  cosine"
)
for moment in torch.tensor(
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0], dtype=torch.float64
):
    a, b = linear.log_snr(moment), cosine.log_snr(moment)
    print(
        f"{moment:4.2f} {a.sigmoid():19.5f} {b.sigmoid():7.5f} {a.exp():13.3g} {b.exp():8.3g}"
        f" {a:17.2f} {b:7.2f}"
    )

# %% [markdown]
# ## What it does to images
#
# The same digit and the same noise, at the same times, under each of the
# schedules (`NoisingEncoder(schedule)(x).at(t)`).

# %%
# alt: One digit noised at nine times under the linear and the cosine schedule,
#   and under linear log-SNR.
torch.manual_seed(0)
digits = data.load("digits")
noise = torch.randn(1, 1, 8, 8, dtype=torch.float64)
MOMENTS = torch.linspace(0, 1, 9, dtype=torch.float64)
rows = []
for name, schedule in {
    "linear beta": linear,
    "cosine": cosine,
    "linear log-SNR": log_linear,
}.items():
    encoder = NoisingEncoder(schedule, digits.spec)
    x = encoder.real(digits.test[6:7]).double().expand(len(MOMENTS), -1, -1, -1)
    law = encoder(digits.test[6:7].expand(len(MOMENTS), -1, -1, -1)).at(MOMENTS)
    images = (law.mean + law.stddev * noise).clamp(-1.5, 1.5) / 3 + 0.5
    marks = [f"{float(schedule.log_snr(moment)):z.1f}" for moment in MOMENTS]
    rows.append(plots.Row(name, images, under=marks))
rows[0] = plots.Row(
    rows[0].name,
    rows[0].images,
    above=[f"t = {float(moment):g}" for moment in MOMENTS],
    under=rows[0].under,
)
plots.strips(
    rows,
    side=0.85,
    title="The same noise; the log-SNR is written under each image",
)

# %% [markdown]
# ## Where a schedule spends its steps
#
# Draw $t$ uniformly. Which log-SNRs come up, and how often? The density is
# $-dt/d\lambda$, one over the size of the slope in the right panel above
# (`Schedule.slope`). The table counts three ranges. Between $-4$ and $4$ neither
# image nor noise dominates: the ratio of their factors is between $e^{-2}$ and
# $e^{2}$.

# %%
# alt: Histograms of the log-SNR at uniformly drawn times, for the three
#   schedules.
uniform = torch.linspace(0, 1, 20_001, dtype=torch.float64)
drawing = figure(8.6, 4.0, "Log-SNR at times drawn uniformly")
axes = plain(drawing.add_subplot())
print("schedule         below -4   -4 to 4   above 4")
for name, schedule, color in (
    ("linear beta", linear, "#22272e"),
    ("cosine", cosine, "#b08968"),
    ("linear log-SNR", log_linear, "#56a3d9"),
):
    level = schedule.log_snr(uniform)
    shares = [
        float(((level > low) & (level <= high)).double().mean())
        for low, high in ((-99, -4), (-4, 4), (4, 99))
    ]
    print(f"{name:15}" + "".join(f"{share:10.0%}" for share in shares))
    axes.hist(
        level.numpy(),
        bins=80,
        density=True,
        histtype="step",
        color=color,
        lw=2.2,
        label=name,
    )
axes.legend(frameon=False, fontsize=LABEL)
label_axes(
    axes,
    "log-SNR  (noise on the left, data on the right)",
    "share of the steps per unit",
)
drawing

# %% [markdown]
# ## What does not depend on the schedule
#
# In continuous time the denoising terms are an integral over the log-SNR. So
# only its two *ends* matter, not the curve between them (Kingma et al. 2021). In
# $T$ steps the sum approaches that integral, and here the curve matters: it
# places the steps.
#
# To see this without training, take data whose best denoiser is known: a Gaussian
# with the mean and the covariance of the digits (`GaussianDenoiser`).
# `Diffusion.elbo` sums the KL of all steps; `with_steps` changes $T$.


# %%
# alt: Nats of the denoising steps against the number of steps; all three
#   schedules fall to one limit.
images = (
    NoisingEncoder(linear, digits.spec).real(digits.train).double().flatten(1)
)
mean, covariance = (
    images.mean(0),
    images.T.cov() + 1e-3 * torch.eye(64, dtype=torch.float64),
)
best = GaussianDenoiser(mean, covariance)
root = torch.linalg.cholesky(covariance)
torch.manual_seed(0)
x = mean + torch.randn(IMAGES, 64, dtype=torch.float64) @ root.T


def step_nats(
    schedule: LinearBeta | Cosine | LinearLogSNR, latents: int
) -> float:
    """The mean of all denoising terms of a chain of so many latents, in nats."""
    model = with_steps(
        Diffusion(64, denoiser=best, schedule=schedule).double(), latents
    )
    torch.manual_seed(1)
    with torch.no_grad():
        return float(model.elbo(x, timesteps=None).rates["steps"].total.mean())


drawing = figure(
    8.6, 4.0, "The denoising terms of the bound, under the best denoiser"
)
axes = plain(drawing.add_subplot())
found = {}
for name, schedule, color in (
    ("linear beta", linear, "#22272e"),
    ("cosine", cosine, "#b08968"),
    ("linear log-SNR", log_linear, "#56a3d9"),
):
    found[name] = [step_nats(schedule, latents) for latents in LENGTHS]
    axes.plot(LENGTHS, found[name], marker="o", color=color, lw=2.2, label=name)
    print(f"{name:15}" + "".join(f"{nats:8.0f}" for nats in found[name]))
print(f"{'T':15}" + "".join(f"{latents:8}" for latents in LENGTHS))
axes.set_xscale("log", base=2)
axes.set_yscale("log")
axes.legend(frameon=False, fontsize=LABEL)
label_axes(axes, "T, the number of latents", "denoising terms, nats a sample")
drawing

# %% [markdown]
# ## What you should see
#
# * At half time, to the eye, the digit is gone under the linear schedule
#   (log-SNR $-2.5$). Under the cosine (log-SNR 0) a part of it is left.
# * The linear schedule spends 37 % of its times below a log-SNR of $-4$, the
#   cosine 8 %.
# * The sums of all three schedules fall towards one limit as $T$ grows, because
#   the ends are the same.
# * With few steps they differ by far: the linear log-SNR needs the fewest steps
#   here. A step from $t$ to $s$ weighs the squared error of the image with
#   $\tfrac12 (\mathrm{SNR}(s) - \mathrm{SNR}(t))$. So a long step at the *clean*
#   end costs most, and the linear betas have the longest step there.
#
# !!! note "The slide"
#     The cosine on the slide, $\bar\alpha_t = \cos^2(\tfrac{\pi}{2} t/T)$, has
#     no finite log-SNR at its two ends. Improved DDPM, its source, adds an
#     offset of 0.008 and limits each $\beta$ to 0.999. `Cosine(offset=0.008)`
#     has the offset. Its finite ends take the place of the limit.
#
# ## Exercises
#
# **1.** What is the slope of the cosine's log-SNR at its middle, in terms of the
# angle $\theta$?
#
# ??? example "Solution"
#     $\lambda = -2 \log \tan\theta$ gives
#     $d\lambda/d\theta = -2 / (\sin\theta \cos\theta) = -4 / \sin 2\theta$. At
#     $\theta = \pi/4$ this is $-4$, where the curve is least steep. So most
#     times lie near log-SNR 0.
#
# **2.** Images four times as wide and as high look cleaner at the same log-SNR:
# neighboring pixels agree, so their average has less noise. How should a schedule
# change?
#
# ??? example "Solution"
#     Averaging 16 pixels divides the noise variance by 16. To destroy the same
#     structure, the log-SNR must be lower by $\log 16 = 2.8$ everywhere:
#     `schedules.Shifted` moves a schedule by a constant (Hoogeboom et al. 2023).
#
# **3.** `LinearBeta(1000)` on the digits gives a warning when a model is built
# from it. Try it. What does it advise, and why?
#
# ??? example "Solution"
#     The table ends at log-SNR 9.2, but digits have only 17 values. Where the
#     noise is much smaller than the distance of two values, the denoiser has
#     nothing left to learn. The decoder needs fewer nats for the rest.
#     `LinearBeta(1000).cut(clean=1.83)` is the same curve without that part.
#
# Next: [why the reverse step needs the whole data set](11-reverse-needs-data.md).
