# %% [markdown]
# # Why VAEs blur
#
# The lecture calls it the biggest drawback of VAEs: out of the box, generated images
# can be blurry. And it asks why. The short answer:
#
# > One code stands for many images, and the decoder's best answer is their **average**.
#
# This page derives the answer and checks it on a trained VAE. It measures how much
# detail is missing, and what brings it back.

# %%
import torch
from torch import Tensor

from genmod import VAE, Diffusion, data, evaluate, fit, gaussian, plots
from genmod.data import Dataset
from genmod.decoders import GaussianDecoder, GlobalScale
from genmod.distributions import Normal
from genmod.nn import MLP
from genmod.plots.style import COLORS, figure, label_axes, plain

torch.manual_seed(0)
STEPS = 1_500  # few: 20
DIFFUSION_STEPS = 1_500  # few: 20
SAMPLES = 400  # few: 30

digits = data.load("digits")
labels = digits.labels or {}
train, validation, test = (
    part.float() / 16 for part in (digits.train, digits.validation, digits.test)
)
images = Dataset("digits, ink in [0, 1]", train, validation, test)

# %% [markdown]
# ## The best answer is the average
#
# Let a Gaussian decoder with mean $d(z)$ and standard deviation $s$ be trained on pairs
# of a code and its image. Its loss is the expected squared error,
#
# $$-\log p(x|z) = \frac{1}{2 s^2} \lVert x - d(z) \rVert^2 + \text{const}.$$
#
# Many images $x$ share a code $z$. Setting the derivative to zero,
# $\mathbb{E}[x - d(z) \,|\, z] = 0$, gives
#
# $$d^*(z) = \mathbb{E}[x \,|\, z],$$
#
# the average of all images that could have had this code. An average of sharp images is
# not sharp. Below, $k$ images of a 3 are averaged; no network is involved.

# %%
# alt: Averages of 1, 2, 4, 8, 16 and 64 images of a three; they get softer.
threes = train[labels["train"] == 3]
counts = [1, 2, 4, 8, 16, 64]
averages = torch.stack([threes[:count].mean(0) for count in counts])
by_label = torch.stack(
    [train[labels["train"] == digit].mean(0) for digit in range(6)]
)
plots.strips(
    [
        plots.Row(
            "average of\nk images of a 3",
            averages,
            under=[f"k = {c}" for c in counts],
        ),
        plots.Row(
            "average of\nall images",
            by_label,
            under=[f"of a {d}" for d in range(6)],
        ),
    ],
    title="An average of sharp images is soft",
)

# %% [markdown]
# For a given *encoder* the best decoder can be written down. The code $z$ comes from
# image $x_n$ with a probability proportional to $q(z | x_n)$, so by Bayes' rule
#
# $$d^*(z) = \frac{\sum_n q(z | x_n)\, x_n}{\sum_n q(z | x_n)}.$$
#
# We train three VAEs, with 2, 8 and 32 latents, and compare their decoders with this
# formula. `model.posterior(x)` is $q(z|x)$, and
# `gaussian.log_prob` gives the weights.


# %%
def build(latents: int) -> VAE:
    """A VAE with a Gaussian decoder of one learned standard deviation."""
    network = MLP((latents,), 64, width=128)
    decoder = GaussianDecoder(network, images.shape, GlobalScale(0.3, gain=5.0))
    return VAE(images, latents=latents, width=128, decoder=decoder)


