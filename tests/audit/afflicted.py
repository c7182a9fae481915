"""The child of ``test_faults.py``: writes records while system calls fail, and says which ones were acknowledged.

Lines on stdout: ``ready`` and, after a line on stdin, ``INDEX LEAF`` for each acknowledged record, then how it ended.
"""

import asyncio
import sys
from pathlib import Path

from appliance.audit.record import Entry
from appliance.errors import AuditUnavailable
from tests.audit import logs

RECORDS, AT_ONCE = 160, 4


async def write(directory: Path) -> str:
    journal = logs.journal(directory, segment_bytes=20_000)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        for _ in range(RECORDS // AT_ONCE):
            for receipt in await asyncio.gather(*[journal.append(Entry("call", "done")) for _ in range(AT_ONCE)]):
                print(receipt.index, receipt.leaf_hash.hex(), flush=True)
    except AuditUnavailable:
        assert not journal.writable
        return "refused"
    finally:
        journal.close()
    return "done"


if __name__ == "__main__":
    print(asyncio.run(write(Path(sys.argv[1]))), flush=True)
