# %% [markdown]
# # Sampling and interpolation: the latent spaces of an autoencoder and a VAE
#
# A VAE is trained on the ELBO, and the ELBO holds a KL divergence between the posterior
# $q(z|x)$ and the prior $p(z) = \mathcal{N}(\mathbf{0}, \mathbf{I})$. This pulls the
# codes of all images towards the prior. The lecture shows what this gives: *a much
# nicer space*. Here we see it with **two latents**, so that nothing is hidden: both
# latent spaces are drawn as they are.

# %%
import torch
from torch import Tensor

from genmod import VAE, Autoencoder, data, evaluate, fit, plots
from genmod.distributions import Normal
from genmod.evaluation import collapse
from genmod.model import LatentModel
from genmod.plots.style import COLORS, INK, figure, label_axes, plain

torch.manual_seed(0)
STEPS = 2_000  # few: 20

digits = data.load("digits")
labels = digits.labels or {}
models: dict[str, LatentModel] = {
    "Autoencoder": Autoencoder(digits, latents=2, width=128),
    "VAE": VAE(digits, latents=2, width=128),
}
for model in models.values():
    fit(model, digits, steps=STEPS, learning_rate=2e-3, progress=False)
report = evaluate(models["VAE"], digits.test, importance_samples=64)
print(report)

# %% [markdown]
# The two models have the same encoder network up to its last layer, and the same
# decoder. Only the VAE has a bound. `reconstruction` and `prior` are the two terms of
# [its derivation](03-variational-inference.md). (The report also gives an interval for
# $\log p(x)$. Here it has no upper end: the true posterior can be far from a Gaussian,
# and then the importance weights are heavy.)
#
# ## Two latent spaces
#
# Each point is the code of a training image, colored by its digit; the digit itself is
# written at the median of its codes. The code of the VAE is the mean of $q(z|x)$. The
# dotted circle is two standard deviations of $\mathcal{N}(\mathbf{0}, \mathbf{I})$.

# %%
# alt: Codes of the autoencoder spread far outside a small circle; those of the
#   VAE fill the circle evenly.
codes: dict[str, Tensor] = {}
for name, model in models.items():
    found = model.encode(digits.train)
    assert isinstance(found, Tensor)
    codes[name] = found
    spread = ", ".join(f"{std:.2f}" for std in found.std(0))
    center = ", ".join(f"{mean:.2f}" for mean in found.mean(0))
    print(f"{name:12s} mean of the codes ({center}), std ({spread})")
plots.latent_spaces(
    codes, labels["train"], title="Only the codes of the VAE fill the circle"
)

# %% [markdown]
# Each code of the VAE is a small Gaussian, not a point. Over all images these form
# the **aggregate posterior** $q(z) = \frac1N \sum_n q(z | x_n)$. The prior is what we
# sample from, and the aggregate posterior is where the decoder was trained. So
# samples are good where the two agree.

# %%
# alt: Histograms of both latents; the aggregate posterior follows the bell curve
#   of the prior, the autoencoder's codes do not.
q = models["VAE"].posterior(digits.train)
assert isinstance(q, Normal)
with torch.no_grad():
    draws = q.sample()
print(
    "std of draws of the aggregate posterior:",
    [round(s, 2) for s in draws.std(0).tolist()],
)
page = figure(
    10.0, 3.8, "The VAE's latents follow the prior, the autoencoder's do not"
)
grid = torch.linspace(-6, 6, 400)
edges = torch.linspace(-6, 6, 49).tolist()
bell = (-(grid**2) / 2).exp() / (2 * torch.pi) ** 0.5
for place, (name, values, color) in enumerate(
    [
        ("Autoencoder: codes", codes["Autoencoder"], COLORS[1]),
        ("VAE: draws of q(z|x)", draws, COLORS[0]),
    ]
):
    axes = plain(page.add_subplot(1, 2, place + 1))
    for latent in (0, 1):
        axes.hist(
            values[:, latent], edges, density=True, color=color, alpha=0.45,
            histtype="stepfilled" if latent else "bar", label=f"z{latent + 1}",
        )  # fmt: skip
    axes.plot(grid, bell, color=INK, lw=2, label="prior")
    axes.set_title(name, fontsize=11.5)
    label_axes(axes, "value of a latent", "density")
    axes.legend(frameon=False, fontsize=10)
