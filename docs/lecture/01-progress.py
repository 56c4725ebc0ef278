# %% [markdown]
# # Progress of generative models
#
# A generative model learns from examples how to draw new ones. This page places
# the models of the lecture, and a few more, on one line of time. It then shows
# which of them this package holds, and what they have in common.

# %%
import matplotlib.pyplot as plt
import torch

from genmod import data, models

# %% [markdown]
# ## A timeline
#
# Each entry is a year, a name, the row on which we draw it, and whether genmod
# has such a model. The year is that of the first paper. Three entries have the
# year of the lecture's example: Kramer's autoencoder, Imagen and Sora. The
# lecture gives BigGAN the year of its conference, 2019. The axis is cut between
# 1991 and 2012.

# %%
# alt: Timeline of generative models from 1991 to 2024 in four rows. Latent
#   variables: autoencoder 1991, VAE 2013, hierarchical VAE 2016. Diffusion:
#   deep diffusion 2015, DDPM 2020, latent diffusion 2021. Other families: GAN
#   2014, flows 2014, PixelCNN 2016, BigGAN 2018. Applications: text to image
#   2022, video 2024. Filled dots mark the models of genmod.
HISTORY = [
    (1991, "autoencoder", "latent variables", True),
    (2013, "VAE", "latent variables", True),
    (2016, "hierarchical VAE", "latent variables", True),
    (2015, "deep diffusion", "diffusion", True),
    (2020, "DDPM", "diffusion", True),
    (2021, "latent diffusion", "diffusion", True),
    (2014, "GAN, flows", "other families", False),
    (2016, "PixelCNN", "other families", False),
    (2018, "BigGAN", "other families", False),
    (2022, "text to image", "applications", False),
    (2024, "video", "applications", False),
]
ROWS = ["applications", "other families", "diffusion", "latent variables"]
BLUE = "#3b6fb6"

figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
for year, name, row, ours in HISTORY:
    place, height = max(year, 2010), ROWS.index(row)
    axes.plot(
        place,
        height,
        "o",
        ms=11,
        mfc=BLUE if ours else "white",
        mec=BLUE,
        mew=2,
    )
    below = name == "latent diffusion"  # beside DDPM, whose name is above
    axes.annotate(
        f"{name}\n{year}",
        (place, height),
        xytext=(0, -11 if below else 11),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        fontsize=11,
    )
axes.set_yticks(range(len(ROWS)), ROWS, fontsize=12)
axes.set_ylim(-0.4, 3.8)
axes.set_xlim(2008.4, 2025)
years = range(2012, 2025, 2)
axes.set_xticks([2010, *years], ["1991", *map(str, years)], fontsize=11)
axes.grid(axis="y", alpha=0.4)
axes.text(2011, -0.4, "//", ha="center", va="center", fontsize=14)
axes.set_xlabel("year (cut between 1991 and 2012)", fontsize=12)
axes.spines[["top", "right"]].set_visible(False)
axes.set_title("Progress of generative models (filled: in genmod)", fontsize=14)
figure

# %% [markdown]
# **What you should see.** In this list nothing stands between 1991 and 2013.
# Then VAEs, GANs, flows, PixelCNN and the first diffusion model appear within
# three years. DDPM comes five years after the first diffusion model. Its FID on
# CIFAR-10 is 3.17, beside 3.26 for the best GAN in the lecture's table. Text to
# image and video follow two and four years later.
#
# ## What is in scope
#
# genmod holds the models that have **latent variables and one evidence lower
# bound** (ELBO). Each of them has three parts: an encoder $q(z \vert x)$, a
# decoder $p(x \vert z)$ and a prior $p(z)$. All have the same bound,
#
# $$
# \log p(x) \ge \mathbb{E}_{q(z \vert x)}\left[\log p(x \vert z)\right]
# - \mathrm{KL}\left(q(z \vert x) \,\|\, p(z)\right).
# $$
#
# | model | in genmod | why |
# |---|---|---|
# | autoencoder | yes | the same encoder and decoder, but no prior and no bound |
# | VAE, hierarchical VAE | yes | the bound, with one or several latents |
# | diffusion, latent diffusion | yes | the same bound; the encoder is fixed |
# | normalizing flow | as a part | a prior or a posterior of a VAE |
# | PixelCNN | no | an exact likelihood, and no latent variable |
# | GAN, BigGAN | no | trained against a critic: no likelihood, no bound |
# | text to image | the principle | latent diffusion with a short prompt |
# | video | the principle | diffusion on small volumes |
#
# The last two differ from what we have mostly in size. Imagen's networks have
# billions of parameters, and its data are hundreds of millions of images with
# text (Saharia et al. 2022).
#
# ## One interface for all
#
# We build each model for the same data, 8 by 8 images of digits with the 17
# values 0 to 16. A model prints its own formulas:

# %%
torch.manual_seed(0)
digits = data.load("digits")
FAMILY = {
    "autoencoder": models.Autoencoder(digits, latents=2),
    "VAE": models.VAE(digits, latents=2),
    "hierarchical VAE": models.HVAE(digits, latents=(8, 4, 2)),
    "diffusion": models.Diffusion(digits, steps=100),
    "latent diffusion": models.LatentDiffusion(digits),
}
for name, model in FAMILY.items():
    print(f"{name}\n{model}\n")

# %% [markdown]
# **What you should see.** Each model has the same three lines. `q` draws the
# latents from an image, `p(x | z)` draws an image from the latents, and `p(z)`
# is the prior of the latents. The encoder of the diffusion has no parameters:
# it only adds noise.
#
# The terms of the bound of one image, by models that have not been trained:

# %%
image = digits.train[:1]
for name, model in FAMILY.items():
    elbo = model.elbo(image)
    terms = {term: rate.total.item() for term, rate in elbo.rates.items()}
    rates = ", ".join(f"{term} {nats:.1f}" for term, nats in terms.items())
    print(
        f"{name:<17} {elbo.reconstruction.item():8.1f}   {rates or 'no rate'}"
    )

# %% [markdown]
# **What you should see.** The first number is the reconstruction term
# $\log p(x \vert z)$, in nats. Then come the rates, one for each group of
# latents: the terms that the bound subtracts. The rates `z1` and `latent` are
# negative here. Each is a log-ratio at one draw, and only its mean is a KL
# divergence. The diffusion already has a good reconstruction term, because its
# $z_0$ is the image with little noise.
#
# Next: [the autoencoder](02-autoencoder.md).
#
# ## Exercises
#
# **1.** A GAN also has a latent variable $z$ and a network that makes an image
# of it. Why does it have no bound on $\log p(x)$?
#
# ??? example "Solution"
#     Its generator is deterministic: $p(x \vert z)$ puts all its mass on one
#     image. A generator with fewer latents than pixels makes only a thin set of
#     images, and almost no image of the data lies in it. So $\log p(x)$ is
#     $-\infty$ for almost every $x$, and no encoder changes that. A GAN is
#     trained without a likelihood, by a critic that compares samples with data.
#
# **2.** Which of the five models refuses `model.sample(4)`, and why?
#
# ??? example "Solution"
#     The autoencoder. It has no prior, so there is nothing to draw latents
#     from:
#
#     ```python
#     try:
#         FAMILY["autoencoder"].sample(4)
#     except ValueError as error:
#         print(error)
#     ```
