"""What a run reads from the user's objects, what it leaves in them, and what it keeps to itself."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, distributions, nn

from genmod import decoders, encoders, objectives
from genmod.diffusion.timesteps import LossAwareTimesteps
from genmod.elbo import ELBO
from genmod.encoders import GaussianEncoder
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, Inference
from genmod.objectives import Batch, Bound, Objective, WarmUp, explain
from genmod.path import Path as LatentPath
from genmod.priors import NestedPrior
from genmod.priors.simple import DistributionPrior
from genmod.training import fit, training_loop
from genmod.training.config import TrainingConfig
from genmod.training.optimizer import FusedStep, adam
from tests.training.cases import data, diffusion, flat, vae

pytestmark = pytest.mark.usefixtures("float64")

PLAIN: dict[str, Any] = {"warmup": 0, "decay": False, "ema": 0.0, "progress": False}


# ---------------------------------------------------------------------- the optimizer


def test_the_current_rate_of_an_optimizer_is_its_peak() -> None:
    """Lowered by hand, or by a scheduler that keeps the first one in the group, too."""
    model = vae()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    fit(model, data(), steps=2, optimizer=optimizer, **PLAIN)
    optimizer.param_groups[0]["lr"] = 1e-6
    before = flat(model)
    fit(model, data(), steps=1, optimizer=optimizer, **PLAIN)
    assert optimizer.param_groups[0]["lr"] == 1e-6
    assert 0 < float((flat(model) - before).norm()) <= 1e-6 * 1.0001, "the gradient is clipped at 1"
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    for _ in training_loop(model, data(), steps=1, optimizer=optimizer, **PLAIN):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)


def test_a_scheduler_made_after_the_run_began_sees_the_steps() -> None:
    """It replaces ``optimizer.step``, and warns if its own was never called."""
    model = vae()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with training_loop(model, data(), steps=3, optimizer=optimizer, **PLAIN) as steps:
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
        for _ in steps:
            scheduler.step()


def test_a_resumed_run_has_the_rate_of_its_checkpoint_and_another_rate_is_refused(
    tmp_path: Path,
) -> None:
    def run(rate: float) -> list[float]:
        model = vae()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        return [
            optimizer.param_groups[0]["lr"]
            for _ in training_loop(
                model, data(), steps=4, warmup=0, optimizer=optimizer, checkpoint=tmp_path / "run",
                progress=False,
            )
        ]  # fmt: skip

    assert run(0.01)[0] == pytest.approx(0.01)
    assert run(0.01) == []
    with pytest.raises(ValueError, match=r"optimizer\.0\.lr \(0\.01 in the file, now 0\.001\)"):
        run(0.001)


def test_an_optimizer_of_another_model_is_refused() -> None:
    """All its parameters, or one of them; and one whose parameters are all frozen."""
    model, other = vae(), vae()
    for learned in (
        list(other.parameters()),
        [*model.parameters(), next(other.parameters())],
    ):
        with pytest.raises(ValueError, match=r"optimizer with \d+ of \d+ parameters that are not"):
            fit(model, data(), steps=1, optimizer=torch.optim.SGD(learned, lr=0.1), progress=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="all frozen"):
        fit(model, data(), steps=1, optimizer=optimizer, progress=False)


# ---------------------------------------------------------------------- the objective


def test_a_warm_up_starts_anew_in_each_run() -> None:
    """The weight of the rates at steps 1 to 5, in three runs with one object."""
    objective = WarmUp(5)
    for _ in range(3):
        weights = []
        for step in training_loop(vae(), data(), objective, steps=5, progress=False):
            rates = float(step.elbo.reconstruction.mean()) - step.bound
            weights.append((step.loss + float(step.elbo.reconstruction.mean())) / rates)
        assert weights == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_sampler_starts_anew_in_each_run() -> None:
    objective = Bound(LossAwareTimesteps())
    runs = []
    for _ in range(2):
        model = diffusion()
        losses = fit(model, data(), objective, steps=20, batch_size=48, progress=False).losses
        assert isinstance(objective.timesteps, LossAwareTimesteps)
        assert float(objective.timesteps.visits.sum()) == pytest.approx(20 * 48)
        runs.append((losses, flat(model)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])


def test_a_sampler_learns_from_the_visits_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with the same rows: twice the visits, and the same moments."""
    alone, together = LossAwareTimesteps(bins=4), LossAwareTimesteps(bins=4)
    t, cost = torch.rand(32, 2), torch.rand(32, 2)
    alone.update(t, torch.ones_like(t), cost)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "all_reduce", lambda values: values.mul_(2))
    together.update(t, torch.ones_like(t), cost)
    torch.testing.assert_close(together.visits, 2 * alone.visits)
    torch.testing.assert_close(together.moments, alone.moments)


