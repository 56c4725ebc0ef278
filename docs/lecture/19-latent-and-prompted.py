# %% [markdown]
# # Latent and prompted diffusion: the demo
#
# The lecture ends with a demo of Stable Diffusion: a prompt in, an image out.
# That model has three parts, and all of them are on these pages: an
# **autoencoder** that makes images small, a **diffusion** of its latents, and a
# **text encoder** whose output conditions the denoiser. This page builds the same
# at the size of digits, with a text encoder that knows ten words.
#
# $$\text{prompt} \to \text{label} \to
# \underbrace{z_T \to \dots \to z_0}_{\text{diffusion, conditioned, guided}} \to
# \underbrace{\text{decoder}}_{\text{of a VAE}} \to \text{image}$$

# %%
from dataclasses import replace

import torch
from torch import Tensor

from genmod import LatentDiffusion, data, evaluate, fit, plots
from genmod.data import conditional
from genmod.nn import Labels, Prompts, null_context
from genmod.objectives import Beta
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.samplers import DPMSolver

STEPS = 1_200  # few: 10
SAMPLES = 40  # few: 2
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)

digits = data.load("digits")
assert digits.labels is not None
words = Prompts.digits()
print(words.encode(["a seven", "please draw a 3", ""]))

# %% [markdown]
# ## Stage one: a VAE, with a weak prior
#
# The VAE compresses 64 pixels to 16 numbers. Its rates count half (`Beta(0.5)`),
# so that the latents keep more detail. The prior $\mathcal{N}(0, I)$ does not fit
# them well then. It will be replaced.

# %%
torch.manual_seed(0)
model = LatentDiffusion(
    digits, latents=16, dropout=0.1, condition=Labels(words.classes)
)
first = model.first_stage()
plain_digits = replace(digits, labels=None)
fit(first, plain_digits, Beta(0.5), steps=STEPS, progress=False)
vae_report = evaluate(first, digits.test)
print(vae_report)

# %% [markdown]
# ## Stage two: a diffusion of the latents
#
# The encoder and the decoder are frozen. The latents are standardized, and a
# conditional diffusion learns their law. A tenth of the rows have no label
# (`conditional(data, dropout=0.1)`), so that one network learns
# $p(z \mid \text{label})$ and $p(z)$.

# %%
model.freeze(digits.train)
fit(model, conditional(digits, dropout=0.1), steps=STEPS, progress=False)
print(model)
labels = digits.labels["test"]
for name, context in (
    ("with label", labels),
    ("without", null_context(labels)),
):
    report = evaluate(model, digits.test, context, timesteps=32)
    print(f"{name:10} {report.value} nats ({report.stamp.value})")
print(f"VAE        {vae_report.value} nats ({vae_report.stamp.value})")

# %% [markdown]
# The bound of a latent diffusion is that of the VAE with another prior term:
# instead of $\mathrm{KL}(q(z \mid x) \,\|\, \mathcal{N}(0, I))$ it has the
# log-ratio of $q$ and the diffusion. The terms of both:

# %%
# alt: The terms of minus the bound of the VAE and of the latent diffusion as
#   stacked bars.
named = {
    "VAE, prior N(0, I)": vae_report,
    "latent diffusion": evaluate(model, digits.test, labels, timesteps=32),
}
drawing = figure(9.6, 3.0, "A better prior needs fewer nats for the latents")
axes = plain(drawing.add_subplot())
for row, (name, report) in enumerate(named.items()):
    reconstruction = -report.terms["reconstruction"].mean
    whole = -report.value.mean
    axes.barh(
        row,
        reconstruction,
        color="#3b6fb6",
        label="reconstruction" if row == 0 else None,
    )
    axes.barh(row, whole - reconstruction, left=reconstruction, color="#d1495b",
              label="latents" if row == 0 else None)  # fmt: skip
    axes.text(whole, row, f"  {whole:.1f} nats", va="center", fontsize=LABEL)
    print(
        f"{name:20} reconstruction {reconstruction:.1f}, latents {whole - reconstruction:.1f} nats"
    )
axes.set_yticks([0, 1], list(named), fontsize=LABEL)
axes.set_xlim(0, 1.45 * max(-report.value.mean for report in named.values()))
axes.legend(frameon=False, fontsize=LABEL, loc="center right")
label_axes(axes, "minus the bound, nats an image", "")
drawing

# %% [markdown]
# ## Prompts
#
# `Prompts` is the text encoder: it finds one known name in a sentence. The steps
# after it are those of large models, too. **Guidance** combines two estimates of
# the same network, with and without the prompt,
#
# $$\hat x_w = \hat x(z_t) + w\, \big(\hat x(z_t \mid \text{prompt}) - \hat x(z_t)\big),$$
#
# where $w = 1$ is the conditional model and $w > 1$ exaggerates what the prompt
# changes.

# %%
# alt: Samples for six prompts, without guidance on the left and with guidance
#   on the right.
PROMPTS = ("a zero", "a three", "four, please", "an image of a 7", "nine", "")
texts = words.encode(PROMPTS)
columns = 7
wanted = texts.repeat_interleave(columns)
sides = []
for scale in (1.0, 3.0):
    images = model.sample(
        len(wanted),
        wanted,
        sampler=DPMSolver(order=2),
        steps=20,
        guidance_scale=scale,
        seeds=range(len(wanted)),
    )
    sides.append(images.reshape(len(PROMPTS), columns, 1, 8, 8) / 16)
