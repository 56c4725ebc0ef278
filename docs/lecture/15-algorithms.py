# %% [markdown]
# # The training and sampling algorithms, line by line
#
# The lecture has two boxes of pseudocode, for training and for sampling. This
# page writes both in plain PyTorch, one line of code for each line of the slide.
# It trains with the first and samples with the second. Then it compares them with
# `fit` and `model.sample`.

# %%
import torch
from torch import Tensor

from genmod import Diffusion, data, fit, plots
from genmod.denoisers import Learned, NoiseTarget
from genmod.diffusion import FixedLarge, FixedSmall
from genmod.evaluation import quality
from genmod.nn import MLPs
from genmod.objectives import Batch, Simple
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.samplers import Ancestral
from genmod.schedules import LinearBeta

STEPS = 1_500  # few: 10
SAMPLES = 300  # few: 80
T = 200  # few: 20

# %% [markdown]
# ## What both share
#
# A schedule: $\beta_t$, $\alpha_t = 1 - \beta_t$ and $\bar\alpha_t$, here DDPM's
# curve in 200 steps. And a network $\epsilon_\theta(x_t, t)$: an MLP is enough
# for 8x8 digits. It is given the log-SNR of step $t$ in place of $t$; one follows
# from the other.

# %%
torch.manual_seed(0)
digits = data.load("digits")
schedule = LinearBeta(1000).cut(clean=4.0)
beta = schedule.betas(T).float()
alpha, alpha_bar = 1 - beta, schedule.alpha_bars(T).float()
log_snr = (alpha_bar / (1 - alpha_bar)).log()
network = MLPs(width=192, depth=3, dropout=0.1).denoiser(digits.shape)
images = digits.train.float() / 8 - 1  # 0..16 becomes -1..1


def eps_theta(x_t: Tensor, t: Tensor) -> Tensor:
    """The slide's network: the noise in x_t; t counts from 1 to T."""
    eps: Tensor = network(x_t, log_snr[t - 1])
    return eps


# %% [markdown]
# ## The training algorithm
#
# | the slide | the code |
# |---|---|
# | **repeat until convergence** | `for step in range(STEPS):` |
# | 1. $x_0 \sim q(x_0)$ | `x_0 = images[torch.randint(...)]` |
# | 2. $t \sim U\{1, 2, \dots, T\}$ | `t = torch.randint(1, T + 1, ...)` |
# | 3. $\epsilon \sim \mathcal{N}(0, I)$ | `eps = torch.randn_like(x_0)` |
# | $x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon$ | `x_t = ...` |
# | 4. step on $\lVert\epsilon - \epsilon_\theta(x_t, t)\rVert^2$ | `loss.backward()`, `step()` |


# %%
def column(values: Tensor) -> Tensor:
    """One number a row, to multiply with images."""
    return values.reshape(-1, 1, 1, 1)


optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
losses, times = [], []
network.train()
for step in range(STEPS):
    x_0 = images[torch.randint(len(images), (128,))]  # 1. an image
    t = torch.randint(1, T + 1, (128,))  # 2. a time step
    eps = torch.randn_like(x_0)  # 3. noise
    keep = column(alpha_bar[t - 1])
    x_t = keep.sqrt() * x_0 + (1 - keep).sqrt() * eps  # in one step
    squares = (eps - eps_theta(x_t, t)).square().flatten(1).sum(1)
    loss = squares.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()  # 4. a step on the loss
    for group in optimizer.param_groups:
        group["lr"] = 2e-3 * (1 - step / STEPS)
    losses.append(loss.item())
    times.append(torch.stack([t.float(), squares.detach()]))
network.eval()
first, last = (
    torch.tensor(losses[:10]).mean(),
    torch.tensor(losses[-100:]).mean(),
)
print(f"loss of the first steps {first:.1f}, of the last {last:.1f}")

# %% [markdown]
# The loss is a sum over 64 pixels. A network that predicts zero has a loss of 64.
# The losses of single steps vary a lot, because they have different $t$. The
# second figure shows the error at each $t$.

