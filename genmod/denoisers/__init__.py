"""Denoisers: networks read through their target, and the optimum in closed form."""

from genmod.denoisers.analytic import EmpiricalDenoiser as EmpiricalDenoiser
from genmod.denoisers.analytic import GaussianDenoiser as GaussianDenoiser
from genmod.denoisers.base import Denoised as Denoised
from genmod.denoisers.base import Denoiser as Denoiser
from genmod.denoisers.base import denoise as denoise
from genmod.denoisers.calibrated import Calibrated as Calibrated
from genmod.denoisers.calibrated import calibrate as calibrate
from genmod.denoisers.guided import Guided as Guided
from genmod.denoisers.learned import Learned as Learned
from genmod.denoisers.targets import EDM as EDM
from genmod.denoisers.targets import Data as Data
from genmod.denoisers.targets import FlowVelocity as FlowVelocity
from genmod.denoisers.targets import Noise as Noise
from genmod.denoisers.targets import Score as Score
from genmod.denoisers.targets import Target as Target
from genmod.denoisers.targets import Velocity as Velocity
from genmod.denoisers.targets import convert as convert
