"""A data set whose labels a model is told."""

from __future__ import annotations

from dataclasses import replace

from genmod.data.splits import Dataset


def conditional(data: Dataset, dropout: float = 0.1) -> Dataset:
    """The same rows, with their labels as what a model is told beside them.

    :func:`~genmod.training.fit` then passes them as each batch's ``context``, its validations and
    :func:`~genmod.evaluation.evaluate` those of the part that they score: always all of them there. In
    training, a share of the rows is told nothing, drawn anew at every visit by noise that depends on
    the run's seed and step alone: the model then knows the unconditional law too, as classifier-free
    guidance needs.

    Args:
        data: with labels: integers, for a model with ``condition=Labels(n)``, or rows of real numbers,
            for ``condition=Vectors(n)``.
        dropout: the share told nothing; 0 for a model that is never asked without a context.

    Returns:
        A data set with the rows, parts and labels of ``data``.

    Raises:
        ValueError: data without labels, or a share outside [0, 1].

    Reference:
        Ho and Salimans 2022, Classifier-free diffusion guidance, algorithm 1.

    >>> from genmod.data import digits
    >>> digits().context("test"), conditional(digits()).context("test")[:3]
    (None, tensor([6, 5, 5]))
    """
    return replace(data, context_dropout=dropout)
