"""Settings as plain data: written to a file, read back, and compared by value.

``to_plain`` turns settings into numbers, strings, lists and dictionaries; ``from_plain`` builds them
again; ``to_yaml`` and ``from_yaml`` write and read such data as text. Only classes of the package and what
:func:`register` allows can be named in a file: reading one never runs code that the file brings.
"""

from genmod.config.names import public_names as public_names
from genmod.config.names import register as register
from genmod.config.plain import Plain as Plain
from genmod.config.plain import from_plain as from_plain
from genmod.config.plain import read_arguments as read_arguments
from genmod.config.plain import to_plain as to_plain
from genmod.config.settings import Settings as Settings
from genmod.config.settings import arguments as arguments
from genmod.config.settings import forget_arguments as forget_arguments
from genmod.config.text import from_yaml as from_yaml
from genmod.config.text import read_value as read_value
from genmod.config.text import to_yaml as to_yaml