@torch.no_grad()
def best_decoder(model: VAE, z: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted average of training images, and how many images share a code."""
    q = model.posterior(train)
    assert isinstance(q, Normal)
    log_q = gaussian.log_prob(z[:, None], q.mean, q.stddev).sum(-1)
    weight = log_q.softmax(1)
    return (weight @ train.flatten(1)).reshape(
        -1, 1, 8, 8
    ), 1 / weight.square().sum(1)


models = {latents: build(latents) for latents in (2, 8, 32)}
for model in models.values():
    fit(model, images, steps=STEPS, learning_rate=2e-3, progress=False)

print(
    "latents   images that share a code   |x - d(z)|^2   |d*(z) - d(z)|^2   nats"
)
for latents, model in models.items():
    z = model.encode(train[:300])
    assert isinstance(z, Tensor)
    star, shared = best_decoder(model, z)
    decoded = model.decode(z).mean
    error = (train[:300] - decoded).square().flatten(1).sum(1).mean()
    apart = (star - decoded).square().flatten(1).sum(1).mean()
    rate = evaluate(model, images.test).terms["prior"].mean
    print(
        f"{latents:7d}   {shared.median():24.1f}   {error:12.2f}   {apart:16.2f}   {rate:4.1f}"
    )

# %%
# alt: Rows of images, the decoder's mean, and the weighted average, which look alike.
shown = images.test[:8]
two = models[2]
z = two.encode(shown)
assert isinstance(z, Tensor)
plots.reconstructions(
    shown,
    {
        "decoder d(z)": two.decode(z).mean,
        "weighted average d*(z)": best_decoder(two, z)[0],
    },
    highest=1.0,
    title="Two latents: the decoder is a weighted average",
)

# %% [markdown]
# With two latents the decoder is close to the average of the formula: closer than to
# the image itself. With more latents fewer images share a code, and the pictures get
# sharper. (With 8 or 32 latents and only 1,294 images, hardly any training image shares
# a code, so the formula copies its input: the two squared errors of these rows agree.
# The trained networks do not copy.)
#
# ## How much detail is missing?
#
# The law of total variance splits the variance of the data into two parts:
#
# $$\mathrm{Var}[x] = \underbrace{\mathrm{Var}\big[\mathbb{E}[x|z]\big]}_{\text{what the
# means show}} + \underbrace{\mathbb{E}\big[\mathrm{Var}[x|z]\big]}_{\text{what the
# average removed}}.$$
#
# The same holds for every spatial frequency. Blur means that the second term is large
# at *high* frequencies. So we compare the power spectrum of decoded means with that of
# the data. A diffusion model, trained on the same images, is compared with the VAEs.
# For the VAEs we decode means, without the noise of $p(x|z)$. For the diffusion we take
# its samples.

# %%
diffusion = Diffusion(digits, steps=100, width=128)
fit(
    diffusion, digits, steps=DIFFUSION_STEPS, learning_rate=2e-3, progress=False
)


# %%
def spectrum(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Spatial frequencies, and the mean power at each."""
    frequency = torch.fft.fftfreq(8)
    distance = torch.hypot(frequency[:, None], frequency[None, :])
    power = (
        torch.fft.fft2(pictures[:, 0].double(), norm="ortho")
        .abs()
        .square()
        .mean(0)
    )
    ring = (distance * 8).round().long()
    rings = range(1, 5)
    return torch.tensor(rings) / 8, torch.stack(
        [power[ring == r].mean() for r in rings]
    )


def high(pictures: Tensor) -> tuple[float, float]:
    """Power above half the Nyquist frequency, relative to test images, and its error."""
    frequency = torch.fft.fftfreq(8)
    mask = torch.hypot(frequency[:, None], frequency[None, :]) > 0.25
    both = []
    for each in (pictures, images.test):
        squares = (
            torch.fft.fft2(each[:, 0].double(), norm="ortho").abs().square()
        )
        both.append(squares[:, mask].sum(1))
    ratio = float(both[0].mean() / both[1].mean())
    error = float(both[0].std() / both[0].mean()) / len(pictures) ** 0.5
    return ratio, ratio * error


bars, spectra = {}, {}
_, reference = spectrum(images.test)
for latents, model in models.items():
    name = f"VAE, {latents} latents"
    means = model.decode(torch.randn(SAMPLES, latents)).mean
    bars[name] = {
        "samples": high(means),
        "reconstructions": high(model.reconstruct(images.test)),
    }
    frequency, power = spectrum(means)
    spectra[name] = (frequency, power / reference)
drawn = diffusion.sample(SAMPLES, seeds=range(SAMPLES)).float() / 16
bars["diffusion"] = {"samples": high(drawn)}
frequency, power = spectrum(drawn)
spectra["diffusion"] = (frequency, power / reference)
print("power at high frequencies, test images = 1")
for name, kinds in bars.items():
    for kind, (ratio, uncertain) in kinds.items():
        print(f"{name:16s} {kind:16s} {ratio:.2f} ± {uncertain:.2f}")

# %%
# alt: Bars: decoded means of VAEs have too little power at high frequencies, the
#   diffusion nearly as much as the data.
plots.sharpness(bars, title="Power at high frequencies, by model")

# %%
# alt: Curves: the power of samples falls with the frequency for the VAEs, and ends
#   at that of the data for the diffusion.
plots.sharpness({}, spectra, title="The VAEs lack the highest frequencies")

# %% [markdown]
# ## Why do draws of p(x|z) not help?
#
# A sample of the model is not the mean $d(z)$, but a draw
# $x \sim \mathcal{N}(d(z), s^2)$. Its total power is about right, because training fits
# $s$ to the residual. But the decoder's pixels are *independent given $z$*: the draw
# adds white noise. What the average removed is not white. It is parts of strokes, whose
# neighboring pixels are alike. We compare the correlations of neighboring pixels.

# %%
model = models[2]
with torch.no_grad():
    law = model.decode(model.encode(images.test))
residual = images.test - law.mean
noise = law.sample() - law.mean


def neighbors(pictures: Tensor) -> float:
    """The correlation of each pixel with the one below it."""
    above, below = pictures[:, 0, :-1].flatten(), pictures[:, 0, 1:].flatten()
    return float(torch.corrcoef(torch.stack([above, below]))[0, 1])


print(
    f"std of the residual {residual.std():.3f}, of the decoder's noise {noise.std():.3f}"
)
print(
    f"neighbors in the residual:        correlation {neighbors(residual):+.2f}"
)
print(f"neighbors in the decoder's noise: correlation {neighbors(noise):+.2f}")

# %%
# alt: An image, its mean, a draw with white noise, the true residual with strokes,
#   and the decoder's noise without.
rows = slice(0, 8)
plots.strips(
    [
        plots.Row("image x", images.test[rows]),
        plots.Row("mean d(z)", law.mean[rows]),
        plots.Row("draw of p(x|z)", (law.mean + noise)[rows].clamp(0, 1)),
        plots.Row("residual x - d(z)", 0.5 + residual[rows]),
        plots.Row("decoder's noise", 0.5 + noise[rows]),
    ],
    title="What the average removed, and what is drawn instead",
)

# %% [markdown]
# ## Maximum likelihood covers, the reverse KL chooses
#
# Averages are not special to squared error. Maximum likelihood minimizes
# $\mathrm{KL}(p_{\text{data}} \,\|\, p_\theta)$. It punishes a model that gives *no*
# probability to data, so a model that is too simple spreads over everything. The
# reverse divergence punishes probability where there are *no* data, so a model that is
# too simple chooses one mode. GANs often behave more like the second: sharp, and with
# images missing. [The last page](20-compared.md) trains one. Here a single Gaussian is
# fitted to two modes in both ways.

# %%
# alt: A bimodal density; maximum likelihood lies across both modes, the reverse KL
#   sits on one.
grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)
step = float(grid[1] - grid[0])
width = torch.tensor(0.5)
modes = [
    gaussian.log_prob(grid, torch.tensor(c), width).exp() for c in (-2.0, 2.0)
]
truth = (modes[0] + modes[1]) / 2


