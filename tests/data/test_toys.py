"""Toy densities: mass one, stated entropy, samples that follow the density, symmetries, limits."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import MultivariateNormal

from genmod.data import load, toys
from genmod.data.toys import Banana, Checkerboard, Correlated, GaussianMixture
from genmod.data.toys.curves import Moons, Ring, Spiral
from genmod.data.toys.toy import Toy, plane_entropy, toy_dataset
from tests.statistics import assert_mean

F64 = torch.float64
SMOOTH: list[Toy] = [
    Banana(dtype=F64),
    Correlated(-0.7, (0.5, 1.0), (0.3, -0.2), dtype=F64),
    Ring(dtype=F64),
    GaussianMixture.circle(dtype=F64),
    GaussianMixture([(0.0, 0.0), (0.8, 0.4)], 0.4, weights=[3.0, 1.0], dtype=F64),
    Moons(std=0.15, dtype=F64),
    Spiral(std=0.15, dtype=F64),
    Spiral(arms=5, turns=0.3, std=0.15, dtype=F64),
]
BOARDS: list[Toy] = [Checkerboard(4, 1.5, dtype=F64), Checkerboard(3, dtype=F64)]
ALL = SMOOTH + BOARDS
COUNT = 20_000
CELLS, FINE = 24, 6  # a 24 x 24 histogram, each cell integrated on 6 x 6 points


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ends(toy: Toy) -> tuple[Tensor, Tensor]:
    """A box that holds all but a negligible mass; a board's edges fall on cell edges."""
    if isinstance(toy, Checkerboard):
        half = torch.full((2,), toy.squares * toy.side / 2, dtype=F64)
        return -half, half
    if isinstance(
        toy, Banana
    ):  # a parabola leaves any box slowly: the bend at 7 standard deviations
        return torch.tensor([-7.0, -5.0], dtype=F64), torch.tensor([7.0, 28.0], dtype=F64)
    if isinstance(toy, Correlated):
        mean = torch.tensor(toy.mean_point, dtype=F64)
        return mean - 7 * torch.tensor(toy.std), mean + 7 * torch.tensor(toy.std)
    x = toy.sample((COUNT,), seeded(1))  # what noise there is has a standard deviation below 0.4
    return x.amin(0) - 1.5, x.amax(0) + 1.5


def cell_masses(toy: Toy) -> Tensor:
    """``(CELLS, CELLS)`` masses by the midpoint rule, which is the trapezoid rule shifted by half a
    step: exponentially accurate in the sum over all cells for smooth densities that vanish at the
    box's edge, and exact for a board.
    """
    low, high = ends(toy)
    count = CELLS * FINE
    step = (high - low) / count
    middle = torch.arange(count, dtype=F64) + 0.5
    grid = torch.cartesian_prod(low[0] + step[0] * middle, low[1] + step[1] * middle)
    mass = toy.log_prob(grid).exp() * step.prod()
    return mass.reshape(CELLS, FINE, CELLS, FINE).sum((1, 3))


@pytest.mark.parametrize("toy", ALL, ids=lambda toy: type(toy).__name__)
def test_mass_is_one_and_samples_fall_into_cells_as_the_density_says(toy: Toy) -> None:
    """Pearson's chi-square over cells that expect ten samples or more, the rest in one."""
    masses = cell_masses(toy)
    assert float(masses.sum()) == pytest.approx(1.0, abs=1e-9)
    low, high = ends(toy)
    x = toy.sample((COUNT,), seeded(2))
    cell = ((x - low) / (high - low) * CELLS).floor().long()
    inside = ((cell >= 0) & (cell < CELLS)).all(-1)
    index = cell[inside, 0] * CELLS + cell[inside, 1]
    observed = torch.bincount(index, minlength=CELLS**2).to(F64)
    expected = COUNT * masses.flatten()
    big = expected >= 10
    observed = torch.cat([observed[big], COUNT - observed[big].sum()[None]])
    expected = torch.cat([expected[big], (COUNT - expected[big].sum())[None].clamp(min=1e-3)])
    chi2 = float(((observed - expected).square() / expected).sum())
    assert stats.chi2.sf(chi2, len(expected) - 1) > 1e-6


