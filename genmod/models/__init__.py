"""Models: each builds an encoder, a decoder and a prior, and adds no math."""

from genmod.model import LatentModel as LatentModel
from genmod.models.autoencoder import Autoencoder as Autoencoder
from genmod.models.diffusion import Diffusion as Diffusion
from genmod.models.hvae import HVAE as HVAE
from genmod.models.hvae import Inference as Inference
from genmod.models.latent_diffusion import LatentDiffusion as LatentDiffusion
from genmod.models.vae import VAE as VAE
from genmod.models.wrapping import with_denoiser as with_denoiser
