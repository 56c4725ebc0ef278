"""What a part returns is checked where it enters the bound, in every model, at every batch size.

A law without ``Independent`` gives one number for each entry. Torch broadcasts it against one number a
row without an error where sizes happen to fit: at a batch of 1, or of as many rows as the event has
entries. The bound is then wrong by tens of nats.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace
from torch.distributions import Normal as TorchNormal

from genmod import decoders, encoders
from genmod.decoders import Decoder
from genmod.distributions import Normal
from genmod.encoders import Encoder
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.nn import MLP
from genmod.prior import DensityPrior
from genmod.priors import NormalPrior, TopDownBlock, TopDownPrior
from genmod.spec import DataSpec

pytestmark = pytest.mark.usefixtures("float64", "as_users_run")

MakeLaw = Callable[[Tensor], Distribution]
SCALE = 0.5
WRONG: dict[str, MakeLaw] = {
    "unreduced": lambda location: Laplace(location, SCALE),
    "a stray dimension": lambda location: Independent(Laplace(location[:, None], SCALE), 1),
    "one row": lambda location: Independent(Laplace(location[:1], SCALE), 1),
    "no rows": lambda location: Independent(Laplace(location[0], SCALE), 1),
    "reduced too far": lambda location: Independent(Laplace(location, SCALE), 2),
}
"""Laws that are not one event a row."""


def right(location: Tensor) -> Distribution:
    """One event a row."""
    return Independent(Laplace(location, SCALE), 1)


def cases(rows: tuple[int, ...] = (1, 4, 7)) -> list[tuple[str, int]]:
    """Each wrong law at each batch size; one row for a batch of one is right."""
    return [(name, n) for name in WRONG for n in rows if not (name == "one row" and n == 1)]


# ---------------------------------------------------------------------- decoders


class Own(Decoder):
    """A decoder of one's own with ``forward`` alone: around one learned location, whatever the state."""

    def __init__(self, size: int, law: MakeLaw = right) -> None:
        super().__init__(size)
        self.location, self.law = nn.Parameter(torch.linspace(-1, 1, size)), law

    def forward(self, state: Tensor, context: Tensor | None = None) -> Distribution:
        return self.law(self.location.expand(len(state), -1))


MODELS: dict[str, Callable[[Decoder], LatentModel]] = {
    "VAE": lambda decoder: VAE(4, latents=2, width=8, decoder=decoder),
    "Autoencoder": lambda decoder: Autoencoder(4, latents=2, width=8, decoder=decoder),
    "HVAE, bottom-up": lambda decoder: HVAE(4, latents=(3, 2), width=8, decoder=decoder),
    "HVAE, top-down": lambda decoder: HVAE(
        4, latents=(3, 2), width=8, inference="top-down", decoder=decoder
    ),
    "Diffusion": lambda decoder: Diffusion(4, steps=3, width=8, decoder=decoder),
    "LatentDiffusion": lambda decoder: LatentDiffusion(
        vae=VAE(4, latents=2, width=8, decoder=decoder)
    ),
}


@pytest.mark.parametrize("masked", [False, True], ids=["all observed", "some observed"])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_decoders_terms_are_summed_over_the_event(name: str, rows: int, masked: bool) -> None:
    """The reconstruction is the sum over the observed entries, by hand."""
    decoder = Own(4)
    model, x = MODELS[name](decoder), torch.randn(rows, 4)
    observed = torch.rand(rows, 4) < 0.6 if masked else None
    bound = model.elbo(x, observed=observed)
    each = -(x - decoder.location).abs() / SCALE - torch.tensor(2 * SCALE).log()
    counted = each if observed is None else torch.where(observed, each, 0.0)
    assert bound.value.shape == (rows,)
    torch.testing.assert_close(bound.reconstruction, counted.sum(1))


