"""Figures show the numbers they are given."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle
from torch import Tensor

from genmod import plots
from genmod.elbo import Kind
from genmod.evaluation.profile import Profile, Refinement
from genmod.evaluation.scoring import Estimate
from genmod.evaluation.spectrum import LinearForecast
from genmod.evaluation.verdict import Collapse, LatentUse
from genmod.plots.images import grid
from genmod.plots.latents import distances, principal
from genmod.plots.rates import GRAY, curve, rate_at
from genmod.plots.schedules import step_weights
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, Schedule


def line(axes: Axes, index: int = 0) -> tuple[Tensor, Tensor]:
    """The points of a line."""
    x, y = axes.lines[index].get_data()
    return torch.as_tensor(np.asarray(x)), torch.as_tensor(np.asarray(y))


# ---------------------------------------------------------------------- images


def test_a_grid_holds_every_image_in_reading_order() -> None:
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 2, 3)
    picture = grid(images, columns=2)
    assert picture.shape == (10, 9)
    corners = picture[1::3, 1::4]
    assert torch.equal(corners.flatten(), torch.arange(6.0).double().to(corners.dtype))
    assert picture[0].isnan().all()


# ---------------------------------------------------------------------- latents


def test_principal_directions_are_those_of_most_variance() -> None:
    codes = torch.randn(500, 4, dtype=torch.float64) * torch.tensor([1.0, 5.0, 3.0, 0.1])
    seen = principal(codes)
    spread = torch.linalg.eigvalsh(codes.T.cov()).flip(0)
    torch.testing.assert_close(seen.var(0), spread[:2])


@pytest.mark.parametrize("latents", [1, 2])
def test_up_to_two_latents_are_drawn_as_they_are(latents: int) -> None:
    """Each axis is a latent, so that a grid of decoded codes can be read beside the points."""
    codes = torch.randn(50, latents, dtype=torch.float64) + 3.0
    torch.testing.assert_close(principal(codes)[:, :latents], codes)
    assert (principal(codes)[:, latents:] == 0).all()


def test_others_are_seen_in_the_same_plane() -> None:
    """A code's place does not depend on whether it comes with the codes or beside them."""
    codes = torch.randn(100, 5, dtype=torch.float64)
    torch.testing.assert_close(principal(codes, codes[7:9]), principal(codes)[7:9])


@pytest.mark.parametrize("far", [0.0, 1e3, 1e6])
def test_distances_keep_their_digits_far_from_zero(far: float) -> None:
    """Between neighbors of 30 rows; torch's own formula expands squares from 25 on."""
    near = torch.randn(30, 3, dtype=torch.float64).round(decimals=2) + far
    expected = (near[:, None] - near).square().sum(-1).sqrt()
    torch.testing.assert_close(distances(near, near), expected, rtol=1e-9, atol=1e-9)


def test_a_latent_space_has_a_point_a_code_and_its_route(tmp_path: Path) -> None:
    codes = torch.randn(30, 4)
    route = plots.Route(codes[:5], torch.rand(5, 1, 8, 8), [f"{i}" for i in range(5)], "says")
    labels = torch.arange(30) % 10
    figure = plots.latent_spaces({"one": codes, "two": codes}, labels, {"one": route})
    points = [c for axes in figure.axes for c in axes.collections if isinstance(c, PathCollection)]
    assert [np.shape(c.get_offsets()) for c in points] == [(30, 2), (30, 2)]
    along = torch.stack(line(figure.axes[0], -1), 1)
    torch.testing.assert_close(along, principal(codes)[:5], rtol=1e-4, atol=1e-4)
    assert plots.save(figure, tmp_path / "made" / "figure.png").is_file()


def test_a_latent_space_names_its_axes_and_its_classes() -> None:
    """Each class at the median of its codes: the figure can be read without its colors."""
    labels = torch.arange(41) % 3
    codes = torch.randn(41, 2) + 4.0 * labels[:, None]
    axes = plots.latent_spaces({"two": codes}, labels).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("first latent", "second latent")
    names = {text.get_text(): text.get_position() for text in axes.texts}
    for label in range(3):
        expected = codes[labels == label].median(0).values
        torch.testing.assert_close(torch.tensor(names[str(label)]), expected)
    three = plots.latent_spaces({"three": torch.randn(9, 3)}).axes[0]
    assert "principal" in three.get_xlabel()
    projected = plots.latent_spaces({"own": codes}, axis_names=("length", "width")).axes[0]
    assert (projected.get_xlabel(), projected.get_ylabel()) == ("length", "width")


# ---------------------------------------------------------------------- rates


def test_levels_are_as_long_as_their_nats() -> None:
    """A negative rate, a sampled log-ratio, lies left of zero."""
    figure = plots.level_rates(
        {"flat": {"prior": (3.0, 0.1)}, "deep": {"z1": (-1.0, 0.1), "z2": (2.0, 0.2)}}
    )
    bars = [
        (bar.get_x(), bar.get_width())
        for bar in figure.axes[0].patches
        if isinstance(bar, Rectangle)
    ]
    assert bars == [(0.0, 3.0), (-1.0, 1.0), (0.0, 2.0)]


