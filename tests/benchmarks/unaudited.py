"""An appliance whose audit log keeps no calls, so that the price of the log can be measured. Never part of the product: no
setting of the product can do this. ``python -m tests.benchmarks.unaudited serve --config …``

What the appliance does by itself (start, stop, loading a model) is on record as ever, since a start reads it back.
"""

import asyncio

from appliance import wiring
from appliance.audit.journal import Journal
from appliance.audit.record import Entry, Receipt
from appliance.cli import main

NOWHERE = Receipt(0, bytes(32))


class Forgetful(Journal):
    def append(self, entry: Entry) -> "asyncio.Future[Receipt]":
        if entry.event != "call":
            return super().append(entry)
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        future.set_result(NOWHERE)
        return future


if __name__ == "__main__":
    wiring.Journal = Forgetful  # type: ignore[attr-defined]
    main()
