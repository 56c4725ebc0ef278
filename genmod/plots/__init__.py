"""Plots: functions from numbers to matplotlib figures, without global state."""

from genmod.plots.images import Row as Row
from genmod.plots.images import reconstructions as reconstructions
from genmod.plots.images import samples as samples
from genmod.plots.images import sharpness as sharpness
from genmod.plots.images import strips as strips
from genmod.plots.latents import Route as Route
from genmod.plots.latents import latent_spaces as latent_spaces
from genmod.plots.predictive import predictive_check as predictive_check
from genmod.plots.rates import level_rates as level_rates
from genmod.plots.rates import rate_distortion as rate_distortion
from genmod.plots.rates import step_profile as step_profile
from genmod.plots.schedules import level_weights as level_weights
from genmod.plots.schedules import loss_weights as loss_weights
from genmod.plots.schedules import schedules as schedules
from genmod.plots.style import palette as palette
from genmod.plots.style import save as save
from genmod.plots.units import latent_use as latent_use
from genmod.plots.units import traversal as traversal
