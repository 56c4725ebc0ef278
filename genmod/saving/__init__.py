"""Models as folders: written, read, and shared. Nothing is pickled or unpickled."""

from genmod.saving.folder import CONFIG as CONFIG
from genmod.saving.folder import WEIGHTS as WEIGHTS
from genmod.saving.folder import load_model as load_model
from genmod.saving.folder import read_config as read_config
from genmod.saving.folder import save_model as save_model
from genmod.saving.folder import write_config as write_config
from genmod.saving.hub import Saved as Saved
