"""Files that are on the disk when we say so, whole or not at all."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Makes a file durable, or the names in a folder. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: Path, data: bytes) -> None:
    """Writes a file and makes its content durable; its name is, once its folder is synced. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes) -> None:
    """Puts a file in its place, whole or not at all, and durably. Raises OSError."""
    beside = path.with_name(f"{path.name}.new")
    write(beside, data)
    beside.replace(path)
    sync(path.parent)
