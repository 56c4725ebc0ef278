"""Folders of images: gray or RGB, of one size or brought to one, with labels from subfolders."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genmod.checks import choice, invalid
from genmod.data.datasets import SPLITS, Dataset
from genmod.data.rows import Split, dataset, divide
from genmod.data.tables import labels_of
from genmod.data.values import BYTE, check_memory

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that PIL may read. Others can run programs (PostScript) or hold several images."""
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_PARTS = {"train": "train", "test": "test", "val": "validation", "valid": "validation"}
_PARTS |= {split: split for split in SPLITS}
_GRAY = {"1", "L", "LA"}
_COLOR = {"RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV", "LAB", "PA"}


_ERRORS = (
    *(OSError, EOFError, SyntaxError, ArithmeticError, LookupError, AttributeError, TypeError),
    *(ValueError, MemoryError, struct.error, zlib.error, Warning),
)
"""What PIL raises for files that are not whole images."""


class Resize(StrEnum):
    """How an image is brought to a size."""

    CROP = "crop"
    """Scaled so that it covers the size, then cut around its center: shapes are kept."""
    STRETCH = "stretch"
    """Each side scaled by itself: nothing is cut off, shapes are distorted."""


@dataclass(frozen=True)
class ImageSettings:
    """How images become events of one shape.

    Args:
        size: height and width, or one number for both; ``None``: all images have one size already.
        resize: how images are brought to that size.
        channels: 1 for gray, 3 for RGB; ``None``: 1 if all images are gray, else 3.
    """

    size: int | tuple[int, int] | None = None
    resize: Resize | str = Resize.CROP
    channels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "resize", choice(Resize, self.resize, "resize"))
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise invalid(
                f"size={self.size}",
                "(height, width) in pixels, or one number for both",
                "pass size=64, for example",
            )
        object.__setattr__(self, "size", size)
        if self.channels not in (None, 1, 3):
            raise invalid(f"channels={self.channels}", "1 or 3", "1: gray, 3: RGB")


def folder_dataset(
    folder: Path, name: str, settings: ImageSettings, split: Split, labels: object = None
) -> Dataset:
    """A folder of images, ``torch.uint8`` of 256 values, ``(channels, height, width)``.

    Images in subfolders get them as labels, in alphabetical order. Subfolders named train, test and
    perhaps validation (val, valid) are the parts themselves. Labels that are given are in the order of
    the sorted paths. Transparent pixels become white.

    Raises:
        ValueError: no images; images that are broken, of several sizes without ``size``, or of more than
            8 bits. All are examined first, so that the message counts them.
    """
    files = _images(folder)
    found = [_look(path) for path in files]
    _refuse(found)
    shape = _shape(found, settings)
    check_memory(len(files) * shape[0] * shape[1] * shape[2], f"{folder} of {len(files):,} images")
    x = torch.empty((len(files), *shape), dtype=torch.uint8)
    for place, path in enumerate(files):
        x[place] = _read(path, shape, Resize(settings.resize))
    inside = [path.relative_to(folder).parts[:-1] for path in files]
    heads = {parts[0].lower() if parts else "" for parts in inside}
    if labels is None and "train" in heads and heads <= set(_PARTS) and len(heads) > 1:
        return _published(x, name, inside, split)
    marks, classes = labels_of(labels) if labels is not None else _classes(inside)
    data = dataset(
        x,
        name=name,
        bins=BYTE,
        labels=marks,
        validation=split.validation,
        test=split.test,
        seed=split.seed,
        groups=split.groups,
        time=split.time,
    )
    return replace(data, classes=classes)


def _images(folder: Path) -> list[Path]:
    """All images below a folder, in order; warns of other files. Hidden files are skipped."""
    found: list[Path] = []
    others: list[Path] = []
    for where, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".")]
        for each in names:
            if not each.startswith("."):
                image = Path(each).suffix.lower() in _SUFFIXES
                (found if image else others).append(Path(where, each))
    if not found:
        raise invalid(f"{folder}, a folder without images", *_IMAGES)
    if others:
        warnings.warn(
            f"got {len(others)} files in {folder} that are no images, such as {min(others).name}; expected "
            f"{', '.join(sorted(_SUFFIXES))}; they were left out",
            stacklevel=2,
        )
    return sorted(found)


