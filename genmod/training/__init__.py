"""Training: ``fit``, and the loop of steps that it runs; resumable, with the best by validation kept."""

from genmod.training.augment import Augmentation as Augmentation
from genmod.training.augment import Flip as Flip
from genmod.training.augment import Shift as Shift
from genmod.training.fitting import fit as fit
from genmod.training.fitting import training_loop as training_loop
from genmod.training.history import History as History
from genmod.training.history import Step as Step
from genmod.training.muon import Muon as Muon
from genmod.training.state import NonFiniteLoss as NonFiniteLoss
