# %% [markdown]
# # The U-Net and its time embedding
#
# Which network should $\epsilon_\theta(x_t, t)$ be? The lecture: "people often
# use U-Nets with residual blocks and self-attention layers at low resolutions",
# input and output have the same size, and a time embedding is injected throughout
# the network. This page takes `genmod.nn.UNet` apart: it runs the network once,
# records every shape, and draws it.

# %%
import torch
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor, nn

from genmod import Diffusion, data, fit, plots
from genmod.nn import UNet
from genmod.plots.style import INK, LABEL, NOTE, figure, label_axes, plain
from genmod.schedules import LinearLogSNR

STEPS = 400  # few: 5

torch.manual_seed(0)
net = UNet((1, 28, 28), width=32, multipliers=(1, 2, 4))
z, log_snr = torch.randn(2, 1, 28, 28), torch.tensor([-3.0, 3.0])
print("input ", tuple(z.shape), "and log-SNRs", tuple(log_snr.shape))
print("output", tuple(net(z, log_snr).shape))
print(f"{sum(p.numel() for p in net.parameters()):,} parameters")

# %% [markdown]
# ## Run once, record all shapes
#
# On the way **down** each level has residual blocks. Between levels, a
# convolution of stride 2 halves the size. In the **middle** the image is small
# and has many channels. On the way **up** the size doubles again. The results of
# the larger levels are kept, and joined on the way up at the same size: the
# **skip connections**. They can carry fine details, which a small image in the
# middle cannot hold in its pixels.

# %%
shapes: list[tuple[str, tuple[int, ...], int]] = []


def record(name: str, module: nn.Module) -> None:
    """Note the shape of a part's output, and its number of parameters, when it runs."""

    def hook(_: nn.Module, __: object, output: Tensor) -> None:
        count = sum(p.numel() for p in module.parameters())
        shapes.append((name, tuple(output.shape[1:]), count))

    module.register_forward_hook(hook)


record("first", net.first)
for level, part in enumerate(net.down):
    record(f"down {level}", part)
record("middle", net.middle)
for level, part in enumerate(net.up):
    record(f"up {level}", part)
record("last", net.last)
with torch.no_grad():
    net(z, log_snr)
print("part      channels x height x width      parameters   attention")
for name, shape, count in shapes:
    module = dict(net.named_children()).get(name.split()[0])
    attends = "down 2" in name
    print(
        f"{name:10}{' x '.join(map(str, shape)):>20}{count:18,}   {'yes' if attends else ''}"
    )

# %%
# alt: The U-Net as boxes: heights are image sizes, widths are channels; arrows
#   are skip connections.
PLACES = {
    "first": 0,
    "down 0": 1,
    "down 1": 2,
    "down 2": 3,
    "middle": 4,
    "up 1": 5,
    "up 0": 6,
    "last": 7,
}
drawing = figure(
    10.6, 4.6, "The U-Net: heights are pixels, widths are channels"
)
axes = drawing.add_subplot()
for name, (channels, height, _), _ in shapes:
    if name not in PLACES:
        continue
    centre, width = 2.1 * PLACES[name], 0.25 + channels / 110
    color = "#e09f3e" if name == "down 2" else "#3b6fb6"
    axes.add_patch(
        Rectangle(
            (centre - width / 2, -height / 2),
            width,
            height,
            color=color,
            alpha=0.75,
        )
    )
    axes.text(centre, -height / 2 - 1.0, f"{name}\n{channels} x {height} x {height}",
              ha="center", va="top", fontsize=NOTE, color=INK)  # fmt: skip
for low, high, top in (("down 0", "up 0", 17.5), ("down 1", "up 1", 10.0)):
    start, end = 2.1 * PLACES[low], 2.1 * PLACES[high]
    axes.add_patch(
        FancyArrowPatch((start, top - 3), (end, top - 3), arrowstyle="->", mutation_scale=14,
                        connectionstyle="arc3,rad=-0.18", color=INK, lw=1.4)
    )  # fmt: skip
axes.text(
    2.1 * 3.5, 22.0, "skip connections", ha="center", fontsize=LABEL, color=INK
)
axes.text(
    2.1 * 3, 5.0, "self-attention", ha="center", fontsize=NOTE, color="#b07514"
)
axes.set_xlim(-1.5, 16.2)
axes.set_ylim(-20, 25)
axes.axis("off")
drawing

