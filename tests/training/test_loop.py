"""The loop and ``fit``: how a run is left and continued, what it returns, which data it takes."""

from __future__ import annotations

import importlib
import math
import platform
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import genmod
from genmod.data import Dataset
from genmod.elbo import ELBO
from genmod.models import VAE, Diffusion
from genmod.nn import Vectors
from genmod.objectives import Batch, Objective
from genmod.path import Path
from genmod.prior import DensityPrior
from genmod.training import History, fit, training_loop
from genmod.training.config import TrainingConfig
from genmod.training.setup import keep_freed_memory
from tests.training.cases import data, flat, vae

pytestmark = pytest.mark.usefixtures("float64")

QUIET: dict[str, Any] = {"batch_size": 16, "progress": False}


def parts() -> Dataset:
    """Forty rows to train on and eight to validate on."""
    x = data()
    return Dataset("rows", x[:40], x[40:], x[:0])


# ---------------------------------------------------------------------- how a loop is left


def test_break_leaves_the_best_weights_also_where_the_loop_is_kept() -> None:
    """In a variable, nothing ends the loop: the ``for`` that is left does, at once."""
    model = vae()
    loop = training_loop(model, data(), steps=50, **QUIET)
    for step in loop:
        kept = flat(step.averaged)
        assert model.training
        if step.number == 7:
            break
    assert not model.training
    assert torch.equal(flat(model), kept)


def test_a_with_statement_ends_the_loop_and_so_does_an_exception() -> None:
    for trouble in (False, True):
        model = vae()
        try:
            with training_loop(model, data(), steps=50, **QUIET) as steps:
                kept = flat(next(steps).averaged)
                assert model.training
                if trouble:
                    raise KeyError("the user's own")
        except KeyError:
            assert trouble
        assert not model.training
        assert torch.equal(flat(model), kept)


def test_a_loop_that_is_dropped_ends() -> None:
    model = vae()
    loop = training_loop(model, data(), steps=50, **QUIET)
    next(loop)
    del loop
    assert not model.training


def test_a_loop_that_was_left_continues_where_it_was() -> None:
    """Looking at the averaged weights on the way changes nothing: bit for bit the same run."""
    whole, paused = vae(dropout=0.4), vae(dropout=0.4)
    expected = [step.loss for step in training_loop(whole, parts(), steps=9, **QUIET)]
    loop = training_loop(paused, parts(), steps=9, **QUIET)
    found = [step.loss for step in islice(loop, 4)]
    assert not paused.training
    found += [step.loss for step in loop]
    assert found == expected
    assert torch.equal(flat(paused), flat(whole))
    assert list(loop) == []


def test_fit_is_the_loop_run_to_its_end() -> None:
    ours, theirs = vae(), vae()
    history = fit(ours, parts(), steps=6, **QUIET)
    losses = [step.loss for step in training_loop(theirs, parts(), steps=6, **QUIET)]
    assert list(history.losses) == losses
    assert torch.equal(flat(ours), flat(theirs))
    assert genmod.fit is fit
    assert genmod.training_loop is training_loop


# ---------------------------------------------------------------------- what it returns


def test_a_history_prints_as_a_table_that_fits_eighty_columns() -> None:
    """One line a validation, twelve at most, the best one among them and marked."""
    history = fit(vae(), parts(), steps=60, validate_every=1, **QUIET)
    lines = str(history).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) <= 2 + 13
    assert sum(line.endswith("best") for line in lines) == 1
    assert history.best is not None
    assert history.best.nats == max(v.nats for v in history.validations)
    assert len(history.validations) == len(history.losses) == 60
    assert repr(history).startswith("History(VAE: 60 of 60 steps, best -")
    assert history.stages == (history,)
    assert "<pre>" in history._repr_html_()


def test_a_history_without_validations_shows_losses() -> None:
    history = fit(vae(), data(), steps=5, **QUIET)
    assert history.best is None
    assert history.validations == ()
    assert len(str(history).splitlines()) == 2 + 5
    assert repr(history) == f"History(VAE: 5 of 5 steps, last loss {history.losses[-1]:.4g})"
    broken = History("VAE", history.cycles, (math.nan,))
    assert "nan" in str(broken)


