"""Folders of images: sizes, channels, labels, parts, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genmod.data import load

REFUSED = r"^got [^\n]*; expected [^\n]*; [^\n]*$"


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
    """Noise of a width and height."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), np.uint8)
    return Image.fromarray(pixels, mode)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of two classes."""
    for place in range(12):
        save(tmp_path / "pets" / ("cat", "dog")[place % 2] / f"{place:02}.png", picture(place))
    return tmp_path / "pets"


def test_images_come_as_they_are_with_labels_from_subfolders(folder: Path) -> None:
    (folder / ".hidden").write_text("")
    data = load(folder)
    assert (data.name, data.shape, data.bins) == ("pets", (3, 4, 6), 256)
    assert data.train.dtype is torch.uint8
    assert data.classes == ("cat", "dog")
    files = sorted(folder.rglob("*.png"))
    assert data.rows is not None
    assert data.labels is not None
    for split, part in data.parts().items():
        for row, x, label in zip(data.rows[split], part, data.labels[split], strict=True):
            path = files[int(row)]
            assert np.array_equal(x.permute(1, 2, 0).numpy(), np.array(Image.open(path)))
            assert data.classes[int(label)] == path.parent.name
    assert "2 classes" in repr(data)
    assert load(str(folder), seed=1).rows is not None


def test_gray_images_have_one_channel(tmp_path: Path) -> None:
    for place in range(10):
        save(tmp_path / "a" / f"{place}.pgm", picture(place, "L"))
    assert load(tmp_path).shape == (1, 4, 6)
    assert load(tmp_path).labels is not None
    assert load(tmp_path / "a").labels is None
    assert load(tmp_path, channels=3).shape == (3, 4, 6)
    save(tmp_path / "a" / "color.png", picture(99))
    assert load(tmp_path).shape == (3, 4, 6)
    assert load(tmp_path, channels=1).shape == (1, 4, 6)


def test_other_sizes_are_brought_to_one_when_asked(tmp_path: Path) -> None:
    """A square in the middle of a wide image: cropping keeps it a square, stretching does not."""
    for place in range(10):
        save(tmp_path / f"{place}.png", picture(place, "L", (16, 16)))
    wide = np.zeros((16, 48), np.uint8)
    wide[:, 16:32] = 255
    save(tmp_path / "wide.png", Image.fromarray(wide))
    with pytest.raises(
        ValueError, match=r"images of 2 sizes: \(16, 16\), and \(16, 48\) in .*wide"
    ):
        load(tmp_path)
    cropped = load(tmp_path, size=16)
    assert cropped.shape == (1, 16, 16)
    everything = torch.cat(list(cropped.parts().values()))
    assert bool((everything == 255).flatten(1).all(1).any())
    stretched = load(tmp_path, size=(16, 16), resize="stretch")
    everything = torch.cat(list(stretched.parts().values())).float()
    assert float(everything[:, 0, 8, :].eq(255).sum(1).max()) == pytest.approx(5, abs=2)
    with pytest.raises(ValueError, match=r"resize='fit'"):
        load(tmp_path, size=16, resize="fit")
    with pytest.raises(ValueError, match=r"size=\(0, 3\)"):
        load(tmp_path, size=(0, 3))


def test_cameras_turn_images_and_transparent_pixels_are_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for place in range(10):
        save(tmp_path / f"{place}.jpg", picture(place), exif=exif)
    assert load(tmp_path).shape == (3, 6, 4)
    clear = tmp_path / "clear"
    for place in range(10):
        image = np.full((4, 6, 4), place, np.uint8)
        image[:, :3, 3] = 0
        image[:, 3:, 3] = 255
        save(clear / f"{place}.png", Image.fromarray(image, "RGBA"))
    data = load(clear)
    assert bool((data.train[..., :3] == 255).all())
    assert bool((data.train[..., 3:] < 10).all())


def test_folders_named_after_parts_are_the_parts(tmp_path: Path) -> None:
    for place in range(20):
        part = "test" if place < 4 else "train"
        save(tmp_path / part / "ab"[place % 2] / f"{place}.png", picture(place))
    data = load(tmp_path)
    assert [len(part) for part in data.parts().values()] == [14, 2, 4]
    assert data.classes == ("a", "b")
    assert data.split is not None
    assert data.split["kind"] == "folders"
    save(tmp_path / "val" / "a" / "x.png", picture(50))
    assert [len(part) for part in load(tmp_path).parts().values()] == [16, 1, 4]


def bomb() -> bytes:
    """A PNG of 400 megapixels in less than a kilobyte of header: its pixels are never unpacked."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def encoded(form: str, *images: Image.Image, **options: Any) -> bytes:
    """The bytes of an image file."""
    out = io.BytesIO()
    if len(images) > 1:
        options |= {"save_all": True, "append_images": list(images[1:])}
    images[0].save(out, form, **options)
    return out.getvalue()


SIXTEEN = Image.fromarray(np.full((4, 6), 40_000, np.uint16))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("text.png", b"not an image", "cannot identify"),
        ("empty.jpg", b"", "cannot identify"),
        (
            "torn.png",
            encoded("PNG", picture(0, size=(60, 40)))[:900],
            "truncated|broken|incomplete",
        ),
        ("torn.jpg", encoded("JPEG", picture(0, size=(60, 40)))[:900], "truncated"),
        ("bomb.png", bomb(), "decompression bomb"),
        ("postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n", "cannot identify"),
        ("moving.gif", encoded("GIF", picture(0, "L"), picture(1, "L")), "several frames"),
        ("deep.png", encoded("PNG", SIXTEEN), "mode I;16, which is not 8-bit"),
    ],
)
def test_one_broken_image_is_named_and_nothing_is_lost(
    folder: Path, name: str, content: bytes, why: str
) -> None:
    (folder / "cat" / name).write_bytes(content)
    with pytest.raises(ValueError, match=REFUSED) as error:
        load(folder)
    assert pytest.raises(ValueError, match=f"{name}, .*({why}).*replace or remove it").matches(
        error.value
    )
    (folder / "cat" / name).unlink()
    assert sum(len(part) for part in load(folder).parts().values()) == 12


def test_other_files_are_left_out_with_a_warning(folder: Path) -> None:
    (folder / "notes.txt").write_text("")
    with pytest.warns(UserWarning, match="1 files in .* that are no images, such as notes.txt"):
        load(folder)


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="a folder without images"):
        load(tmp_path / "empty")
    save(folder / "loose.png", picture(40))
    with pytest.raises(ValueError, match="images beside the subfolders cat, dog"):
        load(folder)
    with pytest.raises(ValueError, match=r"bins for the folder"):
        load(folder, bins=3)
    with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
        load(folder, labels=torch.zeros(3))


def test_the_same_image_in_two_parts_is_said(folder: Path) -> None:
    for place in range(12, 40):
        save(folder / "cat" / f"{place}.png", picture(place % 14))
    with pytest.warns(UserWarning, match=r"test rows of pets in the training part"):
        load(folder)
