# %% [markdown]
# # Data prediction: the same network, seen from the other side
#
# A network that predicts the noise also predicts the image. Solve
# $x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon$ for
# $x_0$, and put the predicted noise in its place:
#
# $$x_0 = \frac{x_t - \sqrt{1 - \bar\alpha_t}\, \epsilon}{\sqrt{\bar\alpha_t}}
# \quad\Longrightarrow\quad
# x_\theta(x_t, t)
# = \frac{x_t - \sqrt{1 - \bar\alpha_t}\, \epsilon_\theta(x_t, t)}{\sqrt{\bar\alpha_t}}.$$
#
# For sampling we want $q(x_{t-1} \mid x_t, x_0)$ and do not have $x_0$. So we use
# the estimate:
#
# $$p_\theta(x_{t-1} \mid x_t) = q\big(x_{t-1} \mid x_t,\ x_0 = x_\theta(x_t, t)\big).$$
#
# In genmod this is the definition of a reverse step, whatever the network
# predicts. A *target* converts its output to `x_hat`.

# %%
import torch
from torch import Tensor

from genmod import Diffusion, data, evaluate, fit, plots
from genmod.denoisers import (
    DataTarget,
    EmpiricalDenoiser,
    Learned,
    NoiseTarget,
    Target,
    VelocityTarget,
    convert,
)
from genmod.diffusion import NoisingEncoder
from genmod.evaluation import quality
from genmod.models import with_steps
from genmod.nn import MLPs
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.schedules import LinearLogSNR

STEPS = 1_000  # few: 10
SAMPLES = 300  # few: 80
LENGTHS = (4, 8, 16, 32, 64)  # few: (4, 8)

digits = data.load("digits")
schedule = LinearLogSNR(clean=4.0, noisy=-8.0)

# %% [markdown]
# ## Three targets, the same information
#
# With $\alpha = \sqrt{\bar\alpha_t}$ and $\sigma = \sqrt{1 - \bar\alpha_t}$, a
# network may predict the **noise** $\epsilon$, the **data** $x$, or the
# **velocity** $v = \alpha \epsilon - \sigma x$ (Salimans and Ho 2022). Given
# $x_t$, each is a linear function of any other: `denoisers.convert` converts them
# exactly.

# %%
torch.manual_seed(0)
x = NoisingEncoder(schedule, digits.spec).real(digits.test[:4]).double()
eps = torch.randn_like(x)
level = torch.tensor([4.0, 1.0, -2.0, -8.0], dtype=torch.float64)  # log-SNRs
alpha = level.sigmoid().sqrt().reshape(-1, 1, 1, 1)
sigma = (-level).sigmoid().sqrt().reshape(-1, 1, 1, 1)
z = alpha * x + sigma * eps
there = convert(eps, NoiseTarget(), DataTarget(), z, level)
velocity = convert(eps, NoiseTarget(), VelocityTarget(), z, level)
back = convert(velocity, VelocityTarget(), NoiseTarget(), z, level)
print("noise to data         ", f"{(there - x).abs().max():.1e}")
print(
    "noise to velocity     ",
    f"{(velocity - (alpha * eps - sigma * x)).abs().max():.1e}",
)
print("velocity back to noise", f"{(back - eps).abs().max():.1e}")

# %% [markdown]
# ## But errors are not the same
#
# The state $x_t$ cancels in a difference of two predictions. So errors convert by
# a factor:
#
# $$\|\epsilon - \hat\epsilon\|^2 = \frac{\alpha^2}{\sigma^2} \|x - \hat x\|^2
# = \mathrm{SNR}\, \|x - \hat x\|^2
# = \alpha^2 \|v - \hat v\|^2.$$
#
# The figure shows how much an error of size 1 in the network's output moves
# $\hat x$.

# %%
# alt: The error of x_hat for an error of one in the output, against log-SNR:
#   large in noise for noise prediction.
wrong = eps + 0.01 * torch.randn_like(eps)
x_wrong = convert(wrong, NoiseTarget(), DataTarget(), z, level)
ratio = (x - x_wrong).square().flatten(1).sum(1) / (
    eps - wrong
).square().flatten(1).sum(1)
print("log-SNR                 ", level.tolist())
print("|x - x_hat|^2 / |e - e_hat|^2", [f"{r:.4g}" for r in ratio])
print("1 / SNR                 ", [f"{r:.4g}" for r in (-level).exp()])

grid = torch.linspace(-8, 8, 200)
drawing = figure(
    8.2, 3.9, "How an error of the network moves the estimate of the image"
)
axes = plain(drawing.add_subplot())
axes.plot(
    grid,
    (-grid / 2).exp(),
    lw=2.4,
    color="#3b6fb6",
    label=r"noise: $\sigma / \alpha$",
)
axes.plot(grid, torch.ones_like(grid), lw=2.4, color="#d1495b", label="data: 1")
axes.plot(
    grid,
    (-grid).sigmoid().sqrt(),
    lw=2.4,
    color="#2a9d8f",
    label=r"velocity: $\sigma$",
)
axes.set_yscale("log")
axes.legend(frameon=False, fontsize=LABEL)
label_axes(axes, "log-SNR  (noise on the left, data on the right)", "factor")
drawing

