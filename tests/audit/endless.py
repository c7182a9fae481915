"""The child of ``test_kill.py``: it writes records until it is killed, and tells which ones were acknowledged."""

import asyncio
import struct
from multiprocessing.connection import Connection
from pathlib import Path

from appliance.audit.journal import Journal
from tests.audit import logs

INDEX = struct.Struct(">Q")
TASKS = 8


def write_for_ever(directory: str, acknowledged: Connection) -> None:
    """Each index goes down the pipe after its await has returned, and so after the promise was made."""
    asyncio.run(_write_for_ever(logs.journal(Path(directory), segment_bytes=40_000), acknowledged))


async def _write_for_ever(journal: Journal, acknowledged: Connection) -> None:
    async def task() -> None:
        while True:
            async with journal.entry("call") as entry:
                entry.refer("a-case")
            assert entry.receipt is not None
            acknowledged.send_bytes(INDEX.pack(entry.receipt.index) + entry.receipt.leaf_hash)

    await asyncio.gather(*[task() for _ in range(TASKS)])
