# %% [markdown]
# # Fewer steps
#
# The lecture's limitation: diffusion "can require many sampling steps for good
# quality". A thousand steps are a thousand calls of the network for one image.
# This page shows where the need comes from, and how samplers that take better
# steps reduce it, with the *same* trained network.

# %%
import torch
from torch import Tensor

from genmod import Diffusion, data, fit, plots
from genmod.denoisers import Denoiser, EmpiricalDenoiser, GaussianDenoiser
from genmod.evaluation import quality
from genmod.nn import MLPs
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.samplers import (
    DDIM,
    Ancestral,
    DPMSolver,
    Heun,
    Sampler,
    UniformLogSNR,
)
from genmod.schedules import LinearLogSNR

STEPS = 1_500  # few: 10
SAMPLES = 300  # few: 80
BUDGETS = (4, 8, 16, 32, 64)  # few: (4, 8)

# %% [markdown]
# ## Two ways from noise to data
#
# **Ancestral** sampling (the lecture's algorithm) draws each step from
# $p_\theta(x_{t-1} \mid x_t)$: a random path. The **probability flow** is an
# ordinary differential equation with the same law at every time (Song et al.
# 2021): a smooth path, without noise. With
# $\hat\epsilon = (z_t - \alpha_t \hat x) / \sigma_t$, one Euler step for
# $z_t / \alpha_t$ as a function of $\sigma_t / \alpha_t$ is **DDIM**,
#
# $$z_s = \alpha_s\, \hat x(z_t) + \sigma_s\, \hat\epsilon(z_t).$$
#
# We draw both for eight points on a circle, whose best denoiser is known
# (`EmpiricalDenoiser`).

# %%
# alt: Paths from noise to eight points: jagged random paths of ancestral
#   sampling, smooth paths of DDIM.
angle = torch.arange(8, dtype=torch.float64) * torch.pi / 4
points = 1.2 * torch.stack([angle.cos(), angle.sin()], 1)
ring = EmpiricalDenoiser(points, std=0.05)
schedule = LinearLogSNR(clean=7.0, noisy=-6.0)
torch.manual_seed(0)
start = torch.randn(24, 2, dtype=torch.float64)
times = UniformLogSNR().times(schedule, steps=200)
drawing = figure(9.6, 5.0, "Two ways from noise (black) to the data (red)")
for place, (name, sampler) in enumerate(
    {
        "ancestral: random": Ancestral(ring, schedule),
        "DDIM: smooth": DDIM(ring, schedule),
    }.items()
):
    path = torch.stack(
        [start, *(state.z for state in sampler.states(start, times))]
    )
    axes = plain(drawing.add_subplot(1, 2, place + 1))
    axes.plot(path[:, :, 0], path[:, :, 1], lw=0.8, color="#3b6fb6", alpha=0.6)
    axes.plot(points[:, 0], points[:, 1], "o", ms=10, color="#d1495b")
    axes.plot(start[:, 0], start[:, 1], ".", color="#22272e")
    axes.set_title(name, fontsize=LABEL)
    axes.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
    label_axes(axes, "first coordinate", "second coordinate" * (place == 0))
drawing

# %% [markdown]
# Smooth paths can be followed with large steps. And methods of higher order
# follow a curve better: **Heun** corrects each step with a second call of the
# network; **DPM-Solver++ 2M** extrapolates from the step before, without an extra
# call.
#
# ## The order of a method
#
# For Gaussian data the best denoiser is known, and the flow is linear. We compare
# each method's end with that of a solver with 4096 steps. If the error is
# proportional to the number of calls to the power $-p$, the method has order $p$.
# On logarithmic axes this is a line of slope $-p$; the table prints $p$.

# %%
# alt: The error of DDIM, Heun and DPM-Solver++ against calls of the network,
#   with slopes of about one, three and two.
covariance = torch.tensor([[0.9, 0.6], [0.6, 0.7]], dtype=torch.float64)
gauss = GaussianDenoiser(torch.tensor([0.5, -0.2]).double(), covariance)
METHODS: dict[str, Sampler] = {
    "DDIM": DDIM(),
    "Heun": Heun(),
    "DPM-Solver++ 2M": DPMSolver(order=2),
}
torch.manual_seed(0)
start = torch.randn(200, 2, dtype=torch.float64)


