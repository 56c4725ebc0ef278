r"""Keyed noise: every random number of the bound comes through this module.

Outside :func:`keyed` the functions draw from torch's own generator. Inside, the noise of a row is a
function of ``(seed, step, call, row id)``: a row gets the same numbers in any batch, in any order, on any
process, whatever was drawn before. Rows are drawn in blocks, and the wanted rows are taken out of them.
Equality holds bit for bit on one kind of device.

Inside :func:`seeded` each row has its own seed, and its noise depends on that seed alone.

Both also restart torch's own generators from the key, and put them back afterwards, so that a
distribution of torch's (drawn by :func:`draw`) gives the same number for the same seed. Such a draw knows
no rows: :func:`by_rows` runs the rows one at a time where it meets one.
"""

from genmod.random.noise import draw as draw
from genmod.random.noise import normal as normal
from genmod.random.noise import normal_like as normal_like
from genmod.random.noise import replayable as replayable
from genmod.random.noise import stratified as stratified
from genmod.random.noise import uniform as uniform
from genmod.random.streams import BLOCK as BLOCK
from genmod.random.streams import keyed as keyed
from genmod.random.streams import mix as mix
from genmod.random.streams import seeded as seeded
from genmod.random.torch_draws import TorchDraws as TorchDraws
from genmod.random.torch_draws import by_rows as by_rows
