"""Training: a generator of steps, resumable, that keeps the best by a bound on held-out data."""

from genmod.training.loop import NonFiniteLoss as NonFiniteLoss
from genmod.training.loop import Step as Step
from genmod.training.loop import fit as fit
from genmod.training.loop import train as train
from genmod.training.scale import fit_scale as fit_scale
from genmod.training.validation import Validation as Validation
from genmod.training.weights import load_weights as load_weights
from genmod.training.weights import weights as weights
