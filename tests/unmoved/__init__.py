"""About 100 values of the package at commit f5e1b7b, and the code that computes them again.

``models.py`` states the settings of that commit: a default that moves later moves no value. Two orders
must stay for the values to stay: that of a model's parameters (each gets noise in the order of
``model.parameters()``), and that of the draws of :mod:`genmod.random`.
"""
