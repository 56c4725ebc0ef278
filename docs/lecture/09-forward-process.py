# %% [markdown]
# # The forward process, step by step and merged
#
# A diffusion model has two processes. The **forward process** adds noise to an
# image until nothing but noise is left. It has nothing to learn. The **reverse
# process** goes back, and is what a network learns. This page runs the forward
# process, once in a thousand small steps and once in a single one.
#
# The lecture's definition: $x_0$ is an image, and each state is drawn from a
# normal distribution around the state before,
#
# $$q(x_t \mid x_{t-1}) = \mathcal{N}\big(x_t;\ \sqrt{1 - \beta_t}\, x_{t-1},\ \beta_t I\big),
# \qquad \beta_t \in (0, 1), \quad t = 1, \dots, T.$$
#
# The numbers $\beta_1, \dots, \beta_T$ are the **variance schedule**. Here they
# are those of DDPM: they rise linearly from 0.0001 to 0.02 in $T = 1000$ steps
# (`schedules.LinearBeta`).

# %%
import torch

from genmod import data, gaussian, plots
from genmod.diffusion import NoisingEncoder
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.schedules import LinearBeta

CHAINS = 4_000  # few: 500

T = 1000
schedule = LinearBeta(T)
beta = schedule.betas(T)  # the lecture's beta_1, ..., beta_T
alpha = 1 - beta
alpha_bar = schedule.alpha_bars(T)
print("first and last beta     ", beta[0].item(), beta[-1].item())
print(
    "alpha_bar is the product",
    torch.allclose(alpha_bar, alpha.cumprod(0), rtol=1e-12),
)

# %% [markdown]
# ## Step by step
#
# The reparameterization trick turns the definition into a line of code:
# $x_t = \sqrt{\alpha_t}\, x_{t-1} + \sqrt{1 - \alpha_t}\, \epsilon_{t-1}$ with
# $\alpha_t = 1 - \beta_t$. The images are 8x8 digits with values 0 to 16, scaled
# to $[-1, 1]$ by the encoder (`Encoder.real`).

# %%
# alt: Five digits at seven steps of the forward process, from clean on the left
#   to pure noise.
torch.manual_seed(0)
digits = data.load("digits")
encoder = NoisingEncoder(schedule, digits.spec)
x_0 = encoder.real(digits.test[[3, 6, 10, 12, 15]]).double()

SHOWN = (0, 50, 100, 200, 400, 700, 1000)
x, states = x_0, {0: x_0}
for t in range(1, T + 1):
    x = alpha[t - 1].sqrt() * x + beta[t - 1].sqrt() * torch.randn_like(x)
    if t in SHOWN:
        states[t] = x

rows = []
for index in range(len(x_0)):
    images = (
        torch.stack([states[t][index] for t in SHOWN]).clamp(-1.5, 1.5) / 3
        + 0.5
    )
    labels = [f"t = {t}" for t in SHOWN] if index == 0 else []
    rows.append(plots.Row("", images, above=labels))
plots.strips(
    rows, side=0.9, title="The forward process, one step after another"
)

# %% [markdown]
# ## The induction
#
# Put the step from $t - 2$ to $t - 1$ into the step from $t - 1$ to $t$:
#
# $$\begin{aligned}
# x_t &= \sqrt{\alpha_t}\, x_{t-1} + \sqrt{1 - \alpha_t}\, \epsilon_{t-1} \\
# &= \sqrt{\alpha_t \alpha_{t-1}}\, x_{t-2}
# + \underbrace{\sqrt{\alpha_t (1 - \alpha_{t-1})}\, \epsilon_{t-2}
# + \sqrt{1 - \alpha_t}\, \epsilon_{t-1}}_{\text{sum of two independent Gaussians}} \\
# &= \sqrt{\alpha_t \alpha_{t-1}}\, x_{t-2} + \sqrt{1 - \alpha_t \alpha_{t-1}}\, \bar\epsilon_{t-2}.
# \end{aligned}$$
#
# Variances of independent Gaussians add:
# $\alpha_t (1 - \alpha_{t-1}) + (1 - \alpha_t) = 1 - \alpha_t \alpha_{t-1}$. So
# the two noises merge into one. Repeat this down to $x_0$:
#
# $$x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
# \bar\alpha_t = \prod_{i=1}^t \alpha_i, \qquad
# q(x_t \mid x_0) = \mathcal{N}\big(\sqrt{\bar\alpha_t}\, x_0,\ (1 - \bar\alpha_t) I\big).$$
#
# The induction can be run. Keep two numbers, the factor of $x_0$ and the variance
# of the noise, and update them a thousand times.
# `gaussian.LinearGaussian.marginal` does one step of it for any linear map: if
# $z \sim \mathcal{N}(m, S)$ and $x \mid z \sim \mathcal{N}(Az + b, N)$, it
# returns the law of $x$. `NoisingEncoder(schedule)(x).at(t)` is the merged law.
# Its time runs from 0 to 1: the lecture's step $i$ lies at $(i - 1) / (T - 1)$.

