"""Going on after damage: what is whole stays, what is not is kept aside, and the log is whole again, with a gap to see."""

import asyncio
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.audit import gap
from appliance.audit.record import Entry
from appliance.audit.segment import segment_paths
from appliance.audit.verify import verify
from appliance.errors import AuditLogError, ConfigError
from tests.audit import logs
from tests.audit.logs import VERIFIER
from tests.audit.make_vectors import DAMAGED, FOLDER, WHOLE, log_vectors

NOW = datetime(2026, 11, 24, tzinfo=UTC)
VECTORS = [pytest.param(log, id=log.name) for log in log_vectors()]
SIGNED_NONSENSE = (
    "a-record-is-not-canonical",
    "a-record-has-another-index",
)  # the key was somebody else's: nothing mends that


def put_aside(folder: Path) -> tuple[gap.Gap, Path]:
    found = gap.find(folder, VERIFIER)
    return found, gap.put_aside(folder, found, NOW)


@pytest.mark.parametrize(
    "log", [v for v in VECTORS if v.values[0].expect == DAMAGED and v.values[0].name not in SIGNED_NONSENSE]
)
def test_any_damage_is_put_aside_and_the_log_goes_on_behind_what_is_whole(log: object, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER / log.name, tmp_path / "log"))  # type: ignore[attr-defined]
    before = {path.name: path.read_bytes() for path in segment_paths(folder)}
    found, aside = put_aside(folder)
    assert {path.name: path.read_bytes() for path in segment_paths(aside)} == {
        p.name: before[p.name] for p in found.segments
    }

    async def go_on() -> int:
        journal = logs.journal(folder)
        assert journal.position.size == found.size
        receipt = await journal.append(Entry("audit.accept-gap", "done", detail={"first": found.first}))
        journal.close()
        return receipt.index

    assert asyncio.run(go_on()) == found.size
    assert verify(folder, VERIFIER).size == found.size + 1
    kept = [logs.small_record(index) for index in range(found.first, found.size)]
    assert logs.payloads(folder)[: len(kept)] == kept
    assert (found.first, found.size) == (4, 9) if log.name == "the-first-segment-is-missing" else found.first == 0  # type: ignore[attr-defined]


def test_every_place_of_a_flipped_bit_keeps_all_that_was_signed_before_it(tmp_path: Path) -> None:
    made = logs.forged([2, 1, 3], [2])
    name, data = made.names[0], made.segments[0]
    checkpoints = [(end, size) for (kind, _, end), size in zip(
        [f for f in logs.frames(data) if f[0] == b"C"], (0, 2, 3, 6), strict=True
    )]  # fmt: skip
    for place in range(0, len(data) - 64, 7):
        folder = made.write(tmp_path / str(place))
        (folder / name).write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        found, _ = put_aside(folder)
        assert found.size == max((size for end, size in checkpoints if end <= place), default=0)
        assert len(found.segments) == 2


@pytest.mark.parametrize("step", range(6))
def test_a_crash_while_it_is_put_aside_leaves_what_can_be_put_aside_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    made = logs.forged([2, 1], [1, 1], [2])
    folder = made.write(tmp_path / "log")
    path = folder / made.names[0]
    data = bytearray(path.read_bytes())
    data[logs.frames(bytes(data))[-2][1] + 12] ^= 1  # in the second group
    path.write_bytes(data)
    steps = iter(range(100))

    def crashing(act: Any) -> Any:
        def acting(*given: Any, **named: Any) -> Any:
            if next(steps) == step:
                raise KeyboardInterrupt
            return act(*given, **named)

        return acting

    with monkeypatch.context() as patch:
        for name in ("rename", "replace"):
            patch.setattr(Path, name, crashing(getattr(Path, name)))
        for name in ("fsync", "link"):
            patch.setattr(gap.os, name, crashing(getattr(gap.os, name)))
        with suppress(KeyboardInterrupt):
            put_aside(folder)
    with suppress(ConfigError):  # it was whole already
        gap.put_aside(folder, gap.find(folder, VERIFIER), NOW.replace(year=2027))
    assert verify(folder, VERIFIER).size == 2, "what was whole is there"
    assert logs.payloads(folder) == [logs.small_record(i) for i in range(2)]


@pytest.mark.parametrize("log", [v for v in VECTORS if v.values[0].expect == WHOLE])
def test_a_log_that_is_whole_has_no_gap(log: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whole"):
        gap.find(FOLDER / log.name, VERIFIER)  # type: ignore[attr-defined]


def test_whoever_has_noted_more_sees_the_gap(tmp_path: Path) -> None:
    folder = logs.forged([2, 3]).write(tmp_path / "log")
    noted = verify(folder, VERIFIER)
    path = segment_paths(folder)[0]
    data = bytearray(path.read_bytes())
    data[logs.frames(bytes(data))[-3][1] + 12] ^= 1
    path.write_bytes(data)
    found, _ = put_aside(folder)
    assert found.size == 2
    with pytest.raises(AuditLogError, match="does not continue"):
        verify(folder, VERIFIER, (noted.size, noted.root.hex()))