page

# %% [markdown]
# ## Sampling
#
# To sample from a VAE, draw $z \sim p(z)$ and decode it: `model.sample(n)`. With two
# latents we can look at the whole range of samples. The plane is cut into cells of
# *equal probability* under the prior: the quantiles of a Gaussian in each direction.
# The autoencoder has no prior; it gets the same places.

# %%
# alt: Decoded images on a grid of equal probability for both models; the VAE
#   shows all digits, the autoencoder repeats a few.
SIDE = 14
quantiles = (torch.arange(SIDE) + 0.5) / SIDE
ticks = torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
plane = torch.stack(torch.meshgrid(-ticks, ticks, indexing="ij"), -1).flip(-1)
pictures = {
    name: model.decode(plane.reshape(-1, 2)).mean
    for name, model in models.items()
}
page = figure(10.0, 5.6, "Decoded places of equal probability under N(0, I)")
middles = [3.5, 4 * SIDE - 0.5, 8 * SIDE - 4.5]  # of the plane and its ends
names = [f"{float(ticks[0]):.1f}", "0", f"{float(ticks[-1]):.1f}"]
for place, (name, images) in enumerate(pictures.items()):
    axes = page.add_subplot(1, 2, place + 1)
    tiles = images.reshape(SIDE, SIDE, 8, 8).permute(0, 2, 1, 3)
    axes.imshow(
        tiles.reshape(SIDE * 8, SIDE * 8), cmap="gray_r", vmin=0, vmax=16
    )
    axes.set_title(name, fontsize=11.5)
    axes.set_xticks(middles, names)
    axes.set_yticks(middles, names[::-1])
    label_axes(plain(axes), "first latent", "second latent")
page

# %% [markdown]
# The lecture says that in the VAE's space "each digit has an equal portion". We can
# measure it. Decode many draws of the prior, and give each picture the label of the
# nearest training image.


# %%
def portions(model: LatentModel) -> Tensor:
    """The share of each digit among decoded draws of N(0, I)."""
    pictures = model.decode(torch.randn(4000, 2)).mean.flatten(1)
    nearest = torch.cdist(pictures, digits.train.flatten(1).float()).argmin(1)
    return labels["train"][nearest].bincount(minlength=10) / 4000


# alt: Shares of the ten digits; nearly equal for the VAE, a few digits dominate
#   for the autoencoder.
shares = {name: portions(model) for name, model in models.items()}
print("digit         " + "".join(f"{digit:6d}" for digit in range(10)))
for name, share in shares.items():
    print(f"{name:14s}" + "".join(f"{part:6.2f}" for part in share))
    entropy = (-share * share.clamp(min=1e-9).log()).sum()
    print(f"{'':14s}as varied as {entropy.exp():.1f} equally frequent digits")

page = figure(9.0, 3.6, "Which digit does decoded N(0, I) noise show?")
axes = plain(page.add_subplot())
for place, (name, share) in enumerate(shares.items()):
    at = torch.arange(10) + 0.4 * place - 0.2
    axes.bar(at, share, width=0.38, color=COLORS[1 - place], label=name)
axes.axhline(0.1, color=INK, lw=1.2, ls="--", label="equal portions")
axes.set_xticks(range(10))
label_axes(axes, "digit", "share of decoded noise")
axes.legend(frameon=False, fontsize=11)
page

# %% [markdown]
# ## Interpolation
#
# Take two test images, a 0 and a 6. Encode them, go from one code to the other on a
# straight line, and decode the places between: `model.decode(torch.lerp(a, b, s))`. In
# the VAE's space the path goes from 0 to 6 directly. In the autoencoder's space it
# passes through codes of another digit.

# %%
# alt: Straight paths between two digits through both latent spaces, with the
#   decoded images below.
first = {
    int(label): row for row, label in reversed(list(enumerate(labels["test"])))
}
ends = digits.test[[first[0], first[6]]]
routes = {}
for name, model in models.items():
    a, b = model.encode(ends)
    path = torch.lerp(a, b, torch.linspace(0, 1, 9)[:, None])
    routes[name] = plots.Route(path, model.decode(path).mean / 16)
