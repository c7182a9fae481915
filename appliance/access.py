"""Who is asking, and what they may do. Deny by default: whoever no rule names may do nothing."""

from dataclasses import dataclass
from enum import Enum

from appliance.admission import Allowance
from appliance.config import LOCAL_CALLER, LOCAL_OPERATOR, Rule
from appliance.errors import PermissionDenied, Unauthenticated


class Action(Enum):
    """What a call does, and the roles that allow it."""

    PREDICT = frozenset({"predict"})
    OBSERVE = frozenset({"predict", "observe", "audit", "administer"})
    AUDIT = frozenset({"audit", "administer"})
    ADMINISTER = frozenset({"administer"})


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: the names of its verified certificate (``DNS:ward-7``) and its public key's SHA-256."""

    names: tuple[str, ...]
    spki: str


LOCAL_PEER = Peer((LOCAL_CALLER,), "")
OPERATOR_PEER = Peer((LOCAL_OPERATOR,), "")


_NO_ROWS = Allowance(rows_per_s_max=1, rows_at_once_max=0)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody we know by name, with what they may do; perhaps nothing. Whoever no rule knows may ask for no rows."""

    name: str
    spki: str
    roles: frozenset[str]
    models: frozenset[str]
    allowance: Allowance = _NO_ROWS

    def on_record(self) -> dict[str, str | list[str]]:
        """What a record says of them."""
        return {"name": self.name, "spki": self.spki, "roles": sorted(self.roles)}

    def authorise(self, action: Action) -> None:
        """Raises PermissionDenied unless a role allows the action."""
        if not self.roles & action.value:
            raise PermissionDenied("Your certificate's identity has no role for this call.")

    def may_use(self, model: str) -> bool:
        """Whether the caller's roles are good for this model."""
        return bool(self.models & {model, "*"})

    def authorise_model(self, model: str) -> None:
        """Raises PermissionDenied unless the caller's roles are good for this model."""
        if not self.may_use(model):
            raise PermissionDenied("Your certificate's identity has no role for this model.")

    def authorise_every_model(self) -> None:
        """Raises PermissionDenied unless the caller's roles are good for all models: some acts concern them all."""
        if "*" not in self.models:
            raise PermissionDenied("Your certificate's identity has no role for every model, which this needs.")


OPERATOR = Caller(LOCAL_OPERATOR, "", frozenset({"administer"}), frozenset({"*"}))


class Access:
    """The rules of the configuration."""

    def __init__(self, rules: tuple[Rule, ...], common: Allowance) -> None:
        """``common`` is the allowance of those whose rule says nothing of its own."""
        operator = Rule(OPERATOR.name, OPERATOR.roles, OPERATOR.models)
        self._rules = {rule.caller: (rule, _allowance(rule, common)) for rule in (*rules, operator)}

    def identify(self, peer: Peer) -> Caller:
        """The caller: the first of the certificate's names that a rule knows, else its first name, with no roles.

        Raises:
            Unauthenticated: the certificate has no name we can use.
        """
        if not peer.names:
            raise Unauthenticated("Your certificate has no subject alternative name to know you by.")
        for name in peer.names:
            if (known := self._rules.get(name)) is not None:
                rule, allowance = known
                return Caller(name, peer.spki, rule.roles, rule.models, allowance)
        return Caller(peer.names[0], peer.spki, frozenset(), frozenset())


def _allowance(rule: Rule, common: Allowance) -> Allowance:
    return Allowance(rule.rows_per_s_max or common.rows_per_s_max, rule.rows_at_once_max or common.rows_at_once_max)
