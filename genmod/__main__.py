"""``python -m genmod``: the command, for launchers of several processes such as torchrun."""

from genmod.cli import main

if __name__ == "__main__":
    main()
