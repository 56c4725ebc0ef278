"""Settings as plain data: written to a file, read back, and compared by value.

``to_plain`` turns settings into numbers, strings, lists and dictionaries; ``from_plain`` builds them
again. Only classes of the package and what :func:`register` allows can be named in a file: reading one
never runs code that the file brings.
"""

from genmod.config.names import register as register
from genmod.config.plain import from_plain as from_plain
from genmod.config.plain import to_plain as to_plain
from genmod.config.settings import Settings as Settings
