r"""Keyed noise: reproducible random numbers, one stream for each row. All noise of a bound is drawn here.

Outside :func:`keyed`, the functions of this module draw from torch's own generator. Inside, the noise of
a row is a function of ``(seed, step, call, row id)``. A row then gets the same numbers in any batch, in
any order, in any process, whatever was drawn before. Rows are drawn in blocks, and the rows of the batch
are taken out of them. On one kind of device the numbers are equal bit for bit.

Inside :func:`seeded`, each row has a seed of its own, and its noise depends on that seed alone.

Both restart torch's own generators from the key and restore them afterwards. So a distribution of
torch's own, drawn by :func:`draw`, gives the same numbers for the same seed. Such numbers depend on the
batch, not on row ids: :func:`genmod.chunks.by_rows` therefore runs rows one at a time where they occur.
"""

from genmod.random.keys import keyed as keyed
from genmod.random.keys import seeded as seeded
from genmod.random.streams import draw as draw
from genmod.random.streams import normal as normal
from genmod.random.streams import normal_like as normal_like
from genmod.random.streams import uniform as uniform