# %%
one, zero = (
    torch.ones(1, 1, dtype=torch.float64),
    torch.zeros(1, dtype=torch.float64),
)
pixel = torch.full((1,), 0.8, dtype=torch.float64)
mean, std = alpha[0].sqrt() * pixel, beta[0].sqrt() * one  # of x_1
merged = NoisingEncoder(schedule)(torch.full((1, 1), 0.8, dtype=torch.float64))
print(
    "   t   mean: step by step     merged   variance: step by step       merged"
)
for t in range(1, T + 1):
    factor, noise = alpha[t - 1].sqrt(), beta[t - 1].sqrt()
    if t > 1:
        step = gaussian.LinearGaussian(
            mean, std, factor * one, zero, noise * one
        )
        mean, std = step.marginal()
    if t in (1, 2, 10, 100, 500, 1000):
        law = merged.at(torch.tensor([(t - 1) / (T - 1)], dtype=torch.float64))
        print(
            f"{t:4}   {mean.item():18.8f} {law.mean.item():10.8f}   "
            f"{std.square().item():22.8f} {law.variance.item():12.8f}"
        )
torch.testing.assert_close(
    std.square().squeeze(), 1 - alpha_bar[-1], rtol=1e-10, atol=0
)

# %% [markdown]
# ## The same law, drawn
#
# A thousand small draws and one large draw are different random numbers, but have
# the same law. We follow one pixel of value 0.8 through many independent chains,
# and compare them with the closed form.


# %%
# alt: Histograms of a pixel after 50, 200 and 1000 small steps, each under the
#   density of the merged law.
def draw_chains(pixel: float, upto: tuple[int, ...]) -> dict[int, torch.Tensor]:
    """Many independent chains from one pixel; the states at some steps."""
    x, kept = torch.full((CHAINS,), pixel, dtype=torch.float64), {}
    for t in range(1, max(upto) + 1):
        x = alpha[t - 1].sqrt() * x + beta[t - 1].sqrt() * torch.randn_like(x)
        if t in upto:
            kept[t] = x.clone()
    return kept


chains = draw_chains(0.8, (50, 200, 1000))
drawing = figure(
    10.0, 3.4, "A pixel of value 0.8: many small steps against one large step"
)
grid = torch.linspace(-4, 4, 400, dtype=torch.float64)
print("   t   mean of chains   sqrt(alpha_bar) 0.8   variance   1 - alpha_bar")
for place, (t, drawn) in enumerate(chains.items()):
    centre, spread = (
        0.8 * alpha_bar[t - 1].sqrt(),
        (1 - alpha_bar[t - 1]).sqrt(),
    )
    axes = plain(drawing.add_subplot(1, 3, place + 1))
    axes.hist(
        drawn.numpy(),
        bins=50,
        range=(-4, 4),
        density=True,
        color="#b9cbe4",
        label="many steps",
    )
    density = gaussian.log_prob(grid, centre, spread).exp()
    axes.plot(grid, density, color="#d1495b", lw=2.2, label="one step")
    axes.set_title(f"t = {t}", fontsize=LABEL)
    label_axes(axes, "$x_t$", "density" if place == 0 else "")
    if place == 0:
        axes.legend(frameon=False, fontsize=9.5, loc="upper left")
    print(
        f"{t:4}   {drawn.mean():14.4f}   {centre:19.4f}   {drawn.var():8.4f}   {spread**2:13.4f}"
    )
drawing

# %% [markdown]
# ## Which noise is merged?
#
# In the slide's last line $\epsilon$ is not one of the $\epsilon_{t-1}$. It is
# the sum of all of them, scaled to variance one:
# $\epsilon = (x_t - \sqrt{\bar\alpha_t}\, x_0) / \sqrt{1 - \bar\alpha_t}$. This
# is the noise that a network will learn to predict. We compute it from the chain
# of the digits. Then we check its mean, its variance, and its correlation with
# the image.

# %%
torch.manual_seed(1)
images = encoder.real(digits.train).double()
x, T_HALF = images, 300
for t in range(T_HALF):
    x = alpha[t].sqrt() * x + beta[t].sqrt() * torch.randn_like(x)
eps = (x - alpha_bar[T_HALF - 1].sqrt() * images) / (
    1 - alpha_bar[T_HALF - 1]
).sqrt()
last = (x - images).flatten()  # for comparison: all that changed since x_0
print(f"mean of the merged noise        {eps.mean().item():8.4f}   (0)")
print(f"variance                        {eps.var().item():8.4f}   (1)")
pairs = torch.stack([eps.flatten(), images.flatten(), last])
print(
    f"correlation with the image      {torch.corrcoef(pairs)[0, 1].item():8.4f}   (0)"
)
print(
    f"the whole change x_t - x_0, too {torch.corrcoef(pairs)[2, 1].item():8.4f}   (not 0)"
)

