"""What a site remembers: it only grows, it is the site's own, and it is what the records say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import canonical, state
from appliance.errors import NotAdmitted, RolledBack, StateError
from appliance.override import AS_SIGNED, Override
from appliance.state import CLOCK_SLACK, VERSIONS_MAX, ModelState, State, VendorState, Version, trust_detail
from tests.bundle.breaking import flipped

SEED = bytes(range(32))
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
VENDOR = VendorState("ab" * 32, 1, "ab" * 32, 5, 4, 3, "cd" * 32, "ef" * 32, NOW + 180 * DAY)
STATE = State(
    NOW,
    {"chest": ModelState("acme", 4, 2, (Version(4, "77" * 32), Version(3, "66" * 32)))},
    {"acme": VENDOR},
    812,
    "5f" * 32,
)


def activate(known: State, version: int, *, event: str = "model.activate", floor: int = 1, name: str = "chest") -> State:
    model = {"id": name, "version": version, "digest": f"{version:064x}"}
    return known.after(event, model, {"vendor": "acme", "min_supported_version": floor}, NOW)


def versions(known: State, name: str = "chest") -> list[int]:
    return [version.version for version in known.models[name].serving]


def test_what_is_remembered_is_read_back() -> None:
    assert state.decode(state.encode(STATE, SEED), SEED) == STATE
    assert state.decode(state.encode(State(NOW), SEED), SEED) == State(NOW)


@given(st.lists(st.builds(Override, st.none() | st.integers(0, 10**6), st.none() | st.integers(0, 10**9)), max_size=8))
def test_thresholds_are_remembered_with_their_version_and_said_only_where_they_are_not_as_signed(
    made: list[Override],
) -> None:
    serving = tuple(Version(9 - i, f"{i:064x}", override) for i, override in enumerate(made))
    known = replace(STATE, models={"chest": ModelState("acme", 9, 1, serving)})
    data = state.encode(known, SEED)
    assert state.decode(data, SEED) == known
    assert data.count(b"override") == sum(map(bool, made))


def test_no_other_appliance_and_no_change_of_one_bit_is_believed() -> None:
    data = state.encode(STATE, SEED)
    with pytest.raises(StateError, match="another appliance"):
        state.decode(data, bytes(32))
    for bit in range(len(data) * 8):
        with pytest.raises(StateError):
            state.decode(flipped(data, bit), SEED)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"mac":"x","state":{}}', b'{"mac":5,"state":5}'])
def test_other_files_are_not_believed(data: bytes) -> None:
    with pytest.raises(StateError):
        state.decode(data, SEED)


def test_a_state_of_another_version_is_said_to_be_one() -> None:
    said = canonical.decode(state.encode(STATE, SEED))["state"] | {"v": 2}
    with pytest.raises(StateError, match="another version"):
        state.decode(canonical.encode({"state": said, "mac": state._mac(said, SEED)}), SEED)


def test_a_state_without_a_field_is_not_believed_though_its_mac_is_good() -> None:
    for gone in ("latest", "models", "vendors", "log"):
        said = canonical.decode(state.encode(STATE, SEED))["state"]
        del said[gone]
        with pytest.raises(StateError):
            state.decode(canonical.encode({"state": said, "mac": state._mac(said, SEED)}), SEED)


def test_activation_puts_a_version_first_and_keeps_those_before_it() -> None:
    known = activate(activate(State(NOW), 1), 3)
    assert known.models["chest"] == ModelState("acme", 3, 1, (Version(3, f"{3:064x}"), Version(1, f"{1:064x}")))
    assert versions(activate(known, 3)) == [3, 1]


def test_rollback_ends_every_newer_version_and_forgets_none() -> None:
    known = activate(activate(activate(State(NOW), 1), 2), 3)
    back = activate(known, 2, event="model.rollback")
    assert (versions(back), back.models["chest"].highest) == ([2, 1], 3)
    assert back.highest("chest") == 3


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30), st.booleans()), max_size=30))
def test_highest_and_floor_only_rise_and_what_serves_is_in_order(acts: list[tuple[int, int, bool]]) -> None:
    known = State(NOW)
    for version, floor, rollback in acts:
        before = known.models.get("chest", ModelState("acme", 0, 1, ()))
        known = activate(known, version, event="model.rollback" if rollback else "model.activate", floor=floor)
        after = known.models["chest"]
        assert (after.highest, after.floor) == (max(before.highest, version), max(before.floor, floor))
        assert versions(known) == sorted(versions(known), reverse=True)
        assert versions(known)[0] == version
        assert len(versions(known)) <= VERSIONS_MAX


def test_a_model_that_is_off_keeps_what_was_seen_of_it() -> None:
    off = STATE.after("model.deactivate", {"id": "chest"}, {"reason": "x"}, NOW)
    assert off.models["chest"] == replace(STATE.models["chest"], serving=())
    assert STATE.after("model.deactivate", {"id": "other"}, None, NOW) == STATE


def remove(known: State, version: int, name: str = "chest") -> State:
    return known.after("model.remove", {"id": name, "version": version}, None, NOW)


def test_a_version_that_was_removed_is_not_kept_and_the_rest_is_as_it_was() -> None:
    known = activate(activate(activate(State(NOW), 1, floor=1), 2), 3)
    gone = remove(set_threshold(known, 1, {"accept_at_least_e6": 800_000}), 1)
    assert gone.models["chest"] == replace(known.models["chest"], serving=known.models["chest"].serving[:2])
    assert gone.highest("chest") == 3
    for other in (remove(known, 9), remove(known, 1, "other")):
        assert other == known


def override_of(known: State, version: int) -> Override:
    return next(found.override for found in known.models["chest"].serving if found.version == version)


def set_threshold(known: State, version: int, detail: dict[str, Any], digest: str = "") -> State:
    model = {"id": "chest", "version": version, "digest": digest or f"{version:064x}"}
    return known.after("model.threshold", model, {"reason": "x"} | detail, NOW)


def test_a_threshold_is_its_versions_until_it_is_taken_back() -> None:
    known = activate(activate(State(NOW), 1), 2)
    made = set_threshold(known, 2, {"accept_at_least_e6": 800_000})
    assert (override_of(made, 2), override_of(made, 1)) == (Override(800_000), AS_SIGNED)
    other = set_threshold(made, 2, {"reject_above_e6": 5})
    assert override_of(other, 2) == Override(None, 5), "the record says all that is not as signed"
    assert set_threshold(other, 2, {}) == known


def test_a_threshold_of_what_does_not_serve_changes_nothing() -> None:
    known = activate(State(NOW), 2)
    detail = {"accept_at_least_e6": 800_000}
    assert set_threshold(known, 1, detail) == known
    assert set_threshold(known, 2, detail, digest="00" * 32) == known, "nor of another bundle under the same number"
    assert known.after("model.threshold", {"id": "other", "version": 2, "digest": "00" * 32}, detail, NOW) == known


def test_an_activation_begins_as_signed_and_a_version_that_is_kept_keeps_its_threshold() -> None:
    made = set_threshold(activate(activate(State(NOW), 1), 2), 2, {"accept_at_least_e6": 800_000})
    newer = activate(made, 3)
    assert (override_of(newer, 3), override_of(newer, 2)) == (AS_SIGNED, Override(800_000))
    assert override_of(activate(newer, 2, event="model.rollback"), 2) == AS_SIGNED
    assert override_of(activate(made, 2), 2) == AS_SIGNED
    off = made.after("model.deactivate", {"id": "chest"}, {"reason": "x"}, NOW)
    assert override_of(activate(off, 2), 2) == AS_SIGNED


@pytest.mark.parametrize(
    "event", ["start", "stop", "recover", "model.load", "model.install", "model.renew", "alarm", "call"]
)
def test_other_records_change_nothing(event: str) -> None:
    model = {"id": "chest", "version": 9, "digest": "00" * 32}
    assert STATE.after(event, model, {"vendor": "acme", "min_supported_version": 9}, NOW + DAY) == STATE


def test_trust_that_was_recorded_is_trust_that_is_remembered() -> None:
    newer = replace(VENDOR, root=2, timestamp=9, expires=NOW + 90 * DAY)
    detail = canonical.decode(canonical.encode(trust_detail("acme", newer)))
    assert STATE.after("trust.update", None, detail, NOW).vendors == {"acme": newer}
    assert set(STATE.after("trust.update", None, detail | {"vendor": "other"}, NOW).vendors) == {"acme", "other"}


def test_time_never_goes_back_but_by_acceptance() -> None:
    assert STATE.seen(NOW - DAY).latest == NOW
    assert STATE.seen(NOW + DAY).latest == NOW + DAY
    assert STATE.after("state.accept", None, {"reason": "x"}, NOW - DAY).latest == NOW - DAY


def test_a_clock_may_be_a_little_behind() -> None:
    STATE.require_clock(NOW - CLOCK_SLACK)
    STATE.require_clock(NOW + 10_000 * DAY)
    with pytest.raises(NotAdmitted, match="behind 2026-11-24T12:00:00Z"):
        STATE.require_clock(NOW - CLOCK_SLACK - timedelta(seconds=1))


def test_trust_is_fresh_until_it_expires() -> None:
    VENDOR.require_fresh(VENDOR.expires - timedelta(seconds=1))
    with pytest.raises(NotAdmitted, match="expired"):
        VENDOR.require_fresh(VENDOR.expires)


def test_a_name_belongs_to_the_vendor_that_brought_it() -> None:
    STATE.require_vendor("chest", "acme")
    STATE.require_vendor("skin", "other")
    with pytest.raises(NotAdmitted, match="another vendor"):
        STATE.require_vendor("chest", "other")


@pytest.mark.parametrize(("changes", "allowed"), [
    ({}, True), ({"timestamp": 6, "snapshot": 5, "targets": 4}, True), ({"root": 2}, True),
    ({"timestamp": 4}, False), ({"snapshot": 3}, False), ({"targets": 2}, False), ({"root": 2, "timestamp": 4}, False),
])  # fmt: skip
def test_trust_never_goes_back_but_after_its_keys_have_changed(changes: dict[str, Any], allowed: bool) -> None:
    """TUF 5.3.11: new keys of timestamp and snapshot are the way out of versions that an attacker has driven up."""
    newer = replace(VENDOR, **changes)
    newer.require_not_older_than(VENDOR, anew=True)
    if allowed:
        newer.require_not_older_than(VENDOR, anew=False)
    else:
        with pytest.raises(RolledBack):
            newer.require_not_older_than(VENDOR, anew=False)
