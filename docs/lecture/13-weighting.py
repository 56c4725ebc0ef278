# %% [markdown]
# # Weighting: L against L_simple, imperceptible details, rate and distortion
#
# The bound sums the errors of the noise with weights $\lambda_t$,
#
# $$L = \sum_{t=2}^T \lambda_t\, \mathbb{E} \|\epsilon - \epsilon_\theta(x_t, t)\|^2, \qquad
# \lambda_t = \frac{\beta_t^2}{2 \sigma_t^2 (1 - \beta_t)(1 - \bar\alpha_t)}.$$
#
# Ho et al. (2020) leave the weights out:
# $L_\text{simple} = \mathbb{E}_t \|\epsilon - \epsilon_\theta(x_t, t)\|^2$. Their
# samples look better and their likelihood gets worse. This page shows where the
# two differ, trains with both, and measures how many bits go into details that
# cannot be seen.

# %%
from textwrap import fill as wrapped

import torch

from genmod import Diffusion, data, evaluate, fit, plots
from genmod.diffusion import NoisingEncoder, fit_scale
from genmod.evaluation import profile, quality, refinement
from genmod.nn import MLPs
from genmod.objectives import Bound, MinSNR, Objective, Simple, explain
from genmod.plots.style import figure, label_axes, plain
from genmod.schedules import Cosine, LinearBeta

STEPS = 1_500  # few: 10
SAMPLES = 500  # few: 80
LEVELS = 64  # few: 8

digits = data.load("digits")

# %% [markdown]
# ## The weight is large where there is little noise
#
# Two factors in the denominator are close to zero for small $t$:
# $\sigma_t^2 = \tilde\beta_t$, and $1 - \bar\alpha_t$. The table is for DDPM's
# schedule. Its last column is another formula of the same weight: half the
# relative fall of the SNR in one step.

# %%
T = 1000
schedule = LinearBeta(T)
beta, alpha_bar = schedule.betas(T), schedule.alpha_bars(T)
small = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * beta[1:]
weight = beta[1:] ** 2 / (2 * small * (1 - beta[1:]) * (1 - alpha_bar[1:]))
snr = alpha_bar / (1 - alpha_bar)
fall = 0.5 * (snr[:-1] / snr[1:] - 1)
print(
    "   t   1 - alpha_bar     sigma_t^2     lambda_t   (SNR(t-1)/SNR(t) - 1)/2"
)
for t in (2, 3, 10, 100, 300, 1000):
    print(
        f"{t:4}   {1 - alpha_bar[t - 1]:13.6f}   {small[t - 2]:11.6f}   {weight[t - 2]:10.5f}"
        f"   {fall[t - 2]:23.5f}"
    )
torch.testing.assert_close(weight, fall, rtol=1e-6, atol=0)

# %%
# alt: The weight of each step in the bound against time, for two schedules,
#   beside the weight one of L_simple.
plots.loss_weights(
    {"linear": LinearBeta(1000), "cosine": Cosine(clean=9.21, noisy=-10.12)},
    title="The weight of each step",
)

# %% [markdown]
# ## The same weights, seen at the log-SNR
#
# The weight of a step depends on the schedule. For the bound, the weight *per
# unit of log-SNR* does not: it is 1 at every log-SNR. `objectives.explain`
# computes this weight for any objective and schedule, and names what the loss
# bounds. The figure scales each weight to an area of one.

# %%
# alt: Weights of the bound, of L_simple and of min-SNR against the log-SNR;
#   L_simple falls at the clean end.
WEIGHTED: dict[str, Objective] = {
    "L": Bound(),
    "L_simple": Simple(),
    "min-SNR": MinSNR(5.0),
}
own = Cosine(clean=5.5, noisy=-6.0)
explained = {
    name: explain(objective, own) for name, objective in WEIGHTED.items()
}
for name, found in explained.items():
    print(wrapped(f"{name} bounds {found.bounded}", 76, subsequent_indent="  "))
plots.level_weights(explained, title="The weight of each log-SNR")

# %% [markdown]
# ## Train with both
#
# The same network, data, schedule and number of steps. Both models are then
# scored with the same bound. Quality is the Fréchet distance of samples from test
# images, in the features of a small classifier (`evaluation.quality`).
# $L_\text{simple}$ does not train the scale of the decoder's last step, so it is
# fitted afterwards for both (`fit_scale`).