def end(sampler: Sampler, denoiser: Denoiser, steps: int) -> Tensor:
    """Where the sampler ends, from the same start."""
    bound = sampler.bind_missing(denoiser, schedule)
    return bound.run(start, UniformLogSNR().times(schedule, steps=steps))


exact = end(DPMSolver(order=2), gauss, 4096)
CALLS = (8, 16, 32, 64, 128, 256)
drawing = figure(8.2, 4.0, "Error of the end point, for Gaussian data")
axes = plain(drawing.add_subplot())
print(
    "calls           " + "".join(f"{calls:>10}" for calls in CALLS) + "   slope"
)
colors = plots.palette(METHODS)
for name, sampler in METHODS.items():
    errors = []
    for calls in CALLS:
        taken = max(
            n for n in range(1, calls + 1) if sampler.evaluations(n) <= calls
        )
        errors.append(
            float((end(sampler, gauss, taken) - exact).square().mean().sqrt())
        )
    slope = torch.tensor(errors[-2]).log2() - torch.tensor(errors[-1]).log2()
    print(
        f"{name:16}"
        + "".join(f"{error:10.1e}" for error in errors)
        + f"{slope:8.2f}"
    )
    axes.plot(CALLS, errors, marker="o", lw=2.2, color=colors[name], label=name)
axes.set_xscale("log", base=2)
axes.set_yscale("log")
axes.legend(frameon=False, fontsize=LABEL)
label_axes(axes, "calls of the denoiser", "root mean square error")
drawing

# %% [markdown]
# ## A trained network
#
# Now the digits. One network, trained once; `model.sample` takes any sampler and
# number of steps.

# %%
torch.manual_seed(0)
digits = data.load("digits")
model = Diffusion(
    digits,
    networks=MLPs(width=192, depth=3, dropout=0.1),
    schedule=LinearLogSNR(clean=4.0, noisy=-6.0),
    steps=128,
)
fit(model, digits, steps=STEPS, learning_rate=2e-3, progress=False)
SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "DDIM": DDIM(),
    "Heun": Heun(),
    "DPM-Solver++ 2M": DPMSolver(order=2),
}

# %%
# alt: Samples from the same noise by four samplers with four, sixteen and
#   sixty-four calls.
rows = []
for calls in BUDGETS[::2]:
    for name, sampler in SAMPLERS.items():
        taken = max(
            n for n in range(1, calls + 1) if sampler.evaluations(n) <= calls
        )
        images = model.sample(
            14,
            sampler=sampler,
            steps=taken,
            grid=UniformLogSNR(),
            seeds=range(14),
        )
        rows.append(plots.Row(f"{calls} calls, {name}", images / 16))
plots.strips(rows, "The same noise, by calls and sampler", side=0.52)

# %% [markdown]
# ## Quality against calls
#
# The dotted line is the distance between two sets of real images.

# %%
# alt: Frechet distance of the samples against calls of the network, for four
#   samplers.
drawing = figure(8.2, 4.4, "Better samplers need fewer calls")
axes = plain(drawing.add_subplot())
colors = plots.palette(SAMPLERS)
print("calls           " + "".join(f"{calls:>7}" for calls in BUDGETS))
for name, sampler in SAMPLERS.items():
    distances = []
    for calls in BUDGETS:
        taken = max(
            n for n in range(1, calls + 1) if sampler.evaluations(n) <= calls
        )
        images = model.sample(
            SAMPLES,
            sampler=sampler,
            steps=taken,
            grid=UniformLogSNR(),
            seeds=range(SAMPLES),
        )
        found = quality(images, digits)
        distances.append(found.frechet)
    print(f"{name:16}" + "".join(f"{distance:7.0f}" for distance in distances))
    axes.plot(
        BUDGETS, distances, marker="o", lw=2.2, color=colors[name], label=name
    )