# %% [markdown]
# ## Why attention only at low resolutions
#
# Self-attention compares every position with every other. Its cost grows with the
# square of their number.

# %%
print("size      positions   pairs of positions")
for side in (28, 14, 7):
    print(f"{side:2} x {side:2} {side**2:12,} {side**4:20,}")

# %% [markdown]
# ## The time embedding
#
# The network must know how much noise there is. The lecture embeds the step $t$
# by sines and cosines, as transformers embed positions. Here the **log-SNR** is
# embedded: it means the same noise under every schedule and number of steps.
# Frequencies are spaced geometrically: the slow ones tell the noisy end from the
# clean end, the fast ones tell neighbors apart.

# %%
# alt: Sines and cosines of the log-SNR, one row per frequency: the first rows
#   change slowly, the last ones fast.
levels = torch.linspace(-8, 8, 321)
with torch.no_grad():
    features = net.level.time[0](levels)
    same = torch.nn.functional.cosine_similarity(
        features[:, None], features[None], dim=-1
    )
drawing = figure(8.2, 4.0, "The embedding: sines and cosines of the log-SNR")
axes = plain(drawing.add_subplot())
image = axes.imshow(
    features.T,
    aspect="auto",
    cmap="RdBu_r",
    extent=(-8, 8, features.shape[1], 0),
    vmin=-1,
    vmax=1,
)
label_axes(axes, "log-SNR", "feature: sines, then cosines")
drawing.colorbar(image, ax=axes).set_label("value", fontsize=LABEL)
print("features of a log-SNR:", features.shape[1])
drawing

# %%
# alt: The similarity of the embeddings of two log-SNRs: high near the diagonal
#   only.
drawing = figure(6.4, 5.2, "Embeddings of near log-SNRs are alike")
axes = plain(drawing.add_subplot())
image = axes.imshow(same, cmap="Blues", extent=(-8, 8, 8, -8), vmin=0, vmax=1)
label_axes(axes, "log-SNR", "another log-SNR")
drawing.colorbar(image, ax=axes).set_label("cosine similarity", fontsize=LABEL)
near, far = same[160, 170].item(), same[160, 300].item()
print(f"similarity of log-SNR 0 and 0.5: {near:.2f}, of 0 and 7: {far:.2f}")
drawing

# %% [markdown]
# ## How it is injected
#
# The slide adds the embedding to the activations. Here each residual block takes
# a *scale* and a *shift* from it, behind its second normalization:
#
# $$h \leftarrow h + \mathrm{conv}\big(\mathrm{silu}((1 + \text{scale})\,
# \mathrm{norm}(\mathrm{conv}(\mathrm{silu}(\mathrm{norm}(h))))
# + \text{shift})\big).$$
#
# The last convolution of each block, and that of the network, start at zero. So
# each block starts as the identity, and the first prediction is zero for every
# input.

# %%
with torch.no_grad():
    first = net(z, log_snr)
print("largest output of the untrained network:", first.abs().max().item())
blocks = [part for part in net.modules() if type(part).__name__ == "ConvBlock"]
embedding = net.level(log_snr)
print(
    len(blocks),
    "residual blocks, each gets the embedding of size",
    embedding.shape[1],
)

# %% [markdown]
# ## What the time embedding does
#
# We train a small U-Net on the digits. Then we give it the *same* noised images
# with three different log-SNRs. Only one of the three is right. The network
# removes as much noise as the given log-SNR implies.

# %%
# alt: Noised digits, and the estimate of the clean image for a log-SNR that is
#   too low, right, and too high.
digits = data.load("digits")
torch.manual_seed(0)
network = UNet(digits.shape, width=16)
schedule = LinearLogSNR(clean=4.0, noisy=-6.0)
model = Diffusion(digits, denoiser=network, schedule=schedule)
print(
    f"{sum(p.numel() for p in network.parameters()):,} parameters, trained for {STEPS} steps"
)
history = fit(
    model,
    digits,
    steps=STEPS,
    batch_size=64,
    learning_rate=2e-3,
    progress=False,
)