@pytest.mark.parametrize("toy", SMOOTH, ids=lambda toy: type(toy).__name__)
def test_mean_of_minus_log_prob_is_the_entropy(toy: Toy) -> None:
    assert_mean(-toy.log_prob(toy.sample((COUNT,), seeded(3))), toy.entropy(), name="entropy")


@pytest.mark.parametrize("toy", BOARDS)
def test_every_sample_of_a_board_has_the_log_density_minus_entropy(toy: Toy) -> None:
    log_p = toy.log_prob(toy.sample((COUNT,), seeded(3)))
    torch.testing.assert_close(log_p, -toy.entropy().expand(COUNT), rtol=0, atol=1e-14)


def test_no_sample_of_a_board_rounds_into_a_light_square() -> None:
    """Half precision, where three points in a thousand fell without the margin."""
    toy = Checkerboard(squares=6, dtype=torch.float16)
    assert bool(toy.log_prob(toy.sample((COUNT,), seeded(0))).isfinite().all())


def test_a_board_has_no_density_on_light_squares_and_beyond_its_edge() -> None:
    light_and_beyond = torch.tensor([[-1.5, -0.5], [9.0, 9.0]])
    assert Checkerboard().log_prob(light_and_beyond).tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize("toy", SMOOTH, ids=lambda toy: type(toy).__name__)
def test_gradient_is_that_of_finite_differences(toy: Toy) -> None:
    x = toy.sample((50,), seeded(4)).requires_grad_()
    (gradient,) = torch.autograd.grad(toy.log_prob(x).sum(), x)
    step = 1e-5
    for axis in range(2):
        shift = step * torch.eye(2, dtype=F64)[axis]
        with torch.no_grad():
            slope = (toy.log_prob(x + shift) - toy.log_prob(x - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, axis], slope, rtol=1e-5, atol=1e-5)


def test_ring_has_a_gradient_of_zero_at_its_center_and_does_not_overflow() -> None:
    toy = Ring(radius=3.0, std=0.05)
    x = torch.zeros(1, 2, requires_grad=True)
    toy.log_prob(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 0.0]]
    assert bool(toy.log_prob(torch.tensor([[40.0, 0.0]])).isfinite())


def test_ring_entropy_in_its_two_limits() -> None:
    """A point is a Gaussian; a thin ring is a line of length 2 pi R times a Gaussian across it."""
    gaussian = 1 + math.log(2 * math.pi * 0.3**2)
    assert float(Ring(0.0, 0.3, F64).entropy()) == pytest.approx(gaussian, abs=1e-12)
    thin = math.log(2 * math.pi) + 0.5 * math.log(2 * math.pi * math.e * 1e-6)
    assert float(Ring(1.0, 1e-3, F64).entropy()) == pytest.approx(thin, abs=1e-6)


@pytest.mark.parametrize(("radius", "std"), [(1.5, 0.15), (0.5, 0.4), (0.0, 1.0)])
def test_ring_entropy_is_the_radial_integral_of_scipy(radius: float, std: float) -> None:
    """Rice's density for the radius, whose entropy in the plane is E[log(2 pi r)] - E[log f(r)]."""
    rice = stats.rice(radius / std, scale=std)

    def integrand(r: float) -> float:
        return float(rice.pdf(r) * (math.log(2 * math.pi * r) - rice.logpdf(r)))

    value, _ = integrate.quad(integrand, 1e-12, radius + 12 * std, epsabs=1e-11, limit=200)
    assert float(Ring(radius, std, F64).entropy()) == pytest.approx(value, abs=1e-9)


def test_mixture_entropy_far_apart_and_on_top_of_each_other() -> None:
    one = 1 + math.log(2 * math.pi * 0.1**2)
    apart = GaussianMixture.circle(9, radius=9.0, std=0.1, dtype=F64).entropy()
    assert float(apart) == pytest.approx(math.log(9) + one, abs=1e-10)
    same = GaussianMixture([(1.0, 2.0)] * 3, 0.1, [1.0, 2.0, 3.0], F64).entropy()
    assert float(same) == pytest.approx(one, abs=1e-10)