# %%
trained: dict[str, Diffusion] = {}
for name, objective in (("L", Bound()), ("L_simple", Simple())):
    torch.manual_seed(0)
    network = MLPs(width=192, depth=3, dropout=0.1).denoiser(digits.shape)
    model = Diffusion(digits, denoiser=network, schedule=own, steps=128)
    fit(
        model,
        digits,
        objective,
        steps=STEPS,
        learning_rate=2e-3,
        progress=False,
    )
    fit_scale(model, digits.train[:500])
    trained[name] = model
    report, looks = (
        evaluate(model, digits.test),
        quality(model, digits, SAMPLES),
    )
    print(
        f"{name:9} {report.bits_per_dim} bits/dim ({report.stamp.value})   "
        f"Fréchet distance {looks.frechet:.0f}   class score {looks.classes:.2f}"
    )
print(
    f"real images: Fréchet distance {looks.zero:.0f}   class score {looks.real_classes:.2f}"
)

# %%
# alt: Test images beside samples of the model trained with L and of the model
#   trained with L_simple.
grids = {"test images": digits.test[:36]}
for name, model in trained.items():
    grids[f"trained with {name}"] = model.sample(36, seeds=range(36)).cpu()
plots.samples(grids, highest=16, title="Samples beside test images")

# %%
# alt: Nats per unit of log-SNR of both models, with bands of two standard
#   errors.
profiles = {
    name: profile(model, digits.test, timesteps=LEVELS)
    for name, model in trained.items()
}
for name, seen in profiles.items():
    clean = seen.middle > 1.0
    above, below = seen.nats[clean].sum(), seen.nats[~clean].sum()
    print(
        f"{name:9} steps above log-SNR 1: {above:.1f} nats, below: {below:.1f}, "
        f"decoder: {seen.decoder:.1f}"
    )
plots.step_profile(profiles, title="The nats of each log-SNR")

# %% [markdown]
# ## Rate and distortion
#
# Read the chain as a code that is sent from noise to data. After the states down
# to $z_t$ the receiver has got some bits, the **rate**. It knows the image up to
# the error of $\hat x(z_t)$, the **distortion**. `profile` measures both,
# `refinement` continues inside the decoder, from coarse values to exact ones.
#
# Digits have 17 values. On the usual scale of 0 to 255 a difference of one value
# is 16 gray levels. We choose this as the limit: bits after a distortion of 16
# gray levels count as *imperceptible details*. Another limit gives another share.

# %%
# alt: Distortion against rate of the model trained with L, with the share of
#   bits for imperceptible details.
both = profiles["L"]
end = refinement(trained["L"], digits.test)
rate, gray = both.bits_per_dim(both.rate), 127.5 * both.rmse
print(f"rate of the whole chain          {float(rate[0]):.2f} bits/dim")
print(f"distortion at its clean end      {float(gray[0]):.1f} gray levels")
whole = float(rate[0] + both.bits_per_dim(end.nats[-1:])[0])
print(f"rate with the decoder            {whole:.2f} bits/dim")
plots.rate_distortion(
    {"L": both},
    threshold=16.0,
    ends={"L": end},
    title="Most bits encode imperceptible details",
)

# %% [markdown]
# ## The details themselves
#
# What does the last part of the code describe? We noise a test image to six
# levels and show the estimate $\hat x$ at each. The first level, $t = 0$, is the
# clean end of the chain: after it, only the decoder's bits are still to come.

# %%
# alt: A test image, its estimates at six noise levels, and the bits that are
#   known at each.
torch.manual_seed(0)
model = trained["L"]
MOMENTS = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
rows = []
for index in (3, 6):
    x = digits.test[index : index + 1].expand(len(MOMENTS), -1, -1, -1)
    with torch.no_grad():
        z = NoisingEncoder(own, digits.spec)(x).at(MOMENTS).sample()
        x_hat = model.diffusion.denoiser(z, own.log_snr(MOMENTS).float()).x_hat
    places = (MOMENTS * (len(both.rate) - 1)).round().long()
    bits = [f"{float(rate[place]):.2f}" for place in places]
    rows.append(
        plots.Row(
            "$z_t$",
            z.clamp(-1.5, 1.5) / 3 + 0.5,
            above=[f"t = {float(t):g}" for t in MOMENTS],
        )
    )
    rows.append(
        plots.Row(
            r"$\hat x(z_t)$",
            (x_hat.clamp(-1, 1) + 1) / 2,
            under=[f"{b} bits/dim" for b in bits],
        )
    )
