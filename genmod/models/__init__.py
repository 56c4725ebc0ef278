"""Models: each builds an encoder, a decoder and a prior, and adds no math."""

from genmod.model import LatentModel as LatentModel
from genmod.model import load as load
from genmod.models.autoencoders import VAE as VAE
from genmod.models.autoencoders import Autoencoder as Autoencoder
from genmod.models.depth import with_depth as with_depth
from genmod.models.diffusion import Diffusion as Diffusion
from genmod.models.hvae import HVAE as HVAE
from genmod.models.hvae import Inference as Inference
from genmod.models.latent_diffusion import LatentDiffusion as LatentDiffusion
from genmod.models.replace import with_denoiser as with_denoiser
from genmod.models.replace import with_probability_flow as with_probability_flow
from genmod.models.replace import with_steps as with_steps
