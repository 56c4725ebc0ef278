# %% [markdown]
# # The autoencoder, its latent space, and noise fed to the decoder
#
# An autoencoder is two networks. The encoder $e$ maps an image $x$ to a short
# code $z = e(x)$. The decoder $d$ maps the code back to an image. The output is
#
# $$x' = d(e(x)),$$
#
# and both networks are trained to make the **reconstruction loss** small, the
# squared error over all images of the data set $\mathcal{D}$:
#
# $$\sum_{x \in \mathcal{D}} \lVert x - x' \rVert^2.$$
#
# !!! note "The slide"
#     One slide writes $x' = e(d(x))$, decoder first. The order is $d(e(x))$:
#     encode, then decode. A later slide has it right.
#
# This page trains autoencoders on 8x8 images of digits and asks the lecture's
# question: can we *sample* from one, by feeding noise to its decoder?

# %%
import torch
from torch import Tensor

from genmod import Autoencoder, data, fit, gaussian, plots
from genmod.data import Dataset
from genmod.decoders import GaussianDecoder
from genmod.nn import MLP
from genmod.plots.style import COLORS, figure, label_axes, plain

torch.manual_seed(0)
STEPS = 1_000  # few: 15

digits = data.load("digits")
train, validation, test = (
    part.float() / 16 for part in (digits.train, digits.validation, digits.test)
)
images = Dataset("digits, ink in [0, 1]", train, validation, test)
labels = digits.labels or {}
print(images)

# %% [markdown]
# ## Squared error is a log-likelihood
#
# A Gaussian decoder with standard deviation 1 gives each pixel the law
# $\mathcal{N}(x'_i, 1)$. The logarithm of its density is the squared error, up to
# a factor and a constant:
#
# $$\log p(x | z) = \sum_i \log \mathcal{N}(x_i; x'_i, 1)
# = -\tfrac12 \lVert x - x' \rVert^2 - \tfrac{D}{2} \log 2\pi.$$
#
# So `Autoencoder` maximizes $\log p(x | z)$ at the code, and with this decoder
# that is the slide's loss. The three lines below compute it in three ways:
# by hand, by `gaussian.log_prob`, and by `model.elbo`.


# %%
def build(codes: int) -> Autoencoder:
    """An autoencoder with so many numbers in a code."""
    network = MLP((codes,), 64, width=128)
    decoder = GaussianDecoder(network, images.shape, scale=1.0)
    return Autoencoder(images.shape, latents=codes, width=128, decoder=decoder)


def squared_error(x: Tensor, x_prime: Tensor) -> Tensor:
    """The squared error of each image."""
    return (x - x_prime).square().flatten(1).sum(1)


model = build(2).eval()
x = images.test
x_prime = model.reconstruct(x)
constant = 64 / 2 * torch.log(torch.tensor(2 * torch.pi))
by_hand = -squared_error(x, x_prime) / 2 - constant
density = gaussian.log_prob(x, x_prime, torch.ones(())).flatten(1).sum(1)
with torch.no_grad():
    elbo = model.elbo(x)
for name, value in {
    "by hand": by_hand,
    "gaussian.log_prob": density,
    "elbo.reconstruction": elbo.reconstruction,
}.items():
    print(f"{name:20s} {value.mean():.4f} nats")
print("what the value bounds:", elbo.measure.value)

# %% [markdown]
# The last line matters: an autoencoder's value is a *reconstruction term*, and it is no
# bound. There is no distribution of codes, so there is no $p(x)$.
#
# ## Training: the code is a bottleneck
#
# Nothing but the small code keeps the network from copying its input. We train three
# autoencoders, with 2, 8 and 16 numbers in a code. On the training data, a linear
# autoencoder with the same size of code can do no better than principal component
# analysis (PCA). This makes PCA the baseline.

# %%
models = {count: build(count) for count in (2, 8, 16)}
for model in models.values():
    fit(model, images, steps=STEPS, learning_rate=2e-3, progress=False)

mean = images.train.flatten(1).mean(0)
directions = torch.linalg.svd(
    images.train.flatten(1) - mean, full_matrices=False
)[2]
components = torch.arange(0, 25)
flat = images.test.flatten(1) - mean
pca = [float((flat - flat @ directions[:k].T @ directions[:k]).square().sum(1).mean())
       for k in components]  # fmt: skip

