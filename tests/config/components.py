"""An object of every class of settings that ships, by the name of its class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial

import torch

from genmod import decoders, diffusion, encoders, models, nn, objectives, samplers, training
from genmod.config import named, public_names
from genmod.config.settings import arguments
from genmod.decoders.codes import Categories, IntegerLogisticDecoder, OrderedCategories
from genmod.decoders.likelihoods import FixedScale
from genmod.denoisers import Guided
from genmod.elbo import Stamp
from genmod.model import LatentModel
from genmod.models.build import LinearSkip, TableNetworks
from genmod.nn import MLP
from genmod.nn.cells import Cell, Pyramid
from genmod.nn.mlp import ContextEmbedding, FourierFeatures, NoiseLevelEmbedding, Sinusoidal
from genmod.nn.networks import Conditional
from genmod.nn.residual import ConvDecoder, ConvEncoder, ConvNet
from genmod.objectives.published import P2
from genmod.priors import FlatPrior, MixturePrior, NormalPrior
from genmod.priors.deep import VeryDeepBlock
from genmod.priors.given import PriorLaw
from genmod.spec import Bins, Column, DataSpec, Standardize
from genmod.training.config import Cycle, TrainingConfig
from tests.contracts.test_decoders import DECODERS
from tests.contracts.test_encoders import ENCODERS
from tests.contracts.test_priors import PRIORS
from tests.contracts.test_schedules import SCHEDULES
from tests.contracts.test_targets import DENOISERS, TARGETS
from tests.saving.test_folder import MODELS

TABLE = DataSpec(
    (3,),
    columns=[
        Column("age", "count"),
        Column("height", mean=170.0, std=8.5),
        Column("size", "ordinal", ("small", "no", "1e-3")),
    ],
)


def a_column(kind: str) -> DataSpec:
    """A table of one column."""
    values = ("a", "b", "c") if kind in ("category", "ordinal") else None
    return DataSpec((1,), columns=[Column("x", kind, values)])


OTHERS: dict[str, Callable[[], object]] = {
    "DataSpec": lambda: DataSpec((1, 4, 4), 17),
    "DataSpec of a table": lambda: TABLE,
    "Stamp": lambda: Stamp.BOUND,
    "LatentModel": lambda: LatentModel(
        encoders.GaussianEncoder(MLP(3, 4, width=8), (2,)),
        decoders.GaussianDecoder(MLP(2, 3, width=8), (3,)),
        NormalPrior((2,)),
    ),
    "an open prior": lambda: MixturePrior(3),
    "an open encoder": encoders.FullCovarianceEncoder,
    "FlatPrior": lambda: FlatPrior((2,)),
    "Bins": lambda: Bins(17),
    "Standardize": lambda: Standardize((170.0,), (8.5,)),
    "Inference": lambda: models.Inference.TOP_DOWN,
    # networks
    "Labels": lambda: nn.Labels(10),
    "Vectors": lambda: nn.Vectors(3),
    "Ignored": nn.Ignored,
    "Prompts": nn.Prompts.digits,
    "MLPs": lambda: nn.MLPs(width=7),
    "ConvNets": lambda: nn.ConvNets(width=16, multipliers=(1, 2, 4)),
    "DiTs": nn.DiTs,
    "ContextEmbedding": lambda: ContextEmbedding(nn.Labels(3), 8),
    "MLP": lambda: MLP(3, 4, width=8),
    "DenoisingMLP": lambda: nn.DenoisingMLP((3,), width=8),
    "ConvEncoder": lambda: ConvEncoder((1, 16, 16), (4,), width=4),
    "ConvDecoder": lambda: ConvDecoder((4,), (1, 16, 16), width=4),
    "ConvNet": lambda: ConvNet((1, 16, 16), (1, 16, 16), width=4),
    "UNet": lambda: nn.UNet((1, 16, 16), width=8),
    "DiT": lambda: nn.DiT((1, 16, 16), width=32, depth=1),
    # scales, variances, timesteps, heads
    "FixedScale": lambda: FixedScale(0.5),
    "GlobalScale": lambda: decoders.GlobalScale(0.3, gain=2.0),
    "PerDimensionScale": lambda: decoders.PerDimensionScale((3,)),
    "PredictedScale": lambda: decoders.PredictedScale(0.1),
    "Identity": decoders.Identity,
    "ChannelMixtureDecoder": lambda: decoders.ChannelMixtureDecoder(
        MLP(2, 10 * 2 * 4, width=8), (3, 2, 2), 17, components=2
    ),
    "PriorLaw": lambda: PriorLaw(NormalPrior((2,))),
    "Categories": lambda: Categories(MLP(2, 3, width=8), a_column("category")),
    "OrderedCategories": lambda: OrderedCategories(MLP(2, 1, width=8), a_column("ordinal")),
    "PoissonDecoder": lambda: decoders.PoissonDecoder(MLP(2, 1, width=8), a_column("count")),
    "NegativeBinomialDecoder": lambda: decoders.NegativeBinomialDecoder(
        MLP(2, 1, width=8), a_column("count")
    ),
    "ZeroInflatedPoissonDecoder": lambda: decoders.ZeroInflatedPoissonDecoder(
        MLP(2, 2, width=8), a_column("count")
    ),
    "ZeroInflatedNegativeBinomialDecoder": lambda: decoders.ZeroInflatedNegativeBinomialDecoder(
        MLP(2, 2, width=8), a_column("count")
    ),
    "IntegerLogisticDecoder": lambda: IntegerLogisticDecoder(
        MLP(2, 1, width=8), a_column("integer")
    ),
    "LaplaceDecoder": lambda: decoders.LaplaceDecoder(MLP(2, 3, width=8), (3,)),
    "StudentTDecoder": lambda: decoders.StudentTDecoder(MLP(2, 3, width=8), (3,), df=4.0),
    "Columns": lambda: decoders.Columns.of(
        lambda count: MLP(2, count, width=8), TABLE, {"height": decoders.StudentTDecoder}
    ),
    "VAE of a table": lambda: models.VAE(TABLE, latents=2, width=8),
    "FixedSmall": diffusion.FixedSmall,
    "FixedLarge": diffusion.FixedLarge,
    "Analytic": diffusion.Analytic,
    "LearnedInterpolation": diffusion.LearnedInterpolation,
    "StratifiedTimesteps": diffusion.StratifiedTimesteps,
    "UniformTimesteps": diffusion.UniformTimesteps,
    "TabulatedTimesteps": lambda: diffusion.TabulatedTimesteps(torch.linspace(1, 2, 20)),
    "LossAwareTimesteps": diffusion.LossAwareTimesteps,
    "Guided": lambda: Guided(DENOISERS["Calibrated"](), 2.0),
    # samplers and grids
    "Ancestral": samplers.Ancestral,
    "DDIM": lambda: samplers.DDIM(eta=0.5),
    "DPMSolver": lambda: samplers.DPMSolver(order=2),
    "Euler": samplers.Euler,
    "Heun": samplers.Heun,
    "StochasticHeun": samplers.StochasticHeun,
    "IPNDM": samplers.IPNDM,
    "UniPC": samplers.UniPC,
    "PolynomialGrid": samplers.PolynomialGrid,
    "UniformLogSNR": samplers.UniformLogSNR,
    "UniformTime": samplers.UniformTime,
    # objectives and training
    "Bound": objectives.Bound,
    "Beta": lambda: objectives.Beta(2.0),
    "WarmUp": lambda: objectives.WarmUp(100),
    "WarmUp in cycles": lambda: objectives.WarmUp(100, cycles=4, ramp=0.25),
    "CapacityTarget": lambda: objectives.CapacityTarget(10.0, 100, weight=50.0),
    "FreeBits": lambda: objectives.FreeBits(0.5, per_dimension=True),
    "GECO": lambda: objectives.GECO(-90.0, step_size=0.1),
    "BetaTC": lambda: objectives.BetaTC(4.0, stratified=True),
    "IWAE": lambda: objectives.IWAE(8, "autograd"),
    "Simple": objectives.Simple,
    "Hybrid": objectives.Hybrid,
    "Weighted": lambda: objectives.Weighted(objectives.MinSNR().weight),
    "MinSNR": objectives.MinSNR,
    "P2": lambda: P2(0.5),
    "TruncatedSNR": objectives.TruncatedSNR,
    "SigmoidWeight": lambda: objectives.SigmoidWeight(-1.0),
    "EDMWeight": objectives.EDMWeight,
    "LearnedSchedule": lambda: objectives.LearnedSchedule(objectives.SigmoidWeight(-1.0)),
    "TrainingConfig": lambda: TrainingConfig(steps=3, autocast=torch.bfloat16),
    "Conditional": lambda: Conditional(nn.MLPs(width=8), nn.Labels(3)),
    "Sinusoidal": lambda: Sinusoidal(8),
    "NoiseLevelEmbedding": lambda: NoiseLevelEmbedding(8),
    "FourierFeatures": lambda: FourierFeatures((1, 2)),
    "LinearSkip": lambda: LinearSkip(MLP(3, 2, width=8), 3, 2),
    "TableNetworks": lambda: TableNetworks(nn.MLPs(width=8)),
    "Cell": lambda: Cell((8, 4), 3, hidden=4),
    "Pyramid": lambda: Pyramid((1, 4, 4), [(8, 4, 4), (8, 2, 2)], hidden=4),
    "VeryDeepBlock": lambda: VeryDeepBlock((8,), 2, 3, hidden=4),
    "Cycle": lambda: Cycle(0, 3),
    "Flip": lambda: training.Flip(-2, 0.25),
    "Shift": lambda: training.Shift(3),
}

NO_SETTINGS = {
    "Batch": "a batch of data",
    "BinnedDecoder": "a base class",
    "ColumnKind": "written as the word that it is",
    "History": "a result",
    "Path": "draws",
    "Rate": "a result",
    "ReverseProcess": "the parts of a prior",
    "Settings": "the base class",
    "Step": "a result",
    "HeadPosterior": "a distribution of some rows",
    "LadderPosterior": "a distribution of some rows",
    "LearnedNoisingPosterior": "a distribution of some rows",
    "NoisingPosterior": "a distribution of some rows",
}
"""Classes that a file may name in principle, and that hold no settings."""


def components() -> dict[str, Callable[[], object]]:
    """Every object, by a name."""
    found: dict[str, Callable[[], object]] = {}
    for title, table in (
        ("schedule", SCHEDULES),
        ("target", TARGETS),
        ("denoiser", DENOISERS),
        ("decoder", DECODERS),
        ("prior", PRIORS),
        ("model", MODELS),
        ("", OTHERS),
    ):
        found |= {f"{title} {name}".strip(): build for name, build in table.items()}
    for name, (make, _) in ENCODERS.items():
        found[f"encoder {name}"] = partial(make, DataSpec((2, 3, 4)))
    return found


def parts_of(value: object, seen: set[int]) -> Iterator[object]:
    """An object of settings, and those among its arguments."""
    if id(value) in seen or isinstance(value, type):
        return
    seen.add(id(value))
    if isinstance(value, list | tuple):
        for each in value:
            yield from parts_of(each, seen)
    else:
        yield value
        for each in (arguments(value) or {}).values():
            yield from parts_of(each, seen)


def concrete() -> list[str]:
    """The public classes of settings that can be built."""
    kinds = {name: named(name) for name in public_names()}
    return [name for name, kind in kinds.items() if not inspect.isabstract(kind)]
