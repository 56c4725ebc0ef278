"""Settings as plain data: written to a file, read back, and compared by value.

Only classes of the package and what :func:`register` allows can be named in a file: reading one never
runs code that the file brings.
"""

from genmod.config.names import register as register
from genmod.config.settings import Settings as Settings
