"""Deny by default."""

import pytest

from appliance.access import LOCAL_PEER, Access, Action, Caller, Peer
from appliance.admission import Allowance
from appliance.config import Rule
from appliance.errors import PermissionDenied, Unauthenticated

READER = Rule("DNS:reader", frozenset({"predict"}), frozenset({"chest"}))
ADMIN = Rule("URI:spiffe://admin", frozenset({"administer"}), frozenset({"*"}))
WATCHER = Rule("DNS:watcher", frozenset({"observe"}), frozenset({"*"}))
AUDITOR = Rule("DNS:auditor", frozenset({"audit"}), frozenset({"*"}))
COMMON = Allowance(1000, 100)
ACCESS = Access((READER, ADMIN, WATCHER, AUDITOR), COMMON)


def known(*names: str) -> Caller:
    return ACCESS.identify(Peer(names, "spki"))


def allowed(caller: Caller) -> set[Action]:
    """The actions that do not raise."""
    found = set()
    for action in Action:
        try:
            caller.authorise(action)
        except PermissionDenied:
            continue
        found.add(action)
    return found


@pytest.mark.parametrize(("name", "actions"), [
    ("DNS:reader", {Action.PREDICT, Action.OBSERVE}),
    ("URI:spiffe://admin", {Action.ADMINISTER, Action.AUDIT, Action.OBSERVE}),
    ("DNS:auditor", {Action.AUDIT, Action.OBSERVE}),
    ("DNS:watcher", {Action.OBSERVE}),
    ("DNS:stranger", set()),
    ("URI:DNS:reader", set()),
    ("DNS:READER", set()),
    ("DNS:reader.evil", set()),
])  # fmt: skip
def test_a_role_allows_what_it_says_and_no_more(name: str, actions: set[Action]) -> None:
    """An administrator may not predict, and a name is its exact spelling with its type."""
    assert allowed(known(name)) == actions


def test_a_role_is_good_for_its_models_alone() -> None:
    known("DNS:reader").authorise_model("chest")
    with pytest.raises(PermissionDenied):
        known("DNS:reader").authorise_model("skin")
    known("DNS:watcher").authorise_model("anything")
    with pytest.raises(PermissionDenied):
        known("DNS:stranger").authorise_model("chest")


def test_what_concerns_every_model_is_for_those_who_may_use_every_model() -> None:
    known("URI:spiffe://admin").authorise_every_model()
    with pytest.raises(PermissionDenied, match="every model"):
        known("DNS:reader").authorise_every_model()


def test_a_star_is_no_model_that_a_caller_could_ask_for() -> None:
    with pytest.raises(PermissionDenied):
        known("DNS:reader").authorise_model("*")


def test_the_first_known_name_of_a_certificate_counts() -> None:
    caller = known("DNS:stranger", "URI:spiffe://admin", "DNS:reader")
    assert (caller.name, caller.roles, caller.spki) == ("URI:spiffe://admin", {"administer"}, "spki")


def test_a_stranger_is_known_by_name_and_may_do_nothing() -> None:
    caller = known("DNS:one", "DNS:two")
    assert (caller.name, caller.roles, caller.models) == ("DNS:one", frozenset(), frozenset())


def test_certificate_without_a_name_is_nobody() -> None:
    with pytest.raises(Unauthenticated):
        known()


def test_plaintext_caller_needs_a_rule_of_its_own() -> None:
    assert allowed(ACCESS.identify(LOCAL_PEER)) == set()
