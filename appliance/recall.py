"""Brings what a site remembers up to what its audit log says, when an appliance or a command starts (bundle-format section
12).

The record of an act is written before anything else, so the log is never behind: a crash between the two is made good
here, and so is a ``state.json`` that was put back to an older copy. A log that lacks what the state has seen is another
matter: it was cut or put back, and nothing goes on before a person has said ``appliance state accept``.
"""

from dataclasses import dataclass
from datetime import datetime

from appliance.audit.journal import Journal
from appliance.audit.verify import acts_since
from appliance.errors import AuditLogError, StateError
from appliance.site import Site
from appliance.state import State


@dataclass(frozen=True, slots=True)
class Recalled:
    """A site's state, and how many acts of the log it did not know: after a crash one, of an older copy any number."""

    state: State
    acts: int


def recall(site: Site, seed: bytes, journal: Journal) -> Recalled:
    """What the site remembers, with every act in the log since then.

    Raises:
        StateError: the state is missing or was altered, or knows of records that the log does not have.
    """
    remembered = site.remembered(seed)
    try:
        return _applied(remembered, journal)
    except AuditLogError as error:
        raise StateError(
            "The audit log lacks what this site remembers of it: it was cut back, or restored from an older copy. "
            "If that was done on purpose: appliance state accept"
        ) from error


def recall_for_acceptance(site: Site, seed: bytes, journal: Journal, now: datetime) -> Recalled:
    """The best that is known: the state, even where the log is older; and where that is lost, the acts of the whole log.

    Raises:
        AuditLogError: the state is lost and the log is damaged.
    """
    try:
        remembered = site.remembered(seed)
    except StateError:
        return _applied(State(latest=now), journal)
    try:
        return recall(site, seed, journal)
    except StateError:
        return Recalled(remembered, 0)


def _applied(state: State, journal: Journal) -> Recalled:
    """The state after every act that the log has since the state's own place in it. Raises AuditLogError."""
    count = 0
    acts, newest = acts_since(journal.directory, journal.verifier, (state.log_size, state.log_root))
    for record in acts:
        moment = datetime.fromisoformat(record["time"])
        state = state.seen(moment)
        if record.get("outcome") == "done":
            before = state
            try:
                state = state.after(record["event"], record.get("model"), record.get("detail"), moment)
            except (KeyError, TypeError, ValueError) as error:
                raise AuditLogError("The audit log has an act of another version of the appliance.") from error
            count += state != before
    return Recalled(state.seen(datetime.fromisoformat(newest)) if newest else state, count)
