"""Models: each builds an encoder, a decoder and a prior, and adds no math."""

from pathlib import Path

import torch

from genmod.model import LatentModel as LatentModel
from genmod.models.autoencoder import Autoencoder as Autoencoder
from genmod.models.build import LinearSkip as LinearSkip
from genmod.models.build import TableNetworks as TableNetworks
from genmod.models.diffusion import Diffusion as Diffusion
from genmod.models.hvae import HVAE as HVAE
from genmod.models.hvae import Inference as Inference
from genmod.models.latent_diffusion import LatentDiffusion as LatentDiffusion
from genmod.models.replace import find_diffusion as find_diffusion
from genmod.models.replace import has_diffusion as has_diffusion
from genmod.models.replace import with_denoiser as with_denoiser
from genmod.models.replace import with_probability_flow as with_probability_flow
from genmod.models.replace import with_steps as with_steps
from genmod.models.vae import VAE as VAE
from genmod.saving.folder import load_model


def load(folder: Path | str, device: torch.device | str = "cpu") -> LatentModel:
    """The model in a folder that ``model.save`` or ``genmod train`` wrote, in evaluation mode.

    Args:
        folder: of the model, or of a run.
        device: where to put it.

    Raises:
        ValueError: no such folder, torn files, a part whose class was not registered, weights of another
            model.
    """
    model = load_model(folder, device)
    if not isinstance(model, LatentModel):
        raise ValueError(f"got a saved {type(model).__name__}; expected a model; pass its folder")
    return model
