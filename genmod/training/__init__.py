"""Training: a generator of steps, resumable, that keeps the best by a bound on held-out data."""

from genmod.training.fit import NonFiniteLoss as NonFiniteLoss
from genmod.training.fit import Step as Step
from genmod.training.fit import fit as fit
from genmod.training.fit import train as train
from genmod.training.validation import Validation as Validation
from genmod.training.weights import load_weights as load_weights
from genmod.training.weights import weights as weights
