"""Noise schedules: log-SNR against time."""

from genmod.schedules.base import Bridge as Bridge
from genmod.schedules.base import Point as Point
from genmod.schedules.base import Schedule as Schedule
from genmod.schedules.base import time_dtype as time_dtype
from genmod.schedules.cosine import Cosine as Cosine
from genmod.schedules.linear import LinearLogSNR as LinearLogSNR
from genmod.schedules.table import LinearBeta as LinearBeta
from genmod.schedules.table import Table as Table
