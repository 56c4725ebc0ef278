"""Evaluation: the likelihood of a model, the quality of its samples, and baselines.

Every function takes ``(model, data, context=None, *, timesteps=..., seed=0, batch_size=None, ids=None)``,
where these mean something. ``data`` are a data set, whose test part is used, or rows. Noise belongs to
the id of a row, so results depend neither on ``batch_size`` nor on the order of the rows.
:mod:`~genmod.evaluation.baselines` has simple models in closed form.
"""

from genmod.evaluation import baselines as baselines
from genmod.evaluation.amortization import amortization_gap as amortization_gap
from genmod.evaluation.collapse import collapse as collapse
from genmod.evaluation.evaluating import evaluate as evaluate
from genmod.evaluation.flow import flow_bound as flow_bound
from genmod.evaluation.flow import flow_density as flow_density
from genmod.evaluation.information import immse as immse
from genmod.evaluation.maps import latent_map as latent_map
from genmod.evaluation.perception import features as features
from genmod.evaluation.predictive import predictive_check as predictive_check
from genmod.evaluation.profile import profile as profile
from genmod.evaluation.profile import refinement as refinement
from genmod.evaluation.report import Report as Report
from genmod.evaluation.sample_quality import frechet_distance as frechet_distance
from genmod.evaluation.sample_quality import quality as quality
from genmod.evaluation.scoring import Estimate as Estimate
from genmod.evaluation.scoring import log_weights as log_weights
from genmod.evaluation.scoring import paired as paired
from genmod.evaluation.scoring import score as score
from genmod.evaluation.spectrum import linear_forecast as linear_forecast
from genmod.evaluation.traversal import traverse as traverse
