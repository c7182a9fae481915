"""The configuration: one TOML file, read once into frozen objects. ``deploy/appliance.toml`` shows every setting.

Relative paths are relative to the file's folder, the **site directory**, which also holds what is not configurable::

    appliance.toml   state.json   keys/   trust/   models/   incoming/   audit/   empty/   operator.sock

Every problem is reported at once; an unknown key is a problem. A setting tunes cost or says who may do what. None of them
changes what is computed, or whether it is recorded.
"""

import hashlib
import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import ConfigError
from appliance.fields import Fields

ROLES = ("predict", "observe", "audit", "administer")
VERSIONS_MAX = 8
ROWS_MAX = 1 << 20
LOCAL_CALLER = "LOCAL:plaintext"
LOCAL_OPERATOR = "LOCAL:operator"  # whoever may open the socket in the site directory
SOCKET_PATH_BYTES_MAX = 107  # unix(7)

_MODEL = r"[a-z0-9-]{1,64}|\*"
_PORT_MAX = 65_535
_CALLER = r"(DNS|URI|EMAIL|IP):[^\s,]{1,200}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who (a certificate's SAN with its type) may act how, on which models. Whoever no rule names may do nothing.

    What is None is as ``limits`` say.
    """

    caller: str
    roles: frozenset[str]
    models: frozenset[str]
    rows_per_s_max: int | None = None
    rows_at_once_max: int | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    certificate: Path
    key: Path
    client_ca: Path


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Where the passphrase is that opens the keys."""

    path: Path
    is_credential: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Each limit has its unit in its name."""

    message_bytes_max: int
    request_rows_max: int
    queue_rows_max: int
    queue_bytes_max: int
    streams_max: int
    connection_age_s_max: int
    idle_s_max: int
    bundle_bytes_max: int
    caller_rows_per_s_max: int
    caller_rows_at_once_max: int


@dataclass(frozen=True, slots=True)
class Engine:
    """``workers`` batches run at once for each model, on ``threads`` in all; 0 means as many as prove faster.

    ``versions_max`` versions of each model serve at once: the active one, and those that were active before it.
    """

    providers: tuple[str, ...]
    workers: int
    threads: int
    versions_max: int


@dataclass(frozen=True, slots=True)
class Config:
    site: Path
    site_name: str
    address: str
    tls: Tls
    plaintext_address: str | None
    metrics_address: tuple[str, int]
    lame_duck_s: int
    drain_s_max: int
    passphrase: Passphrase
    limits: Limits
    engine: Engine
    rules: tuple[Rule, ...]
    operators_socket: Path
    digest: str

    @property
    def keys(self) -> Path:
        return self.site / "keys"

    @property
    def audit(self) -> Path:
        return self.site / "audit"


def operators_socket(site: Path) -> Path:
    """Where the appliance of a site directory takes an operator's acts. Raises ConfigError where no socket can be."""
    path = site.absolute() / "operator.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(f"the path of the site directory is too long: with {path.name} over {SOCKET_PATH_BYTES_MAX} bytes")
    return path


def read(path: Path, *, to_serve: bool = True) -> Config:
    """The configuration of a file. What only serving needs, the TLS files, need not exist yet where ``to_serve`` is false.

    Raises:
        ConfigError: with every problem of the file, each a sentence.
    """
    try:
        data = path.read_bytes()
        table = tomllib.loads(data.decode())
    except OSError:
        raise ConfigError(f"the configuration {path} cannot be read") from None
    except ValueError as error:
        raise ConfigError(f"the configuration is not valid TOML: {error}") from None
    fields = Fields(table)
    config = _config(fields, path.absolute().parent, hashlib.sha256(data).hexdigest(), to_serve)
    if fields.problems:
        raise ConfigError(*fields.problems)
    return config


def _config(fields: Fields, site: Path, digest: str, to_serve: bool) -> Config:
    site_table, server = fields.table("site"), fields.table("server")
    keys, metrics = fields.table("keys"), fields.table("metrics", default={})
    plaintext = server.optional_table("plaintext")
    rules = [_rule(row, row.text("caller", pattern=_CALLER)) for row in fields.tables("access", 0, 1000)]
    if len({rule.caller for rule in rules}) < len(rules):
        fields.problem("access has two rules for one caller")
    plaintext_address = None
    if plaintext is not None:
        plaintext_address = plaintext.text("address")
        if not _is_local(plaintext_address):
            plaintext.problem("server.plaintext.address must be a loopback address or unix: and an absolute path")
        rules.append(_rule(plaintext, LOCAL_CALLER))
    config = Config(
        site=site,
        site_name=site_table.text("name"),
        address=_address(server, "address"),
        tls=Tls(
            certificate=_file(server, "certificate", site, to_serve),
            key=_file(server, "key", site, to_serve),
            client_ca=_file(server, "client_ca", site, to_serve),
        ),
        plaintext_address=plaintext_address,
        metrics_address=_host_port(_address(metrics, "address", default="127.0.0.1:9464")),
        lame_duck_s=server.integer("lame_duck_s", 0, 300, default=1),
        drain_s_max=server.integer("drain_s_max", 0, 600, default=10),
        passphrase=_passphrase(keys, site, to_serve),
        limits=_limits(fields.table("limits", default={})),
        engine=_engine(fields.table("engine", default={})),
        rules=tuple(rules),
        operators_socket=operators_socket(site),
        digest=digest,
    )
    for read in (site_table, server, keys, metrics, fields):
        read.close()
    return config


