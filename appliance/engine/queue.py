"""The queue of one model: bounded in rows and bytes, urgent before routine, the oldest first. Pure: no clock, no threads.

A ticket leaves exactly once: taken into batches whole, dropped because its deadline passes, or cancelled by its owner. One
of at most a batch's rows is never divided; a larger one is taken piece by piece, in order.

``STAT`` goes before ``ROUTINE``, and neither starves: while both wait, one row of ``ROUTINE_SHARE`` taken is routine, and
routine rows never fill the last ``1 / STAT_SHARE`` of the queue.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from appliance.engine.pace import Pace
from appliance.errors import DeadlinePassed, DeadlineUnreachable, QueueFull

T = TypeVar("T")
ROUTINE_SHARE = 4
STAT_SHARE = 8
RETRY_S_MIN = 0.01
WAIT_SHARE = 0.8  # of the time until a deadline, where others are ahead: the rest is the network's, and chance's


class Priority(IntEnum):
    """The words of a hospital's order entry: at once, or in its turn."""

    ROUTINE = 0
    STAT = 1


@dataclass(eq=False, slots=True)
class Ticket(Generic[T]):
    """One request's place. ``deadline`` is in seconds of the clock that ``now`` is read from; ``content`` is the owner's.

    ``taken`` of its rows are in batches already.
    """

    rows: int
    bytes: int
    deadline: float | None
    content: T
    priority: Priority = Priority.ROUTINE
    taken: int = field(default=0, init=False)


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """The rows ``start`` to ``stop`` of a ticket, in a batch."""

    ticket: Ticket[T]
    start: int
    stop: int


class Queue(Generic[T]):
    """``batch_rows_max`` rows are a full batch; ``pace`` says how long one takes."""

    def __init__(self, rows_max: int, bytes_max: int, batch_rows_max: int, pace: Pace) -> None:
        self._rows_max, self._bytes_max, self._batch_rows_max, self._pace = rows_max, bytes_max, batch_rows_max, pace
        self._waiting: dict[Priority, OrderedDict[int, Ticket[T]]] = {p: OrderedDict() for p in Priority}
        self._rows = dict.fromkeys(Priority, 0)
        self._credit = 0  # rows that were taken past waiting routine ones, less those it had for them
        self._running = 0
        self.bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def rows(self) -> int:
        """The rows that wait."""
        return sum(self._rows.values())

    def admit(self, ticket: Ticket[T], now: float) -> None:
        """Takes a ticket in, at the end of its class. Raises what ``require_room`` does."""
        self.require_room(ticket.rows, ticket.bytes, ticket.deadline, ticket.priority, now)
        self._waiting[ticket.priority][id(ticket)] = ticket
        self._rows[ticket.priority] += ticket.rows
        self.bytes += ticket.bytes

    def require_room(self, rows: int, size: int, deadline: float | None, priority: Priority, now: float) -> None:
        """Refuses a ticket of so many rows and bytes that would not be answered.

        Raises:
            DeadlinePassed: it is late already.
            DeadlineUnreachable: it would be, by the time it is answered, or would spend too much of its time here.
            QueueFull: there is no room for its rows or its bytes.
        """
        if deadline is not None:
            if deadline <= now:
                raise DeadlinePassed("The deadline had passed when the request arrived.")
            ahead = self._running + (self._rows[Priority.STAT] if priority is Priority.STAT else self.rows)
            ready_s = self._pace.until_run_s(ahead + rows) + self._pace.rest_s
            if ready_s > deadline - now or (ahead and ready_s > WAIT_SHARE * (deadline - now)):
                if not ahead:
                    self._pace.doubt()
                raise DeadlineUnreachable(
                    "The deadline cannot be met with what waits already; try again later.", max(RETRY_S_MIN, ready_s)
                )
        over = self.rows + rows - self._room_of(priority, self._rows_max)
        if over > 0 or self.bytes + size > self._room_of(priority, self._bytes_max):
            retry_s = max(RETRY_S_MIN, self._pace.until_run_s(min(self.rows, max(over, self._batch_rows_max))))
            raise QueueFull("The model's queue is full; try again later.", retry_s)

    def cancel(self, ticket: Ticket[T]) -> bool:
        """Takes a ticket out; False where it has left already."""
        if self._waiting[ticket.priority].get(id(ticket)) is not ticket:
            return False
        self._leave(ticket)
        return True

    def take(self, now: float) -> tuple[list[Piece[T]], list[Ticket[T]]]:
        """The next batch, and the tickets whose deadline passes before they could be answered. Say when it is ``done``."""
        batch: list[Piece[T]] = []
        late: list[Ticket[T]] = []
        room, together = self._batch_rows_max, min(self.rows, self._batch_rows_max)
        while room and (ticket := self._next()) is not None:
            rows = ticket.rows - ticket.taken
            ready_s = self._pace.run_s(max(rows, together)) + self._pace.rest_s
            if ticket.deadline is not None and now + ready_s >= ticket.deadline:
                late.append(ticket)
                self._leave(ticket)
                continue
            if rows > room and ticket.rows <= self._batch_rows_max:
                break  # never past the oldest: a large request must not starve behind small ones
            rows = min(rows, room)
            batch.append(Piece(ticket, ticket.taken, ticket.taken + rows))
            self._count(ticket, rows)
            room -= rows
        self._running += self._batch_rows_max - room
        return batch, late

    def done(self, batch: Iterable[Piece[T]]) -> None:
        """A batch that was taken has been run."""
        self._running -= sum([piece.stop - piece.start for piece in batch])

    def clear(self) -> Iterable[Ticket[T]]:
        """Everything that waits leaves."""
        waiting = [ticket for tickets in self._waiting.values() for ticket in tickets.values()]
        for ticket in waiting:
            self._leave(ticket)
        return waiting

    def _room_of(self, priority: Priority, whole: int) -> int:
        return whole if priority is Priority.STAT else whole - whole // STAT_SHARE

    def _next(self) -> Ticket[T] | None:
        """Whose turn it is."""
        stat, routine = (next(iter(self._waiting[p].values()), None) for p in (Priority.STAT, Priority.ROUTINE))
        if stat is None or routine is None:
            self._credit = 0
            return stat or routine
        return routine if self._credit >= ROUTINE_SHARE - 1 else stat

    def _count(self, ticket: Ticket[T], rows: int) -> None:
        """So many rows of a ticket go into a batch."""
        if ticket.priority is Priority.STAT:
            self._credit += rows if self._waiting[Priority.ROUTINE] else 0
        else:
            self._credit = max(0, self._credit - rows * (ROUTINE_SHARE - 1))
        ticket.taken += rows
        self._rows[ticket.priority] -= rows
        if ticket.taken == ticket.rows:
            self._leave(ticket)

    def _leave(self, ticket: Ticket[T]) -> None:
        del self._waiting[ticket.priority][id(ticket)]
        self._rows[ticket.priority] -= ticket.rows - ticket.taken
        self.bytes -= ticket.bytes
