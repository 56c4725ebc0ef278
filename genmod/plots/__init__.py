"""Figures: functions from numbers to matplotlib figures, without global state."""

from genmod.plots.images import reconstructions as reconstructions
from genmod.plots.images import samples as samples
from genmod.plots.latents import latent_spaces as latent_spaces
from genmod.plots.rates import level_rates as level_rates
from genmod.plots.rates import step_profile as step_profile
from genmod.plots.style import save as save