def test_a_step_prints_short() -> None:
    for step in training_loop(vae(), parts(), steps=1, **QUIET):
        assert len(repr(step)) < 100
        assert repr(step).startswith("Step(VAE 1: loss ")
        assert "validation" in repr(step)


# ---------------------------------------------------------------------- which data


def test_rows_of_every_kind_train_alike() -> None:
    """A tensor, an array, a list, a pair without a context, a data set without a validation part."""
    x = data()
    kinds = (x, x.numpy(), x.tolist(), (x, None), Dataset("rows", x, x[:0], x[:0]))
    runs = [fit(vae(), kind, steps=3, **QUIET).losses for kind in kinds]
    assert all(losses == runs[0] for losses in runs)


def test_few_rows_make_one_batch_of_all() -> None:
    """Whatever batch size was asked for."""
    x = data(5)
    for size in (None, 5, 128):
        for step in training_loop(vae(), x, steps=2, batch_size=size, progress=False):
            assert len(step.elbo.value) == 5


@pytest.mark.parametrize("form", ["x", "(x,)", "[x]", "(x, context)", "arrays"])
def test_a_loader_gives_its_own_batches(form: str) -> None:
    """``x``, ``(x,)`` or ``(x, context)``; another pass begins when one ends."""
    x = data(20)
    conditional = form == "(x, context)"
    batches = {
        "x": x.split(8),
        "(x,)": [(part,) for part in x.split(8)],
        "[x]": [[part] for part in x.split(8)],
        "(x, context)": [(part, part[:, :1]) for part in x.split(8)],
        "arrays": [part.numpy() for part in x.split(8)],
    }[form]
    torch.manual_seed(0)
    model = Diffusion(3, width=8, condition=Vectors(1)) if conditional else Diffusion(3, width=8)
    seen = []

    class Watching(Objective):
        """The bound, and its batches."""

        def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
            seen.append(batch)
            return -elbo.value.mean()

    fit(model, Once(batches), Watching(), steps=5, progress=False)
    assert [len(batch.x) for batch in seen] == [8, 8, 4, 8, 8]
    torch.testing.assert_close(torch.cat([batch.x for batch in seen[:3]]), x)
    rows = [batch.index.tolist() for batch in seen if batch.index is not None]
    assert rows == [[*range(8)], [*range(8, 16)], [*range(16, 20)], [*range(8)], [*range(8, 16)]]
    assert [batch.rows for batch in seen] == [None, None, None, 20, 20]


class Once:
    """An iterable that is neither a list nor a generator."""

    def __init__(self, batches: object) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[object]:
        assert isinstance(self.batches, list | tuple)
        return iter(self.batches)


def test_a_data_loader_trains_as_the_rows_it_gives() -> None:
    """And resumes bit for bit when it repeats itself."""
    x = data(32)
    loader = DataLoader(TensorDataset(x), batch_size=8)
    first, again = vae(), vae()
    expected = fit(first, loader, steps=6, progress=False).losses
    assert fit(again, list(x.split(8)), steps=6, progress=False).losses == expected
    assert torch.equal(flat(first), flat(again))


def test_a_stream_may_end_when_the_steps_do_and_not_before() -> None:
    """A generator cannot be begun anew."""
    fit(vae(), (part for part in data(32).split(8)), steps=4, progress=False)
    with pytest.raises(ValueError, match="4 batches and no more"):
        fit(vae(), (part for part in data(32).split(8)), steps=5, progress=False)