# ---------------------------------------------------------------------- models that cannot be copied


def network(norm: Callable[[nn.Module], nn.Module]) -> VAE:
    """A VAE whose encoder has one of the older norms."""
    encoder = encoders.GaussianEncoder(norm(nn.Linear(3, 4)), (2,))
    return VAE(encoder=encoder, decoder=decoders.GaussianDecoder(nn.Linear(2, 3), (3,)), latents=2)


@pytest.fixture
def deep_calls() -> Iterator[None]:
    """Room for the checks of shapes: in tests only, they put three calls around each call of a level."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(4 * limit)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.usefixtures("deep_calls")
@pytest.mark.parametrize(
    "name",
    ["spectral_norm", "weight_norm", "prior", pytest.param("100 levels", marks=pytest.mark.slow)],
)
def test_models_that_copy_deepcopy_refuses_train(name: str) -> None:
    """Twice, as a layer's weight is only a computed tensor after it was used; averages included."""
    torch.manual_seed(0)
    mean = nn.Parameter(torch.zeros(2))
    law = distributions.Independent(distributions.Normal(mean * 1, torch.ones(2)), 1)
    build: dict[str, Callable[[], LatentModel]] = {
        "spectral_norm": lambda: network(nn.utils.spectral_norm),
        "weight_norm": lambda: network(nn.utils.weight_norm),
        "prior": lambda: VAE(3, latents=2, width=8, prior=DistributionPrior(law)),
        "100 levels": lambda: HVAE(
            3, latents=(2,) * 100, width=4, depth=1, inference=Inference.BOTTOM_UP
        ),
    }
    model, x = build[name](), data()
    for _ in range(2):
        for step in training_loop(model, x, steps=2, progress=False):
            averaged = step.averaged
            assert averaged is not model
            assert bool(averaged.elbo(x).value.isfinite().all())
        kept = flat(averaged)
        assert torch.equal(flat(model), kept)


def test_reading_the_averaged_model_changes_nothing() -> None:
    """It is a copy with the averaged weights; validation uses the model itself, and puts all back."""
    losses = []
    for look in (False, True):
        model = vae(dropout=0.3)
        found = []
        for step in training_loop(model, data(), steps=6, batch_size=16, progress=False):
            if look:
                assert not step.averaged.training
                assert not any(p.requires_grad for p in step.averaged.parameters())
                step.averaged.sample(2)
            found.append(step.loss)
        losses.append(found)
    assert losses[0] == losses[1]


def test_an_averaged_model_that_was_kept_follows_the_average() -> None:
    """Also its running statistics."""
    model = network(lambda layer: nn.Sequential(layer, nn.BatchNorm1d(4)))
    kept = None
    for step in training_loop(model, data(), steps=4, batch_size=16, progress=False):
        if kept is None:
            kept = step.averaged
        for a, b in zip(
            kept.state_dict().values(), step.averaged.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b)


# ---------------------------------------------------------------------- two runs in two threads


def test_two_runs_in_two_threads_are_the_two_runs_alone() -> None:
    """Dropout draws from torch's one generator: each run has it to itself while it draws."""
    x = data()

    def run(seed: int) -> list[float]:
        torch_model = models[seed]
        return list(fit(torch_model, x, steps=30, seed=seed, batch_size=16, progress=False).losses)

    models = {seed: vae(dropout=0.5) for seed in (0, 1)}
    alone = {seed: run(seed) for seed in (0, 1)}
    models = {seed: vae(dropout=0.5) for seed in (0, 1)}
    together: dict[int, list[float]] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: together.update({seed: run(seed)}))
        for seed in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


# ---------------------------------------------------------------------- weights and encoders


def middle(frozen: bool) -> LatentModel:
    """A VAE over a VAE over a diffusion; the outermost encoder is fixed."""
    inner = LatentModel(
        GaussianEncoder(nn.Linear(2, 4), (2,)),
        decoders.GaussianDecoder(nn.Linear(2, 2), (2,)),
        NestedPrior(Diffusion(2, width=8), "z2"),
    )
    outer = LatentModel(
        GaussianEncoder(nn.Linear(3, 4), (2,)),
        decoders.GaussianDecoder(nn.Linear(2, 3), (3,)),
        NestedPrior(inner, "z1"),
    )
    outer.encoder.requires_grad_(False)
    inner.encoder.requires_grad_(not frozen)
    return outer


