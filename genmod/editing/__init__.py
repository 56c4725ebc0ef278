"""Editing: paths and arithmetic between codes of data, and SDEdit, which noises data part of the way."""

from genmod.editing.codes import interpolate as interpolate
from genmod.editing.codes import latent_direction as latent_direction
from genmod.editing.codes import move as move
from genmod.editing.noise import sdedit as sdedit