# %%
# alt: The loss against the training step: it falls fast, then slowly, with noise.
drawing = figure(8.2, 3.8, "The loss during training")
axes = plain(drawing.add_subplot())
axes.plot(losses, color="#b9cbe4", lw=0.8, label="a batch")
width = max(1, STEPS // 50)
smooth = (
    torch.tensor(losses)[: STEPS // width * width].reshape(-1, width).mean(1)
)
axes.plot(
    torch.arange(len(smooth)) * width + width / 2,
    smooth,
    color="#3b6fb6",
    lw=2.4,
    label=f"mean of {width} batches",
)
axes.set_ylim(0, 66)
axes.legend(frameon=False, fontsize=LABEL)
label_axes(
    axes, "training step", r"$\|\epsilon - \epsilon_\theta\|^2$, 64 pixels"
)
drawing

# %%
# alt: The squared error against the time step t: large at the first steps, where
#   there is little noise, and near zero at the last.
seen = torch.cat(times[-300:], 1)
drawing = figure(8.2, 3.8, "The less noise, the harder it is to predict")
axes = plain(drawing.add_subplot())
axes.plot(
    seen[0][::7], seen[1][::7], ".", ms=2, color="#b9cbe4", label="an image"
)
bins = torch.arange(0, T, T // 10)
means = [
    seen[1][(seen[0] > low) & (seen[0] <= low + T // 10)].mean() for low in bins
]
axes.plot(
    bins + T / 20, means, color="#d1495b", lw=2.4, marker="o", label="mean"
)
axes.legend(frameon=False, fontsize=LABEL, markerscale=2)
label_axes(
    axes, "time step t", r"$\|\epsilon - \epsilon_\theta\|^2$, 64 pixels"
)
drawing

# %% [markdown]
# ## The sampling algorithm
#
# The network's mean of the next state is
#
# $$\mu_\theta(x_t, t) = \frac{1}{\sqrt{\alpha_t}} \Big( x_t
# - \frac{1 - \alpha_t}{\sqrt{1 - \bar\alpha_t}} \epsilon_\theta(x_t, t) \Big).$$
#
# | the slide | the code |
# |---|---|
# | $x_T \sim \mathcal{N}(0, I)$ | `x = torch.randn(...)` |
# | **for** $t = T, T - 1, \dots, 1$ | `for t in range(T, 0, -1):` |
# | $z \sim \mathcal{N}(0, I)$ if $t > 1$, else 0 | `z = torch.randn_like(x) if t > 1 else ...` |
# | $x_{t-1} = \mu_\theta(x_t, t) + \sigma_t z$ | `x = mean + variances[t - 1].sqrt() * z` |
# | **return** $x_0$ | `return x` |

# %%
alpha_bar_before = torch.cat([torch.ones(1), alpha_bar[:-1]])
beta_tilde = (1 - alpha_bar_before) / (1 - alpha_bar) * beta


@torch.no_grad()
def sample(
    n: int, variances: Tensor, kept: tuple[int, ...] = ()
) -> tuple[Tensor, list[Tensor]]:
    """The slide's algorithm with given variances; also some states on the way."""
    x, states = torch.randn(n, 1, 8, 8), []
    for t in range(T, 0, -1):
        if t in kept:
            states.append(x.clone())
        z = torch.randn_like(x) if t > 1 else torch.zeros_like(x)
        eps = eps_theta(x, torch.full((n,), t))
        noise = beta[t - 1] / (1 - alpha_bar[t - 1]).sqrt() * eps
        mean = (x - noise) / alpha[t - 1].sqrt()
        x = mean + variances[t - 1].sqrt() * z
    return x, states


# %%
# alt: The reverse process: six digits at seven steps, from noise on the left to
#   images on the right.
torch.manual_seed(3)
KEPT = tuple(max(1, round(T * part)) for part in (1, 0.7, 0.5, 0.35, 0.2, 0.1))
ends, states = sample(6, beta_tilde, KEPT)
rows = []
for index in range(6):
    strip = torch.stack([*(state[index] for state in states), ends[index]])
    labels = [*(f"t = {t}" for t in KEPT), "t = 0"] if index == 0 else []
    rows.append(plots.Row("", strip.clamp(-1.5, 1.5) / 3 + 0.5, above=labels))
plots.strips(rows, side=0.9, title="The sampling algorithm, run")

# %% [markdown]
# ## The same in genmod
#
# Put the same network into a `Diffusion` whose latents are the slide's
# $x_1, \dots, x_T$. First the **loss**. We let the objective `Simple` compute it.
# A hook records the states that the network gets, and we compute the slide's loss
# from them.

# %%
model = Diffusion(
    digits, denoiser=Learned(network, NoiseTarget()), schedule=schedule, steps=T
)
calls: list[tuple[Tensor, Tensor, Tensor]] = []
handle = network.register_forward_hook(
    lambda _, inputs, output: calls.append((inputs[0], inputs[1], output))
)
batch = digits.test[:100]
torch.manual_seed(0)
loss, bound = Simple()(model, Batch(batch))
handle.remove()
x_t, level, predicted = calls[0]
keep = column(level.sigmoid())
eps = (x_t - keep.sqrt() * model.encoder.real(batch)) / (1 - keep).sqrt()
by_hand = (eps - predicted).square().flatten(1).sum(1).mean()
print(f"Simple()(model, batch)           {loss.item():.4f}")
print(f"the slide's loss at its states   {by_hand.item():.4f}")
drawn_steps = bound.rates["steps"].level.flatten() * (T - 1) + 1
print(
    "time steps drawn:", sorted(drawn_steps.round().int().tolist())[:8], "..."
)
torch.testing.assert_close(loss, by_hand, rtol=1e-4, atol=1e-3)

# %% [markdown]
# Second, a **step**. `Ancestral` draws from $p_\theta(x_{t-1} \mid x_t)$. With
# the same $x_t$, the mean and the variance of that law are those of the slide.

# %%
step_t = torch.full((6,), (KEPT[2] - 1) / (T - 1), dtype=torch.float64)
step_s = torch.full((6,), (KEPT[2] - 2) / (T - 1), dtype=torch.float64)
x_t, t_index = states[2], KEPT[2]
with torch.no_grad():
    law = model.diffusion.reverse.law(x_t, step_t, step_s)
    eps = eps_theta(x_t, torch.full((6,), t_index))
mean = (
    x_t - beta[t_index - 1] / (1 - alpha_bar[t_index - 1]).sqrt() * eps
) / alpha[t_index - 1].sqrt()
print("mean, largest difference", f"{(law.mean - mean).abs().max().item():.1e}")
print("variance of genmod's law", f"{law.variance.flatten()[0].item():.6f}")
print("beta_tilde of the slide ", f"{beta_tilde[t_index - 1].item():.6f}")
torch.testing.assert_close(law.mean, mean, rtol=1e-3, atol=1e-4)

# %% [markdown]
# ## Which variance?
#
# The slide leaves $\sigma_t$ open. Two choices are usual:
# $\sigma_t^2 = \tilde\beta_t$ (`FixedSmall`, the posterior's) and
# $\sigma_t^2 = \beta_t$ (`FixedLarge`, the forward step's). For many steps they
# hardly differ. We compare three sets of samples: by hand with each variance, and
# by `model.sample`.

# %%
# alt: Samples by hand with the small and the large variance, and samples by
#   genmod, beside test images.
torch.manual_seed(0)
by_loop = {
    "by hand, beta_tilde": sample(SAMPLES, beta_tilde)[0],
    "by hand, beta": sample(SAMPLES, beta)[0],
}
grids = {"test images": digits.test[:36]}
for name, found in by_loop.items():
    grids[name] = ((found.clamp(-1, 1) + 1) * 8).round().long()
for name, variance in (
    ("Ancestral, FixedSmall", FixedSmall()),
    ("Ancestral, FixedLarge", FixedLarge()),
):
    grids[name] = model.sample(
        SAMPLES, sampler=Ancestral(variance=variance), seeds=range(SAMPLES)
    )
for name, found in list(grids.items())[1:]:
    print(f"{name:24} Fréchet distance {quality(found, digits).frechet:.0f}")
plots.samples(
    {name: found[:36] for name, found in grids.items() if "Large" not in name},
    highest=16,
    title="Samples by hand and by genmod",
)

# %% [markdown]
# ## What `fit` adds
#
# One line trains the same model: `fit(model, digits, Simple())`. It is the loop
# above, with more that the slide leaves out: a moving average of the weights,
# warm-up and decay of the learning rate, clipped gradients, time steps that are
# stratified over the batch, the bound on validation images, and the best weights
# at the end. (The loop above has one of these, the decay of the learning rate.)

# %%
torch.manual_seed(0)
other = Diffusion(
    digits,
    denoiser=Learned(
        MLPs(width=192, depth=3, dropout=0.1).denoiser(digits.shape),
        NoiseTarget(),
    ),
    schedule=schedule,
    steps=T,
)
history = fit(
    other, digits, Simple(), steps=STEPS, learning_rate=2e-3, progress=False
)
drawn = other.sample(SAMPLES, seeds=range(SAMPLES))
print(
    f"trained by fit:          Fréchet distance {quality(drawn, digits).frechet:.0f}"
)

# %% [markdown]
# ## What you should see
#
# * The loss falls from 64 to about 6. Most of what remains is at small $t$, where
#   little noise is hidden in an image.
# * Noise becomes digits in the last third of the steps.
# * The slide's loss and that of `Simple` are the same number, and mean and
#   variance of a step are the slide's.
# * By hand and by `model.sample` the samples have about the same quality, with
#   either variance: sets with the same variance differ by 7 or 8 in the distance.
# * `fit` has a smaller distance for the same number of steps, 148. This is one
#   run. The page does not show which of its additions helps.
#
# !!! note "The slides"
#     * The training box writes $\epsilon \sim \mathcal{N}(0, 1)$. It is
#       $\mathcal{N}(0, I)$: one number for each pixel.
#     * The sampling slide writes
#       $p_\theta(x_{t-1} \mid x_t) = q(x_{t-1} \mid x_t, \epsilon_\theta(x_t, t))$.
#       The last argument of $q$ is the data, so it must be the estimate
#       $x_\theta(x_t, t)$, which follows from $\epsilon_\theta$.
#     * The box trains at $t = 1$, too. In the bound this term is the
#       reconstruction $\log p_\theta(x_0 \mid x_1)$. `Simple` visits
#       $t = 2, \dots, T$, the steps that have a KL.
#
# ## Exercises
#
# **1.** Set $z = 0$ at every step. What do the samples look like, and why?
#
# ??? example "Solution"
#     Blurred and too much alike: each step then goes to the mean of the next law,
#     and the spread that a draw would have added is missing. It is *not* the
#     deterministic sampler DDIM, which uses another coefficient.
#
# **2.** Why is $z = 0$ in the last step?
#
# ??? example "Solution"
#     The last step returns an image, and no later step can remove noise that it
#     adds. With $\bar\alpha_0 = 1$, $\tilde\beta_1$ is zero too. In the bound,
#     the last step is the decoder: it has a variance, since it must give every
#     image a probability.
#
# **3.** Why is a time step drawn at random, not taken in order?
#
# ??? example "Solution"
#     With a random $t$, each step of the optimizer has an unbiased estimate of
#     the whole loss. In order, the optimizer would see only similar noise levels
#     for many steps. `timesteps=StratifiedTimesteps(1)` is still random, and
#     spreads the times of a batch evenly.
#
# Next: [data prediction](16-data-prediction.md).