# %% [markdown]
# Noise prediction divides by $\alpha$. At log-SNR $-8$ an error of the network is
# multiplied by 55. Data prediction never multiplies, but at the clean end it must
# repeat an image that it is already given. Velocity prediction has a factor of at
# most 1. Its target is the noise at the clean end, and minus the image at the
# noisy end, so it never has to repeat its input. It is genmod's default.
#
# ## Train all three
#
# The same network, data, loss (the bound) and steps; only the target differs.

# %%
TARGETS: dict[str, Target] = {
    "noise": NoiseTarget(),
    "data": DataTarget(),
    "velocity": VelocityTarget(),
}
models: dict[str, Diffusion] = {}
for name, target in TARGETS.items():
    torch.manual_seed(0)
    network = MLPs(width=128, depth=3, dropout=0.1).denoiser(digits.shape)
    model = Diffusion(
        digits, denoiser=Learned(network, target), schedule=schedule, steps=128
    )
    fit(model, digits, steps=STEPS, learning_rate=2e-3, progress=False)
    report = evaluate(model, digits.test)
    print(f"{name:9} {report.bits_per_dim} bits/dim ({report.stamp.value})")
    models[name] = model

# %% [markdown]
# ## What the estimate looks like
#
# The same noised images for all three networks. The last row is the best estimate
# for the *training* set, the weighted average of all its images
# (`EmpiricalDenoiser`).

# %%
# alt: A test digit noised to six levels and its estimate by the three networks
#   and by the training set.
LEVELS = torch.tensor([4.0, 2.0, 0.0, -2.0, -5.0, -8.0])
torch.manual_seed(0)
x = (
    models["noise"]
    .encoder.real(digits.test[15:16])
    .expand(len(LEVELS), -1, -1, -1)
)
alpha = LEVELS.sigmoid().sqrt().reshape(-1, 1, 1, 1)
sigma = (-LEVELS).sigmoid().sqrt().reshape(-1, 1, 1, 1)
z = alpha * x + sigma * torch.randn(1, 1, 8, 8)


def shown(images: Tensor) -> Tensor:
    """From [-1.5, 1.5] to [0, 1]."""
    return images.clamp(-1.5, 1.5) / 3 + 0.5


rows = [
    plots.Row(
        "$x_t$", shown(z), above=[f"log-SNR {v:g}" for v in LEVELS.tolist()]
    )
]
for name, model in models.items():
    with torch.no_grad():
        rows.append(
            plots.Row(
                f"{name} network",
                shown(model.diffusion.denoiser(z, LEVELS).x_hat),
            )
        )
train = models["noise"].encoder.real(digits.train)
rows.append(
    plots.Row("training set", shown(EmpiricalDenoiser(train)(z, LEVELS).x_hat))
)
plots.strips(rows, side=0.95, title=r"The estimate of the image, $\hat x(x_t)$")

# %% [markdown]
# At high noise the best estimate is a **mean**, so it is blurred. It is not a
# sample. A reverse step moves only a small part of the way to it and adds noise.
# Then the network makes a new estimate.
#
# ## The reverse step is q with the estimate in place of the data
#
# `NoisingEncoder(schedule)(x).given(s, t, z)` is $q(x_s \mid x_t, x)$ for any
# $x$. With $\hat x$ in place of $x$ it is the model's own step,
# `model.diffusion.reverse.law(z, t, s)`. And the KL between the two, with the
# *same* variance, is the squared error of the data, weighted by the difference of
# SNRs:
#
# $$\mathrm{KL}_t = \tfrac12 \big(\mathrm{SNR}(s) - \mathrm{SNR}(t)\big)\, \|x - \hat x(x_t)\|^2.$$

# %%
model = models["velocity"].double()
x, z = x.double(), z.double()
t = torch.full((len(x),), 0.5, dtype=torch.float64)
s = torch.full((len(x),), 0.45, dtype=torch.float64)
with torch.no_grad():
    z_t = NoisingEncoder(schedule)(x).at(t).sample()
    x_hat = model.diffusion.denoiser(z_t, schedule.log_snr(t)).x_hat
    p = model.diffusion.reverse.law(z_t, t, s)
    q_hat = NoisingEncoder(schedule)(x_hat).given(s, t, z_t)
    q = NoisingEncoder(schedule)(x).given(s, t, z_t)
print(
    "p and q with the estimate: largest difference of means",
    f"{(p.mean - q_hat.mean).abs().max():.1e}",
)
nats = ((q.mean - p.mean).square() / (2 * q.variance)).flatten(1).sum(1)
snr_s, snr_t = schedule.log_snr(s).exp(), schedule.log_snr(t).exp()
closed = 0.5 * (snr_s - snr_t) * (x - x_hat).square().flatten(1).sum(1)
print("KL of the two laws       ", [f"{v:.6f}" for v in nats[:4]])
print("from the error of the data", [f"{v:.6f}" for v in closed[:4]])

