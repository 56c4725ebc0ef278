"""Evaluation: what is reported of a model, and what it has to beat."""

from genmod.evaluation.baselines import Baseline as Baseline
from genmod.evaluation.baselines import gaussian as gaussian
from genmod.evaluation.baselines import global_histogram as global_histogram
from genmod.evaluation.baselines import pixel_histogram as pixel_histogram
from genmod.evaluation.baselines import ppca as ppca
from genmod.evaluation.profile import Profile as Profile
from genmod.evaluation.profile import denoising as denoising
from genmod.evaluation.profile import profile as profile
from genmod.evaluation.report import Estimate as Estimate
from genmod.evaluation.report import Report as Report
from genmod.evaluation.report import evaluate as evaluate
from genmod.evaluation.scoring import Scores as Scores
from genmod.evaluation.scoring import log_weights as log_weights
from genmod.evaluation.scoring import score as score
