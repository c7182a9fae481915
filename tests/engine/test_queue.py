"""The queue: a ticket leaves exactly once, oldest first, and nothing is ever over a limit."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appliance.engine.queue import Queue, Ticket
from appliance.errors import DeadlinePassed, Overloaded

ROWS_MAX, BYTES_MAX, BATCH_ROWS_MAX = 20, 100, 8


class AnyLife(RuleBasedStateMachine):
    """Any sequence of acts, beside a plain list of what must be waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[int] = Queue(ROWS_MAX, BYTES_MAX)
        self.waiting: list[Ticket[int]] = []
        self.left: list[Ticket[int]] = []
        self.now = 0.0

    @rule(rows=st.integers(1, BATCH_ROWS_MAX), size=st.integers(0, 40), patience=st.none() | st.integers(0, 5))
    def admit(self, rows: int, size: int, patience: int | None) -> None:
        deadline = None if patience is None else self.now + patience
        ticket = Ticket(rows, size, deadline, len(self.left) + len(self.waiting))
        room = self.queue.rows + rows <= ROWS_MAX and self.queue.bytes + size <= BYTES_MAX
        if patience == 0:
            with pytest.raises(DeadlinePassed):
                self.queue.admit(ticket, self.now)
        elif not room:
            with pytest.raises(Overloaded):
                self.queue.admit(ticket, self.now)
        else:
            self.queue.admit(ticket, self.now)
            self.waiting.append(ticket)

    @rule(data=st.data())
    def cancel_one_that_waits(self, data: st.DataObject) -> None:
        if self.waiting:
            ticket = data.draw(st.sampled_from(self.waiting))
            assert self.queue.cancel(ticket)
            self._leave([ticket])

    @rule(data=st.data())
    def cancel_one_that_has_left(self, data: st.DataObject) -> None:
        if self.left:
            assert not self.queue.cancel(data.draw(st.sampled_from(self.left)))

    @rule(seconds=st.integers(0, 3))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(rows_max=st.integers(1, BATCH_ROWS_MAX))
    def take(self, rows_max: int) -> None:
        batch, late = self.queue.take(rows_max, self.now)
        wanted_batch, wanted_late, rows = [], [], 0
        for ticket in self.waiting:  # oldest first, and never past one that does not fit
            if ticket.deadline is not None and ticket.deadline <= self.now:
                wanted_late.append(ticket)
            elif rows + ticket.rows <= rows_max:
                wanted_batch.append(ticket)
                rows += ticket.rows
            else:
                break
        assert (batch, late) == (wanted_batch, wanted_late)
        assert sum(ticket.rows for ticket in batch) <= rows_max
        self._leave([*batch, *late])

    def _leave(self, tickets: list[Ticket[int]]) -> None:
        for ticket in tickets:
            self.waiting.remove(ticket)
            assert ticket not in self.left
            self.left.append(ticket)

    @invariant()
    def the_books_are_exact(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.rows == sum(ticket.rows for ticket in self.waiting) <= ROWS_MAX
        assert self.queue.bytes == sum(ticket.bytes for ticket in self.waiting) <= BYTES_MAX


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def ticket(rows: int, size: int = 1, deadline: float | None = None) -> Ticket[None]:
    return Ticket(rows, size, deadline, None)


def test_a_large_request_does_not_starve_behind_small_ones_that_keep_coming() -> None:
    queue: Queue[None] = Queue(100, 1000)
    queue.admit(ticket(1), 0)
    large = ticket(8)
    queue.admit(large, 0)
    for _ in range(20):
        queue.admit(ticket(1), 0)
    first, _ = queue.take(8, 0)
    assert len(first) == 1  # the small ones behind the large one would have fitted; they wait their turn
    assert queue.take(8, 0) == ([large], [])


def test_a_refused_ticket_leaves_no_trace() -> None:
    queue: Queue[None] = Queue(4, 10)
    queue.admit(ticket(4, 4), 0)
    for refused in (ticket(1, 1), ticket(5, 1)):
        with pytest.raises(Overloaded):
            queue.admit(refused, 0)
        assert not queue.cancel(refused)
    assert (len(queue), queue.rows, queue.bytes) == (1, 4, 4)


def test_the_limits_themselves_are_allowed_and_no_more() -> None:
    queue: Queue[None] = Queue(4, 10)
    queue.admit(ticket(4, 10), 0)
    with pytest.raises(Overloaded):
        queue.admit(ticket(0, 1), 0)
    assert queue.take(4, 0)[0][0].rows == 4
    with pytest.raises(Overloaded):
        queue.admit(ticket(1, 11), 0)


def test_a_deadline_is_passed_at_its_very_moment() -> None:
    queue: Queue[None] = Queue(4, 10)
    with pytest.raises(DeadlinePassed):
        queue.admit(ticket(1, 1, deadline=5.0), 5.0)
    late = ticket(1, 1, deadline=5.0)
    queue.admit(late, 4.9)
    assert queue.take(4, 5.0) == ([], [late])
    assert (len(queue), queue.rows, queue.bytes) == (0, 0, 0)