# %% [markdown]
# ## Where it ends
#
# The last state should be pure noise, whatever the image was.
# `gaussian.kl_standard` measures what is left, in nats: the KL divergence of
# $q(x_t \mid x_0)$ from $\mathcal{N}(0, I)$. At $t = T$ it is the **prior
# matching term** of the bound (see [the objective](12-objective.md)).

# %%
# alt: Two curves against the step: the factor of the image falls from one to
#   zero, that of the noise rises.
steps = torch.arange(1, T + 1)
drawing = figure(8.2, 3.8, "The image fades, the noise grows")
axes = plain(drawing.add_subplot())
axes.plot(
    steps,
    alpha_bar.sqrt(),
    lw=2.4,
    color="#3b6fb6",
    label=r"$\sqrt{\bar\alpha_t}$: image",
)
axes.plot(
    steps,
    (1 - alpha_bar).sqrt(),
    lw=2.4,
    color="#d1495b",
    label=r"$\sqrt{1-\bar\alpha_t}$: noise",
)
axes.legend(frameon=False, fontsize=LABEL)
label_axes(axes, "step t", "factor")
drawing

# %%
# alt: The KL divergence from N(0, I) against the step, on a logarithmic axis: it
#   falls to a thousandth of a nat.
left = []
for t in range(T):
    law_mean = alpha_bar[t].sqrt() * images[:200]
    law_std = (1 - alpha_bar[t]).sqrt().expand_as(law_mean)
    left.append(
        gaussian.kl_standard(law_mean, law_std).flatten(1).sum(1).mean()
    )
kl = torch.stack(left)
for t in (1, 100, 500, 1000):
    print(
        f"t = {t:4}   alpha_bar = {alpha_bar[t - 1]:.6f}   "
        f"KL to N(0, I) = {kl[t - 1]:.4f} nats an image"
    )

drawing = figure(8.2, 3.8, "What is left of the image")
axes = plain(drawing.add_subplot())
axes.plot(steps, kl, lw=2.4, color="#2a9d8f")
axes.set_yscale("log")
label_axes(axes, "step t", r"KL$(q(x_t | x_0)\,\|\,N(0, I))$, nats")
drawing

# %% [markdown]
# ## What you should see
#
# * To the eye, the digits are still readable at $t = 100$, only partly at
#   $t = 200$, and gone from $t = 400$ on. So DDPM's linear schedule spends more
#   than half of its steps on what looks like noise. The
#   [next page](10-schedules.md) compares schedules.
# * Step by step and merged agree in all printed digits. Nothing is approximated
#   when the steps merge. The means and variances of the drawn chains agree with
#   the merged law within about one standard error.
# * The merged noise has mean 0, variance 1, and no correlation with the image.
#   The change $x_t - x_0$ itself is correlated with it, because the image is also
#   shrunk.
# * The squares of the two factors sum to one. So data of variance one keep
#   variance one at every step.
# * At $t = 1000$ the last state carries at most about a thousandth of a nat
#   about the image.
#
# !!! note "The slide"
#     The slides write $\epsilon_{t-1}$, $\bar\epsilon_{t-2}$ and then
#     $\epsilon$. All are standard normal, and all are different random
#     variables. Each one holds the noise that was added after the state in its
#     own line: after $x_{t-1}$, after $x_{t-2}$, and after $x_0$.
#
# ## Exercises
#
# **1.** Take only the first 100 of the thousand steps. What is
# $\bar\alpha_{100}$? Could a sampler start from $\mathcal{N}(0, I)$ there?
#
# ??? example "Solution"
#     $\bar\alpha_{100} = \prod_{i \le 100} (1 - \beta_i) \approx 0.897$ (printed
#     above). The factor of the image is still $\sqrt{0.897} = 0.947$. So a
#     sampler that starts from pure noise starts from the wrong law.
#
# **2.** Leave out the factor $\sqrt{1 - \beta_t}$. What is the law of $x_T$ then?
#
# ??? example "Solution"
#     $x_T = x_0 + \sqrt{\sum_t \beta_t}\, \epsilon$: the mean stays, and the
#     variance grows with every step. This is a *variance exploding* process
#     (`schedules.VarianceExploding`). Its signal-to-noise ratio falls too,
#     because the noise grows. After a change of scale it is a variance
#     preserving process again.
#
# **3.** Let $x_0$ have variance $v$ in each pixel. Show that the variance of
# $x_t$ tends to 1.
#
# ??? example "Solution"
#     $\mathrm{Var}(x_t) = \bar\alpha_t v + 1 - \bar\alpha_t = 1 + \bar\alpha_t (v - 1)$,
#     and $\bar\alpha_t \to 0$. With $v = 1$ it is 1 at all times, hence the name
#     *variance preserving*.
#
# Next: [schedules](10-schedules.md).