print(
    "numbers in a code   autoencoder   PCA    (mean squared error of a test image)"
)
errors = {}
for count, model in models.items():
    errors[count] = float(squared_error(x, model.reconstruct(x)).mean())
    print(f"{count:17d}   {errors[count]:11.3f}   {pca[count]:.3f}")

# %%
# alt: Squared error against the size of the code; the autoencoder lies below PCA.
page = figure(8.0, 4.2, "The smaller the code, the larger the error")
axes = plain(page.add_subplot())
axes.plot(
    components,
    pca,
    color=COLORS[5],
    lw=2,
    label="PCA, the best linear autoencoder",
)
axes.plot(list(errors), list(errors.values()), "o-", color=COLORS[0], lw=2, ms=8,
          label="autoencoder")  # fmt: skip
label_axes(axes, "numbers in a code", "squared error of a test image").set_ylim(
    0
)
axes.legend(frameon=False, fontsize=11)
page

# %%
# alt: Ten test images above their reconstructions from codes of 2, 8 and 16 numbers.
shown = images.test[:10]
plots.reconstructions(
    shown,
    {
        f"{count} numbers": model.reconstruct(shown)
        for count, model in models.items()
    },
    highest=1.0,
    title="Reconstructions x' = d(e(x)) of test images",
)

# %% [markdown]
# ## The latent space
#
# With two numbers in a code we can look at the whole latent space. Each point is the
# code of a training image, colored by its digit; the digit itself is written at the
# median of its codes. The dotted circle holds most of the
# noise that we are about to feed to the decoder: two standard deviations of
# $\mathcal{N}(\mathbf{0}, \mathbf{I})$.

# %%
# alt: Codes of training images in two dimensions, spread far outside a small circle.
codes = models[2].encode(images.train)
assert isinstance(codes, Tensor)
plots.latent_spaces(
    {"a point for each training image": codes},
    labels["train"],
    title="The codes of an autoencoder",
)

# %% [markdown]
# The lecture calls this "not a very nice representation": it has empty space, its
# center is not at zero, and some digits take much more room than others. The next
# figure shows what the decoder makes of 225 places, on a grid over the rectangle that
# holds all codes. A red shade marks places that are far from all codes of the training
# data: farther than 99 % of the codes are from their own nearest neighbor.

# %%
# alt: Decoded images over the latent plane; a red shade marks places far from all codes.
SIDE = 15
low, high = codes.amin(0), codes.amax(0)
across = torch.linspace(0, 1, SIDE)
places = torch.stack(torch.meshgrid(across.flip(0), across, indexing="ij"), -1)
places = low + (high - low) * places.flip(-1).reshape(-1, 2)
decoded = models[2].decode(places).mean
usual = (
    torch.cdist(codes, codes).fill_diagonal_(torch.inf).amin(1).quantile(0.99)
)
empty = torch.cdist(places, codes).amin(1) > usual
print(f"empty places: {int(empty.sum())} of {len(places)}")

page = figure(
    7.4, 7.9, "The decoder over the latent plane (red: no codes near)"
)
axes = page.add_subplot()
tiles = (
    decoded.reshape(SIDE, SIDE, 8, 8)
    .permute(0, 2, 1, 3)
    .reshape(SIDE * 8, SIDE * 8)
)
axes.imshow(tiles, cmap="gray_r", vmin=0, vmax=1)
for index in empty.nonzero()[:, 0].tolist():
    row, column = divmod(index, SIDE)
    left, top = 8 * column - 0.5, 8 * row - 0.5
    axes.fill([left, left + 8, left + 8, left], [top, top, top + 8, top + 8],
              color=COLORS[1], alpha=0.25, lw=0)  # fmt: skip
ends = [3.5, 8 * SIDE - 4.5]  # the middle of the first and the last tile
axes.set_xticks(ends, [f"{float(low[0]):.1f}", f"{float(high[0]):.1f}"])
axes.set_yticks(ends, [f"{float(high[1]):.1f}", f"{float(low[1]):.1f}"])
label_axes(plain(axes), "first latent", "second latent")
page

