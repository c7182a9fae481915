"""Project Wycheproof's vectors, from beside the project (``../shared/vectors``), where they are there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2].parent / "shared" / "vectors" / "wycheproof"

needed = pytest.mark.skipif(not FOLDER.is_dir(), reason="Wycheproof's vectors (../shared/vectors) are absent")


def cases(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every test of a file, with its group."""
    for group in json.loads((FOLDER / name).read_text())["testGroups"]:
        for case in group["tests"]:
            yield group, case