def test_a_profile_integrates_to_the_nats_it_shows() -> None:
    """Of a chain's own levels, and of a measured profile, whose band is its error."""
    log_snr, nats = torch.linspace(4, -6, 50), torch.rand(50)
    found = measured()
    figure = plots.step_profile(
        {"chain": (torch.linspace(0, 1, 50), log_snr, nats), "measured": found}
    )
    _, density = line(figure.axes[0], 0)
    torch.testing.assert_close((density * (log_snr[:-1] - log_snr[1:])).sum(), nats[1:].sum())
    _, density = line(figure.axes[0], 1)
    torch.testing.assert_close((density * -found.log_snr.diff()).sum(), found.nats.sum())


def test_profiles_of_one_schedule_share_a_time_axis() -> None:
    """Whatever their numbers of steps; three schedules have no time axis."""

    def chain(steps: int, schedule: Schedule) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.linspace(0, 1, steps)
        return t[1:], schedule.log_snr(t[1:]), torch.ones(steps - 1)

    def clocks(profiles: dict[str, tuple[Tensor, Tensor, Tensor]]) -> list[str]:
        children = plots.step_profile(profiles).axes[0].child_axes
        return [axes.get_xlabel() for axes in children]

    lengths = {f"T = {steps}": chain(steps, LinearLogSNR(4.0, -6.0)) for steps in (8, 17, 64)}
    assert clocks(lengths) == ["t"]
    two = {"a": lengths["T = 8"], "b": chain(64, LinearLogSNR(6.0, -6.0))}
    assert clocks(two) == ["t, a", "t, b"]
    assert clocks({**two, "c": chain(64, LinearLogSNR(8.0, -6.0))}) == []


# ---------------------------------------------------------------------- rate and distortion


def measured() -> Profile:
    """A profile made by hand: an error of 100, 10, 1 and 0.1 gray levels from noise to data."""
    gray = torch.tensor([0.1, 1.0, 10.0, 100.0], dtype=torch.float64)
    return Profile(
        t=torch.linspace(0, 1, 5, dtype=torch.float64),
        log_snr=torch.tensor([8.0, 4.0, 1.0, -1.0, -5.0], dtype=torch.float64),
        nats=torch.tensor([40.0, 20.0, 10.0, 2.0], dtype=torch.float64) * math.log(2),
        error=torch.full((4,), 0.1, dtype=torch.float64),
        rmse=gray / GRAY,
        prior=4 * math.log(2),
        decoder=24 * math.log(2),
        dims=2,
        samples=10,
    )


def test_the_rate_at_a_distortion_is_read_off_the_curve() -> None:
    """In bits per dimension, each interval's rate half-way through it; by hand."""
    rate, error = curve(measured())
    torch.testing.assert_close(rate, torch.tensor([5, 11, 26, 56], dtype=torch.float64) / 2)
    torch.testing.assert_close(error, torch.tensor([100, 10, 1, 0.1], dtype=torch.float64))
    assert rate_at(measured(), 1.0) == pytest.approx(13.0)
    assert rate_at(measured(), 5.5) == pytest.approx((11 + 26) / 4)
    assert rate_at(measured(), 200.0) == pytest.approx(2.5)
    assert rate_at(measured(), 0.01) is None


def test_the_rate_distortion_curve_ends_with_x_exact() -> None:
    """The curve goes on to the whole code length at no error; the share below the threshold is written."""
    figure = plots.rate_distortion({"model": measured()}, threshold=1.0)
    (axes,) = figure.axes
    whole = line(axes, 2)
    assert (float(whole[0]), float(whole[1])) == (pytest.approx(50.0), 0.0)
    said = " ".join(text.get_text() for text in axes.texts)
    assert "74 % of the bits" in said  # from 13 bits/dim on, of 50
    assert "12.00 bits/dim" in said  # the decoder's
    never = plots.rate_distortion({"model": measured()}, threshold=0.01)
    assert "of the bits" not in " ".join(text.get_text() for text in never.axes[0].texts)


def test_a_decoder_from_coarse_to_fine_goes_on_where_the_chain_ends() -> None:
    """By hand: 38 bits/dim for the chain, then 12 in three points; a visible error inside them."""
    end = Refinement(
        width=torch.tensor([4, 2, 1]),
        nats=torch.tensor([0.0, 8.0, 24.0], dtype=torch.float64) * math.log(2),
        rmse=torch.tensor([0.08, 0.04, 0.0], dtype=torch.float64) / GRAY,
    )
    assert rate_at(measured(), 0.06, end) == pytest.approx(38 + 2.0)
    assert rate_at(measured(), 0.02, end) == pytest.approx(42 + 4.0)
    assert rate_at(measured(), 1.0, end) == pytest.approx(13.0)
    left = plots.rate_distortion({"model": measured()}, 0.02, ends={"model": end}).axes[0]
    rate, error = line(left, 1)
    torch.testing.assert_close(rate, torch.tensor([38.0, 38, 42, 50], dtype=torch.float64))
    torch.testing.assert_close(error, torch.tensor([0.1, 0.08, 0.04, 0], dtype=torch.float64))
    assert "8 % of the bits" in " ".join(text.get_text() for text in left.texts)


