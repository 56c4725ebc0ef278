# %% [markdown]
# # VAE, GAN and diffusion compared
#
# The lecture ends with three families side by side: VAEs maximize a bound on the
# likelihood, GANs play a game, diffusion models reverse the adding of noise. A
# well-known picture places them at the corners of a triangle: *good samples*, *all
# modes covered*, *fast sampling*. This page trains one of each on the digits, with
# networks of about the same size, and measures all three corners, and the likelihood.
#
# genmod has no GAN: a GAN has no $q$ and no bound, so nothing that the rest of the
# package could compute. So this page builds a small one, as an example from outside the
# family.

# %%
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genmod import VAE, Diffusion, data, evaluate, fit, plots
from genmod.evaluation import features, frechet_distance
from genmod.nn import MLP
from genmod.plots.style import COLORS, INK, figure, label_axes, plain
from genmod.samplers import DDIM

STEPS = 2_500  # few: 15
SAMPLES = 350  # few: 100
TIMED = 200  # few: 20

digits = data.load("digits")
test, train = digits.test, digits.train
labels = digits.labels or {}

# %% [markdown]
# ## The two with a bound

# %%
torch.manual_seed(0)
vae = VAE(digits, latents=16, width=128)
fit(vae, digits, steps=STEPS, learning_rate=2e-3, progress=False)
diffusion = Diffusion(digits, steps=200, width=160)
fit(diffusion, digits, steps=STEPS, learning_rate=3e-3, progress=False)
reports = {
    "VAE": evaluate(vae, digits.test),
    "diffusion": evaluate(diffusion, digits.test),
}
for name, report in reports.items():
    print(
        f"{name:10s} {report.stamp.value}: {report.value} nats = {report.bits_per_dim} bits/dim"
    )

# %% [markdown]
# ## A GAN, from our decoder network
#
# A **generator** $g$ maps noise to an image: $x = g(z)$, $z \sim \mathcal{N}(\mathbf{0},
# \mathbf{I})$. It is the network of a VAE's decoder, without a distribution behind it.
# A **discriminator** $D$ learns to tell real images from generated ones, and the
# generator learns to fool it:
#
# $$\max_D\; \mathbb{E}_{x}[\log D(x)] + \mathbb{E}_{z}[\log(1 - D(g(z)))],
# \qquad \max_g\; \mathbb{E}_{z}[\log D(g(z))].$$
#
# There is no encoder and no density. With 16 latents, the images of $g$ are a thin set
# among all images of 64 pixels. Almost every image has density zero, so there is no
# useful likelihood of test images.


# %%
def real(images: Tensor) -> Tensor:
    """Images on [-1, 1], with noise inside a bin, as vectors."""
    return (images.flatten(1) + torch.rand(len(images), 64)) / 8.5 - 1


def to_ink(values: Tensor) -> Tensor:
    """Back to integers 0 to 16."""
    return ((values + 1) * 8.5).floor().clamp(0, 16).long().reshape(-1, 1, 8, 8)