plots.strips(rows, side=1.05, title="What is known after so many bits")

# %% [markdown]
# ## A weight as a knob
#
# An objective is a choice of weight. The figure shows, for three objectives, the
# share of the weight that lies above each log-SNR.

# %%
# alt: The share of the weight above each log-SNR, for the bound, L_simple and
#   min-SNR.
drawing = figure(8.0, 4.0, "How much weight lies at cleaner levels")
axes = plain(drawing.add_subplot())
colors = plots.palette(explained)
for name, found in explained.items():
    area = torch.cumulative_trapezoid(found.weight, found.log_snr)
    share = 1 - area / area[-1]
    axes.plot(found.log_snr[1:], share, color=colors[name], lw=2.2, label=name)
    part = float(share[(found.log_snr[1:] > 1.0).nonzero()[0, 0]])
    print(f"{name:9} {part:4.0%} of the weight lies above log-SNR 1")
axes.legend(frameon=False)
label_axes(
    axes,
    "log-SNR  (noise on the left, data on the right)",
    "share of the weight above it",
)
drawing

# %% [markdown]
# ## What you should see
#
# * $\lambda_2$ is about 120 times as large as $\lambda_{300}$: the bound stresses
#   the first steps. Both formulas of the weight agree.
# * Per unit of log-SNR, the bound is flat. $L_\text{simple}$ and min-SNR stress
#   the middle, near log-SNR 0.
# * With the same budget, $L$ has the better likelihood and $L_\text{simple}$ the
#   better samples. The lecture's table has the same order of the samples: the
#   Fréchet distance (FID) is 13.51 for $L$ and 3.17 for $L_\text{simple}$.
# * The order depends on the clean end. We tried four schedules in runs that this
#   page does not show. It shows the one that ends at a log-SNR of 5.5. At 4 the
#   samples are equally good (139 and 143) and $L$ has the better likelihood (2.25
#   and 2.51 bits/dim). At 8, and under DDPM's linear table, $L_\text{simple}$ is
#   better in both. Our guess: a network this small, trained for so few steps,
#   does not learn the many clean levels under $L$.
# * The likelihood is better under $L$ only through the decoder's part, the
#   cleanest of all. In the denoising steps $L_\text{simple}$ needs fewer nats.
# * More than half of the bits encode details below one value of a pixel. After a
#   fifth of all bits (0.51 of 2.67 bits/dim, at $t = 0.2$) the estimate already
#   looks much like the one at $t = 0$.
#
# !!! note "The slide"
#     The slide marks the denominator of $\lambda_t$ with "approaches zero!". For
#     $t = 1$ the factor $\sigma_1^2 = \tilde\beta_1$ is exactly zero, because
#     $\bar\alpha_0 = 1$. The bound has no such term: its first step is $t = 2$,
#     and $t = 1$ is the reconstruction.
#
# ## Exercises
#
# **1.** In continuous time the bound is
# $\frac12 \int \mathbb{E}\|\epsilon - \hat\epsilon\|^2 d\lambda$. Which weight
# $w(\lambda)$ on it is $L_\text{simple}$?
#
# ??? example "Solution"
#     $\mathbb{E}_t \|\cdot\|^2 = \int \|\cdot\|^2 \frac{dt}{d\lambda} d\lambda$,
#     so $w(\lambda) \propto -dt/d\lambda$: the density of the log-SNR at uniform
#     times. For the cosine this is $1 / (2\pi \cosh(\lambda / 2))$, the hump in
#     the second figure. So $L_\text{simple}$ depends on the schedule.
#
# **2.** In the second figure, the $w$ of $L_\text{simple}$ rises from $-6$ to
# $0$. Why does `explain` print that $L_\text{simple}$ bounds nothing?
#
# ??? example "Solution"
#     A weight that never rises is a mixture of bounds on noised data, with
#     probabilities $-dw$. Where $w$ rises, these would be negative (Kingma and
#     Gao 2023). It may still be a good loss.
#
# **3.** Does $L_\text{simple}$ change the optimal denoiser?
#
# ??? example "Solution"
#     No. If the network can represent every function, the minimum at each noise
#     level is $\mathbb{E}[\epsilon \mid x_t]$, for every positive weight. Weights
#     decide how a network of limited size uses its capacity, and how noisy the
#     gradients are.
#
# Next: [the U-Net](14-unet.md).