@pytest.mark.parametrize("masked", [False, True], ids=["all observed", "some observed"])
@pytest.mark.parametrize(("law", "rows"), cases())
@pytest.mark.parametrize("name", MODELS)
def test_a_decoders_law_is_one_event_a_row(name: str, law: str, rows: int, masked: bool) -> None:
    """With and without a mask."""
    model, x = MODELS[name](Own(4, WRONG[law])), torch.randn(rows, 4)
    observed = torch.ones(rows, 4, dtype=torch.bool) if masked else None
    with pytest.raises(ValueError, match=r"got the decoder's law .* expected batch shape .*; .*"):
        model.elbo(x, observed=observed)


@pytest.mark.parametrize("rows", [1, 3])
def test_an_event_of_one_entry_is_still_an_event(rows: int) -> None:
    """``(B, 1)`` numbers for ``B`` rows would give ``B x B`` values."""
    with pytest.raises(ValueError, match=r"wrap it: torch.distributions.Independent\(law, 1\)"):
        VAE(1, latents=2, width=8, decoder=Own(1, WRONG["unreduced"])).elbo(torch.randn(rows, 1))


@pytest.mark.parametrize("use", ["sample", "decode", "reconstruct", "log_weight"])
@pytest.mark.parametrize("law", WRONG)
def test_every_use_of_a_decoder_checks_its_law(law: str, use: str) -> None:
    model, x = VAE(4, latents=2, width=8, decoder=Own(4, WRONG[law])), torch.randn(3, 4)
    uses: dict[str, Callable[[], object]] = {
        "sample": lambda: model.sample(3),
        "decode": lambda: model.decode(torch.zeros(3, 2)),
        "reconstruct": lambda: model.reconstruct(x),
        "log_weight": lambda: model.log_weight(x),
    }
    with pytest.raises(ValueError, match="got the decoder's law"):
        uses[use]()


def test_what_is_no_distribution_is_named() -> None:
    class Bare(Own):
        def forward(self, state: Tensor, context: Tensor | None = None) -> Distribution:
            return self.location.expand(len(state), -1)  # type: ignore[return-value]

    with pytest.raises(ValueError, match="got the decoder's law of type Tensor"):
        VAE(4, latents=2, width=8, decoder=Bare(4)).elbo(torch.randn(3, 4))


# ---------------------------------------------------------------------- posteriors


