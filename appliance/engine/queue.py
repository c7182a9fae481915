"""The queue of one model: bounded in rows and bytes, oldest first. Pure: no clock, no threads, no event loop.

A ticket leaves exactly once: taken into a batch, dropped because its deadline passed, or cancelled by its owner.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from appliance.errors import DeadlinePassed, Overloaded

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Ticket(Generic[T]):
    """One request's place. ``deadline`` is in seconds of the clock that ``now`` is read from; ``content`` is the owner's."""

    rows: int
    bytes: int
    deadline: float | None
    content: T


class Queue(Generic[T]):
    def __init__(self, rows_max: int, bytes_max: int) -> None:
        self._rows_max, self._bytes_max = rows_max, bytes_max
        self._tickets: OrderedDict[int, Ticket[T]] = OrderedDict()
        self.rows = self.bytes = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def admit(self, ticket: Ticket[T], now: float) -> None:
        """Takes a ticket in, at the end.

        Raises:
            DeadlinePassed: it is late already.
            Overloaded: there is no room for its rows or its bytes.
        """
        if ticket.deadline is not None and ticket.deadline <= now:
            raise DeadlinePassed("The deadline had passed when the request arrived.")
        if self.rows + ticket.rows > self._rows_max or self.bytes + ticket.bytes > self._bytes_max:
            raise Overloaded("The model's queue is full; try again later.")
        self._tickets[id(ticket)] = ticket
        self.rows += ticket.rows
        self.bytes += ticket.bytes

    def cancel(self, ticket: Ticket[T]) -> bool:
        """Takes a ticket out; False where it has left already."""
        if self._tickets.get(id(ticket)) is not ticket:
            return False
        self._leave(ticket)
        return True

    def take(self, rows_max: int, now: float) -> tuple[list[Ticket[T]], list[Ticket[T]]]:
        """The next batch, at most ``rows_max`` rows, and the tickets whose deadline passed while they waited."""
        batch: list[Ticket[T]] = []
        late: list[Ticket[T]] = []
        rows = 0
        while self._tickets:
            ticket = next(iter(self._tickets.values()))
            if ticket.deadline is not None and ticket.deadline <= now:
                late.append(ticket)
            elif rows + ticket.rows <= rows_max:
                batch.append(ticket)
                rows += ticket.rows
            else:
                break  # never past the oldest: a large request must not starve behind small ones
            self._leave(ticket)
        return batch, late

    def _leave(self, ticket: Ticket[T]) -> None:
        del self._tickets[id(ticket)]
        self.rows -= ticket.rows
        self.bytes -= ticket.bytes
