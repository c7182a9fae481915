"""Puts the pieces together by hand: the only file that names every concrete class."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.access import Access
from appliance.audit.checkpoint import LogKey
from appliance.audit.journal import Journal, Watcher
from appliance.audit.record import Origin
from appliance.bundle.enrolment import RecipientKey
from appliance.bundle.opening import TrustedKeys
from appliance.config import Config
from appliance.engine.batcher import Batcher
from appliance.engine.queue import Queue
from appliance.errors import BundleError, ConfigError, NotAdmitted
from appliance.keys import APPLIANCE_SEED, AUDIT_KEY, PSEUDONYM_KEY, KeyProvider, SealedFiles, read_passphrase
from appliance.load import Hardware, LoadedModel, load
from appliance.model.decision import E6
from appliance.predict import Desk, Serving
from appliance.server.metrics import Metrics
from appliance.server.run import Appliance, Ports
from appliance.site import Installed, Site

log = logging.getLogger(__name__)


def key_provider(config: Config) -> KeyProvider:
    return SealedFiles(config.keys, read_passphrase(config.passphrase_file))


def recipient_key(keys: KeyProvider) -> RecipientKey:
    return RecipientKey(keys.get(APPLIANCE_SEED))


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


def product_version() -> str:
    return version("appliance")


def hardware(config: Config) -> Hardware:
    return Hardware(config.engine.providers, config.engine.threads_per_worker)


async def serve(config: Config, say: Callable[[str, Ports], None]) -> bool:
    """Runs the appliance of a site until it is told to end. False where the audit log failed.

    ``say`` is told ``listening`` and ``serving``, with the ports.

    Raises:
        ConfigError, KeyUnavailable, AuditLogError: it cannot start.
        BundleError: none of the active models can be opened.
    """
    _enter_empty_folder(config)
    keys, metrics = key_provider(config), Metrics()
    with journal(config, keys, metrics) as audit, ThreadPoolExecutor(thread_name_prefix="decode") as decoders:
        metrics.log_writable(lambda: audit.writable)
        desk = Desk(Access(config.rules), audit, decoders, keys.get(PSEUDONYM_KEY))
        appliance = Appliance(config, desk, metrics, product_version())
        async with appliance.listening() as ports:
            say("listening", ports)
            if audit.recovered is not None:
                await appliance.record("recover", **asdict(audit.recovered))
            await appliance.record("start")
            await _load_active(appliance, config, recipient_key(keys))
            say("serving", ports)
            fine = await appliance.serve()
        if fine:
            await appliance.record("stop")
    return fine


async def _load_active(appliance: Appliance, config: Config, key: RecipientKey) -> None:
    """Loads every active model. One that is refused leaves the others serving; if none is left, its error is raised."""
    site = Site(config.site)
    active, trusted, refused = site.active(), site.trusted(), None
    if not active:
        raise ConfigError("no model is active: install one and activate it first")
    for name, number in active.items():
        installed = site.find(name, number)
        try:
            async with appliance.desk.journal.entry("model.load") as entry:
                entry.model = {"id": name, "version": number}
                model = await asyncio.to_thread(load_installed, installed, key, trusted, hardware(config))
                entry.model["digest"] = model.digest
                entry.detail = {"golden_margin_e6": round(model.golden_margin * E6), "provider": model.session.provider}
        except BundleError as error:
            log.error("model %s version %d is refused: %s", name, number, error)
            refused = error
            continue
        _serve_model(appliance, config, model)
    if refused is not None and not appliance.desk.serving:
        raise refused


def load_installed(installed: Installed, key: RecipientKey, trusted: TrustedKeys, given: Hardware) -> LoadedModel:
    """Loads an installed model from its files. Raises BundleError, ConfigError."""
    try:
        bundle, grant = installed.bundle.read_bytes(), installed.grant.read_bytes()
    except OSError:
        raise NotAdmitted("The installed bundle or its grant cannot be read.") from None
    model = load(bundle, grant, key, trusted, given, datetime.now(UTC))
    if (model.name, model.version) != (installed.name, installed.version):
        raise NotAdmitted("The bundle is of another model or version than the one it was installed as.")
    return model


def _serve_model(appliance: Appliance, config: Config, model: LoadedModel) -> None:
    workers = config.engine.workers
    batcher = Batcher(
        model.session,
        Queue(config.limits.queue_rows_max, config.limits.queue_bytes_max),
        ThreadPoolExecutor(workers, thread_name_prefix=f"run-{model.name}"),
        rows_max=model.manifest.runtime.rows_max,
        workers=workers,
    )
    appliance.desk.serving[model.name] = Serving(model, batcher)
    appliance.metrics.model_serves(model, batcher, lambda: datetime.now(UTC))


def _enter_empty_folder(config: Config) -> None:
    """Works from an empty folder: a second wall, behind the graph's inspection, against what reads relative paths."""
    folder = config.site / "empty"
    try:
        folder.mkdir(mode=0o500, exist_ok=True)
        os.chdir(folder)
    except OSError:
        raise ConfigError("the site directory cannot be written") from None
