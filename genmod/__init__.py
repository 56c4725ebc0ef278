"""genmod: latent-variable generative models on one evidence lower bound.

Every model is an encoder q(z | x), a decoder p(x | z) and a prior p(z); one :class:`ELBO` scores them.
The names below are loaded when they are first used, so that ``import genmod`` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from genmod.version import __version__ as __version__

if TYPE_CHECKING:
    from genmod.config import register as register
    from genmod.elbo import ELBO as ELBO
    from genmod.elbo import Kind as Kind
    from genmod.elbo import Measure as Measure
    from genmod.elbo import Rate as Rate
    from genmod.elbo import Stamp as Stamp
    from genmod.evaluation import evaluate as evaluate
    from genmod.models import HVAE as HVAE
    from genmod.models import VAE as VAE
    from genmod.models import Autoencoder as Autoencoder
    from genmod.models import Diffusion as Diffusion
    from genmod.models import LatentDiffusion as LatentDiffusion
    from genmod.models import LatentModel as LatentModel
    from genmod.models import load as load
    from genmod.spec import DataSpec as DataSpec
    from genmod.training import fit as fit
    from genmod.training import training_loop as training_loop

_MODULES = {
    "Autoencoder": "models",
    "DataSpec": "spec",
    "Diffusion": "models",
    "ELBO": "elbo",
    "HVAE": "models",
    "Kind": "elbo",
    "LatentDiffusion": "models",
    "LatentModel": "models",
    "Measure": "elbo",
    "Rate": "elbo",
    "Stamp": "elbo",
    "VAE": "models",
    "evaluate": "evaluation",
    "load": "models",
    "register": "config",
    "fit": "training",
    "training_loop": "training",
}
_SUBPACKAGES = (
    "compare",
    "config",
    "data",
    "decoders",
    "denoisers",
    "distributions",
    "editing",
    "encoders",
    "evaluation",
    "export",
    "gaussian",
    "interop",
    "inverse",
    "models",
    "nn",
    "objectives",
    "plots",
    "priors",
    "samplers",
    "schedules",
    "sklearn",
    "training",
)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"genmod.{_MODULES[name]}"), name)
    if name in _SUBPACKAGES:
        return import_module(f"genmod.{name}")
    raise AttributeError(f"module 'genmod' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_SUBPACKAGES, "__version__"])
