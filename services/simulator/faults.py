"""Faults: what goes wrong, for whom, how often; drawn from a seed, so that a run can be repeated."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Call(StrEnum):
    """What a request is for."""

    CREATE = "create"
    READ = "read"
    CANCEL = "cancel"
    UPLOAD = "upload"
    # Balance, models, prices: what says something about the account and touches no task.
    ACCOUNT = "account"
    # The bytes of an output.
    MEDIA = "media"
    # What anybody may ask, such as a key set.
    OPEN = "open"


class Fault(StrEnum):
    """Everything that can go wrong on command."""

    UNAUTHORIZED = "unauthorized"
    PAYMENT_REQUIRED = "payment_required"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    RATE_LIMITED_WAIT = "rate_limited_wait"
    SERVER_ERROR = "server_error"
    # The provider has no room for anybody.
    OVERLOADED = "overloaded"
    HTML_ERROR = "html_error"
    TRUNCATED = "truncated"
    CUT_BEFORE_READ = "cut_before_read"
    CUT_AFTER_READ = "cut_after_read"
    ANSWER_LOST = "answer_lost"
    STUCK = "stuck"
    BACKWARDS = "backwards"
    NO_OUTPUT = "no_output"
    OUTPUT_EXPIRED = "output_expired"
    WRONG_TYPE = "wrong_type"
    MODERATED_BEFORE = "moderated_before"
    MODERATED_AFTER = "moderated_after"
    GENERATION_FAILED = "generation_failed"
    SLOW_DRIP = "slow_drip"
    # Work takes `value` seconds instead of the account's latency.
    SLOW = "slow"


# Decided before the provider looks at the request: nothing is accepted and nothing charged.
BEFORE: Final = frozenset(
    {
        Fault.UNAUTHORIZED,
        Fault.PAYMENT_REQUIRED,
        Fault.FORBIDDEN,
        Fault.RATE_LIMITED,
        Fault.RATE_LIMITED_WAIT,
        Fault.SERVER_ERROR,
        Fault.OVERLOADED,
        Fault.HTML_ERROR,
        Fault.CUT_BEFORE_READ,
        Fault.CUT_AFTER_READ,
    }
)
# Done to the answer, when all has been accepted.
ON_ANSWER: Final = frozenset({Fault.TRUNCATED, Fault.ANSWER_LOST, Fault.SLOW_DRIP})
_OF_CREATION: Final = frozenset({Call.CREATE})
_OF_API: Final = frozenset(set(Call) - {Call.MEDIA, Call.OPEN})
# Which requests a fault meets unless its rule says otherwise.
_USUAL_CALLS: Final[Mapping[Fault, frozenset[Call]]] = {
    **dict.fromkeys(Fault, _OF_CREATION),
    **dict.fromkeys(BEFORE - {Fault.PAYMENT_REQUIRED}, _OF_API),
    Fault.TRUNCATED: frozenset(Call) - {Call.OPEN},
    Fault.SLOW_DRIP: frozenset(Call) - {Call.OPEN},
}
# Other names that a mark may use.
_ALIASES: Final[Mapping[str, Fault]] = {
    "moderate-input": Fault.MODERATED_BEFORE,
    "moderate-output": Fault.MODERATED_AFTER,
    "fail": Fault.GENERATION_FAILED,
    "hang": Fault.STUCK,
    "429": Fault.RATE_LIMITED,
    "drop-after-accept": Fault.ANSWER_LOST,
    "zero-outputs": Fault.NO_OUTPUT,
    "expire-url": Fault.OUTPUT_EXPIRED,
}
_MARK: Final = re.compile(rb"\[\[sim:([a-z0-9_-]{1,40})(?:=([0-9]{1,6}(?:\.[0-9]{1,3})?))?\]\]")
_MARKS_LIMIT: Final = 8


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that happens to this request; `value` is in seconds where the fault has a length."""

    fault: Fault
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a request concerns."""

    provider: str
    key: str
    call: Call
    now_ms: int


class RuleRefused(ValueError):
    """A rule that cannot be meant."""


@dataclass(slots=True)
class Rule:
    """A standing order: this fault, for these requests, at this share of them."""

    number: int
    fault: Fault
    chance: random.Random
    made_ms: int
    provider: str = ""
    key: str = ""
    calls: frozenset[Call] = frozenset()
    share: float = 1.0
    times: int | None = None
    after_s: float = 0.0
    until_s: float | None = None
    value: float | None = None
    is_of_account: bool = False
    hits: int = 0

    def meets(self, scope: Scope) -> bool:
        """Draws whether it happens to this request, and counts it if so."""
        age_s = (scope.now_ms - self.made_ms) / 1000
        if not self._concerns(scope) or age_s < self.after_s:
            return False
        if self.until_s is not None and age_s >= self.until_s:
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        if self.share < 1 and self.chance.random() >= self.share:
            return False
        self.hits += 1
        return True

    def _concerns(self, scope: Scope) -> bool:
        return (
            scope.call in (self.calls or _USUAL_CALLS[self.fault])
            and self.provider in {"", scope.provider}
            and self.key in {"", scope.key}
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.number,
            "fault": self.fault.value,
            "provider": self.provider or None,
            "key": self.key or None,
            "calls": sorted(self.calls),
            "share": self.share,
            "times": self.times,
            "after": self.after_s,
            "until": self.until_s,
            "value": self.value,
            "hits": self.hits,
        }


_FIELDS: Final = {"provider", "key", "fault", "share", "times", "after", "until", "calls", "value"}


@dataclass
class Faults:
    """All standing orders."""

    seed: int
    _rules: dict[int, Rule] = field(default_factory=dict)
    _made: int = 0

    def add(self, wish: Mapping[str, Any], now_ms: int, *, is_of_account: bool = False) -> Rule:
        """Raises RuleRefused. `after` and `until` are seconds from now."""
        if unknown := set(wish) - _FIELDS:
            raise RuleRefused(f"a fault has no field {', '.join(sorted(unknown))}")
        self._made += 1
        try:
            rule = Rule(
                number=self._made,
                fault=Fault(str(wish.get("fault"))),
                chance=random.Random(f"{self.seed}/{self._made}"),  # noqa: S311 - repeatable on purpose
                made_ms=now_ms,
                provider=str(wish.get("provider") or ""),
                key=str(wish.get("key") or ""),
                calls=frozenset(map(Call, wish.get("calls") or ())),
                share=float(wish.get("share", 1)),
                times=_optional(int, wish.get("times")),
                after_s=float(wish.get("after") or 0),
                until_s=_optional(float, wish.get("until")),
                value=_optional(float, wish.get("value")),
                is_of_account=is_of_account,
            )
        except (TypeError, ValueError) as error:
            raise RuleRefused(str(error)) from error
        self._rules[rule.number] = rule
        return rule

    def of_account(self, provider: str, key: str, wishes: Sequence[Any], now_ms: int) -> None:
        """Replaces what an account was given. Each is a fault's name or a rule. Raises RuleRefused."""
        whole = [dict(wish) if isinstance(wish, Mapping) else {"fault": wish} for wish in wishes]
        for rule in self.rules():
            if rule.is_of_account and (rule.provider, rule.key) == (provider, key):
                del self._rules[rule.number]
        for wish in whole:
            self.add(wish | {"provider": provider, "key": key}, now_ms, is_of_account=True)

    def rules(self) -> list[Rule]:
        return list(self._rules.values())

    def clear(self, number: int | None = None) -> None:
        """Forgets one rule, or all but those that belong to an account."""
        for rule in self.rules():
            if rule.number == number or (number is None and not rule.is_of_account):
                del self._rules[rule.number]

    def draw(self, scope: Scope) -> tuple[Hit, ...]:
        """What happens to a request: one fault before anything else, or all that come later."""
        ordered = sorted(self._rules.values(), key=lambda rule: (rule.fault not in BEFORE, rule.number))
        hits: list[Hit] = []
        for rule in ordered:
            if rule.meets(scope):
                hits.append(Hit(rule.fault, rule.value))
                if rule.fault in BEFORE:
                    break
        return tuple(hits)


def _optional(of: Any, value: Any) -> Any:
    return None if value is None else of(value)


def marks_of(body: bytes) -> tuple[Hit, ...]:
    """The faults that a prompt asks for itself: `[[sim:answer_lost]]`, `[[sim:slow=30]]`."""
    return tuple(_marked(_MARK.findall(body)[:_MARKS_LIMIT]))


def _marked(found: Iterable[tuple[bytes, bytes]]) -> Iterable[Hit]:
    for name, value in found:
        text = name.decode()
        fault = _ALIASES.get(text) or (Fault(text) if text in Fault.__members__.values() else None)
        if fault:
            yield Hit(fault, float(value) if value else None)