def test_weights_on_levels_reach_no_encoder_in_the_middle(weighted: Objective) -> None:
    """Not only the outermost encoder counts; with all of them fixed, the diffusion is trained."""
    with pytest.raises(ValueError, match="on a model whose encoder learns"):
        fit(middle(False), data(), weighted, steps=1, progress=False)
    with pytest.raises(ValueError, match="on a model whose encoder learns"):
        explain(weighted, middle(False))
    fit(middle(True), data(), weighted, steps=1, progress=False)
    assert explain(weighted, middle(True)).weight.isfinite().all()
    fit(middle(False), data(), Bound(), steps=1, progress=False)
    fit(middle(False), data(), WarmUp(3), steps=1, progress=False)


@pytest.fixture(params=["Simple", "Weighted", "MinSNR", "SigmoidWeight"])
def weighted(request: pytest.FixtureRequest) -> Objective:
    """Objectives that weight levels, or leave terms out."""
    made: dict[str, Objective] = {
        "Simple": objectives.Simple(),
        "Weighted": objectives.Weighted(torch.sigmoid),
        "MinSNR": objectives.MinSNR(5.0),
        "SigmoidWeight": objectives.SigmoidWeight(0.0),
    }
    return made[request.param]


class OwnWeight(Objective):
    """The bound's terms with a weight on levels that no check on the call can know."""

    def loss(self, elbo: ELBO, path: LatentPath | None, batch: Batch) -> Tensor:
        """Levels with a log-SNR below 0 only."""
        cost = -elbo.reconstruction
        for rate in elbo.rates.values():
            nats = rate.nats
            if rate.noise is not None:
                nats = nats * (rate.noise.log_snr < 0)
            cost = cost + (rate.weight * nats).sum(-1)
        return cost.mean()


class WithoutReconstruction(Objective):
    """The rates alone."""

    def loss(self, elbo: ELBO, path: LatentPath | None, batch: Batch) -> Tensor:
        """Their mean."""
        return torch.stack([rate.total for rate in elbo.rates.values()]).sum(0).mean()


class Robust(Objective):
    """A root of the bound: rows have other weights, levels do not."""

    def loss(self, elbo: ELBO, path: LatentPath | None, batch: Batch) -> Tensor:
        """Its mean."""
        return (1000 - elbo.value).sqrt().mean()


class HalfPrice(Objective):
    """Half of every rate."""

    def loss(self, elbo: ELBO, path: LatentPath | None, batch: Batch) -> Tensor:
        """Its mean."""
        return (0.5 * (elbo.reconstruction - elbo.value) - elbo.reconstruction).mean()


@pytest.mark.parametrize("objective", [OwnWeight(), WithoutReconstruction()], ids=repr)
def test_custom_weights_of_levels_reach_no_encoder(objective: Objective) -> None:
    """Measured at the first step, by the slopes of the loss; the weights are those before it."""
    model = middle(False)
    before = flat(model)
    with pytest.raises(ValueError, match="on a model whose encoder learns"):
        fit(model, data(), objective, steps=2, progress=False)
    assert torch.equal(flat(model), before)
    fit(middle(True), data(), objective, steps=1, progress=False)


@pytest.mark.parametrize("objective", [Bound(), Bound(3), Robust(), HalfPrice()], ids=repr)
def test_weights_on_whole_rates_or_rows_may_reach_an_encoder(objective: Objective) -> None:
    fit(middle(False), data(), objective, steps=1, progress=False)


def test_the_users_tensors_are_left_alone() -> None:
    """Neither the rows nor the context move or change."""
    x = data()
    before: Tensor = x.clone()
    fit(vae(), x, steps=2, progress=False)
    assert torch.equal(x, before)


def test_the_default_optimizer_makes_the_steps_of_torch_bit_for_bit() -> None:
    """Also after its state was loaded, and with a parameter that has no gradient for one step."""
    config = TrainingConfig(steps=9, learning_rate=0.1, weight_decay=0.01)
    torch.manual_seed(0)
    ours = vae()
    theirs = copy.deepcopy(ours)
    own, plain = adam(ours, config), adam(theirs, config)
    make_step = FusedStep(own)
    for step in range(6):
        if step == 3:
            own.load_state_dict(copy.deepcopy(own.state_dict()))
        for number, pair in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
            noise = None if step == 4 and number == 1 else torch.randn_like(pair[0])
            pair[0].grad, pair[1].grad = noise, noise
        own.param_groups[0]["lr"] = plain.param_groups[0]["lr"] = 0.1 / (step + 1)
        with torch.no_grad():
            make_step()
        plain.step()
    assert torch.equal(flat(ours), flat(theirs))
    for mine, other in zip(own.state.values(), plain.state.values(), strict=True):
        assert all(torch.equal(mine[name], other[name]) for name in other)
