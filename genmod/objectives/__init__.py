"""What training minimizes."""

from genmod.objectives.base import Objective as Objective
from genmod.objectives.base import broken_terms as broken_terms
from genmod.objectives.bounds import Beta as Beta
from genmod.objectives.bounds import Bound as Bound
from genmod.objectives.bounds import WarmUp as WarmUp
from genmod.objectives.hybrid import Hybrid as Hybrid
from genmod.objectives.learned_schedule import LearnedSchedule as LearnedSchedule
from genmod.objectives.weighted import Simple as Simple
from genmod.objectives.weighted import Weighted as Weighted
