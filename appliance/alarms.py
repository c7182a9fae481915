"""What a person should hear about before it hurts: grants and trust that end, revocations, the clock, thresholds that are
not the vendor's, inputs that are not those of the validation.

No alarm stops anything. The running appliance looks every minute and says what begins and what ends, in its log, its metrics
and its audit log; ``appliance check`` says the same of a site.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.bundle import grant
from appliance.bundle.grant import Terms
from appliance.bundle.policy import Policy
from appliance.drift import Drift, Share
from appliance.errors import ApplianceError, NotAdmitted, Revoked, StateError
from appliance.gate import answering, require_vouched_for
from appliance.site import Site
from appliance.state import State, Version

NOTICE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Alarm:
    """``kind`` is a stable word; ``subject`` the model (``chest 3``), the vendor or the clock.

    ``urgent``: something is refused.
    """

    kind: str
    subject: str
    sentence: str
    urgent: bool = True


def alarms(
    site: Site, state: State, now: datetime, versions_max: int, serving: Mapping[str, int] | None = None
) -> Iterator[Alarm]:
    """Everything that is wrong at a site, now or soon. ``versions_max`` versions of each model answer at once.

    ``serving``, the active version of each model in a running appliance, is compared with what should be active.
    """
    try:
        state.require_clock(now)
    except NotAdmitted as error:
        yield Alarm("clock_behind", "clock", str(error))
    policies: dict[str, Policy] = {}
    for name, vendor in state.vendors.items():
        if now >= vendor.expires:
            yield Alarm("trust_over", name, "its trust repository has expired: nothing new is installed or activated")
        elif now >= vendor.expires - NOTICE:
            yield Alarm("trust_ends", name, f"its trust repository expires on {vendor.expires:%Y-%m-%d}", urgent=False)
        try:
            policies[name] = site.policy(state, name)
        except StateError as error:
            yield Alarm("trust_damaged", name, str(error))
    for name, model in state.models.items():
        # Not of all that is remembered: by what answers nobody, nothing is decided.
        for version in (version for version in answering(site, state, name, versions_max) if version.override):
            sentence = f"by an operator's act, and not as its vendor has signed, it {version.override}"
            yield Alarm("threshold_overridden", f"{name} {version.version}", sentence, urgent=False)
        for active in model.serving[:1]:
            if model.vendor in policies:
                yield from _active(site, policies[model.vendor], name, active, now)
            if serving is not None and serving.get(name) != active.version:
                sentence = "it was refused when the appliance started, and answers nobody: activate it again, or another"
                yield Alarm("not_serving", f"{name} {active.version}", sentence)


def drifting(subject: str, drift: Drift) -> Iterator[Alarm]:
    """What is to be said of a version that serves and decides otherwise than in its validation."""
    abstains, knows_not = drift.look()
    if abstains:
        yield Alarm("drift_abstain", subject, f"it abstains on {_shares(drift.abstained)}", urgent=False)
    if knows_not:
        yield Alarm("drift_unknown", subject, f"it takes for unknown {_shares(drift.unknown)}", urgent=False)


def _shares(share: Share) -> str:
    return f"{share.seen:.1%} of its last {share.rows:,} rows, of those of its validation {share.expected:.1%}"


def _active(site: Site, policy: Policy, name: str, active: Version, now: datetime) -> Iterator[Alarm]:
    subject = f"{name} {active.version}"
    try:
        require_vouched_for(site, policy, name, active)
        terms = grant.read(site.find(name, active.version).permit(), [policy]).terms
    except Revoked as error:
        yield Alarm("revoked", subject, f"{error} Activate another version, or deactivate it: it cannot start again")
    except ApplianceError as error:
        yield Alarm("cannot_start", subject, f"it cannot start again: {error}")
    else:
        yield from _grant(subject, terms, now)


def _grant(subject: str, terms: Terms, now: datetime) -> Iterator[Alarm]:
    if terms.grace_ends is not None and now > terms.grace_ends:
        yield Alarm("grant_over", subject, "its grant and the grace days are over: it serves on, but is not activated again")
    elif now > terms.not_after:
        yield Alarm("grant_in_grace", subject, f"its grant ended on {terms.not_after:%Y-%m-%d}; the grace days are running")
    elif terms.not_after - now <= NOTICE:
        yield Alarm("grant_ends", subject, f"its grant ends on {terms.not_after:%Y-%m-%d}", urgent=False)
