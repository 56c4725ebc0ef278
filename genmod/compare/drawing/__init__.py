"""What a comparison computes for its figures: each maker takes a :class:`Look`, gives a figure or none."""

from genmod.compare.drawing.look import Look as Look