def fitted(forward: bool) -> tuple[float, float]:
    """Mean and std of the Gaussian with the lowest KL from, or to, the truth."""
    mean = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    log_std = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_std], lr=0.02)
    for _ in range(800):
        log_p = gaussian.log_prob(grid, mean, log_std.exp())
        ratio = truth.log() - log_p
        loss = (
            (truth * ratio) if forward else (-log_p.exp() * ratio)
        ).sum() * step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return mean.item(), log_std.exp().item()


page = figure(8.4, 3.9, "One Gaussian for two modes")
axes = plain(page.add_subplot())
axes.fill_between(grid, truth, color=COLORS[5], alpha=0.3, lw=0, label="data")
for forward, name, color in (
    (True, "KL(data || model): likelihood", COLORS[0]),
    (False, "KL(model || data): chooses", COLORS[1]),
):
    mean, std = fitted(forward)
    inside = float(truth[(grid - mean).abs() < 2 * std].sum() * step)
    print(
        f"{name:30s} N({mean:.2f}, {std:.2f}^2), covers {inside:.0%} of the data"
    )
    density = gaussian.log_prob(
        grid, torch.tensor(mean), torch.tensor(std)
    ).exp()
    axes.plot(grid, density, color=color, lw=2.5, label=name)
label_axes(axes, "x", "density").set_ylim(top=1.1)
axes.legend(frameon=False, fontsize=10.5)
page

# %% [markdown]
# ## What you should see
#
# * Averages of a few images of the same digit are soft already.
# * With two latents about four training images share a code, and the decoder is
#   nearer to their weighted average than to the image.
# * Means of the VAE with two latents have 60 % of the data's power at high frequencies.
#   With 32 latents it is 81 %, at a higher rate: 23 nats in place of 6. The diffusion
#   has 89 %, and the right power at the highest frequency.
# * The decoder's noise has nearly the right size, but neighbors in it are independent.
#   Neighbors in the residual are correlated.
# * Maximum likelihood covers both modes; the reverse divergence takes one of them.
#
# What helps, then? Whatever leaves less to average: more latents, a hierarchy of
# latents, or the many small steps of a diffusion, each with little to average. Next:
# [hierarchical VAEs](07-hierarchical.md).
#
# ## Exercises
#
# **1.** Under absolute error, $\lVert x - d(z) \rVert_1$, what is the best answer? Is it
# sharper?
#
# ??? example "Solution"
#     The *median* of each pixel. It has sharper edges, but it is still one answer for
#     all images with this code, and pixels are chosen one by one: strokes of
#     different images are mixed. `decoders.LaplaceDecoder` has this loss.
#
# **2.** A decoder has $s = 0.01$, fixed. What happens to the rate, and to samples?
#
# ??? example "Solution"
#     The reconstruction term counts $0.5 / s^2 = 5000$ times the squared error, so
#     training lowers the error and lets the rate grow. Reconstructions get sharp. But
#     the aggregate posterior no longer matches the prior, so samples get worse: it is
#     nearly an autoencoder.
#
# **3.** Check the law of total variance for reconstructions of the VAE with two
# latents. Is the variance of test images the sum of the two terms?
#
# ??? example "Solution"
#     ```python
#     total = images.test.var(0).sum()
#     means = law.mean.var(0).sum()
#     left = residual.var(0).sum()
#     print(f"{total:.2f} = {means:.2f} + {left:.2f} + {total - means - left:+.2f}")
#     ```
#     Nearly. The last number is twice the covariance of mean and residual. It is zero
#     if $d(z)$ is exactly the conditional mean.