# %% [markdown]
# ## Feed the decoder noise?
#
# A GAN samples this way: draw $z \sim \mathcal{N}(\mathbf{0}, \mathbf{I})$, decode it.
# But the generator of a GAN was *trained* on such noise. Our decoder was trained on
# codes only. `sample` refuses, because the model has no distribution to draw from:

# %%
try:
    models[16].sample(10)
except ValueError as error:
    print(error)

# %% [markdown]
# `decode` takes any code, so we can try it by hand. First with
# $\mathcal{N}(\mathbf{0}, \mathbf{I})$, then with noise that has at least the mean
# and the standard deviation of the codes.

# %%
# alt: Test images, then decoded noise of two kinds, most of which are no digits.
codes_16 = models[16].encode(images.train)
assert isinstance(codes_16, Tensor)
noise = torch.randn(36, 16)
matched = codes_16.mean(0) + codes_16.std(0) * noise
spread = codes_16.std(0)
print(
    f"std of the noise: 1; std of the codes: {spread.min():.1f} to {spread.max():.1f}"
)

pictures = {
    "test images": images.test[:36],
    "d(noise), N(0, I)": models[16].decode(noise).mean,
    "d(noise), spread of the codes": models[16].decode(matched).mean,
}
plots.samples(pictures, highest=1.0, title="Decoded noise is not like the data")

# %% [markdown]
# How bad are they? We measure the distance of each picture to the nearest
# training image. Test images are new, too, so they give the scale.


# %%
def nearest(pictures: Tensor) -> Tensor:
    """The squared distance of each picture to the nearest training image."""
    return (
        torch.cdist(pictures.flatten(1), images.train.flatten(1))
        .amin(1)
        .square()
    )


many = torch.randn(500, 16)
wider = codes_16.mean(0) + codes_16.std(0) * many
draws = {
    "test images": images.test,
    "d(noise), N(0, I)": models[16].decode(many).mean,
    "d(noise), spread of the codes": models[16].decode(wider).mean,
}
for name, found in draws.items():
    print(
        f"{name:30s} squared distance to the nearest training image: {nearest(found).mean():.2f}"
    )

# %% [markdown]
# ## What you should see
#
# * The squared error falls as the code grows, and the autoencoder is well below PCA
#   with a code of the same size.
# * The codes of two latents reach far outside the circle of the noise, and about
#   four in ten of the places are far from every code. Nothing in the loss asks for
#   another shape or scale: the codes of 16 numbers came out narrower than the
#   noise.
# * Decoded noise from $\mathcal{N}(\mathbf{0}, \mathbf{I})$ is made of fragments. Its
#   squared distance to the training images is five times that of test images.
# * Noise with the right spread looks better, but its squared distance is still 2.5
#   times that of test images. The 16 numbers of a code depend on each other, and those
#   of this noise do not.
#
# Something must make codes and noise agree. This is the **prior** of a VAE. Next:
# [variational inference](03-variational-inference.md), which trains with a prior.
#
# ## Exercises
#
# **1.** The slide's loss is a sum over the data set, and `fit` uses a mean over a
# batch. Does this change the best networks?
#
# ??? example "Solution"
#     No. The mean over the data is the sum divided by a constant, and the mean
#     over a random batch is an unbiased estimate of it. Only the size of the
#     gradient changes, which the learning rate absorbs.
#
# **2.** Fit a full-covariance Gaussian to the 16-number codes and decode its draws.
# Are they better than independent noise?
#
# ??? example "Solution"
#     ```python
#     from torch.distributions import MultivariateNormal
#
#     law = MultivariateNormal(codes_16.mean(0), codes_16.T.cov())
#     better = models[16].decode(law.sample((500,))).mean
#     print(nearest(better).mean())
#     ```
#     Yes, the distance falls. The draws now have the right correlations. A richer
#     law of the codes helps more: a diffusion trained on the codes is *latent
#     diffusion*.
#
# **3.** Give the decoder a learned standard deviation:
# `GaussianDecoder(network, images.shape)`. What happens to $\log p(x | z)$?
#
# ??? example "Solution"
#     The best standard deviation is the root of the mean squared error of a pixel, far
#     below 1. The log-likelihood rises by many nats, although the reconstructions
#     hardly change: the density is higher because it is narrower. So a log-likelihood
#     depends on the scale as much as on the reconstructions.
