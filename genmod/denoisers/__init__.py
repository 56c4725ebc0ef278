"""Denoisers: networks whose output a target converts to ``x_hat``, and optima in closed form."""

from genmod.denoisers.analytic import EmpiricalDenoiser as EmpiricalDenoiser
from genmod.denoisers.analytic import GaussianDenoiser as GaussianDenoiser
from genmod.denoisers.base import Denoised as Denoised
from genmod.denoisers.base import Denoiser as Denoiser
from genmod.denoisers.base import Learned as Learned
from genmod.denoisers.calibrated import calibrate as calibrate
from genmod.denoisers.guided import Guided as Guided
from genmod.denoisers.targets import DataTarget as DataTarget
from genmod.denoisers.targets import EDMTarget as EDMTarget
from genmod.denoisers.targets import FlowVelocityTarget as FlowVelocityTarget
from genmod.denoisers.targets import NoiseTarget as NoiseTarget
from genmod.denoisers.targets import ScoreTarget as ScoreTarget
from genmod.denoisers.targets import Target as Target
from genmod.denoisers.targets import VelocityTarget as VelocityTarget
from genmod.denoisers.targets import convert as convert