TRUE = 1.0  # the log-SNR of the noised images
torch.manual_seed(2)
x = model.encoder.real(digits.test[[6, 10, 15, 20, 23, 30]])
time = schedule.time(torch.full((len(x),), TRUE, dtype=torch.float64))
alpha, sigma = (
    part.float().reshape(-1, 1, 1, 1) for part in schedule.scales(time)
)
noised = alpha * x + sigma * torch.randn_like(x)
rows = [plots.Row("noised, log-SNR 1", (noised.clamp(-1.5, 1.5) + 1.5) / 3)]
for asked in (-3.0, 1.0, 4.0):
    with torch.no_grad():
        x_hat = model.diffusion.denoiser(
            noised, torch.full((len(x),), asked)
        ).x_hat
    rmse = (x_hat - x).square().mean().sqrt()
    print(f"asked for log-SNR {asked:4}: error of the estimate {rmse:.3f}")
    rows.append(plots.Row(f"asked for {asked:g}", (x_hat.clamp(-1, 1) + 1) / 2))
rows.append(plots.Row("clean", (x + 1) / 2))
plots.strips(rows, "The estimate, by the log-SNR asked for", side=0.9)

# %% [markdown]
# ## The skip connections, cut
#
# What do they do? This network has one skip connection. We set it to zero after
# training, and denoise the same images again.

# %%
# alt: Estimates with all connections, and without the skip connection.
level_up = network.up[0]


def without_skip(
    _: nn.Module, inputs: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The second half of the channels are those of the skip connection."""
    h, embedding = inputs
    cut = h.clone()
    cut[:, h.shape[1] // 2 :] = 0
    return cut, embedding


level_1 = torch.full((len(x),), TRUE)
with torch.no_grad():
    whole = model.diffusion.denoiser(noised, level_1).x_hat
    handle = level_up.register_forward_pre_hook(without_skip)
    cut = model.diffusion.denoiser(noised, level_1).x_hat
    handle.remove()
print(
    f"error with the skip connection    {(whole - x).square().mean().sqrt():.3f}"
)
print(
    f"error without                     {(cut - x).square().mean().sqrt():.3f}"
)
plots.strips(
    [
        plots.Row("noised, log-SNR 1", (noised.clamp(-1.5, 1.5) + 1.5) / 3),
        plots.Row("all connections", (whole.clamp(-1, 1) + 1) / 2),
        plots.Row("no skip connection", (cut.clamp(-1, 1) + 1) / 2),
    ],
    side=0.9,
    title="The estimate with the skip connection cut",
)

# %% [markdown]
# ## What you should see
#
# * The size halves twice on the way down and doubles twice on the way up. The
#   number of channels does the opposite. Most parameters sit where the image is
#   smallest.
# * Attention at 7 x 7 compares 2,401 pairs of positions. At 28 x 28 it would
#   compare 256 times as many.
# * Neighboring log-SNRs have similar embeddings, distant ones do not.
# * The untrained network predicts exactly zero.
# * Asked for a log-SNR that is too low, the network blurs: it removes noise that
#   is not there. Asked for one that is too high, it leaves noise as strokes.
# * Without its skip connection the error grows from 0.293 to 0.516. Grays turn
#   black or white, and single wrong pixels appear.
#
# !!! note "The slide"
#     The slide names "additive positional embedding" as an example. Scale and
#     shift contain addition as a special case, and are what later networks use
#     (Dhariwal and Nichol 2021). Embedding $t$ instead of the log-SNR ties a
#     network to one schedule and one number of steps.
#
# ## Exercises
#
# **1.** Why must input and output have the same size?
#
# ??? example "Solution"
#     The output is a noise, or an image, for every pixel of $x_t$. All latents of
#     a diffusion have the size of the data. An encoder of a VAE may shrink its
#     input; this network may not.
#
# **2.** The next pages use an MLP for the 8x8 digits. Why not use one for 256x256
# photographs?
#
# ??? example "Solution"
#     A color photograph has 256 x 256 x 3 = 196,608 numbers. The first layer of
#     an MLP would have a weight for each of them and each hidden unit. It would
#     have to learn an edge again at each place. Convolutions share weights over
#     places.
#
# **3.** What would happen if the log-SNR were not given to the network?
#
# ??? example "Solution"
#     It would have to estimate the noise level from the image. This can work
#     where noise and content look different. A wrong estimate of the level has
#     the effect that the strips above show: blur, or noise that stays.
#
# Next: [the algorithms](15-algorithms.md).
