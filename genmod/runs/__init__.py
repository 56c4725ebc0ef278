"""Runs: train a model into a folder that explains itself, go on, and read it again."""

from genmod.runs.config import RunConfig as RunConfig
from genmod.runs.training import train as train
