"""The queue: a ticket leaves exactly once, oldest first within its class, nobody starves, and nothing is over a limit."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appliance.engine.pace import Pace
from appliance.engine.queue import RETRY_S_MIN, ROUTINE_SHARE, STAT_SHARE, WAIT_SHARE, Piece, Priority, Queue, Ticket
from appliance.errors import DeadlinePassed, DeadlineUnreachable, QueueFull

ROWS_MAX, BYTES_MAX, BATCH_ROWS_MAX = 24, 104, 8
UNMEASURED = Pace({}, BATCH_ROWS_MAX, 1)


class AnyLife(RuleBasedStateMachine):
    """Any sequence of acts, beside plain lists of what must be waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[int] = Queue(ROWS_MAX, BYTES_MAX, BATCH_ROWS_MAX, UNMEASURED)
        self.waiting: list[Ticket[int]] = []
        self.left: list[Ticket[int]] = []
        self.taken: dict[int, int] = {}
        self.now, self.past_routine = 0.0, 0

    @rule(
        rows=st.integers(1, 3 * BATCH_ROWS_MAX),
        size=st.integers(0, 40),
        patience=st.none() | st.integers(0, 5),
        priority=st.sampled_from(Priority),
    )
    def admit(self, rows: int, size: int, patience: int | None, priority: Priority) -> None:
        deadline = None if patience is None else self.now + patience
        ticket = Ticket(rows, size, deadline, len(self.left) + len(self.waiting), priority)
        part = 1 if priority is Priority.STAT else (STAT_SHARE - 1) / STAT_SHARE
        room = self.queue.rows + rows <= ROWS_MAX * part and self.queue.bytes + size <= BYTES_MAX * part
        if patience == 0:
            with pytest.raises(DeadlinePassed):
                self.queue.admit(ticket, self.now)
        elif not room:
            with pytest.raises(QueueFull) as caught:
                self.queue.admit(ticket, self.now)
            assert caught.value.retry_s is not None
            assert caught.value.retry_s >= RETRY_S_MIN
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

    @rule()
    def take(self) -> None:
        heads = {p: next((t for t in self.waiting if t.priority is p), None) for p in Priority}
        batch, late = self.queue.take(self.now)
        assert sum(piece.stop - piece.start for piece in batch) <= BATCH_ROWS_MAX
        assert all(t.deadline is not None and t.deadline <= self.now for t in late)
        for priority in Priority:  # the oldest first: whoever left of a class was at its head
            own = [t for t in (*late, *(piece.ticket for piece in batch)) if t.priority is priority]
            queued = [t for t in self.waiting if t.priority is priority]
            assert set(map(id, own)) == set(map(id, queued[: len(set(map(id, own)))]))
        whole = []
        for piece in batch:
            assert not piece.ticket.deadline or piece.ticket.deadline > self.now
            assert piece.start == self.taken.get(id(piece.ticket), 0)  # in order, and every row once
            assert piece.stop == piece.ticket.rows or piece.ticket.rows > BATCH_ROWS_MAX
            self.taken[id(piece.ticket)] = piece.stop
            if piece.stop == piece.ticket.rows:
                whole.append(piece.ticket)
        if any(heads.values()):
            assert batch or late  # work-conserving
        if heads[Priority.ROUTINE] is not None:
            routine = any(piece.ticket.priority is Priority.ROUTINE for piece in batch) or late
            self.past_routine = 0 if routine else self.past_routine + 1
            assert self.past_routine <= ROUTINE_SHARE  # batches; nobody starves
        self._leave([*whole, *late])

    def _leave(self, tickets: list[Ticket[int]]) -> None:
        for ticket in tickets:
            self.waiting.remove(ticket)
            assert ticket not in self.left
            self.left.append(ticket)

    @invariant()
    def the_books_are_exact(self) -> None:
        assert len(self.queue) == len(self.waiting)
        left = sum(ticket.rows - self.taken.get(id(ticket), 0) for ticket in self.waiting)
        assert self.queue.rows == left <= ROWS_MAX
        assert self.queue.bytes == sum(ticket.bytes for ticket in self.waiting) <= BYTES_MAX


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def queue(rows_max: int = 100, bytes_max: int = 1000, pace: Pace = UNMEASURED) -> Queue[Any]:
    return Queue(rows_max, bytes_max, BATCH_ROWS_MAX, pace)


