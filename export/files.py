"""Files that appear whole or not at all, and never in another's place."""

import os
from collections.abc import Mapping
from pathlib import Path

from appliance.errors import ConfigError


def require_absent(*paths: Path) -> None:
    """Raises ConfigError where one of the files is already there: a lost content key cannot be made again."""
    there = [path.name for path in paths if path.exists()]
    if there:
        raise ConfigError(f"{', '.join(there)} would be overwritten; choose another name, or move the old one away")


def write_new(contents: Mapping[Path, tuple[bytes, bool]]) -> None:
    """Writes each file's bytes; where the second value is true, only the owner may read it. All of them, or none.

    Raises:
        ConfigError: one of them is already there.
        OSError: they cannot be written.
    """
    require_absent(*contents)
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in contents}
    placed: list[Path] = []
    try:
        for path, (data, private) in contents.items():
            descriptor = os.open(temporary[path], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
        for path in contents:
            # A link, not a rename: it fails where another process has put a file there meanwhile.
            os.link(temporary[path], path)
            placed.append(path)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
