"""Tiles: the same files however often and whenever they are written, and the log's own root above them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit import tiles
from appliance.audit.tree import HASH_BYTES, Tree
from appliance.errors import AuditLogError
from tests.audit import logs
from tests.audit.logs import VERIFIER


@pytest.mark.parametrize(("number", "place"), [
    (0, "000"), (7, "007"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067"),
])  # fmt: skip
def test_a_tiles_place_is_as_in_the_specification(number: int, place: str) -> None:
    assert tiles.path(number) == place


@settings(max_examples=10, deadline=None)
@given(first=st.integers(1, 600), more=st.integers(0, 600))
def test_a_grown_log_adds_files_and_changes_none(tmp_path_factory: pytest.TempPathFactory, first: int, more: int) -> None:
    folder = tmp_path_factory.mktemp("tiles")
    small = logs.forged([first]).write(folder / "small")
    large = logs.forged([first, *([more] if more else [])]).write(folder / "large")
    assert tiles.write(small, folder / "grown") == first
    before = files(folder / "grown")
    assert tiles.write(large, folder / "grown") == first + more
    after = files(folder / "grown")
    assert {name: data for name, data in after.items() if name in before and name != "checkpoint"} == {
        name: data for name, data in before.items() if name != "checkpoint"
    }
    tiles.write(large, folder / "anew")
    assert files(folder / "anew").items() <= after.items()
    assert VERIFIER.open(after["checkpoint"]).root == root_above(folder / "anew", first + more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def root_above(folder: Path, size: int) -> bytes:
    """The root over all the leaf hashes that stand in level 0."""
    tree, full = Tree(), size // tiles.WIDTH
    names = [tiles.path(number) for number in range(full)]
    if size % tiles.WIDTH:
        names.append(f"{tiles.path(full)}.p/{size % tiles.WIDTH}")
    for name in names:
        data = (folder / "tile" / "0" / name).read_bytes()
        for at in range(0, len(data), HASH_BYTES):
            tree.append(data[at : at + HASH_BYTES])
    assert tree.size == size
    return tree.root()


def test_tiles_of_another_log_are_not_mixed_with_these(tmp_path: Path) -> None:
    tiles.write(logs.forged([300]).write(tmp_path / "one"), tmp_path / "tiles")
    other = logs.forged([300], key=logs.OTHER_KEY).write(tmp_path / "other")
    name = next(other.glob("*.log"))
    name.write_bytes(name.read_bytes().replace(b'{"index":7,"v":1}', b'{"index":7,"v":2}'))
    with pytest.raises(AuditLogError):
        tiles.write(other, tmp_path / "tiles")


def test_a_log_without_records_has_no_tiles(tmp_path: Path) -> None:
    folder = logs.forged([]).write(tmp_path / "log")
    with pytest.raises(AuditLogError, match="no record"):
        tiles.write(folder, tmp_path / "tiles")
    assert not (tmp_path / "tiles").exists()
