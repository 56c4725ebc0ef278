"""Where data come from: a name, a folder, a table, a large file, or rows; and the settings of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

from genmod.checks import invalid, one_of
from genmod.data import images, toys
from genmod.data.cells import RawColumn
from genmod.data.datasets import Dataset
from genmod.data.folders import ImageSettings, Resize, folder_dataset
from genmod.data.kinds import Kinds
from genmod.data.loaders import collect, gives_batches, is_torch_dataset
from genmod.data.readers import from_frame, is_frame, read_csv, read_parquet
from genmod.data.rows import Layout, Split, dataset
from genmod.data.stored import in_place, is_large, read_arrays
from genmod.data.tables import TableSettings, labels_of, standardized, table_dataset
from genmod.data.toys.toy import toy_dataset
from genmod.data.values import Array, byte, pair, warn_of_duplicates, warn_of_spread
from genmod.files import as_path
from genmod.spec import DataSpec, HasSpec
from genmod.units import Standardize

NAMES = (*images.BY_NAME, *toys.BY_NAME)
"""The names of the data sets that :func:`~genmod.data.load` can load."""

_TOY_ROWS = 10_000
_TABLES: Mapping[str, Callable[[Path], list[RawColumn]]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}


@dataclass(frozen=True, eq=False)
class LoadSettings:
    """The settings of :func:`~genmod.data.load`, with their defaults."""

    bins: int | None = None
    labels: object = None
    name: str | None = None
    validation: float = 0.1
    test: float = 0.2
    seed: int = 0
    groups: object = None
    time: object = None
    kinds: Kinds | None = None
    drop: Iterable[str] = ()
    standardize: bool | Standardize | None = None
    observed: object = None
    size: int | tuple[int, int] | None = None
    resize: Resize | str = Resize.CROP
    channels: int | None = None
    layout: Layout | str = Layout.AUTO
    spec: DataSpec | HasSpec | None = None
    root: Path | str | None = None

    @property
    def split(self) -> Split:
        """How rows are divided."""
        return Split(self.validation, self.test, self.seed, self.groups, self.time)

    def given(self) -> list[str]:
        """The settings that differ from their defaults."""
        found = []
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            plain = isinstance(value, str | int | float | tuple)
            if value is not default and not (plain and value == default):
                found.append(field.name)
        return found


_SPLIT = ("validation", "test", "seed")


class Source(ABC):
    """Where data come from."""

    known: ClassVar[tuple[str, ...]]
    """The settings that it uses, beside those of the split."""

    def load(self, settings: LoadSettings) -> Dataset:
        """The data set. A setting that would change nothing is refused."""
        check_settings(settings, (*self.known, *_SPLIT), self.title)
        return self.dataset(settings)

    @property
    @abstractmethod
    def title(self) -> str:
        """What messages call it."""

    @abstractmethod
    def dataset(self, settings: LoadSettings) -> Dataset:
        """The data set."""


def check_settings(settings: LoadSettings, known: tuple[str, ...], title: str) -> None:
    """Refuse settings that a source does not use."""
    idle = [name for name in settings.given() if name not in known]
    if idle:
        raise invalid(
            f"{', '.join(idle)} for {title}",
            "only settings that change something",
            f"leave {' and '.join(idle)} out",
        )


@dataclass(frozen=True)
class NamedSource(Source):
    """A published data set, or a toy density."""

    name: str
    known = ("root",)

    @property
    def title(self) -> str:
        return self.name

    def dataset(self, settings: LoadSettings) -> Dataset:
        if self.name in toys.BY_NAME or self.name == "digits":
            check_settings(settings, _SPLIT, self.name)
        if self.name in toys.BY_NAME:
            return toy_dataset(toys.density(self.name), _TOY_ROWS, settings.seed)
        return images.BY_NAME[self.name](settings.root, settings.seed)


@dataclass(frozen=True)
class FolderSource(Source):
    """A folder of images."""

    path: Path
    known = ("labels", "name", "groups", "time", "size", "resize", "channels")

    @property
    def title(self) -> str:
        return f"the folder {self.path}"

    def dataset(self, settings: LoadSettings) -> Dataset:
        name = settings.name or self.path.resolve().name
        shape = ImageSettings(settings.size, settings.resize, settings.channels)
        data = folder_dataset(self.path, name, shape, settings.split, settings.labels)
        warn_of_duplicates(data)
        return data


@dataclass(frozen=True, eq=False)
class TableSource(Source):
    """A table: a file, or a frame."""

    columns: list[RawColumn]
    name: str
    known = ("labels", "name", "groups", "time", "kinds", "drop", "standardize", "spec")

    @property
    def title(self) -> str:
        return f"the table {self.name}"

    def dataset(self, settings: LoadSettings) -> Dataset:
        how = TableSettings(
            settings.kinds,
            settings.drop,
            True if settings.standardize is None else settings.standardize,
            settings.labels,
            None if settings.spec is None else DataSpec.of(settings.spec),
        )
        data = table_dataset(self.columns, settings.name or self.name, how, settings.split)
        warn_of_duplicates(data)
        return data


@dataclass(frozen=True)
class FileSource(Source):
    """A ``.npy`` file that is read in place."""

    path: Path
    known = ("bins", "labels", "name")

    @property
    def title(self) -> str:
        return f"{self.path}, which is read in place"

    def dataset(self, settings: LoadSettings) -> Dataset:
        labels = None if settings.labels is None else labels_of(settings.labels)[0]
        name = settings.name or self.path.stem
        data = in_place(self.path, name, settings.split, settings.bins, labels)
        warn_of_spread(data.train, name, "rescale it")
        return data


@dataclass(frozen=True, eq=False)
class RowsSource(Source):
    """Rows, and perhaps labels."""

    rows: object
    labels: object = None
    observed: object = None
    name: str = "data"
    known = ("bins", "labels", "name", "groups", "time", "standardize", "observed", "layout")

    @property
    def title(self) -> str:
        return "rows of your own"

    def dataset(self, settings: LoadSettings) -> Dataset:
        given = _one(self.labels, settings.labels, "labels")
        observed = _one(self.observed, settings.observed, "observed")
        labels, classes = (None, None) if given is None else labels_of(given)
        bins = byte(self.rows) if settings.bins is None else settings.bins
        split, name = settings.split, settings.name or self.name
        data = dataset(
            self.rows, name=name, bins=bins, labels=labels, observed=observed,
            validation=split.validation, test=split.test, seed=split.seed, groups=split.groups,
            time=split.time, layout=settings.layout,
        )  # fmt: skip
        data = replace(data, classes=classes)
        if settings.standardize:
            data = standardized(data, settings.standardize)
        else:
            warn_of_spread(data.train, name)
        warn_of_duplicates(data)
        return data


def _one(own: object, given: object, name: str) -> object:
    """What the data hold, or what was given beside them; both are refused."""
    if own is not None and given is not None:
        raise invalid(f"{name} beside data that hold {name}", "one of the two", f"leave {name} out")
    return own if given is None else given


def source_of(x: object) -> Source:
    """What something is, from its type, or a file's suffix.

    Raises:
        ValueError: a name that is unknown, a path that does not exist, a file of another kind.
    """
    if isinstance(x, Source):
        return x
    if isinstance(x, str) and is_name(x):
        return NamedSource(x)
    if isinstance(x, str | Path):
        return _file(as_path(x))
    if is_frame(x):
        return TableSource(from_frame(x), "table")
    if is_torch_dataset(x) or gives_batches(x):
        return RowsSource(*collect(x))
    rows, labels = pair(x)
    return RowsSource(rows, labels)


def _file(path: Path) -> Source:
    if not path.exists():
        raise invalid(f"{path}, which does not exist", "a file or a folder", "check the path")
    if path.is_dir():
        return FolderSource(path)
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        return TableSource(_TABLES[suffix](path), path.stem)
    if suffix not in (".npy", ".npz"):
        raise invalid(
            f"{path}",
            "a table (.csv, .tsv, .parquet), an array (.npy, .npz) or a folder of images",
            "save it as one of them",
        )
    if is_large(path):
        return FileSource(path)
    return RowsSource(*_named(read_arrays(path), path), name=path.stem)


def _named(arrays: Mapping[str, Array], path: Path) -> tuple[Array, Array | None]:
    """The rows and labels among the arrays of a file."""
    if len(arrays) == 1:
        return next(iter(arrays.values())), None
    if arrays.keys() != {"x", "y"}:
        raise invalid(
            f"{path} with arrays named {sorted(arrays)}",
            "one array, or x (rows) and y (labels)",
            "pass the arrays themselves: load(file['...'], labels=file['...'])",
        )
    return arrays["x"], arrays["y"]


def is_name(x: str) -> bool:
    """Whether a string can only be a name; refuses one that is neither a name nor a path."""
    if x in NAMES:
        return True
    if Path(x).suffix or "/" in x or "\\" in x or as_path(x).exists():
        return False
    one_of(NAMES, x, "data")
    return True
