"""The main job: a whole family trained, scored and drawn on one data set."""

from genmod.compare.families import DIGITS as DIGITS
from genmod.compare.families import IMAGES as IMAGES
from genmod.compare.families import family as family
from genmod.compare.member import Member as Member
from genmod.compare.member import Setting as Setting
from genmod.compare.plan import Plan as Plan
from genmod.compare.run import Comparison as Comparison
from genmod.compare.run import compare as compare
