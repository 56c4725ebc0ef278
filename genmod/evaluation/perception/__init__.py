"""Sample quality of gray images: features of the package's own network, and distances between them."""

from genmod.evaluation.perception.network import SHA256 as SHA256
from genmod.evaluation.perception.network import features as features
from genmod.evaluation.perception.quality import Quality as Quality
from genmod.evaluation.perception.quality import class_score as class_score
from genmod.evaluation.perception.quality import extrapolated_distance as extrapolated_distance
from genmod.evaluation.perception.quality import frechet_distance as frechet_distance
from genmod.evaluation.perception.quality import quality as quality
from genmod.evaluation.perception.quality import quality_of as quality_of
