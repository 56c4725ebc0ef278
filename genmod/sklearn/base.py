"""The base class of the estimators: parameters, checks of a table, and the training of a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from genmod.checks import check_at_least, instance, invalid, one_of
from genmod.data import Dataset, GivenRows
from genmod.evaluation import score
from genmod.model import LatentModel
from genmod.models import HVAE, Diffusion
from genmod.nn import MLPs
from genmod.signatures import check_fields
from genmod.sklearn.rows import Array, canonical, marks_as_nan
from genmod.sklearn.start import principal_vae
from genmod.spec import Column, DataSpec
from genmod.training import fit
from genmod.units import Standardize

MODELS = ("vae", "hvae", "diffusion")
MOST_LATENTS = 32
"""Latents of a VAE at most, unless they are given."""
_FEWEST = 5
"""With fewer validation rows there are none: their mean would choose at random."""
_EMA = 0.99
"""The decay of the average of weights: these runs are short."""


@dataclass(eq=False, repr=False)
class GenerativeEstimator(BaseEstimator):
    """The base class of the estimators: parameters, and a generative model trained by :meth:`fit`.

    Columns are real numbers and are standardized inside. After ``fit``, ``model_`` is the model (in
    float64, on the CPU, in the data's own units) and ``history_`` the record of its training.

    The parameters are explained at :class:`~genmod.sklearn.GenerativeDensity`.
    """

    model: str | Callable[[DataSpec], LatentModel] = "vae"
    latents: int | None = None
    width: int = 64
    depth: int = 1
    steps: int = 1000
    batch_size: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float | None = None
    validation_fraction: float = 0.1
    device: str = "cpu"
    random_state: Any = None
    verbose: bool = False

    def fit(self, X: Any, y: Any = None) -> GenerativeEstimator:
        """Train the model.

        Args:
            X: ``(N, D)``, at least two rows; NaN where an entry is missing. Rows without an observed
                entry carry no information and are left out.
            y: ignored.

        Raises:
            ValueError: a column of one value; missing entries for a diffusion; parameters out of range.
            NonFiniteLoss: the training diverged.
        """
        check_fields(self)
        x = self._validated(X, reset=True)
        self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self._check_settings()
        self._train(self._training_rows(x))
        self._finish(x)
        return self

    def _check_settings(self) -> None:
        """Refuse parameters of a subclass that are out of range."""

    def _training_rows(self, x: Array) -> Array:
        """The rows to train on, of those that were given."""
        return x

    def _finish(self, x: Array) -> None:
        """Set what a subclass derives from the trained model and the given rows."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._takes_missing()
        return tags

    def _takes_missing(self) -> bool:
        """Whether rows may hold NaN: not for a diffusion. A model of one's own is checked in ``fit``."""
        return not (isinstance(self.model, str) and self.model == "diffusion")

    def _validated(self, X: Any, reset: bool = False) -> Array:
        """The rows of a table as canonical float64, with NaN where an entry is missing."""
        if not reset:
            check_is_fitted(self)
        least = 2 if reset else 1
        x = validate_data(
            self, marks_as_nan(X), reset=reset, dtype=np.float64, ensure_all_finite="allow-nan",
            ensure_min_samples=least,
        )  # fmt: skip
        if not self._takes_missing() and np.isnan(x).any():
            raise invalid(
                f"{int(np.isnan(x).sum())} missing entries (NaN) for a {type(self).__name__} with "
                f"model={self.model!r}",
                "complete rows",
                self._without_missing,
            )
        return canonical(x)

    _without_missing = "use model='vae' or 'hvae', or fill the rows first by GenerativeImputer"

    def _prepared(self, rows: Array) -> Array:
        """The rows that a model is trained or validated on."""
        return rows

    def _train(self, x: Array) -> None:
        """Build a model and train it."""
        generator = np.random.default_rng(self._seed)
        order = generator.permutation(len(x))
        share = self.validation_fraction
        if not 0 <= share < 1:
            got = f"validation_fraction={share}"
            raise invalid(got, "a number in [0, 1)", "0.1 is the default, 0 is none")
        held = round(share * len(x))
        held = held if held >= _FEWEST else 0
        train, held_out = (self._prepared(x[part]) for part in (order[held:], order[:held]))
        spec = self._spec(x, bool(np.isnan(train).any() or np.isnan(held_out).any()))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._seed)
            model = self._build(spec, x[order[held:]])
        if spec.missing:
            model.check_missing()
        self._check_model(model)
        start = deepcopy(model.state_dict()) if self.model == "vae" and held else None
        before = _mean_score(model, held_out) if start is not None else -math.inf
        self.history_ = fit(
            model,
            _dataset(spec, train, held_out),
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self._weight_decay(),
            ema=_EMA,
            seed=self._seed,
            device=self.device,
            progress=bool(self.verbose),
        )
        model = model.cpu()
        if start is not None and _mean_score(model, held_out) < before:
            model.load_state_dict(start)
        self.model_ = model.double().eval()

    def _weight_decay(self) -> float:
        if self.weight_decay is not None:
            return self.weight_decay
        return 1.0 if self.model == "vae" else 0.0

    def _check_model(self, model: LatentModel) -> None:
        """Refuse a model that the estimator cannot use, before it is trained."""

    def _spec(self, x: Array, missing: bool) -> DataSpec:
        """Real columns with the mean and the standard deviation of their observed entries."""
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(x.shape[1])])
        rows = torch.tensor(x)
        units = Standardize.of(rows, ~rows.isnan(), names)
        columns = [
            Column(str(name), mean=mean, std=std)
            for name, mean, std in zip(names, units.mean, units.std, strict=True)
        ]
        return DataSpec((x.shape[1],), columns=columns, missing=missing)

    def _build(self, spec: DataSpec, rows: Array) -> LatentModel:
        """The model, not trained."""
        if not isinstance(self.model, str):
            model = instance(self.model(spec), LatentModel, "model(spec)")
            if model.spec != spec:
                got, advice = (
                    f"a model of {model.spec}",
                    "build it with the DataSpec that it is given",
                )
                raise invalid(got, f"one of {spec}", advice)
            return model
        kind = one_of(MODELS, self.model, "model")
        latents = max(1, min(spec.size - 1, MOST_LATENTS)) if self.latents is None else self.latents
        check_at_least(self.width, 1, "width", "64 is the default")
        check_at_least(latents, 1, "latents", "leave it out: D - 1, at most 32")
        width, depth = self.width, self.depth
        if kind == "vae":
            z = spec.standardize(torch.tensor(rows)).numpy()
            return principal_vae(spec, z, latents, width, depth)
        if kind == "hvae":
            # Perceptrons alone: linear maps to the log-stds of inner levels start far from one.
            sizes = (latents, max(1, latents // 2))
            return HVAE(spec, latents=sizes, networks=MLPs(width, depth))
        return Diffusion(spec, width=width, depth=depth + 1)


def _dataset(spec: DataSpec, train: Array, held_out: Array) -> Dataset:
    """The rows as a data set; those without an observed entry are left out."""
    pieces = (torch.tensor(rows[~np.isnan(rows).all(1)]) for rows in (train, held_out, train[:0]))
    train_rows, validation, test = pieces
    masks = {"train": ~train_rows.isnan(), "validation": ~validation.isnan(), "test": ~test.isnan()}
    return Dataset(
        "table",
        train_rows.nan_to_num(),
        validation.nan_to_num(),
        test,
        columns=spec.columns,
        observed=masks if spec.missing else None,
    )


def _mean_score(model: LatentModel, rows: Array) -> float:
    """The mean bound of validation rows, under noise of one seed."""
    x = torch.tensor(rows[~np.isnan(rows).all(1)])
    given = GivenRows(x.nan_to_num(), None, ~x.isnan())
    return float(score(model, given).value.mean())
