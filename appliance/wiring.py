"""Puts the pieces together by hand: the only file that names every concrete class."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from importlib.metadata import version

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import memory
from appliance.access import Access
from appliance.acts import Acts, utc_now
from appliance.admission import Allowance
from appliance.alarms import Alarm, drifting
from appliance.audit.checkpoint import LogKey
from appliance.audit.journal import Journal, Watcher
from appliance.audit.pseudonym import Epoch
from appliance.audit.record import Origin
from appliance.bundle.enrolment import RecipientKey
from appliance.config import Config
from appliance.engine.batcher import Batcher
from appliance.engine.pace import Pace
from appliance.engine.queue import Queue
from appliance.engine.session import Hardware
from appliance.errors import ConfigError, EngineFailed
from appliance.keys import (
    APPLIANCE_SEED,
    AUDIT_KEY,
    KeyProvider,
    SealedFiles,
    newest_epoch,
    pseudonym_key,
    read_passphrase,
)
from appliance.load import LoadedModel
from appliance.predict import Desk
from appliance.recall import recall, recall_for_acceptance
from appliance.registry import Registry
from appliance.servables import Servables
from appliance.server.metrics import Metrics
from appliance.server.run import Appliance, Ends, Ports
from appliance.site import Site
from appliance.state import State


def key_provider(config: Config) -> KeyProvider:
    """Raises ConfigError where the passphrase cannot be read."""
    passphrase = read_passphrase(config.passphrase.path, is_credential=config.passphrase.is_credential)
    return SealedFiles(config.keys, passphrase)


def log_key(keys: KeyProvider) -> LogKey:
    """The audit log's key; the log is named for the key's own fingerprint, so no two logs share a name."""
    key = Ed25519PrivateKey.from_private_bytes(keys.get(AUDIT_KEY))
    return LogKey(f"appliance-audit/{key.public_key().public_bytes_raw().hex()[:16]}", key)


@contextmanager
def journal(config: Config, keys: KeyProvider, watcher: Watcher | None = None) -> Iterator[Journal]:
    """The site's audit log, open for writing. Raises AuditLogError."""
    opened = Journal(config.audit, log_key(keys), Origin.here(config.digest, product_version()), watcher=watcher)
    try:
        yield opened
    finally:
        opened.close()


def remembered(config: Config) -> tuple[Site, State, bytes]:
    """A site, what it remembers, and the appliance's seed. Raises ConfigError, KeyUnavailable, StateError."""
    site, seed = Site(config.site), key_provider(config).get(APPLIANCE_SEED)
    return site, site.remembered(seed), seed


def product_version() -> str:
    return version("appliance")


def hardware(config: Config) -> Hardware:
    return Hardware(config.engine.providers, config.engine.threads, config.engine.workers)


@asynccontextmanager
async def registry_at_rest(config: Config, *, accepting: bool = False) -> AsyncIterator[Registry]:
    """The registry of a site whose appliance is stopped. ``accepting`` is for ``accept``: what contradicts itself is let in.

    Raises:
        ConfigError, KeyUnavailable, StateError
        AuditLogError: the log is damaged, or an appliance or another command is at work.
    """
    memory.prepare_process()
    keys, site = key_provider(config), Site(config.site)
    seed = keys.get(APPLIANCE_SEED)
    with journal(config, keys) as log:
        known = recall_for_acceptance(site, seed, log, utc_now()) if accepting else recall(site, seed, log)
        acts = Acts(site, seed, log, known, versions_max=config.engine.versions_max)
        await acts.begin()
        yield Registry(acts, site, RecipientKey.of(seed), hardware(config))


async def serve(config: Config, say: Callable[[str, Ports], None]) -> None:
    """Runs the appliance of a site until it is told to end.

    ``say`` is told ``listening`` and ``serving``, with the ports.

    Raises:
        ConfigError, KeyUnavailable, StateError, AuditLogError: it cannot start.
        BundleError: none of the active models can be opened.
        AuditLogError, EngineFailed: it had to end, since it could not do its work any more.
    """
    memory.prepare_process()
    _enter_empty_folder(config)
    keys, metrics, site = key_provider(config), Metrics(), Site(config.site)
    seed = keys.get(APPLIANCE_SEED)
    decoding = ThreadPoolExecutor(config.engine.threads, thread_name_prefix="decode")
    with journal(config, keys, metrics) as log, decoding as decoders:
        metrics.log_state(lambda: log.writable, log.size_bytes)
        ends = Ends()
        servables = Servables(lambda model: _batcher(config, model, metrics, ends), metrics)
        known = recall(site, seed, log)
        acts = Acts(
            site, seed, log, known,
            versions_max=config.engine.versions_max,
            serving=lambda: servables.active, drifting=lambda: _drifting(servables), tell=metrics.alarmed,
        )  # fmt: skip
        registry = Registry(acts, site, RecipientKey.of(seed), hardware(config), servables=servables)
        limits = config.limits
        access = Access(config.rules, Allowance(limits.caller_rows_per_s_max, limits.caller_rows_at_once_max))
        newest = newest_epoch(keys)
        epoch = Epoch.decode(newest, keys.get(pseudonym_key(newest)))
        desk = Desk(access, log, decoders, epoch, servables, request_rows_max=limits.request_rows_max)
        appliance = Appliance(config, desk, registry, metrics, site.empty_incoming(), product_version(), ends)
        async with appliance.listening() as ports:
            say("listening", ports)
            if log.recovered is not None:
                await appliance.record("recover", **asdict(log.recovered))
            await appliance.record("start")
            await acts.begin()
            refusals = await registry.resume()
            if refusals and not servables.active:
                raise refusals[0]
            await acts.tick()
            say("serving", ports)
            await appliance.serve()
        if log.writable:
            await appliance.record("stop")
            await acts.settle()
    if ends.failed is not None:
        raise ends.failed


def _batcher(config: Config, model: LoadedModel, metrics: Metrics, ends: Ends) -> Batcher:
    """In front of one model, as this machine was measured to run it."""
    session, limits = model.session, config.limits
    pace = Pace(session.measured.seconds, session.batch_rows, session.workers)
    return Batcher(
        session,
        Queue(limits.queue_rows_max, limits.queue_bytes_max, session.batch_rows, pace),
        pace,
        session.slots,
        workers=session.workers,
        name=model.name,
        on_batch=lambda rows: metrics.batch_run(model.name, rows),
        on_broken=lambda: ends.fail(EngineFailed(f"Model {model.name} cannot be run any more; the appliance has stopped.")),
    )


def _drifting(servables: Servables) -> Iterator[Alarm]:
    for servable in servables:
        yield from drifting(f"{servable.model.name} {servable.model.version}", servable.drift)


def _enter_empty_folder(config: Config) -> None:
    """Works from an empty folder: a second wall, behind the graph's inspection, against what reads relative paths."""
    folder = config.site / "empty"
    try:
        folder.mkdir(mode=0o500, exist_ok=True)
        os.chdir(folder)
    except OSError:
        raise ConfigError("the site directory cannot be written") from None
