"""What an operator does to the log of a stopped appliance: going on after damage, deleting what is old, forgetting a call or
an epoch.

Each is an act, on record, and whatever is left of the log stays as provable as it was.
"""

import json
import os
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from appliance import wiring
from appliance.access import OPERATOR
from appliance.acts import require_reason, utc_now
from appliance.audit import proof, stored
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.gap import Gap, put_aside
from appliance.audit.gap import find as gap_of
from appliance.audit.open_segment import lock
from appliance.audit.pseudonym import of_record
from appliance.audit.record import TIME
from appliance.audit.verify import ACCEPT_GAP, KEY_FILE, PRUNE
from appliance.bundle.secret import SECRET_BYTES_MAX
from appliance.config import Config
from appliance.errors import AuditLogError, ConfigError
from appliance.keys import EPOCHS_MAX, newest_epoch, pseudonym_key


async def accept_gap(config: Config, reason: str) -> tuple[Gap, Path]:
    """Puts what is damaged of a stopped appliance's log aside, and goes on behind what is whole, on record.

    Raises:
        ConfigError: nothing is damaged, or the reason is none.
        AuditLogError: an appliance or another command is at work.
    """
    require_reason(reason)
    held = lock(config.audit)
    try:
        key = wiring.log_key(wiring.key_provider(config)).verifier
        if VerifierKey.decode((config.audit / KEY_FILE).read_text()).encode() != key.encode():
            raise ConfigError("the audit key is another than that of the log: put the right one back, the log may be whole")
        gap = gap_of(config.audit, key)
        aside = put_aside(config.audit, gap, utc_now())
    finally:
        os.close(held)
    async with (
        wiring.registry_at_rest(config, accepting=True) as registry,
        registry.acts.act(ACCEPT_GAP, OPERATOR, reason=reason) as act,
    ):
        act.entry.tell(first=gap.first, size=gap.size, segments=len(gap.segments))
    return gap, aside


async def prune(config: Config, before: datetime, reason: str) -> tuple[int, int]:
    """Deletes the segments whose records are all older, on record; the index of the first record that is left, and how many
    segments went. Every receipt and every root stays valid.

    Raises:
        ConfigError: the reason is none.
    """
    first, old = stored.older_than(config.audit, before.strftime(TIME))
    if not old:
        return first, 0
    async with wiring.registry_at_rest(config) as registry, registry.acts.act(PRUNE, OPERATOR, reason=reason) as act:
        act.entry.tell(first=first, segments=len(old))
        act.then = partial(_delete, old)  # the oldest first: what a crash leaves is a log that begins earlier
    return first, len(old)


async def begin_epoch(config: Config, reason: str) -> int:
    """Draws a new pseudonym key, which counts from the next start on, on record; the epoch that begins with it.

    Raises:
        ConfigError: the reason is none, or there are as many epochs as there may be.
    """
    async with wiring.registry_at_rest(config) as registry:  # which holds the log: nobody else begins one meanwhile
        keys = wiring.key_provider(config)
        epoch = newest_epoch(keys) + 1
        if epoch > EPOCHS_MAX:
            raise ConfigError(f"there are {EPOCHS_MAX} epochs already")
        async with registry.acts.act("epoch.begin", OPERATOR, reason=reason) as act:
            act.entry.tell(epoch=epoch)
            act.then = partial(keys.create, pseudonym_key(epoch))
    return epoch


async def erase_epoch(config: Config, epoch: int, reason: str) -> None:
    """Erases the pseudonym key of an epoch that is over, on record: nobody can match its records to images any more.

    Raises:
        ConfigError: the reason is none, the epoch is not over, or its key is not there.
    """
    async with wiring.registry_at_rest(config) as registry:
        keys = wiring.key_provider(config)
        if epoch >= newest_epoch(keys):
            raise ConfigError(f"epoch {epoch} is not over: begin another first")
        if not keys.has(pseudonym_key(epoch)):
            raise ConfigError(f"the key of epoch {epoch} is not there")
        async with registry.acts.act("epoch.erase", OPERATOR, reason=reason) as act:
            act.entry.tell(epoch=epoch)
            act.then = partial(keys.erase, pseudonym_key(epoch))


async def erase(config: Config, index: int, row: int | None, reason: str) -> int:
    """Erases the keys of the images of a call, or of one ``row``, on record: nobody can match them to images any more. How
    many there were.

    Raises:
        ConfigError: the reason is none, the record has no such images, or their keys are not there.
        AuditLogError: there is no such record, or the log is damaged there.
    """
    async with wiring.registry_at_rest(config) as registry:
        keys = wiring.key_provider(config)
        call = _call(config, index, wiring.log_key(keys).verifier)
        epoch, own = of_record(call, keys)
        if epoch is None or (row or 0) >= len(own):
            raise ConfigError(f"record {index} has no such image")
        purpose = pseudonym_key(epoch.number)
        keys.settle(purpose)  # an erasure that a crash interrupted is finished, though nothing else is left to do
        there = [i for i, key in enumerate(own) if key is not None and row in (None, i)]
        if not there:
            raise ConfigError(f"what is asked for of record {index} was erased already")
        left = epoch.without(call["request_id"], len(own), row).encode()
        if len(left) > SECRET_BYTES_MAX:
            raise ConfigError(f"too many calls of epoch {epoch.number} were erased: begin another, and erase it as a whole")
        async with registry.acts.act("audit.erase", OPERATOR, reason=reason) as act:
            act.entry.tell(index=index, **({} if row is None else {"row": row}))
            act.then = partial(keys.replace, purpose, left)
    return len(there)


def _call(config: Config, index: int, key: VerifierKey) -> dict[str, Any]:
    """What a record says that the log's signature covers. Raises AuditLogError."""
    for found in stored.read(config.audit, index, index + 1):
        said: dict[str, Any] = json.loads(proof.decode(found.receipt(), key)[1])
        return said
    raise AuditLogError(f"The log has no record {index}.")


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink()
