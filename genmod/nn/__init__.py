"""Networks: no probability here, only functions from tensors to tensors."""

from genmod.nn.conditioning import NULL_LABEL as NULL_LABEL
from genmod.nn.conditioning import Ignored as Ignored
from genmod.nn.conditioning import Labels as Labels
from genmod.nn.conditioning import Vectors as Vectors
from genmod.nn.conditioning import null_context as null_context
from genmod.nn.mlp import MLP as MLP
from genmod.nn.mlp import DenoisingMLP as DenoisingMLP
from genmod.nn.networks import ConvNets as ConvNets
from genmod.nn.networks import DiTs as DiTs
from genmod.nn.networks import MLPs as MLPs
from genmod.nn.networks import Networks as Networks
from genmod.nn.prompts import Prompts as Prompts
from genmod.nn.transformer import DiT as DiT
from genmod.nn.unet import UNet as UNet