class OwnEncoder(Encoder):
    """An encoder of one's own with ``forward`` alone."""

    def __init__(self, law: MakeLaw = right) -> None:
        super().__init__()
        self.network, self.law = nn.Linear(4, 4), law

    def forward(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> Distribution:
        return self.law(self.network(x))


def with_encoder(kind: str, encoder: Encoder) -> LatentModel:
    """A model of four numbers with four latents, around an encoder."""
    decoder = decoders.GaussianDecoder(nn.Linear(4, 4), 4)
    if kind == "Autoencoder":
        return Autoencoder(encoder=encoder, decoder=decoder, latents=4)
    prior = None if kind == "VAE" else VAE(4, latents=2, width=8)
    return VAE(encoder=encoder, decoder=decoder, latents=4, prior=prior)


@pytest.mark.parametrize("masked", [False, True], ids=["all observed", "some observed"])
@pytest.mark.parametrize(("law", "rows"), cases())
@pytest.mark.parametrize("kind", ["VAE", "Autoencoder", "nested"])
def test_a_posterior_is_one_event_a_row(kind: str, law: str, rows: int, masked: bool) -> None:
    model, x = with_encoder(kind, OwnEncoder(WRONG[law])), torch.randn(rows, 4)
    observed = torch.ones(rows, 4, dtype=torch.bool) if masked else None
    with pytest.raises(ValueError, match="got the encoder's posterior"):
        model.elbo(x, observed=observed)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_a_custom_posterior_enters_the_rates(rows: int) -> None:
    """``log q(z) - log p(z)`` at the draw, summed over the latent's four numbers."""
    encoder = OwnEncoder()
    model, x = with_encoder("VAE", encoder), torch.randn(rows, 4)
    torch.manual_seed(0)
    rate = model.elbo(x).rates["prior"]
    torch.manual_seed(0)
    q = encoder(x)
    z = q.rsample()
    expected = q.log_prob(z) - TorchNormal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(rate.total, expected)
    code = model.encode(x)
    assert isinstance(code, Tensor)
    assert code.shape == model.sample(rows).shape == (rows, 4)


# ---------------------------------------------------------------------- priors


class OwnPrior(DensityPrior):
    """A prior of one's own with ``law`` alone."""

    def __init__(self, law: MakeLaw = right, shared: bool = False) -> None:
        super().__init__((4,))
        self.location, self.make, self.shared = nn.Parameter(torch.zeros(4)), law, shared

    def law(self, n: int, context: Tensor | None = None) -> Distribution:
        return right(self.location) if self.shared else self.make(self.location.expand(n, -1))


def with_prior(prior: DensityPrior, nested: bool) -> LatentModel:
    """A VAE with four latents, or one whose prior is such a VAE."""
    inner = VAE(4, latents=4, width=8, prior=prior)
    return VAE(4, latents=4, width=8, prior=inner) if nested else inner


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize(
    ("law", "rows"), [case for case in cases() if case[0] not in ("no rows", "one row")]
)
def test_a_priors_law_is_one_event_a_row(law: str, rows: int, nested: bool) -> None:
    model, x = with_prior(OwnPrior(WRONG[law]), nested), torch.randn(rows, 4)
    for use in (model.elbo, model.log_weight):
        with pytest.raises(ValueError, match="got the prior of prior"):
            use(x)


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("rows", [3, 4])
def test_one_row_of_a_prior_does_not_stand_for_a_batch(rows: int, nested: bool) -> None:
    """A batch shape of ``(1,)`` is no batch shape of ``()``."""
    with pytest.raises(ValueError, match=r"got the prior of prior with batch shape \(1,\)"):
        with_prior(OwnPrior(WRONG["one row"]), nested).elbo(torch.randn(rows, 4))


@pytest.mark.parametrize("law", [law for law in WRONG if law != "no rows"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_samples_need_one_event_a_row_of_the_prior(law: str, nested: bool) -> None:
    """One row for five would be one sample, where five were asked for."""
    with pytest.raises(ValueError, match="got the prior of prior with batch shape"):
        with_prior(OwnPrior(WRONG[law]), nested).sample(5)


@pytest.mark.parametrize("rows", [1, 3, 4])
@pytest.mark.parametrize("shared", [False, True], ids=["one law a row", "one law for all"])
def test_a_custom_prior_needs_law_alone(rows: int, shared: bool) -> None:
    """Scored, weighed and sampled; one law for all rows is the same prior."""
    model, x = with_prior(OwnPrior(shared=shared), nested=False), torch.randn(rows, 4)
    torch.manual_seed(0)
    rate = model.elbo(x).rates["prior"]
    torch.manual_seed(0)
    q = model.posterior(x)
    assert isinstance(q, Normal)
    z = q.rsample()
    expected = q.log_prob(z) - Laplace(0.0, SCALE).log_prob(z).sum(1)
    torch.testing.assert_close(rate.total, expected)
    torch.manual_seed(0)
    state, path = model.prior.draw_path(model.posterior(x))
    torch.testing.assert_close(path.log_ratio()[0], -expected)
    assert torch.equal(state, z)
    assert model.sample(rows).shape == (rows, 4)
    rate.total.sum().backward()
    assert all(p.grad is not None for p in model.prior.parameters())


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("part", ["head", "block"])
def test_the_levels_of_a_hierarchy_are_one_event_a_row(part: str, rows: int) -> None:
    """Both laws of a level, in a top-down hierarchy."""

    class Head(nn.Module):
        def forward(self, features: Tensor, state: Tensor) -> Distribution:
            return (WRONG["unreduced"] if part == "head" else right)(features)

    class Law(Own):
        def forward(self, state: Tensor, context: Tensor | None = None) -> Distribution:
            return (WRONG["unreduced"] if part == "block" else right)(state)

    model = LatentModel(
        encoders.TopDownEncoder([nn.Linear(4, 2)], [Head()]),
        decoders.GaussianDecoder(nn.Linear(2, 4), 4),
        TopDownPrior([TopDownBlock(Law(2))], torch.zeros(2)),
    )
    name = "the posterior of z1" if part == "head" else "the prior of z1"
    with pytest.raises(ValueError, match=f"got {name}"):
        model.elbo(torch.randn(rows, 4))


# ---------------------------------------------------------------------- the description of the data

INTEGERS: dict[str, Callable[..., LatentModel]] = {
    "VAE": VAE,
    "Autoencoder": Autoencoder,
    "HVAE, bottom-up": lambda *a, **k: HVAE(*a, **(k | {"latents": (2,)})),
    "HVAE, top-down": lambda *a, **k: HVAE(*a, **(k | {"latents": (2,)}), inference="top-down"),
}


def categorical(kind: str) -> Decoder:
    """A decoder of four integers of three values."""
    inputs = 8 if kind == "HVAE, top-down" else 2
    return decoders.CategoricalDecoder(MLP(inputs, 12, width=8), 4, 3)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("spec", [None, 4, (4,), DataSpec((4,), 3)], ids=str)
def test_a_decoders_own_description_is_the_models(kind: str, spec: object) -> None:
    """Beside a bare shape, or nothing: the encoder reads the same integers."""
    given = () if spec is None else (spec,)
    model = INTEGERS[kind](*given, latents=2, width=8, decoder=categorical(kind))
    assert model.spec == model.encoder.spec == DataSpec((4,), 3)
    assert model.elbo(torch.randint(0, 3, (5, 4))).value.shape == (5,)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize(
    ("spec", "bins"), [((5,), None), ((4,), 2), (None, 2), (DataSpec((4,)), None)], ids=str
)
def test_a_description_that_contradicts_the_decoder_is_refused(
    kind: str, spec: object, bins: int | None
) -> None:
    with pytest.raises(ValueError, match=r"beside a decoder of \(4,\), integers 0..2"):
        INTEGERS[kind](spec, bins, latents=2, width=8, decoder=categorical(kind))


def test_a_diffusion_takes_its_decoders_description() -> None:
    decoder = decoders.DiscretizedLogisticDecoder(decoders.Identity(), (2,), 5)
    for spec in (None, 2, (2,)):
        model = Diffusion(spec, steps=3, width=8, decoder=decoder)
        assert model.spec == model.encoder.spec == DataSpec((2,), 5)
    with pytest.raises(
        ValueError, match=r"data of \(3,\), real numbers beside a decoder of \(2,\)"
    ):
        Diffusion(3, steps=3, width=8, decoder=decoder)


def test_parts_of_other_data_are_refused() -> None:
    encoder = encoders.GaussianEncoder(nn.Linear(4, 4), (2,), DataSpec((4,), 7))
    decoder = decoders.CategoricalDecoder(nn.Linear(2, 12), 4, 3)
    with pytest.raises(
        ValueError, match=r"integers 0..6 beside a decoder of \(4,\), integers 0..2"
    ):
        LatentModel(encoder, decoder, NormalPrior((2,)))


def test_a_custom_encoder_need_not_take_masks() -> None:
    """What was not observed is zero; the bound is on the observed entries alone."""

    class Plain(Encoder):
        latent_shape = (2,)

        def forward(self, x: Tensor, context: Tensor | None = None) -> Distribution:  # type: ignore[override]
            return Normal(x[:, :2], torch.zeros(len(x), 2))

    model = VAE(3, latents=2, width=8, encoder=Plain())
    x, observed = torch.randn(4, 3), torch.tensor([[True, True, False]]).expand(4, 3)
    torch.manual_seed(0)
    first = model.elbo(x, observed=observed).value
    torch.manual_seed(0)
    other = model.elbo(torch.where(observed, x, 7.0), observed=observed).value
    torch.testing.assert_close(first, other, rtol=0, atol=0)