gap = torch.full_like(sides[0][:, :1], torch.nan)
joined = torch.cat([sides[0], gap, sides[1]], 1)
rows = [
    plots.Row(text or "(empty)", row)
    for text, row in zip(PROMPTS, joined, strict=True)
]
plots.strips(
    rows, side=0.62, title="Left: w = 1. Right: w = 3, from the same noise"
)

# %% [markdown]
# ## What guidance trades
#
# Do samples show what was asked for? A nearest-neighbor classifier of the
# training images decides. And how different are samples of the same class from
# each other? We measure both against $w$.


# %%
# alt: Agreement with the prompt rises, and the spread of samples of one class
#   falls, as guidance grows.
def nearest_label(images: Tensor) -> Tensor:
    """The label of the nearest training image."""
    assert digits.labels is not None
    train = digits.train.flatten(1).float()
    return digits.labels["train"][
        torch.cdist(images.flatten(1).float(), train).argmin(1)
    ]


def spread_of(images: Tensor) -> float:
    """The mean distance of two images of the same class."""
    groups = images.float().reshape(words.classes, -1, 64)
    return float(
        torch.stack([torch.pdist(group).mean() for group in groups]).mean()
    )


asked = torch.arange(words.classes).repeat_interleave(SAMPLES)
agreement, spread = [], []
for scale in SCALES:
    drawn = model.sample(
        len(asked), asked, sampler=DPMSolver(order=2), steps=20, guidance_scale=scale,
        seeds=range(len(asked)),
    )  # fmt: skip
    agreement.append(float((nearest_label(drawn) == asked).double().mean()))
    spread.append(spread_of(drawn))
    print(
        f"w = {scale:3g}: right class {agreement[-1]:.0%}, "
        f"distance of two of a class {spread[-1]:.1f}"
    )
real = (nearest_label(digits.test) == labels).double().mean()
groups = [
    digits.train[digits.labels["train"] == label][:SAMPLES]
    for label in range(10)
]
print(
    f"test images: right class {real:.0%}; distance of two training images of a class",
    end=" ",
)
print(f"{spread_of(torch.cat(groups)):.1f}")
drawing = figure(9.6, 3.8, "Guidance: more of the right class, less variety")
for place, (values, name, color) in enumerate(
    (([100 * a for a in agreement], "samples of the right class, %", "#3b6fb6"),
     (spread, "distance of two samples of a class", "#d1495b"))
):  # fmt: skip
    axes = plain(drawing.add_subplot(1, 2, place + 1))
    axes.plot(SCALES, values, marker="o", lw=2.4, color=color)
    label_axes(axes, "guidance scale w", name)
drawing

# %% [markdown]
# ## What the large model has in addition
#
# | | here | Stable Diffusion |
# |---|---|---|
# | image | 8 x 8, gray | 512 x 512, color |
# | latent | 16 numbers | 4 x 64 x 64 |
# | autoencoder | MLPs, a likelihood | convolutions, perceptual and adversarial losses |
# | text | ten words, one label | a transformer (CLIP), 77 vectors |
# | denoiser | MLP, label in its embedding | U-Net, cross-attention to the text |
# | guidance, samplers, two stages | the same | the same |
#
# ## What you should see
#
# * With labels, the latents need about 6 nats less under the diffusion than under
#   $\mathcal{N}(0, I)$. The reconstruction stays as it was: the decoder is
#   frozen.
# * Without a label the model is at about the VAE's value, 5.5 nats worse than
#   with one. To a perfect model a label is worth at most $\log 10 = 2.3$ nats in
#   the mean. A likely reason for the rest: only a tenth of the training rows had
#   no label.
# * A prompt gives its digit nine times out of ten without guidance, and nearly
#   always with $w = 2$.
# * Samples of a class are a little more alike than real images (33.9 against
#   35.8), and guidance makes them more so (30.5). Beyond $w = 3$ the two numbers
#   do not change.
# * The empty prompt gives any digit, and guidance does not change it.
#
# !!! note "The slide"
#     The demo's prompt names a person and a club. The model has learned these
#     words from captions of images, so it repeats what such images look like,
#     whether or not it is true. A prompt selects a region of the data's law; it
#     does not state facts.
#
# ## Exercises
#
# **1.** Why is the diffusion trained after the VAE, and not both at once with
# $L_\text{simple}$?
#
# ??? example "Solution"
#     $L_\text{simple}$ does not bound $\log p(x)$. An encoder that is trained
#     with it could make its latents easy to denoise by putting nothing into them.
#     Train both at once with the plain bound only: `fit(..., stages="joint")`.
#
# **2.** What is $\hat x_w$ for $w = 0$?
#
# ??? example "Solution"
#     The unconditional estimate: the prompt is ignored. Between 0 and 1 the two
#     are mixed.
#
# **3.** Is a guided model still a model with a likelihood?
#
# ??? example "Solution"
#     Its chain has a law, since each step is Gaussian, but the network is not
#     trained for it. Compare the bound of the guided chain with that above:
#     `evaluate(model.guided(3.0), digits.test, labels, timesteps=32)`.
#
# Next: [VAE, GAN and diffusion compared](20-compared.md).
