"""About 100 values of the package at commit f5e1b7b, and the code that computes them again.

``models.py``, ``calls.py`` and ``evaluation.py`` hold every name of the package. A renaming changes these
three files alone. The other modules call their functions, and torch.

Two orders must stay for the values to stay: that of a model's parameters (each gets noise in the order of
``model.parameters()``), and that of the draws of :mod:`genmod.random`.
"""