class Discriminator(nn.Module):
    """The log-odds that an image is real."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, width), nn.LeakyReLU(0.2), nn.Dropout(0.3),
            nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Dropout(0.3),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """One number a row."""
        odds: Tensor = self.layers(x)
        return odds


def train_gan(seed: int) -> tuple[MLP, list[tuple[float, float]]]:
    """The generator, and the losses of both players during training."""
    torch.manual_seed(seed)
    generator, discriminator = MLP((16,), 64, width=128), Discriminator()
    players = [
        torch.optim.Adam(net.parameters(), lr=rate, betas=(0.5, 0.9))
        for net, rate in ((generator, 5e-4), (discriminator, 1e-3))
    ]
    losses = []
    for _ in range(STEPS):
        x = real(train[torch.randint(len(train), (128,))])
        fake = generator(torch.randn(128, 16)).tanh()
        # softplus(-odds) = -log D, softplus(odds) = -log(1 - D)
        told_apart = nn.functional.softplus(-discriminator(x)).mean()
        told_apart = (
            told_apart
            + nn.functional.softplus(discriminator(fake.detach())).mean()
        )
        players[1].zero_grad()
        told_apart.backward()
        players[1].step()
        fooled = nn.functional.softplus(-discriminator(fake)).mean()
        players[0].zero_grad()
        fooled.backward()
        players[0].step()
        losses.append((told_apart.item(), fooled.item()))
    return generator.eval(), losses


generator, losses = train_gan(0)


@torch.no_grad()
def gan_sample(n: int) -> Tensor:
    """Draws of the GAN: one pass of the generator."""
    return to_ink(generator(torch.randn(n, 16)).tanh())


# alt: Losses of the two players during training, with their values at a draw
#   between the players; they move against each other.
page = figure(8.4, 3.6, "The two losses of the GAN: a game, not a descent")
axes = plain(page.add_subplot())
window = max(1, STEPS // 60)
for index, name in enumerate(("discriminator", "generator")):
    curve = torch.tensor(losses)[:, index]
    smooth = torch.stack([part.mean() for part in curve.split(window)])
    axes.plot(
        torch.arange(len(smooth)) * window,
        smooth,
        color=COLORS[index],
        lw=2,
        label=name,
    )
axes.axhline(
    2 * 0.6931, color=INK, lw=1, ls=":", label="discriminator that only guesses"
)
label_axes(axes, "step of training", "loss")
axes.legend(frameon=False, fontsize=10.5)
page

# %% [markdown]
# A bound measures how good a model is, and training raises it. A loss of a GAN measures
# a network only against the other network. Here both losses approach those of a
# discriminator that only guesses: 1.39 and 0.69. This does not mean that the samples
# are good.
#
# ## Samples

# %%
# alt: Test images beside samples of the VAE, the GAN and the diffusion.
draws: dict[str, Callable[[int], Tensor]] = {
    "VAE": vae.sample,
    "GAN": gan_sample,
    "diffusion": diffusion.sample,
    "diffusion, 10 steps": lambda n: diffusion.sample(
        n, steps=10, sampler=DDIM()
    ),
}
torch.manual_seed(1)
drawn = {name: sample(SAMPLES).long() for name, sample in draws.items()}
plots.samples(
    {
        "test images": test[:36],
        **{n: x[:36] for n, x in drawn.items() if "," not in n},
    },
    highest=16,
    title="Samples of three families",
)

# %% [markdown]
# ## Measures
#
# **Quality** is a Fréchet distance: the distance between two Gaussians, fitted to
# features of samples and of test images (`evaluation.frechet_distance`). Smaller is
# better. From a few hundred images the estimate is too large, for every model, so it is
# only good for comparisons. Bad samples and missing ones both raise it. So we also take
# two measures of one thing each. Around every test image lies a ball that just reaches
# its 5th neighbor among the test images. Then
#
# * **precision** is the share of samples that lie in some ball: do they look real?
# * **coverage** is the share of test images whose ball holds a sample: are all kinds
#   of images made?
#
# The features are those of the package's own small network, `evaluation.features`.
# Training images are measured as well. A perfect model would have about their values.


# %%
def near(samples: Tensor, neighbor: int = 5) -> tuple[float, float]:
    """Precision and coverage, in features."""
    real, found = features(test.float() / 16), features(samples.float() / 16)
    radius = torch.cdist(real, real).kthvalue(neighbor + 1, dim=1).values
    inside = torch.cdist(found, real) <= radius
    return float(inside.any(1).float().mean()), float(
        inside.any(0).float().mean()
    )


def seconds(sample: Callable[[int], Tensor]) -> float:
    """Seconds of processor time for one sample, drawn many at a time."""
    sample(2)
    start = time.process_time()
    sample(TIMED)
    return (time.process_time() - start) / TIMED


order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
drawn = {"training images": train[order[:SAMPLES]].long(), **drawn}
bounds = {
    name: f"{each.value.mean:.1f} (bound)" for name, each in reports.items()
}
real_features = features(test.float() / 16)
rows = {}
for name, samples in drawn.items():
    distance = frechet_distance(features(samples.float() / 16), real_features)
    took = seconds(draws[name]) if name in draws else 0.0
    rows[name] = (distance, *near(samples), took)

print(f"{'':20s} Fréchet  precision  coverage  microseconds  log p(x), nats")
for name, (frechet, precision, coverage, took) in rows.items():
    speed = f"{1e6 * took:12.0f}" if took else f"{'':12s}"
    nats = bounds.get(name, "none" if name in draws else "")
    print(
        f"{name:20s} {frechet:7.1f}  {precision:9.2f}  {coverage:8.2f}"
        f"  {speed}  {nats:>14s}"
    )

# %% [markdown]
# The fourth column is processor time for one sample, when many are drawn together.
# "None" is not a bad value: the GAN has no likelihood at all. The diffusion with 10
# steps of another sampler (DDIM) has the same network, but the bound does not describe
# its samples.
#
# ## The triangle, measured

# %%
# alt: Coverage against precision for all models, labeled with the time of a
#   sample; diffusion is at the upper right and slow.
page = figure(8.6, 4.6, "Quality, coverage, and the time of a sample")
axes = plain(page.add_subplot())
for (name, (_, precision, coverage, took)), color in zip(
    rows.items(), (INK, *COLORS), strict=False
):
    axes.plot(precision, coverage, "o" if took else "*", ms=15, color=color)
    label = f"{name}\n{1e6 * took:.0f} µs a sample" if took else name
    axes.annotate(
        label, (precision, coverage), (-12 if took else 12, 7 if took else -7),
        textcoords="offset points", ha="right" if took else "left", va="center",
        fontsize=10.5, color=color,
    )  # fmt: skip
label_axes(
    axes,
    "precision: share of samples that look real",
    "coverage of the test images",
)
axes.set(xlim=(0.6, 1.05), ylim=(0.5, 1.0))
page

# %% [markdown]
# ## Does the game depend on the seed?
#
# We train three GANs that differ only in the seed. (Seed 0 is the GAN of the table,
# with new draws.) For each sample we take the digit of the nearest training image. A
# digit that is missing is a mode that was dropped.


# %%
def shares(samples: Tensor) -> Tensor:
    """The share of each digit, by the nearest training image in features."""
    known = features(train.float() / 16)
    nearest = torch.cdist(features(samples.float() / 16), known).argmin(1)
    return labels["train"][nearest].bincount(minlength=10) / len(samples)


# alt: Shares of ten digits for the VAE, the diffusion and three GANs; those of the
#   GANs are uneven and differ.
portions = {name: shares(drawn[name]) for name in ("VAE", "diffusion")}
for seed in range(3):
    generator = generator if seed == 0 else train_gan(seed)[0]
    made = gan_sample(SAMPLES)
    precision, coverage = near(made)
    print(
        f"GAN, seed {seed}: precision {precision:.2f}, coverage {coverage:.2f}"
    )
    portions[f"GAN, seed {seed}"] = shares(made)
page = figure(9.4, 3.8, "Which digits are drawn?")
axes = plain(page.add_subplot())
table = torch.stack(list(portions.values()))
shown = axes.imshow(table, cmap="Blues", vmin=0, vmax=0.3, aspect="auto")
for row, share in enumerate(table.tolist()):
    for digit, part in enumerate(share):
        axes.text(digit, row, f"{part:.0%}", ha="center", va="center", fontsize=9.5,
                  color="white" if part > 0.18 else INK)  # fmt: skip
axes.set_xticks(range(10))
axes.set_yticks(range(len(portions)), list(portions), fontsize=11)
label_axes(axes, "digit of the nearest training image", "")
page

# %% [markdown]
# ## What you should see
#
# * The two losses of the GAN do not fall together: one rises while the other falls.
# * The diffusion has the lowest Fréchet distance, close to that of training images, and
#   the highest precision and coverage. Then comes the VAE, and the GAN is last, in
#   *this* comparison of small networks and short trainings.
# * The GAN covers the fewest test images. What it leaves out depends on the seed: one of
#   the three hardly draws a 3, another few of 2, 5 and 8.
# * One sample of the VAE or the GAN is one pass of a small network: some microseconds.
#   The diffusion makes 200 passes and takes hundreds of times as long. With 10 it is 20
#   times faster, with the same precision and a little less coverage.
# * The VAE and the diffusion have a bound on $\log p(x)$; the two are close. The GAN has
#   none.
#
# Two things move the diffusion towards the fast corner:
# [fewer steps](18-fewer-steps.md) of a better sampler, as measured here, and diffusion
# in a [smaller latent space](19-latent-and-prompted.md). All formulas of the lecture
# are in [the table of equations](equations.md).
#
# !!! note "How far this holds"
#     One data set, small networks, one training budget. Large GANs do far better: in
#     the lecture's table StyleGAN2 has an FID of 3.26, close to the 3.17 of DDPM. Three
#     things do not depend on the scale: which models have a bound, how many passes a
#     sample takes, and whether training minimizes a single loss.
#
# References: Xiao, Kreis, Vahdat, "Tackling the generative learning trilemma with
# denoising diffusion GANs" (2022), for the triangle; Kynkäänniemi et al., "Improved
# precision and recall metric for assessing generative models" (2019); Naeem et al.,
# "Reliable fidelity and diversity metrics for generative models" (2020), for coverage.
#
# ## Exercises
#
# **1.** A model copies its training images. What are its three measures?
#
# ??? example "Solution"
#     Those of the first row of the table: nearly perfect. None of the three can detect
#     copying. The likelihood of *test* images can, and so can the distance to the
#     nearest training image.
#
# **2.** The GAN's training has a global optimum. What is $g$ there, and what is $D$?
#
# ??? example "Solution"
#     For a fixed $g$ the best discriminator is
#     $D = p_{\text{data}} / (p_{\text{data}} + p_g)$. With it, $g$ minimizes the
#     Jensen-Shannon divergence between data and generator. At the optimum
#     $p_g = p_{\text{data}}$ and $D = 1/2$, so the discriminator's loss is
#     $2 \log 2 = 1.39$: the dotted line.
#
# **3.** Give the VAE's samples the same treatment with the decoder's mean in place of a draw
# of $p(x|z)$. Which measure changes most?
#
# ??? example "Solution"
#     ```python
#     torch.manual_seed(1)
#     means = vae.decode(torch.randn(SAMPLES, 16)).mean.round().long()
#     print(near(drawn["VAE"]), near(means))
#     print(frechet_distance(features(means.float() / 16), real_features))
#     ```
#     Precision rises from 0.84 to 0.91 and coverage from 0.78 to 0.91: means have no
#     pixel noise. But the Fréchet distance gets worse, from 74 to 80: means are too
#     smooth (see [why VAEs blur](06-blur.md)). Measures can disagree, so one number is
#     not enough.
