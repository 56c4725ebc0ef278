"""The command ``genmod``. Nothing heavy is imported before a command runs."""

from genmod.cli.app import main as main