@pytest.mark.usefixtures("as_users_run")
def test_data_of_another_kind_are_refused() -> None:
    x = data(8)
    wrong: Any
    for wrong, said in (
        (3, "x of type int"),
        ("digits.csv", "digits.csv, which does not exist"),
        ((x, x, x), "data of 3 parts"),
        (np.array(["a", "b"]), "array x of type"),
        (x[:0], "no rows"),
    ):
        with pytest.raises(ValueError, match=said):
            fit(vae(), wrong, steps=1, progress=False)
    with pytest.raises(ValueError, match="batch_size=4 beside a loader"):
        fit(vae(), list(x.split(4)), steps=1, batch_size=4, progress=False)
    with pytest.raises(ValueError, match="values of x that are NaN"):
        fit(vae(), list((x * math.nan).split(4)), steps=1, progress=False)
    with pytest.raises(ValueError, match=r"x of shape \(4, 2\)"):
        fit(vae(), list(x[:, :2].split(4)), steps=1, progress=False)
    with pytest.raises(ValueError, match="loader's batch of 4 parts"):
        fit(vae(), [(x, x, x, x)], steps=1, progress=False)
    with pytest.raises(ValueError, match="without noise levels"):
        fit(vae(), x, steps=1, validation_timesteps=3, progress=False)


@pytest.mark.usefixtures("as_users_run")
def test_settings_are_whole_numbers_of_any_kind() -> None:
    assert TrainingConfig(steps=np.int64(5), seed=torch.tensor(3)).seed == 3  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"steps=2\.5; expected a whole number"):
        TrainingConfig(steps=2.5)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- objectives of one's own


def test_a_loss_that_is_no_scalar_or_has_no_gradient_is_refused() -> None:
    class PerRow(Objective):
        def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
            return -elbo.value

    class Detached(Objective):
        def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
            return -elbo.value.mean().detach()

    with pytest.raises(ValueError, match=r"a loss of shape \(16,\) from PerRow"):
        fit(vae(), data(), PerRow(), steps=1, **QUIET)
    with pytest.raises(ValueError, match="depends on no parameter"):
        fit(vae(), data(), Detached(), steps=1, **QUIET)


class IWAE(Objective):
    """The importance-weighted bound of four draws (Burda, Grosse, Salakhutdinov 2016, eq. 8)."""

    samples = 4
    needs_path = True

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """Minus the log of the mean weight."""
        assert path is not None
        assert tuple(path.log_weight().shape) == (4, len(batch.x))
        return math.log(4) - path.log_weight().logsumexp(0).mean()


def test_an_objective_of_several_draws_can_be_written_and_trained() -> None:
    """It is not above minus the bound of the same draws, whose mean it tightens (Jensen)."""
    for step in training_loop(vae(), data(), IWAE(), steps=4, **QUIET):
        assert step.loss < -step.bound
    history = fit(Diffusion(3, width=8, steps=5), data(), IWAE(), steps=2, **QUIET)
    assert all(map(math.isfinite, history.losses))


def test_a_path_in_continuous_time_is_refused_on_the_call() -> None:
    with pytest.raises(ValueError, match="IWAE, which needs the draws of all latents"):
        training_loop(Diffusion(3, width=8), data(), IWAE(), steps=1, **QUIET)


def test_a_prior_whose_density_carries_no_gradient_is_refused() -> None:
    """Its encoder would be trained to minus infinity: the reconstruction and the entropy alone count."""

    class Detached(DensityPrior):
        """A standard normal whose log-density is computed without gradients."""

        def law(self, n: int, context: Tensor | None = None) -> torch.distributions.Distribution:
            class Law(torch.distributions.Independent):
                def log_prob(self, value: Tensor) -> Tensor:
                    with torch.no_grad():
                        return super().log_prob(value)

            return Law(torch.distributions.Normal(torch.zeros(n, 2), 1.0), 1)

    model = VAE(3, latents=2, width=8, prior=Detached((2,)))
    with pytest.raises(ValueError, match="gradient"):
        fit(model, data(), steps=3, **QUIET)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how glibc keeps memory")
def test_memory_that_is_freed_is_kept_for_the_next_step() -> None:
    """Forty megabytes, freed and taken again: without the block they cost 8,000 page faults each time."""
    resource = importlib.import_module("resource")
    keep_freed_memory(torch.device("cpu"))
    counts = []
    for _ in range(8):
        blocks = [torch.ones(1 << 23, dtype=torch.uint8) for _ in range(5)]
        del blocks
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    assert counts[-1] - counts[-2] < 500
