"""Bad input is a ``ValueError`` that says what was got, what was expected and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from genmod import decoders, encoders, priors
from genmod.decoders import Identity
from genmod.models import VAE, Autoencoder
from genmod.nn import MLP

pytestmark = pytest.mark.usefixtures("float64")


def require_teaching(message: str, *words: str) -> None:
    """An error says what was got, what was expected and, after that, what to do."""
    assert message.startswith("got ")
    got, expected = message.index("got "), message.index("expected ")
    assert got < expected
    assert len(message[expected:].split(";", 1)) == 2, "no advice"
    for word in words:
        assert word in message, message


X = torch.randint(0, 5, (3, 4))
BAD: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "shape": (lambda: VAE((4,), 5, width=8).elbo(X[:, :3]), ("(3, 3)", "(B, 4)")),
    "no batch": (lambda: VAE((4,), 5, width=8).elbo(X[0]), ("(4,)", "(B, 4)")),
    "fractions": (lambda: VAE((4,), 5, width=8).elbo(X + 0.5), ("whole numbers", "0..4")),
    "scaled to one": (lambda: VAE((4,), 5, width=8).elbo(X / 4), ("do not scale",)),
    "above the bins": (lambda: VAE((4,), 5, width=8).elbo(X + 5), ("0..4", "set bins=")),
    "below the bins": (lambda: VAE((4,), 5, width=8).elbo(X - 9), ("0..4", "begins at 0")),
    "NaN": (lambda: VAE((4,), width=8).elbo(X * math.nan), ("NaN", "observed=")),
    "NaN for a mass": (lambda: VAE((4,), 5, width=8).elbo(X * math.nan), ("NaN",)),
    "infinite": (lambda: VAE((4,), width=8).elbo(X * math.inf), ("infinite",)),
    "bool": (lambda: VAE((4,), 2, width=8).elbo(X > 2), ("torch.bool", "convert")),
    "integers for a density": (lambda: VAE((4,), width=8).elbo(X), ("torch.int64", "bins=")),
    "mask type": (lambda: VAE((4,), 5, width=8).elbo(X, observed=X), ("torch.bool",)),
    "mask shape": (lambda: VAE((4,), 5, width=8).elbo(X, observed=X[:, :2] > 0), ("(3, 2)",)),
    "encoder's network": (
        lambda: VAE(encoder=encoders.GaussianEncoder(MLP(4, 5), (3,)), spec=(4,), latents=3).elbo(
            X * 1.0
        ),
        ("5 outputs a row from MLP", "6 (for the shape (2, 3))", "last layer"),
    ),
    "decoder's network": (
        lambda: VAE((4,), latents=3, decoder=decoders.GaussianDecoder(MLP(3, 5), (4,))).elbo(
            X * 1.0
        ),
        ("5 outputs a row from MLP", "4 (for the shape (4,))"),
    ),
    "prior of another shape": (
        lambda: VAE((4,), latents=3, prior=priors.NormalPrior((2,))).elbo(X * 1.0),
        ("over latents of shape (2,)", "expected (3,)", "latents=2"),
    ),
    "autoencoder's sample": (
        lambda: Autoencoder((4,), width=8).sample(2),
        ("flat prior", "use a VAE"),
    ),
    "Dirac, proper prior": (
        lambda: VAE(encoder=encoders.DiracEncoder(Identity(), (4,)), spec=(4,), latents=4).elbo(
            X * 1.0
        ),
        ("Dirac", "priors.FlatPrior()"),
    ),
    "Dirac, proper prior, weighed": (
        lambda: VAE(
            encoder=encoders.DiracEncoder(Identity(), (4,)), spec=(4,), latents=4
        ).log_weight(X * 1.0),
        ("Dirac", "encoders.GaussianEncoder"),
    ),
    "Dirac, nested prior": (
        lambda: VAE(
            encoder=encoders.DiracEncoder(Identity(), (4,)),
            spec=(4,),
            prior=VAE((4,), width=8),
            latents=4,
        ).elbo(X * 1.0),
        ("Dirac",),
    ),
    "nested mass": (
        lambda: priors.NestedPrior(VAE((4,), 5, width=8)),
        ("mass", "bounds a density", "bins=None"),
    ),
    "nested autoencoder": (lambda: priors.NestedPrior(Autoencoder((4,), width=8)), ("none",)),
    "no shape": (
        lambda: VAE(),
        ("no description of the data", "pass a data set", "or your own encoder"),
    ),
    "empty shape": (lambda: VAE((0, 4)), ("shape=(0, 4)", "positive sides")),
    "one bin": (lambda: VAE((4,), 1), ("bins=1", "at least 2")),
    "no samples": (lambda: VAE((4,), width=8).sample(0), ("n=0", "at least 1")),
    "a code of another shape": (
        lambda: VAE((4,), latents=3, width=8).decode(torch.zeros(2, 5)),
        ("(2, 5)", "(B, 3)"),
    ),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_a_value_error_that_teaches(name: str) -> None:
    make, words = BAD[name]
    with pytest.raises(ValueError, match="got ") as error:
        make()
    require_teaching(str(error.value), *words)
