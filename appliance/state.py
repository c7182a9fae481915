"""What a site remembers of its models, its vendors and the time (bundle-format section 12).

The audit log comes first: an act is a record before it is anything else, and ``State.after`` is what the record does. The
file is the log's summary, under a MAC, with the log's size and root at that moment. So neither of the two can be put back
to an older copy alone: an older state catches up from the log, and an older log lacks what the state has seen::

    {"mac":"9d…","state":{"latest":"2026-11-24T12:00:00Z","log":{"root":"5f…","size":812},
     "models":{"chest":{"floor":2,"highest":4,"serving":[{"digest":"77…","version":4}],"vendor":"acme"}},
     "vendors":{"acme":{"expires":"2027-05-23T12:00:00Z","policy":"1c…","root":1,…}}}}
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from appliance import canonical
from appliance.bundle.enrolment import derive
from appliance.canonical import format_time, parse_time
from appliance.config import VERSIONS_MAX
from appliance.errors import NotAdmitted, RolledBack, StateError
from appliance.override import AS_SIGNED, Override
from appliance.override import decode as decode_override

CLOCK_SLACK = timedelta(minutes=5)
FORMAT = 1
EMPTY_LOG_ROOT = hashlib.sha256(b"").hexdigest()  # RFC 6962 section 2.1


@dataclass(frozen=True, slots=True)
class Version:
    """A version that serves, and the thresholds that it has here. Each activation begins with those that are signed."""

    version: int
    digest: str
    override: Override = AS_SIGNED


@dataclass(frozen=True, slots=True)
class ModelState:
    """``serving`` has the active version first, then those that were active before; it is empty for a model that is off."""

    vendor: str
    highest: int
    floor: int
    serving: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class VendorState:
    """The newest trust repository that was verified: versions of its roles, digests, and until when it is fresh.

    The first root is what the vendor is known by, the newest where the next verification begins. ``release`` are the ids of
    the keys that count for timestamp and snapshot, with a space between them.
    """

    first_root_sha256: str
    root: int
    root_sha256: str
    timestamp: int
    snapshot: int
    targets: int
    release: str
    policy: str
    expires: datetime

    def require_fresh(self, now: datetime) -> None:
        """Raises NotAdmitted where the repository has expired."""
        if now >= self.expires:
            raise NotAdmitted("The vendor's trust repository has expired; bring a newer one: appliance trust update")

    def require_not_older_than(self, known: "VendorState", *, anew: bool) -> None:
        """Raises RolledBack.

        ``anew``: none of the release keys counts any more. Then versions begin anew (TUF section 5.3.11), which is the way
        out where a thief of the keys has sent them far ahead.
        """
        if not anew and any(getattr(self, role) < getattr(known, role) for role in ("timestamp", "snapshot", "targets")):
            raise RolledBack("The trust repository is older than one that this site has seen.")


@dataclass(frozen=True, slots=True)
class State:
    """``log_size`` and ``log_root`` (hex) say where the audit log was when this was written."""

    latest: datetime
    models: Mapping[str, ModelState] = field(default_factory=dict)
    vendors: Mapping[str, VendorState] = field(default_factory=dict)
    log_size: int = 0
    log_root: str = EMPTY_LOG_ROOT

    def require_clock(self, now: datetime) -> None:
        """Raises NotAdmitted where the clock is behind a time that was seen."""
        if now < self.latest - CLOCK_SLACK:
            raise NotAdmitted(
                f"The appliance's clock is behind {format_time(self.latest)}, which it has seen; set the clock, "
                "or accept its time: appliance state accept"
            )

    def require_vendor(self, model: str, vendor: str) -> None:
        """Raises NotAdmitted where a model of this name came from another vendor."""
        known = self.models.get(model)
        if known is not None and known.vendor != vendor:
            raise NotAdmitted("A model of this name is another vendor's here.")

    def highest(self, model: str) -> int:
        """The highest version that was ever active; 1 where none was."""
        return self.models[model].highest if model in self.models else 1

    def seen(self, now: datetime) -> "State":
        """The same, where the clock has shown this moment."""
        return replace(self, latest=max(self.latest, now.replace(microsecond=0)))

    def at(self, log_size: int, log_root: str) -> "State":
        """The same, at another place of the log."""
        return replace(self, log_size=log_size, log_root=log_root)

    def after(self, event: str, model: Mapping[str, Any] | None, detail: Mapping[str, Any] | None, now: datetime) -> "State":
        """The state once an act has been recorded; any event that is not an act of these leaves it as it is."""
        match event:
            case "model.activate" | "model.rollback" if model and detail:
                known = self.models.get(model["id"], ModelState(detail["vendor"], 0, 1, ()))
                version = Version(model["version"], model["digest"])
                floor = max(known.floor, detail["min_supported_version"])
                # A rollback ends every newer version: whoever goes back does not want to be answered by them.
                before = [was for was in known.serving if floor <= was.version < version.version]
                changed = ModelState(
                    vendor=known.vendor,
                    highest=max(known.highest, version.version),
                    floor=floor,
                    serving=(version, *before)[:VERSIONS_MAX],
                )
                return replace(self, models={**self.models, model["id"]: changed})
            case "model.deactivate" if model and model["id"] in self.models:
                return self._where_serving(model["id"], ())
            case "model.remove" if model and model["id"] in self.models:
                # What is no longer here is not kept: installed again, it would answer unasked, by its old thresholds.
                serving = self.models[model["id"]].serving
                return self._where_serving(model["id"], (v for v in serving if v.version != model["version"]))
            case "model.threshold" if model and detail and model["id"] in self.models:
                override = decode_override({name: said for name, said in detail.items() if name != "reason"})
                which, serving = (model["version"], model["digest"]), self.models[model["id"]].serving
                return self._where_serving(
                    model["id"], (replace(v, override=override) if (v.version, v.digest) == which else v for v in serving)
                )
            case "trust.update" if detail:
                said = {name: value for name, value in detail.items() if name != "vendor"}
                vendor = VendorState(**said | {"expires": parse_time(said["expires"])})
                return replace(self, vendors={**self.vendors, detail["vendor"]: vendor})
            case "state.accept":
                return replace(self, latest=now)
        return self

    def _where_serving(self, name: str, versions: Iterable[Version]) -> "State":
        """The same, where these versions of a known model serve."""
        return replace(self, models={**self.models, name: replace(self.models[name], serving=tuple(versions))})


def trust_detail(name: str, vendor: VendorState) -> dict[str, int | str]:
    """What the record of a trust update holds, for ``after``."""
    return {"vendor": name} | asdict(vendor) | {"expires": format_time(vendor.expires)}


def encode(state: State, seed: bytes) -> bytes:
    """The file's bytes; ``seed`` is the appliance's."""
    said = asdict(state)
    for name, model in state.models.items():
        said["models"][name]["serving"] = [_said(version) for version in model.serving]
    for vendor in said["vendors"].values():
        vendor["expires"] = format_time(vendor["expires"])
    log = {"size": said.pop("log_size"), "root": said.pop("log_root")}
    said |= {"latest": format_time(state.latest), "log": log, "v": FORMAT}
    return canonical.encode({"state": said, "mac": _mac(said, seed)})


def decode(data: bytes, seed: bytes) -> State:
    """The state of a file.

    Raises:
        StateError: it was altered, or is another appliance's.
    """
    try:
        file = canonical.decode(data)
        said = file["state"]
        if not hmac.compare_digest(file["mac"], _mac(said, seed)):
            raise ValueError("not written by this appliance")
        if said["v"] != FORMAT:
            raise StateError("What this site remembers (state.json) is of another version of the appliance.")
        return State(
            latest=parse_time(said["latest"]),
            models={name: _model(**model) for name, model in said["models"].items()},
            vendors={
                name: VendorState(**vendor | {"expires": parse_time(vendor["expires"])})
                for name, vendor in said["vendors"].items()
            },
            log_size=said["log"]["size"],
            log_root=said["log"]["root"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError("What this site remembers (state.json) was altered, or is another appliance's.") from error


def _model(vendor: str, highest: int, floor: int, serving: list[dict[str, Any]]) -> ModelState:
    return ModelState(vendor, highest, floor, tuple(_version(**version) for version in serving))


def _version(version: int, digest: str, override: Mapping[str, Any] | None = None) -> Version:
    return Version(version, digest, AS_SIGNED if override is None else decode_override(override))


def _said(version: Version) -> dict[str, Any]:
    """Of a version that decides as signed no more than that is said, as by an appliance that knew of nothing else."""
    said: dict[str, Any] = {"version": version.version, "digest": version.digest}
    return said | {"override": version.override.encode()} if version.override else said


def _mac(said: Mapping[str, Any], seed: bytes) -> str:
    return hmac.digest(derive(seed, "state"), canonical.encode(said), "sha256").hex()