# ---------------------------------------------------------------------- schedules


def test_the_weight_of_a_step_is_the_lectures() -> None:
    r""":math:`\beta_t^2 / (2 \tilde\beta_t (1 - \beta_t)(1 - \bar\alpha_t))`, from the betas themselves."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    small = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * beta[1:]
    expected = beta[1:].square() / (2 * small * (1 - beta[1:]) * (1 - alpha_bar[1:]))
    t, weight = step_weights(LinearBeta(1000), 1000)
    torch.testing.assert_close(weight, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(t, torch.arange(1, 1000, dtype=torch.float64) / 999)
    # A finer chain weighs its steps as continuous time does: minus half the slope, per step.
    schedule = Cosine()
    t, weight = step_weights(schedule, 100_001)
    middle = slice(1000, -1000)
    slope = -0.5 * schedule.slope(t - 0.5e-5)
    torch.testing.assert_close(1e5 * weight[middle], slope[middle], rtol=1e-3, atol=0)


def test_schedules_and_weights_are_drawn_as_they_are() -> None:
    shown = {"linear": LinearBeta(1000), "cosine": Cosine(), "own": LinearLogSNR(2.0, -6.0)}
    figure = plots.schedules(shown, colors={"own": "#123456"})
    t, alpha_bar = line(figure.axes[0], 2)
    torch.testing.assert_close(alpha_bar, LinearLogSNR(2.0, -6.0).scales(t)[0].square())
    torch.testing.assert_close(line(figure.axes[1], 1)[1].log(), Cosine().log_snr(t))
    torch.testing.assert_close(line(figure.axes[2], 0)[1], LinearBeta(1000).log_snr(t))
    figure = plots.loss_weights(shown, latents=50)
    torch.testing.assert_close(
        torch.stack(line(figure.axes[0], 1)), torch.stack(step_weights(Cosine(), 50))
    )
    assert figure.axes[0].lines[-1].get_ydata() == [1, 1]


# ---------------------------------------------------------------------- blur, refusals


def test_blur_is_drawn_as_bars_as_curves_or_as_both() -> None:
    bars = {"VAE": {"samples": (0.6, 0.1), "reconstructions": (0.7, 0.1)}}
    spectra = {"VAE": (torch.tensor([0.1, 0.5]), torch.tensor([0.9, 0.4]))}
    both = plots.sharpness(bars, spectra)
    for drawn in (both.axes[0], *plots.sharpness(bars).axes):
        widths = [bar.get_width() for bar in drawn.patches if isinstance(bar, Rectangle)]
        assert widths == [0.6, 0.7]
    for drawn in (both.axes[1], *plots.sharpness({}, spectra).axes):
        torch.testing.assert_close(line(drawn)[1], spectra["VAE"][1])


def test_nothing_to_draw_is_refused() -> None:
    for draw, message in (
        (lambda: plots.step_profile({}), "no profiles"),
        (lambda: plots.rate_distortion({}), "no profiles"),
        (lambda: plots.level_rates({}), "no models"),
        (lambda: plots.sharpness({}, {}), "no models"),
        (lambda: plots.schedules({}), "no schedules"),
        (lambda: plots.loss_weights({}), "no schedules"),
        (lambda: step_weights(Cosine(), 1), "latents=1"),
        (lambda: plots.strips([]), "no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            draw()


# ---------------------------------------------------------------------- posterior collapse


def use(nats: list[float], active: list[float], name: str = "prior") -> LatentUse:
    kl = Estimate(sum(nats), 0.1)
    return LatentUse(name, kl, Kind.ANALYTIC, torch.tensor(active), torch.tensor(nats))


def test_a_heat_map_holds_the_nats_of_every_unit_and_marks_dead_ones() -> None:
    """Largest first; a level with fewer units has empty cells; the linear forecast is a row below."""
    forecast = LinearForecast(torch.tensor([4.0, 1.0, 0.1]).double(), 3, 100, 3)
    little = Estimate(0.5, 0.1)
    vae = Collapse(
        "VAE", 100, little, (use([0.1, 2.0, 0.0], [0.5, 0.9, 0.001]),), little, little, "the latent",
        forecast, 0.25,
    )  # fmt: skip
    hvae = Collapse("HVAE", 100, little, (use([1.0, 3.0], [1.0, 1.0], "z2"),), little, little)
    figure = plots.latent_use({"VAE": vae, "HVAE": hvae})
    (image,) = figure.axes[0].images
    cells = image.get_array()
    assert cells is not None
    shown = np.ma.filled(cells, np.nan)
    expected = [
        [2.0, 0.1, 0.0],
        [0.5 * math.log(16), 0.5 * math.log(4), 0.0],
        [3.0, 1.0, math.nan],
    ]
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["VAE", "linear VAE", "HVAE"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("×") == 2
    assert {"2.1 nats, 2 of 3", "4.0 nats, 2 of 2"} <= set(texts)