def test_mixture_of_two_splits_into_a_line_and_a_gaussian_across_it() -> None:
    """Two components on an axis: the entropy is a one-dimensional one plus a Gaussian's."""
    std, gap = 0.4, 1.1

    def line(x: float) -> float:
        density = 0.25 * stats.norm.pdf(x, 0, std) + 0.75 * stats.norm.pdf(x, gap, std)
        return float(-density * math.log(density))

    along, _ = integrate.quad(line, -9 * std, gap + 9 * std, epsabs=1e-12, limit=200)
    across = 0.5 * math.log(2 * math.pi * math.e * std**2)
    toy = GaussianMixture([(0.0, 0.0), (0.0, gap)], std, weights=[1.0, 3.0], dtype=F64)
    assert float(toy.entropy()) == pytest.approx(along + across, abs=1e-9)


def moon_density(x: list[float], std: float) -> float:
    """Both half circles, the angle integrated by SciPy's adaptive quadrature."""

    def integrand(angle: float) -> float:
        upper = (math.cos(angle), math.sin(angle))
        lower = (1 - upper[0], 0.5 - upper[1])
        squares = ((x[0] - a) ** 2 + (x[1] - b) ** 2 for a, b in (upper, lower))
        return sum(math.exp(-s / (2 * std**2)) for s in squares)

    value, _ = integrate.quad(integrand, 0, math.pi, epsabs=0, epsrel=1e-11, limit=500)
    return value / (2 * math.pi) / (2 * math.pi * std**2)


def spiral_density(x: list[float], toy: Spiral) -> float:
    """All arms, the squared radius (which is uniform) integrated by SciPy's adaptive quadrature."""

    def integrand(u: float) -> float:
        total, v = 0.0, math.sqrt(u)
        for arm in range(toy.arms):
            angle = 2 * math.pi * (toy.turns * v + arm / toy.arms)
            a, b = toy.radius * v * math.cos(angle), toy.radius * v * math.sin(angle)
            total += math.exp(-((x[0] - a) ** 2 + (x[1] - b) ** 2) / (2 * toy.std**2))
        return total

    value, _ = integrate.quad(integrand, 0, 1, epsabs=0, epsrel=1e-11, limit=500)
    return value / toy.arms / (2 * math.pi * toy.std**2)


def test_arcs_equal_adaptive_quadrature_of_their_definition() -> None:
    moons, spiral = Moons(dtype=F64), Spiral(dtype=F64)
    for toy, density in (
        (moons, lambda x: moon_density(x, moons.std)),
        (spiral, lambda x: spiral_density(x, spiral)),
    ):
        x = toy.sample((10,), seeded(5)) + 0.3  # up to four standard deviations off the curve
        oracle = torch.tensor([math.log(density(point)) for point in x.tolist()], dtype=F64)
        torch.testing.assert_close(toy.log_prob(x), oracle, rtol=0, atol=1e-9)


