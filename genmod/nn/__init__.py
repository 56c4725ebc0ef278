"""Networks: no probability here, only functions from tensors to tensors."""

from genmod.nn.calls import call as call
from genmod.nn.calls import outputs as outputs
from genmod.nn.conditioning import nothing_like as nothing_like
from genmod.nn.embeddings import FourierFeatures as FourierFeatures
from genmod.nn.embeddings import Sinusoidal as Sinusoidal
from genmod.nn.mlp import MLP as MLP
from genmod.nn.mlp import DenoisingMLP as DenoisingMLP
from genmod.nn.networks import Convolutions as Convolutions
from genmod.nn.networks import Networks as Networks
from genmod.nn.networks import Perceptrons as Perceptrons
from genmod.nn.networks import customary as customary
from genmod.nn.residual import ConvDecoder as ConvDecoder
from genmod.nn.residual import ConvEncoder as ConvEncoder
from genmod.nn.residual import ConvNet as ConvNet
from genmod.nn.unet import UNet as UNet
