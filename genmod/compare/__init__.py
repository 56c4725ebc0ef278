"""The comparison: a suite of models, trained and evaluated on one data set, with figures."""

from genmod.compare.candidate import Candidate as Candidate
from genmod.compare.candidate import Plan as Plan
from genmod.compare.run import compare as compare
