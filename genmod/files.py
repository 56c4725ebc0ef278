"""Atomic writes: a file is written beside its place, then moved there in one step.

Only text, JSON and safetensors: nothing is unpickled. Every trouble of the disk (a folder in place of a
file, no permission, no space, a torn file) is a ``ValueError`` that names the path and what to do.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genmod.checks import invalid

_SUFFIX = ".writing"
_LOCK = ".lock"
_LARGEST = 1 << 28
"""Bytes of a text file that is read, at most."""


def as_path(path: Path | str) -> Path:
    """A path with ``~`` replaced by the home folder.

    >>> as_path("runs/vae").as_posix()
    'runs/vae'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise invalid(
            f"the path {str(path)!r} ({error})", "a home folder that exists", "write it in full"
        ) from None


def check_file(path: Path | str) -> Path:
    """A path where a file can be: refuses a folder, and a file in place of one of its folders.

    Raises:
        ValueError: before any work is done.
    """
    found = as_path(path)
    if found.is_dir():
        raise invalid(
            f"the folder {found}",
            "the path of a file",
            f"add a file name, such as {found / 'model.safetensors'}",
        )
    _check_parents(found)
    return found


def check_folder(path: Path | str) -> Path:
    """Make a folder that can be written to.

    Raises:
        ValueError: a file in its place or above it, a folder that is read-only.
    """
    found = as_path(path)
    if found.is_file():
        raise invalid(
            f"the file {found}",
            "a folder, or a path for a new one",
            "choose another path, or move that file away",
        )
    _check_parents(found)
    with _explained(found):
        found.mkdir(parents=True, exist_ok=True)
        probe = found / f"probe{_SUFFIX}"
        probe.touch()
        # Another process may have probed the same folder, and removed it.
        probe.unlink(missing_ok=True)
    return found


def _check_parents(path: Path) -> None:
    blocking = next((each for each in path.parents if each.exists()), None)
    if blocking is not None and not blocking.is_dir():
        raise invalid(
            f"{path}, below {blocking}, which is a file",
            "a folder there",
            "choose another path, or move that file away",
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this process: another process that tries to lock it is refused.

    The operating system ends the lock with the process, also with one that is killed.

    Raises:
        ValueError: another process holds the lock.
    """
    path = check_folder(folder) / _LOCK
    with _explained(path):
        file = path.open("a+")
    with file:
        try:
            _lock(file)
        except OSError as error:
            file.seek(0)
            raise invalid(
                f"{folder}, which is in use by process {file.read(20).strip()}",
                "a folder of its own for each process",
                "wait until that process is done, or choose another folder",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: TextIO) -> None:
        file.seek(_LARGEST)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: TextIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def write_atomically(path: Path | str) -> Iterator[Path]:
    """A path to write to, moved onto ``path`` at the end, so that no reader gets half a file.

    An old file at ``path`` stays until the new one is whole. A failed write leaves nothing behind.

    Raises:
        ValueError: the file cannot be written.

    Example: ``with write_atomically("report.md") as beside: beside.write_text("done")``
    """
    path = check_file(path)
    beside = path.with_name(path.name + _SUFFIX)
    try:
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            os.replace(beside, path)
    finally:
        if beside.is_file():
            beside.unlink()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a ``ValueError`` of one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise invalid(
            f"{path}, which cannot be written ({reason})",
            "a place with space and the right to write",
            "free some space, or choose another path",
        ) from error


def remove(path: Path) -> None:
    """Remove a file, and what a process that was ended while writing it left beside it."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + _SUFFIX).unlink(missing_ok=True)


def append_text(path: Path | str, text: str) -> Path:
    """Write text at the end of a file; the file and its folders are made if they are missing.

    Raises:
        ValueError: the file cannot be written.
    """
    path = check_file(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    return path


def write_text(path: Path | str, text: str) -> Path:
    """Write a text file."""
    with write_atomically(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return as_path(path)


def write_json(path: Path | str, content: Mapping[str, object]) -> Path:
    """Write a JSON file. Floating point numbers are read back bit for bit."""
    return write_text(path, json.dumps(content, indent=2) + "\n")


def read_text(
    path: Path | str, advice: str, expected: str = "a text file that genmod wrote"
) -> str:
    """Read a text file: a regular one, of at most 256 MiB.

    Args:
        path: the file.
        advice: what to do about a file that cannot be read.
        expected: what was expected, for the message.

    Raises:
        ValueError: the file is missing, no regular file, too large, or no text.
    """
    path = as_path(path)
    try:
        reason = "not a regular file" if path.exists() and not path.is_file() else None
        if reason is None and path.stat().st_size > _LARGEST:
            reason = f"{path.stat().st_size:,} bytes"
        if reason is None:
            return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or f"no text: {error}"
    raise invalid(f"{path}, which cannot be read ({reason})", expected, advice)


def read_json(path: Path | str, mark: str, advice: str) -> dict[str, Any]:
    """Read a JSON object whose ``"format"`` is ``mark``.

    Raises:
        ValueError: the file is missing, torn, or of another format.
    """
    path = as_path(path)
    text = read_text(path, advice, f"a file of format {mark}")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(
            f"{path}, which cannot be read (no JSON: {error})", f"a file of format {mark}", advice
        ) from error
    check_format(path, content.get("format") if isinstance(content, dict) else None, mark, advice)
    return dict(content)


def check_format(path: Path, stated: object, mark: str, advice: str) -> None:
    """Require the format of a file, a name with a number: ``genmod-run-1``.

    Raises:
        ValueError: another format. For a higher number the message asks to upgrade genmod.

    >>> check_format(Path("run.json"), "genmod-run-2", "genmod-run-1", "move it away")
    Traceback (most recent call last):
    ...
    ValueError: got run.json of format genmod-run-2; expected genmod-run-1; a newer version ...
    """
    name, _, number = mark.rpartition("-")
    later, _, other = str(stated).rpartition("-")
    newer = later == name and other.isdecimal() and int(other) > int(number)
    upgrade = "a newer version of genmod wrote it: upgrade genmod"
    if stated != mark:
        raise invalid(f"{path} of format {stated}", mark, upgrade if newer else advice)


def save_tensors(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write tensors by name, and text beside them, as one safetensors file."""
    with write_atomically(path) as beside:
        laid_out = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(laid_out, beside, dict(metadata or {}))
    return as_path(path)


def read_tensors(path: Path | str, advice: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, on the CPU, and the text beside them.

    Args:
        path: the file.
        advice: what to do about a file that cannot be read.

    Raises:
        ValueError: the file is missing, a folder, torn, or of another kind.
    """
    path = as_path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(None, "not a regular file")
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, TypeError, LookupError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise invalid(
            f"{path}, which is no whole safetensors file ({reason})",
            "one that genmod wrote",
            advice,
        ) from error