plots.latent_spaces(
    codes, labels["train"], routes, title="A straight path from a 0 to a 6"
)

# %% [markdown]
# One path proves nothing. So we draw 500 random pairs of test images and keep those of
# *different* digits. We measure how far the middle of their codes is from the nearest
# code of the training data. The unit is the mean distance between neighbors.

# %%
generator = torch.Generator().manual_seed(0)
left = torch.randint(len(digits.test), (500,), generator=generator)
right = torch.randint(len(digits.test), (500,), generator=generator)
different = labels["test"][left] != labels["test"][right]
for name, model in models.items():
    z = model.encode(digits.test)
    assert isinstance(z, Tensor)
    middle = (z[left] + z[right])[different] / 2
    usual = (
        torch.cdist(codes[name], codes[name])
        .fill_diagonal_(torch.inf)
        .amin(1)
        .mean()
    )
    away = torch.cdist(middle, codes[name]).amin(1) / usual
    print(
        f"{name:12s} middle to nearest code: {away.mean():.1f} neighbor distances"
    )

# %% [markdown]
# ## Two latents are few
#
# Two latents make pictures, but they are not the best VAE. `collapse` computes how many
# nats each latent holds. A VAE with more latents uses more of them.

# %%
wide = VAE(digits, latents=16, width=128)
fit(wide, digits, steps=STEPS, learning_rate=2e-3, progress=False)
for name, model in {"2 latents": models["VAE"], "16 latents": wide}.items():
    value = evaluate(model, digits.test).value
    level = collapse(model, digits.test).levels[0]
    print(
        f"{name:10s} bound {value} nats; {level.active} active, {level.kl.mean:.1f} nats in all"
    )

# %%
# alt: Test images, and samples of the VAEs with 2 and 16 latents.
plots.samples(
    {
        "test images": digits.test[:36],
        "2 latents, decoder's mean": models["VAE"]
        .decode(torch.randn(36, 2))
        .mean,
        "16 latents, decoder's mean": wide.decode(torch.randn(36, 16)).mean,
        "16 latents, x ~ p(x|z)": wide.sample(36, seeds=range(36)),
    },
    highest=16,
    title="Samples of VAEs with 2 and 16 latents",
)

# %% [markdown]
# ## What you should see
#
# * The codes of the VAE are centered at zero with a standard deviation of about 1 in
#   both directions, and fill the circle. Those of the autoencoder do not.
# * The aggregate posterior of the VAE is close to the bell curve of the prior.
# * On the grid of equal probability the VAE shows all ten digits, each with a share
#   between 8 and 13 %. In the autoencoder, three digits have 60 % of the noise, and
#   four others have about 3 % or less each.
# * The middle between two codes is closer to the nearest training code in the VAE's
#   space: 0.9 neighbor distances, against 1.4.
# * A VAE with 16 latents has a bound that is better by 7.5 nats, and uses 12 of them.
#
# To the eye the samples are recognizable, and a little soft. Next:
# [why VAEs blur](06-blur.md).
#
# ## Exercises
#
# **1.** The rate of the VAE with two latents is 5.3 nats. Roughly how many kinds of
# images can two latents distinguish?
#
# ??? example "Solution"
#     A rate of $R$ nats can distinguish about $e^R$ codes: $e^{5.3} \approx 200$. So
#     a code holds the digit ($\log 10 = 2.3$ nats) and about 20 styles of it.
#
# **2.** Train the VAE with `Beta(0.01)` from `genmod.objectives`. Which of the two latent
# spaces will it resemble?
#
# ??? example "Solution"
#     That of the autoencoder: the KL has almost no weight, so nothing keeps the codes
#     together.
#     ```python
#     from genmod.objectives import Beta
#
#     loose = VAE(digits, latents=2, width=128)
#     fit(loose, digits, Beta(0.01), steps=STEPS, learning_rate=2e-3, progress=False)
#     print(loose.encode(digits.train).std(0))
#     ```
#
# **3.** Why are the cells of the grid not equally wide in the latent space?
#
# ??? example "Solution"
#     They have equal *probability* under the prior. Where the density is low, at the
#     border, a cell must be wider to have the same probability. So each picture of the
#     figure stands for the same share of samples.