def test_arcs_have_the_symmetries_of_their_curves() -> None:
    """Three arms, as a third is no float32 number: arms were once turned by a rounded one."""
    x = torch.randn(100, 2, generator=seeded(6), dtype=F64)
    moons, spiral = Moons(dtype=F64), Spiral(arms=3, dtype=F64)
    opposite = torch.tensor([1.0, 0.5], dtype=F64) - x
    torch.testing.assert_close(moons.log_prob(opposite), moons.log_prob(x), rtol=0, atol=1e-9)
    turn = torch.tensor(2 * math.pi / 3, dtype=F64)
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()]).reshape(2, 2)
    torch.testing.assert_close(
        spiral.log_prob(x @ rotation.T), spiral.log_prob(x), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("toy", [Moons(dtype=F64), Spiral(5, 0.3, std=0.2, dtype=F64)])
def test_arcs_entropy_is_that_of_a_finer_and_wider_grid(toy: Moons | Spiral) -> None:
    low, high = (torch.full((2,), end, dtype=F64) for end in (-4.2, 4.2))
    finer = plane_entropy(toy.log_prob, low, high, step=0.29 * toy.std)
    assert float(toy.entropy()) == pytest.approx(finer, abs=1e-6)


def test_arcs_log_density_far_away_is_finite_and_falls() -> None:
    far = torch.tensor([[10.0, 0.0], [100.0, 0.0], [1000.0, 0.0]])
    log_p = Moons().log_prob(far)
    assert bool(log_p.isfinite().all())
    assert bool((log_p.diff() < 0).all())


def test_correlated_is_torchs_gaussian_and_a_straight_banana_too() -> None:
    covariance = torch.tensor([[0.25, -0.35], [-0.35, 1.0]], dtype=F64)
    reference = MultivariateNormal(torch.tensor([0.3, -0.2], dtype=F64), covariance)
    toy = Correlated(-0.7, (0.5, 1.0), (0.3, -0.2), dtype=F64)
    x = toy.sample((100,), seeded(7))
    torch.testing.assert_close(toy.log_prob(x), reference.log_prob(x))
    torch.testing.assert_close(toy.entropy(), reference.entropy())
    banana = Banana((0.5, 1.0), 0.0, dtype=F64)
    straight = Correlated(0.0, (0.5, 1.0), dtype=F64)
    torch.testing.assert_close(banana.log_prob(x), straight.log_prob(x))


@pytest.mark.parametrize("toy", ALL, ids=lambda toy: type(toy).__name__)
def test_toys_sample_as_torch_distributions_do(toy: Toy) -> None:
    """With no generator, torch's global one; shapes as torch has them; a generator of one's own
    leaves the global one alone.
    """
    torch.manual_seed(0)
    first = toy.sample(torch.Size([3, 2]))
    torch.manual_seed(0)
    toy.sample((5,), seeded(1))
    assert torch.equal(first, toy.sample((3, 2)))
    assert first.shape == (3, 2, 2)
    assert first.dtype is F64
    assert toy.sample().shape == (2,)
    assert toy.log_prob(first).shape == (3, 2)
    assert torch.equal(toy.sample((4,), seeded(1)), toy.sample((4,), seeded(1)))


def test_toy_dataset_is_seeded_and_keeps_the_toys_type() -> None:
    data = toy_dataset(Moons(dtype=F64), 200, seed=1)
    assert data.train.dtype is F64
    assert data.bins is None
    assert torch.equal(data.test, toy_dataset(Moons(dtype=F64), 200, seed=1).test)
    assert not torch.equal(data.test, toy_dataset(Moons(dtype=F64), 200, seed=2).test)


def test_a_name_gives_the_density_of_the_points_that_load_draws() -> None:
    """Up to the types of both; an unknown name is refused."""
    for name in toys.BY_NAME:
        toy, data = toys.density(name), load(name)
        assert_mean(-toy.log_prob(data.train), toy.entropy(), name=name)
    with pytest.raises(ValueError, match="did you mean 'moons'"):
        toys.density("moon")


def test_settings_without_a_density_are_refused() -> None:
    for build in (
        lambda: Moons(std=0.0),
        lambda: Spiral(arms=0),
        lambda: Spiral(turns=-1.0),
        lambda: Ring(radius=-1.0),
        lambda: Correlated(1.0),
        lambda: Checkerboard(0),
        lambda: Banana(curvature=math.inf),
        lambda: GaussianMixture([(0.0, 0.0)], 1.0, weights=[0.0]),
        lambda: GaussianMixture([(0.0, 0.0)], 1.0, weights=[1.0, 1.0]),
        lambda: GaussianMixture(torch.zeros(3), 1.0),
        lambda: Moons().log_prob(torch.zeros(4, 3)),
        lambda: toy_dataset(Moons(), 0),
    ):
        with pytest.raises(ValueError, match="expected"):
            build()
