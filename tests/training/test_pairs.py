"""Several objectives: each trains its own parameters, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmod.diffusion import LossAwareTimesteps
from genmod.model import LatentModel
from genmod.models import LatentDiffusion
from genmod.objectives import Batch, Beta, Bound, LearnedSchedule, Simple, WarmUp
from genmod.objectives.pairs import ObjectivePairs, Pairs
from genmod.random import keyed
from genmod.training import fit
from tests.training.cases import data, diffusion, flat, vae
from tests.training.test_accumulate import Weights

PLAIN: dict[str, Any] = {"steps": 4, "batch_size": 16, "warmup": 0, "progress": False}


def gradients(model: LatentModel, objective: nn.Module) -> dict[str, Tensor]:
    """The gradient of each parameter on the shared rows."""
    with keyed(3):
        loss, _ = objective(model, Batch(data()))
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.usefixtures("float64")
def test_each_objective_reaches_its_own_parameters() -> None:
    """The gradients are those of each loss alone.

    Sign flipped: ``n not in kept`` in ``only``.
    """
    model = vae()
    pairs = ObjectivePairs([(Beta(0.5), model.encoder), (Bound(), model.decoder)], model)
    together = gradients(model, pairs)
    encoder, decoder = gradients(model, Beta(0.5)), gradients(model, Bound())
    for name, found in together.items():
        alone = encoder if name.startswith("encoder") else decoder
        torch.testing.assert_close(found, alone[name], rtol=1e-12, atol=1e-12)
    assert any(not torch.allclose(encoder[n], decoder[n]) for n in encoder if "encoder" in n)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.usefixtures("float64")
def test_one_pair_of_everything_is_the_plain_run() -> None:
    one, other = vae(), vae()
    history = fit(one, data(), [(Bound(), [one.encoder, one.decoder])], **PLAIN)
    plain = fit(other, data(), **PLAIN)
    assert history.losses == plain.losses
    assert torch.equal(flat(one), flat(other))


def test_objectives_trained_alone_before_begin_anew_in_pairs_and_wrappers() -> None:
    """Their state is that of their construction, and not what an earlier run left."""
    model = vae()
    warm_up, weighted = WarmUp(10), Bound(LossAwareTimesteps(2, bins=4))
    assert isinstance(weighted.timesteps, LossAwareTimesteps)
    before = weighted.timesteps.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    warm_up.begin()
    weighted.begin()
    warm_up.steps_done += 5
    for value in weighted.timesteps.state_dict().values():
        value += 1
    ObjectivePairs([(warm_up, model.encoder), (Bound(), model.decoder)], model).begin()
    LearnedSchedule(weighted).begin()
    assert warm_up.steps_done == 0
    assert all(torch.equal(weighted.timesteps.state_dict()[n], v) for n, v in before.items())


def test_an_objective_of_ones_own_begins_inside_another_one() -> None:
    begun = []

    class Counted(Bound):
        def begin(self) -> None:
            super().begin()
            begun.append(self)

    model = vae()
    objective = Counted()
    ObjectivePairs([(objective, [model.encoder, model.decoder])], model).begin()
    LearnedSchedule(objective).begin()
    assert begun == [objective, objective]


@pytest.mark.usefixtures("float64")
def test_a_parameter_in_two_pairs_gets_both_gradients() -> None:
    model = vae()
    everything: list[nn.Module] = [model.encoder, model.decoder]
    pairs = ObjectivePairs([(Bound(), everything), (Beta(0.5), everything)], model)
    one, other = gradients(model, Bound()), gradients(model, Beta(0.5))
    for name, found in gradients(model, pairs).items():
        torch.testing.assert_close(found, one[name] + other[name], rtol=1e-10, atol=1e-12)


def test_a_weighted_loss_may_train_a_prior_beside_a_bound_that_trains_the_encoder() -> None:
    """Alone, it is refused: it would reach the encoder. The diffusion of the latents is the prior."""
    torch.manual_seed(0)
    model = LatentDiffusion(3, latents=2, width=8)
    parts: list[nn.Module] = [model.encoder, model.decoder]
    rest = [p for n, p in model.named_parameters() if not n.startswith(("encoder.", "decoder."))]
    with pytest.raises(ValueError, match="encoder learns"):
        fit(model, data(), Simple(), stages="joint", **PLAIN)
    history = fit(model, data(), [(Bound(), parts), (Simple(), rest)], stages="joint", **PLAIN)
    assert len(history.losses) == 4


def test_a_run_with_pairs_is_resumed_and_recognized(tmp_path: Path) -> None:
    def run(steps: int, beta: float = 0.5, stop: bool = False) -> Tensor:
        model = vae()
        pairs: Pairs = [(Beta(beta), model.encoder), (Bound(), model.decoder)]
        path = None if stop else tmp_path / "run"
        fit(model, data(), pairs, checkpoint=path, **{**PLAIN, "steps": steps})
        return flat(model)

    whole = run(4, stop=True)
    assert torch.equal(run(4), whole)
    with pytest.raises(ValueError, match="beta"):
        run(4, beta=0.7)


@pytest.mark.usefixtures("as_users_run")
def test_pairs_that_do_not_fit_are_refused() -> None:
    model, other = vae(), vae()
    cases: list[tuple[Any, str]] = [
        ([], "expected an Objective, or a list of pairs"),
        ([Bound(), Bound()], "got objectives for 2 stages of a run with 1"),
        ("bound", r"got objective=.bound.; expected an instance of Objective"),
        ([(Bound(), other.encoder)], "that are not the model's"),
        ([(Bound(), [])], "0 of 0 parameters"),
        ([(Bound(), model.encoder)], "parameters in no pair, such as decoder"),
    ]
    for pairs, words in cases:
        with pytest.raises(ValueError, match=words):
            fit(model, data(), pairs, **PLAIN)
    one = diffusion()
    with pytest.raises(ValueError, match="needs the draws"):
        fit(one, data(), [(Weights(), one)], **PLAIN)
