"""Runs on disk: folders that can be continued, the identity of what made them, and reports as files."""

from genmod.runs.config import RunConfig as RunConfig
from genmod.runs.folder import RunFolder as RunFolder
from genmod.runs.identity import changes as changes
from genmod.runs.identity import describe as describe
from genmod.runs.training import TrainedRun as TrainedRun
from genmod.runs.training import train as train