print(f"real images against real images: {found.zero:.0f}")
axes.axhline(found.zero, color="#22272e", ls=":", lw=1.2, label="real images")
axes.set_xscale("log", base=2)
axes.set_ylim(bottom=0)
axes.set_xticks(BUDGETS, [str(calls) for calls in BUDGETS])
axes.legend(frameon=False, fontsize=LABEL)
label_axes(axes, "calls of the network", "Fréchet distance from test images")
drawing

# %% [markdown]
# ## The same noise, the same image
#
# The flow is a function of its start. So a sample is reproducible, noise can be
# interpolated, and an image has a code: `model.encode` runs the flow backwards.

# %%
# alt: Rows of images between two samples, by interpolating the noise along a
#   circle.
torch.manual_seed(4)
flow = DPMSolver(order=2).bind_missing(
    model.diffusion.denoiser, model.diffusion.schedule
)
rows = []
for _ in range(3):
    a, b = torch.randn(2, 1, 1, 8, 8)
    share = torch.linspace(0, torch.pi / 2, 12).reshape(-1, 1, 1, 1)
    noise = share.cos() * a + share.sin() * b  # of variance one all the way
    grid_times = UniformLogSNR().times(model.diffusion.schedule, steps=20)
    with torch.no_grad():
        z_0 = flow.run(noise, grid_times)
        rows.append(plots.Row("", model.decoder(z_0).mean / 16))
plots.strips(rows, side=0.7, title="Between two noises")

# %%
x = digits.test[:50]
code = model.encode(x)
assert isinstance(code, Tensor)
again = model.decode(code).mean
print(f"the code of images: mean {code.mean():.2f}, std {code.std():.2f}")
print(f"after decoding, error {(again - x).abs().mean():.2f} of 16 values")

# %% [markdown]
# ## What you should see
#
# * Random paths are jagged. Those of the flow are smooth, and many are nearly
#   straight.
# * DDIM is of order 1: twice as many calls halve the error. DPM-Solver++ 2M is of
#   order 2: twice as many calls divide it by four. Heun has order nearly 3 on
#   this linear problem (2 in general). But it needs two calls a step, so here it
#   is the best only with 32 calls or more.
# * With the same start all samplers of the flow end at nearly the same image,
#   most visibly with 16 calls or more. Ancestral sampling ends at other images
#   for each number of steps.
# * Ancestral sampling needs about 32 calls; Heun and DPM-Solver++ are as good as
#   they get with 8. More calls do not help.
# * An image, encoded and decoded by the flow, comes back with a mean error of
#   about a fifth of a value.
#
# !!! note "The slide"
#     "Can require many sampling steps" is a statement about a sampler, not about
#     the model. DDPM's 1000 steps belong to its training and its bound. The
#     number of steps in sampling is chosen afterwards.
#
# ## Exercises
#
# **1.** Show that DDIM gives the exact end in one step if $\hat x$ does not
# change along the path.
#
# ??? example "Solution"
#     If $\hat x$ is constant, so is $\hat\epsilon$:
#     $z_s = \alpha_s \hat x + \sigma_s \hat\epsilon$ implies
#     $\hat\epsilon(z_s) = (z_s - \alpha_s \hat x) / \sigma_s = \hat\epsilon$. The
#     path is known in closed form. For one data point a single step is exact.
#
# **2.** `DDIM(eta=1.0)` is ancestral sampling. What does `eta` do between 0 and
# 1?
#
# ??? example "Solution"
#     It adds a part of the noise of the ancestral step. New noise can hide errors
#     of earlier steps, but a random path needs more steps. Try
#     `model.sample(16, sampler=DDIM(eta=0.5), steps=16)`.
#
# **3.** Even steps in $t$ or in log-SNR? Repeat the curve with
# `grid=UniformTime()` for a cosine schedule.
#
# ??? example "Solution"
#     DPM-Solver works in log-SNR, where it solves the linear part of the equation
#     exactly. For a linear log-SNR schedule both grids are the same. Under a
#     cosine schedule even times leave very long steps at both ends, in terms of
#     log-SNR.
#
# Next: [latent and prompted diffusion](19-latent-and-prompted.md).