def ticket(rows: int, size: int = 1, deadline: float | None = None, priority: Priority = Priority.STAT) -> Ticket[None]:
    return Ticket(rows, size, deadline, None, priority)


def test_a_large_request_does_not_starve_behind_small_ones_that_keep_coming() -> None:
    waiting = queue()
    waiting.admit(ticket(1), 0)
    large = ticket(8)
    waiting.admit(large, 0)
    for _ in range(20):
        waiting.admit(ticket(1), 0)
    first, _ = waiting.take(0)
    assert len(first) == 1  # the small ones behind the large one would have fitted; they wait their turn
    assert waiting.take(0) == ([Piece(large, 0, 8)], [])


def test_a_request_over_a_batch_is_taken_piece_by_piece_and_shares_its_last() -> None:
    waiting = queue()
    large, small = ticket(18), ticket(3)
    for one in (large, small):
        waiting.admit(one, 0)
    pieces = [[(p.ticket is large, p.start, p.stop) for p in waiting.take(0)[0]] for _ in range(3)]
    assert pieces == [[(True, 0, 8)], [(True, 8, 16)], [(True, 16, 18), (False, 0, 3)]]
    assert (len(waiting), waiting.rows, waiting.bytes) == (0, 0, 0)


@given(stat=st.integers(8, 60), routine=st.integers(1, 30))
def test_while_both_wait_one_row_in_four_is_routine(stat: int, routine: int) -> None:
    waiting = queue(1000, 1000)
    for rows, priority in ((stat, Priority.STAT), (routine, Priority.ROUTINE)):
        for _ in range(rows):
            waiting.admit(ticket(1, priority=priority), 0)
    taken: list[Priority] = []
    while len(waiting):
        taken += [piece.ticket.priority for piece in waiting.take(0)[0]]
    both = taken[: max(i for i in range(len(taken) + 1) if taken[:i].count(Priority.STAT) < stat)]
    both = (
        both[: both.index(Priority.ROUTINE) + 1 + ROUTINE_SHARE * (both.count(Priority.ROUTINE) - 1)]
        if Priority.ROUTINE in both
        else both
    )
    routine_rows = both.count(Priority.ROUTINE)
    assert routine_rows == min(routine, (len(both)) // ROUTINE_SHARE)
    assert taken[0] is Priority.STAT


def test_routine_requests_leave_room_for_urgent_ones() -> None:
    waiting = queue(16, 1000)
    for _ in range(14):
        waiting.admit(ticket(1, priority=Priority.ROUTINE), 0)
    with pytest.raises(QueueFull):
        waiting.admit(ticket(1, priority=Priority.ROUTINE), 0)
    waiting.admit(ticket(2), 0)
    with pytest.raises(QueueFull):
        waiting.admit(ticket(1), 0)


def test_a_deadline_that_cannot_be_met_is_refused_at_the_door_with_the_time_it_would_take() -> None:
    pace = Pace({1: 0.01, 2: 0.02, 4: 0.04, 8: 0.08}, BATCH_ROWS_MAX, 1)
    waiting = queue(pace=pace)
    waiting.admit(ticket(16), 0)  # 0.16 s of work
    with pytest.raises(DeadlineUnreachable) as caught:
        waiting.admit(ticket(1, deadline=0.16), 0)
    assert caught.value.retry_s == pytest.approx(0.17)
    with pytest.raises(DeadlineUnreachable):
        waiting.admit(ticket(1, deadline=0.99 * 0.17 / WAIT_SHARE), 0)  # it would be answered at the last moment
    waiting.admit(ticket(1, deadline=1.01 * 0.17 / WAIT_SHARE), 0)
    waiting.admit(ticket(1, priority=Priority.ROUTINE), 0)
    with pytest.raises(DeadlineUnreachable):
        waiting.admit(ticket(1, deadline=1.01 * 0.17 / WAIT_SHARE, priority=Priority.ROUTINE), 0)


def test_who_is_alone_may_spend_all_their_time() -> None:
    pace = Pace({1: 0.01}, BATCH_ROWS_MAX, 1)
    queue(pace=pace).admit(ticket(1, deadline=0.0101), 0)
    for _ in range(100):
        pace.observe_rest(0.005)
    with pytest.raises(DeadlineUnreachable):  # the record, too, takes its time
        queue(pace=pace).admit(ticket(1, deadline=0.0101), 0)
    queue(pace=pace).admit(ticket(1, deadline=0.0151), 0)


def test_one_bad_moment_does_not_refuse_an_idle_machine_for_ever() -> None:
    pace = Pace({1: 0.01}, BATCH_ROWS_MAX, 1)
    pace.rest_s = 5.0  # a disk that stood still
    waiting, refused = queue(pace=pace), 0
    while True:
        try:
            waiting.admit(ticket(1, deadline=2.0), 0)
        except DeadlineUnreachable:
            refused += 1
            continue
        break
    assert 10 < refused < 100


def test_what_is_running_counts_as_ahead_until_it_is_done() -> None:
    waiting = queue(pace=Pace({1: 0.01, 8: 0.08}, BATCH_ROWS_MAX, 1))
    waiting.admit(ticket(8), 0)
    batch, _ = waiting.take(0)
    assert waiting.rows == 0
    with pytest.raises(DeadlineUnreachable):
        waiting.admit(ticket(1, deadline=0.05), 0)
    waiting.done(batch)
    waiting.admit(ticket(1, deadline=0.05), 0)


def test_room_can_be_asked_for_before_there_is_a_ticket() -> None:
    waiting = queue(4, 10)
    waiting.require_room(4, 10, None, Priority.STAT, 0)
    assert len(waiting) == 0
    with pytest.raises(QueueFull):
        waiting.require_room(5, 0, None, Priority.STAT, 0)
    with pytest.raises(DeadlinePassed):
        waiting.require_room(1, 0, 1.0, Priority.STAT, 1.0)


def test_what_cannot_be_answered_in_time_any_more_is_not_run() -> None:
    waiting = queue(pace=Pace({1: 0.5, 2: 0.5}, BATCH_ROWS_MAX, 1))
    hopeless, fine = ticket(1, deadline=1.0), ticket(1)
    for one in (hopeless, fine):
        waiting.admit(one, 0)
    assert waiting.take(0.6) == ([Piece(fine, 0, 1)], [hopeless])


def test_a_refused_ticket_leaves_no_trace() -> None:
    waiting = queue(4, 10)
    waiting.admit(ticket(4, 4), 0)
    for refused in (ticket(1, 1), ticket(5, 1)):
        with pytest.raises(QueueFull):
            waiting.admit(refused, 0)
        assert not waiting.cancel(refused)
    assert (len(waiting), waiting.rows, waiting.bytes) == (1, 4, 4)


def test_the_limits_themselves_are_allowed_and_no_more() -> None:
    waiting = queue(4, 10)
    waiting.admit(ticket(4, 10), 0)
    with pytest.raises(QueueFull):
        waiting.admit(ticket(0, 1), 0)
    assert waiting.take(0)[0][0].stop == 4
    with pytest.raises(QueueFull):
        waiting.admit(ticket(1, 11), 0)


def test_a_deadline_is_passed_at_its_very_moment() -> None:
    waiting = queue(4, 10)
    with pytest.raises(DeadlinePassed):
        waiting.admit(ticket(1, 1, deadline=5.0), 5.0)
    late = ticket(1, 1, deadline=5.0)
    waiting.admit(late, 4.9)
    assert waiting.take(5.0) == ([], [late])
    assert (len(waiting), waiting.rows, waiting.bytes) == (0, 0, 0)
