"""Networks: no probability here, only functions from tensors to tensors."""

from genmod.nn.calls import call as call
from genmod.nn.calls import outputs as outputs
from genmod.nn.embeddings import FourierFeatures as FourierFeatures
from genmod.nn.embeddings import Sinusoidal as Sinusoidal
from genmod.nn.mlp import MLP as MLP
from genmod.nn.mlp import DenoisingMLP as DenoisingMLP
