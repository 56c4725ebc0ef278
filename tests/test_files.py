"""Files are whole or not there, and every trouble of the disk is one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from genmod import files

SENTENCE = r"^got [^\n]*; expected [^\n]*; [^\n]*$"


def half_write(path: Path, error: Exception) -> None:
    """Begin to write, and fail."""
    with files.write_atomically(path) as beside:
        beside.write_text("half")
        assert path.read_text() == "first"
        raise error


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a" / "b.txt", "first")
    with pytest.raises(KeyError):
        half_write(path, KeyError())
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.write_text("~/run/x.txt", "x") == tmp_path / "run" / "x.txt"
    assert files.check_folder("~/run") == tmp_path / "run"
    with pytest.raises(ValueError, match=SENTENCE):
        files.as_path("~nobody-of-this-name/x")


def test_tensors_and_text_come_back(tmp_path: Path) -> None:
    x = torch.arange(6).reshape(2, 3).T
    path = files.save_tensors(tmp_path / "x.safetensors", {"x": x}, {"step": "3"})
    tensors, metadata = files.read_tensors(path, "move it away")
    assert torch.equal(tensors["x"], x)
    assert metadata == {"step": "3"}


def test_json_comes_back_bit_for_bit_and_is_known_by_its_format(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "x.json", {"format": "a-1", "value": 0.1 + 0.2})
    assert files.read_json(path, "a-1", "move it")["value"] == 0.1 + 0.2
    with pytest.raises(ValueError, match=r"x.json of format a-1; expected b-1; move it"):
        files.read_json(path, "b-1", "move it")


def test_a_folder_for_a_file_and_a_file_for_a_folder_are_refused(tmp_path: Path) -> None:
    file = files.write_text(tmp_path / "file", "")
    for refused in (
        lambda: files.check_file(tmp_path),
        lambda: files.check_file(file / "below" / "x"),
        lambda: files.check_folder(file),
        lambda: files.check_folder(file / "below"),
        lambda: files.write_text(tmp_path, ""),
        lambda: files.save_tensors(tmp_path, {}),
    ):
        with pytest.raises(ValueError, match=SENTENCE):
            refused()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_full_disk_gives_an_error_and_keeps_the_old_file(tmp_path: Path, number: int) -> None:
    path = files.write_text(tmp_path / "x.txt", "first")
    with pytest.raises(
        ValueError, match=rf"x.txt, which cannot be written \({os.strerror(number)}"
    ):
        half_write(path, OSError(number, os.strerror(number)))
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_torn_and_foreign_files_are_refused(tmp_path: Path) -> None:
    torn = files.save_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(100)})
    os.truncate(torn, 100)
    empty = files.write_text(tmp_path / "y", "")
    for path in (torn, empty, tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=SENTENCE):
            files.read_tensors(path, "move it away")
        with pytest.raises(ValueError, match=r"; move it away$"):
            files.read_json(path, "a-1", "move it away")


def test_removing_takes_the_half_written_file_along(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "x", "")
    (tmp_path / "x.writing").touch()
    files.remove(path)
    files.remove(path)
    assert not os.listdir(tmp_path)