def _rule(fields: Fields, caller: str) -> Rule:
    roles, models = fields.items("roles", str, 1, len(ROLES)), fields.items("models", str, 1, 100, default=["*"])
    if not set(roles) <= set(ROLES):
        fields.problem(f"{fields.name('roles')} may hold {', '.join(ROLES)}")
    if not all(re.fullmatch(_MODEL, model) for model in models):
        fields.problem(f"{fields.name('models')} holds something that is not a model's id")
    rows = [fields.integer(key, 1, ROWS_MAX) if key in fields else None for key in ("rows_per_s_max", "rows_at_once_max")]
    fields.close()
    return Rule(caller, frozenset(roles), frozenset(models), *rows)


def _limits(fields: Fields) -> Limits:
    limits = Limits(
        message_bytes_max=fields.integer("message_bytes_max", 1 << 10, 1 << 30, default=64 << 20),
        request_rows_max=fields.integer("request_rows_max", 1, 1024, default=1024),
        queue_rows_max=fields.integer("queue_rows_max", 1, 1 << 20, default=4096),
        queue_bytes_max=fields.integer("queue_bytes_max", 1 << 10, 1 << 36, default=512 << 20),
        streams_max=fields.integer("streams_max", 1, 1 << 16, default=256),
        connection_age_s_max=fields.integer("connection_age_s_max", 10, 86_400, default=3600),
        idle_s_max=fields.integer("idle_s_max", 10, 86_400, default=600),
        bundle_bytes_max=fields.integer("bundle_bytes_max", 1 << 10, 1 << 40, default=4 << 30),
        caller_rows_per_s_max=fields.integer("caller_rows_per_s_max", 1, ROWS_MAX, default=100_000),
        caller_rows_at_once_max=fields.integer("caller_rows_at_once_max", 1, ROWS_MAX, default=4096),
    )
    fields.close()
    return limits


def _engine(fields: Fields) -> Engine:
    providers = fields.items("providers", str, 1, 8, default=["CPUExecutionProvider"])
    workers = fields.integer("workers", 0, 64, default=0)
    threads = fields.integer("threads", 1, 256, default=len(os.sched_getaffinity(0)))
    versions = fields.integer("versions_max", 1, VERSIONS_MAX, default=2)
    fields.close()
    return Engine(tuple(providers), workers, threads, versions)


def _passphrase(keys: Fields, site: Path, to_serve: bool) -> Passphrase:
    """A file of the site, or a credential that systemd hands to a unit (systemd.exec(5), "Credentials")."""
    if "passphrase_credential" not in keys:
        return Passphrase(_file(keys, "passphrase_file", site, to_serve), is_credential=False)
    if "passphrase_file" in keys:
        keys.problem("keys has a passphrase_file and a passphrase_credential; keep one of the two")
        keys.text("passphrase_file")
    name = keys.text("passphrase_credential", pattern=r"[A-Za-z0-9_-]{1,64}")
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials")) / name
    if to_serve and not path.is_file():
        keys.problem(f"keys.passphrase_credential: systemd has handed no credential {name} to this process")
    return Passphrase(path, is_credential=True)


def _file(fields: Fields, key: str, site: Path, must_exist: bool) -> Path:
    """A file, relative to the site directory."""
    text = fields.text(key)
    path = site / text
    if must_exist and text and not path.is_file():
        fields.problem(f"{fields.name(key)}: there is no file {text}")
    return path


def _address(fields: Fields, key: str, *, default: str | None = None) -> str:
    pattern = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}"
    text = fields.text(key, pattern=pattern) if default is None else fields.text(key, pattern=pattern, default=default)
    if _host_port(text)[1] > _PORT_MAX:
        fields.problem(f"{fields.name(key)} has a port over 65535")
    return text


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port) if re.fullmatch("[0-9]{1,5}", port) else 0


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return address.startswith("unix:/")
    host, port = _host_port(address)
    try:
        return ipaddress.ip_address(host).is_loopback and port <= _PORT_MAX
    except ValueError:
        return False  # a name could be made to resolve to anywhere
