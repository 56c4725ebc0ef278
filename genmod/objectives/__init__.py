"""What training minimizes."""

from genmod.objectives.base import Objective as Objective
from genmod.objectives.base import broken_terms as broken_terms
from genmod.objectives.bounds import Beta as Beta
from genmod.objectives.bounds import Bound as Bound
from genmod.objectives.bounds import WarmUp as WarmUp
from genmod.objectives.explanation import Explanation as Explanation
from genmod.objectives.explanation import explain as explain
from genmod.objectives.hybrid import Hybrid as Hybrid
from genmod.objectives.learned_schedule import LearnedSchedule as LearnedSchedule
from genmod.objectives.published import P2 as P2
from genmod.objectives.published import EDMWeight as EDMWeight
from genmod.objectives.published import MinSNR as MinSNR
from genmod.objectives.published import SigmoidWeight as SigmoidWeight
from genmod.objectives.published import TruncatedSNR as TruncatedSNR
from genmod.objectives.weighted import BoundWeighted as BoundWeighted
from genmod.objectives.weighted import DenoisingObjective as DenoisingObjective
from genmod.objectives.weighted import NoiseWeighted as NoiseWeighted
from genmod.objectives.weighted import Simple as Simple
from genmod.objectives.weighted import Weighted as Weighted
