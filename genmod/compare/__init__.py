"""The main job: the whole family trained, scored and drawn on one data set."""

from genmod.compare.family import FAMILY as FAMILY
from genmod.compare.family import Member as Member
from genmod.compare.run import Comparison as Comparison
from genmod.compare.run import compare as compare