# %% [markdown]
# ## With few steps
#
# With few steps, the first step from pure noise is long, and it uses an estimate
# at the noisiest level. How do the three targets do then? The networks do not
# change; `with_steps` changes the chain.

# %%
# alt: Bits per dimension and Frechet distance against the number of latents for
#   the three targets.
drawing = figure(10.4, 4.2, "Few latents: predicting the data does best here")
left, right = (
    plain(drawing.add_subplot(1, 2, 1)),
    plain(drawing.add_subplot(1, 2, 2)),
)
print("target   " + "".join(f"{f'T = {count}':>16}" for count in LENGTHS))
for (name, model), color in zip(
    models.items(), ("#3b6fb6", "#d1495b", "#2a9d8f"), strict=True
):
    bits, distance = [], []
    for count in LENGTHS:
        chain = with_steps(model.float(), count)
        report = evaluate(chain, digits.test)
        assert report.bits_per_dim is not None
        bits.append(report.bits_per_dim.mean)
        found = chain.sample(SAMPLES, seeds=range(SAMPLES))
        distance.append(quality(found, digits).frechet)
    left.plot(LENGTHS, bits, marker="o", lw=2.2, color=color, label=name)
    right.plot(LENGTHS, distance, marker="o", lw=2.2, color=color, label=name)
    print(
        f"{name:9}"
        + "".join(
            f"{f'{b:.2f} / {d:.0f}':>16}"
            for b, d in zip(bits, distance, strict=True)
        )
    )
print("         (bits/dim of the bound / Frechet distance of samples)")
for axes, label in (
    (left, "bits/dim (test, bound)"),
    (right, "Fréchet distance of samples"),
):
    axes.set_xscale("log", base=2)
    axes.set_xticks(LENGTHS, [str(count) for count in LENGTHS])
    label_axes(axes, "T, the number of latents", label)
left.legend(frameon=False, fontsize=LABEL)
drawing

# %% [markdown]
# ## What you should see
#
# * Conversions are exact. An error of the noise at log-SNR $-8$ moves the image
#   55 times as far: its square is multiplied by 2981.
# * The noise network's estimate is useless at the noisy end, as on the page on
#   the [objective](12-objective.md). In the bound it does no harm there, because
#   the bound counts errors of the *noise*.
# * The estimates of the data network and of the velocity network become means as
#   the noise grows. That of the training set is a training image at low noise.
# * The model's step *is* $q$ with the estimate, and its KL is the weighted error
#   of the data.
# * Here the data network is best, by far with four steps. Noise and velocity have
#   nearly the same bound from 8 steps on, but the samples of the velocity network
#   are then the worst. These are small networks, trained for a short time, with
#   one seed. genmod's default is the velocity; for the choice see
#   [predictions and variances](../guides/predictions.md).
#
# !!! note "The slide"
#     The slide ends with
#     $q(x_{t-1} \mid x_t, x_\theta(x_t, t)) \approx q(x_{t-1} \mid x_t, x_0)$.
#     For a given image the two differ: the estimate is a mean, the image is not.
#     The KL above is about one nat for a step of 0.05. For short steps,
#     $p_\theta(x_{t-1} \mid x_t)$ approximates the *average* of
#     $q(x_{t-1} \mid x_t, x_0)$ over all $x_0$ that $x_t$ may come from.
#
# ## Exercises
#
# **1.** Show that the bound's term has the factor
# $\frac12 (\mathrm{SNR}(s) - \mathrm{SNR}(t))$ in terms of data errors.
#
# ??? example "Solution"
#     The posterior's mean is $\text{coef}_z z_t + \text{coef}_x x$ with
#     $\text{coef}_x = \alpha_s c$, and its variance is $\sigma_s^2 c$, with
#     $c = 1 - \mathrm{SNR}(t) / \mathrm{SNR}(s)$. So
#
#     $$\mathrm{KL} = \frac{\alpha_s^2 c^2}{2 \sigma_s^2 c} \|x - \hat x\|^2
#     = \tfrac12 \mathrm{SNR}(s)\, c\, \|x - \hat x\|^2.$$
#
# **2.** A data network always predicts the mean image $\bar x$. Which noise does
# it imply?
#
# ??? example "Solution"
#     $\hat\epsilon = (x_t - \alpha \bar x) / \sigma$. At $\alpha \to 0$ this is
#     $x_t$ itself. That is right in pure noise, where $x_t = \epsilon$. At the
#     clean end its error is $\alpha (x - \bar x) / \sigma$, which is large.
#
# **3.** Why does a data network have trouble at the clean end?
#
# ??? example "Solution"
#     The bound multiplies its error by the SNR, $e^4 = 55$ here. It must copy its
#     input to within the noise. A velocity network has this copy in its target:
#     $\hat x = \alpha x_t - \sigma \hat v$.
#
# Next: [diffusion as a hierarchical VAE](17-hierarchical-vae.md).