@dataclass(frozen=True)
class _Look:
    """What an image's file shows: its size and mode, or what is wrong with it."""

    path: Path
    size: tuple[int, int] = (0, 0)
    gray: bool = True
    wrong: str = ""


def _look(path: Path) -> _Look:
    """Read the header and the pixels of an image, so that a broken one is found."""
    # Not at the top, here and below: only folders of images need it.
    from PIL import Image

    try:
        with _opened(path) as image:
            gray = image.mode in _GRAY
            if not gray and image.mode not in _COLOR:
                return _Look(path, wrong=f"pixels of mode {image.mode}, which is not 8-bit")
            if getattr(image, "n_frames", 1) > 1:
                return _Look(path, wrong="several frames")
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            width, height = image.size
            return _Look(path, (width, height) if turned else (height, width), gray)
    except (*_ERRORS, Image.DecompressionBombError) as error:
        return _Look(path, wrong=" ".join(str(error).split()) or type(error).__name__)


_ORIENTATION = 0x0112
"""EXIF's tag of how a camera was held."""


def _opened(path: Path) -> Image.Image:
    from PIL import Image

    with warnings.catch_warnings():
        # An image of more than 89 million pixels: PIL only warns of a decompression bomb.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        return Image.open(path, formats=_FORMATS)


def _refuse(found: Sequence[_Look]) -> None:
    broken = [each for each in found if each.wrong]
    if broken:
        more = f", and {len(broken) - 1} others" if len(broken) > 1 else ""
        raise invalid(
            f"{broken[0].path}, which is no image that can be used ({broken[0].wrong}){more}",
            "whole images of 8 bits, one a file",
            f"replace or remove {_it(broken)}",
        )


def _it(broken: Sequence[_Look]) -> str:
    return "it" if len(broken) == 1 else "them"


def _shape(found: Sequence[_Look], settings: ImageSettings) -> tuple[int, int, int]:
    """Channels, height and width of all images."""
    channels = settings.channels or (1 if all(each.gray for each in found) else 3)
    if isinstance(settings.size, tuple):
        return channels, *settings.size
    sizes = Counter(each.size for each in found)
    (common, _), *others = sizes.most_common()
    other = next((each for each in found if each.size != common), None)
    if others:
        raise invalid(
            f"images of {len(sizes)} sizes: {common}, and {other and other.size} in "
            f"{other and other.path}",
            "one size (height, width)",
            f"pass size={common}, and resize='crop' or 'stretch'",
        )
    return channels, *common


def _read(path: Path, shape: tuple[int, int, int], resize: Resize) -> Tensor:
    """An image as ``(channels, height, width)``."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        if resize is Resize.CROP:
            image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        else:
            image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


def _classes(inside: Sequence[tuple[str, ...]]) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """The label of each image, by its first subfolder; none where there are none."""
    heads = [parts[0] if parts else "" for parts in inside]
    names = sorted(set(heads))
    if names == [""]:
        return None, None
    if "" in names:
        raise invalid(
            f"images beside the subfolders {', '.join(names[1:4])}",
            "all images in subfolders, whose names are the labels, or none",
            "move them into a subfolder",
        )
    return torch.tensor([names.index(head) for head in heads]), tuple(names)


def _published(x: Tensor, name: str, inside: Sequence[tuple[str, ...]], split: Split) -> Dataset:
    """Images whose parts are folders; validation is cut from the training images if it has none."""
    parts = [_PARTS[each[0].lower()] for each in inside]
    marks, classes = _classes([each[1:] for each in inside])
    rows = {
        s: torch.tensor([i for i, part in enumerate(parts) if part == s]).long() for s in SPLITS
    }
    if not len(rows["validation"]) and split.validation:
        train, validation, _ = Split(split.validation, 0.0, split.seed).indices(len(rows["train"]))
        rows |= {"train": rows["train"][train], "validation": rows["train"][validation]}
    record = {"kind": "folders", "validation": split.validation, "seed": split.seed}
    indices = [rows[each] for each in SPLITS]
    return divide(name, x, indices, record, bins=BYTE, labels=marks, classes=classes)


_IMAGES = (f"files such as {', '.join(sorted(_SUFFIXES)[:5])}", "check the path")
