"""What is changed in a policy's forward pass: one frozen value, read from a mapping and written as one. Needs no torch.

    Intervention.parse({"what": "zero", "where": {"size": 32}})    # the large experts fall silent
    Intervention.parse({"what": "dial", "lambda": 0.001})          # gates made dearer, no retraining
    Intervention.parse({"what": "none", "state": "zero"})          # no memory
    Intervention.parse({"what": "skip", "when": {"subgoal": "Pickup"}})

A layer computes y = sum over its experts e of w_e E_e(x), w = softmax(z), z the router's logits; size_e is the hidden
size, c_e = size_e^exponent the cost. Of the experts S that `where` names, `what` changes the outputs:

- zero: E_e = 0 for e in S; with `renormalise` w_e = 0 instead, and the other weights are divided by their sum
- mean: E_e = its mean over donors, of episodes' means; with `by: subgoal` over their steps of the same subgoal
- resample: E_e = its value at a step of a donor, drawn among those of the same subgoal (of all, if none has it)
- skip: E_e(x) = x
- random_direction: y = y - norm(sum over S of w_e E_e(x)) u, u uniform on the sphere; the control of zero

or, of the layers that `where` names, the weights:

- clamp: w = `to`, see `targets`
- threshold: w_e = 0 where w_e < tau and e is not the argmax; with `renormalise`, here the default, w / sum(w)
- random_drop: as many as threshold removes, drawn among the experts but the argmax; its control
- temperature: w = softmax(z / temperature)
- dial: w_e proportional to w_e exp(-lambda c_e)

or neither:

- none: nothing; with `state: update` this is the sham
- swap_mission: the mission is that of another level of the donors, drawn for each episode
- project: of all GRU states before the step, the part in a subspace is what it is on average: h = h - B B'(h - mean);
  `subspace` names one of those that the donors hold

`state` says what becomes of the GRU states of S, of the routers of those layers (what changes weights), or of all that
`where` names (none): update (they go on as usual), freeze (the state before the step is carried on), zero (it is set to
zero before the step; with `when: always` no memory is left).

Donors are steps of other levels than those scored, where the bot acts; see `pipeline.replay`. What is drawn depends on
(`seed`, the intervention, level, step) alone, for swap_mission not on the step. docs/interventions.md has it all.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.command.errors import ConfigError
from pipeline.interventions.places import When, Where, choose, refuse
from pipeline.interventions.targets import OF_DONORS, Target, check_target, plain_target

ON_EXPERTS = ("zero", "mean", "resample", "skip", "random_direction")
"""What changes outputs of experts."""
ON_WEIGHTS = ("clamp", "threshold", "random_drop", "temperature", "dial")
"""What changes the weights of a layer's router."""
WHATS = ("none", *ON_EXPERTS, *ON_WEIGHTS, "swap_mission", "project")
STATES = ("update", "freeze", "zero")

_NUMBERS = {"threshold": "tau", "random_drop": "tau", "temperature": "temperature", "dial": "lambda"}
_RENORMALISE = ("zero", "threshold", "random_drop")
_SEEDED = ("resample", "random_direction", "random_drop", "swap_mission")
_TRANSPLANTS = {"subgoal": "transplant_own", "other": "transplant_other", "shuffled": "transplant_shuffled"}


@dataclass(frozen=True)
class Intervention:
    """One change of a policy's forward pass; the module says what each value means. Without arguments: the sham.

    Attributes:
        what: One of `WHATS`.
        where: Which experts, layers or routers.
        state: One of `STATES`.
        when: At which steps.
        renormalise: Whether weights sum to 1 again; None is the default of `what`.
        amount: tau in [0, 1], temperature > 0 or lambda >= 0; None for what has none.
        exponent: Of an expert's cost, for dial.
        to: For clamp: one of `TARGETS`, vectors of all layers, or those by subgoal.
        by: For mean: "subgoal" or None.
        subspace: For project: name of a subspace of the donors.
        seed: Of what is drawn.
        name: Free; by default what it is in a few words. No part of what is done.
        label: A kind of its own for tables, such as transplant_own; empty for the usual one.

    Raises:
        ConfigError: If a value is unknown, or does not go with `what`.
    """

    what: str = "none"
    where: Where = Where()  # noqa: RUF009 (frozen)
    state: str = "update"
    when: When = When()  # noqa: RUF009
    renormalise: bool | None = None
    amount: float | None = None
    exponent: float = 2.0
    to: Target | None = None
    by: str | None = None
    subspace: str | None = None
    seed: int = 0
    name: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        choose("what", self.what, WHATS)
        choose("state", self.state, STATES)
        wanted = _NUMBERS.get(self.what)
        if (self.amount is None) != (wanted is None):
            expected = "no number" if wanted is None else f"{wanted}, a number"
            refuse(f"intervention {self.what}", expected, self.amount)
        if wanted is not None:
            _check_amount(wanted, self.amount)
        if self.what not in _RENORMALISE and self.renormalise is not None:
            refuse("renormalise", f"none with {self.what} (it goes with {', '.join(_RENORMALISE)})", self.renormalise)
        if self.renormalise is None:
            object.__setattr__(self, "renormalise", self.what in ("threshold", "random_drop"))
        if self.what == "clamp":
            object.__setattr__(self, "to", check_target(self.to))
        elif self.to is not None:
            refuse("to", f"none with {self.what} (it goes with clamp)", self.to)
        if self.by not in (None, "subgoal") or (self.by and self.what != "mean"):
            refuse("by", "subgoal, with mean only", self.by)
        if (self.what == "project") != (isinstance(self.subspace, str) and bool(self.subspace)):
            refuse("subspace", "the name of one with project, none with anything else", self.subspace)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            refuse("seed", "an integer >= 0", self.seed)
        if self.seed and not self._is_seeded:
            refuse("seed", f"none with {self.what} (it goes with {', '.join(_SEEDED)}, clamp to shuffled)", self.seed)
        if self.exponent != 2.0 and self.what != "dial":
            refuse("exponent", f"none with {self.what} (it goes with dial)", self.exponent)
        self._check_where()
        if not self.name:
            object.__setattr__(self, "name", self._describe())

    def _check_where(self) -> None:
        where, what = self.where, self.what
        named = where.experts is not None or where.size is not None
        if what in ON_EXPERTS and where.routers:
            refuse("where", f"experts with {what}", "routers")
        if what in ON_WEIGHTS and named != (self.to == "one_hot"):
            expected = "one expert for each layer" if self.to == "one_hot" else "all, layers or routers"
            refuse("where", f"{expected} with {what}", where.to_plain())
        if self.to == "one_hot" and len({layer for layer, _ in where.experts or ()}) != len(where.experts or ()):
            refuse("where", "one expert for each layer with clamp to one_hot", where.to_plain())
        if what in ("swap_mission", "project") and (where != Where() or self.state != "update"):
            refuse("where and state", f"all and update with {what}", [where.to_plain(), self.state])

    @property
    def _is_seeded(self) -> bool:
        return self.what in _SEEDED or self.to == "shuffled"

    @property
    def is_sham(self) -> bool:
        """Whether nothing is changed."""
        return self.what == "none" and self.state == "update"

    @property
    def needs_donors(self) -> bool:
        """Whether steps of donors are needed."""
        return self.what in ("mean", "resample", "swap_mission", "project") or self.to in OF_DONORS

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Intervention:
        """Return what a mapping says, as a study's YAML has it; a missing key is the default.

        Keys are the attributes, but `tau`, `temperature` or `lambda` in place of `amount`.

        Raises:
            ConfigError: If a key is unknown or a value impossible.
        """
        if not isinstance(content, Mapping):
            refuse("intervention", "a mapping such as {what: zero, where: {size: 32}}", content)
        found = dict(content)
        known = {*cls.__dataclass_fields__, *_NUMBERS.values()} - {"amount"}
        if unknown := sorted(map(str, set(found) - known)):
            refuse("intervention", f"keys among {', '.join(sorted(known))}", ", ".join(unknown))
        what = found.get("what", "none")
        choose("what", what, WHATS)
        for name in {*_NUMBERS.values()} & set(found):
            if name != _NUMBERS.get(what):
                refuse(name, f"none with {what}", found[name])
            found["amount"] = found.pop(name)
        if "amount" not in found and what in _NUMBERS:
            refuse(f"intervention {what}", f"{_NUMBERS[what]}, a number", "none")
        for name in ("name", "label"):
            if not isinstance(found.get(name, ""), str):
                refuse(name, "text", found[name])
        if not isinstance(found.get("renormalise"), bool | None):
            refuse("renormalise", "true or false", found["renormalise"])
        _check_amount("exponent", found.get("exponent", 2.0))
        found["where"] = Where.parse(found.get("where", "all"))
        found["when"] = When.parse(found.get("when", "always"))
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain types, which `parse` takes back; what is not used is left out."""
        found: dict[str, Any] = {
            "name": self.name,
            "what": self.what,
            "where": self.where.to_plain(),
            "state": self.state,
            "when": self.when.to_plain(),
        }
        if self.what in _RENORMALISE:
            found["renormalise"] = self.renormalise
        if self.amount is not None:
            found[_NUMBERS[self.what]] = self.amount
        if self.what == "dial":
            found["exponent"] = self.exponent
        if self.to is not None:
            found["to"] = plain_target(self.to)
        if self.by is not None:
            found["by"] = self.by
        if self.subspace is not None:
            found["subspace"] = self.subspace
        if self._is_seeded:
            found["seed"] = self.seed
        if self.label:
            found["label"] = self.label
        return found

    @property
    def digest(self) -> str:
        """SHA-256 of what is done, hexadecimal; `name` and `label` are no part of it."""
        done = {key: value for key, value in self.to_dict().items() if key not in ("name", "label")}
        return hashlib.sha256(json.dumps(done, sort_keys=True).encode()).hexdigest()

    @property
    def kind(self) -> str:
        """What tables call it: `label`, or sham, knockout, zero_states, transplant_own and such, else `what`."""
        if self.label:
            return self.label
        if self.what == "none":
            return {"update": "sham", "zero": "zero_states", "freeze": "freeze_states"}[self.state]
        if self.what == "clamp" and self.to in _TRANSPLANTS:
            return _TRANSPLANTS[self.to]
        return "knockout" if self.what in ("zero", "mean", "resample", "skip") else self.what

    def _describe(self) -> str:
        parts = ["sham" if self.is_sham else self.what]
        if self.amount is not None:
            parts.append(f"{_NUMBERS[self.what]}={self.amount:g}")
        if self.to is not None:
            parts.append(f"to {self.to if isinstance(self.to, str) else self.digest[:8]}")
        parts += [f"by {self.by}"] if self.by else []
        parts += [self.subspace] if self.subspace else []
        parts += [self.where.describe(), self.when.describe()]
        if self.what in _RENORMALISE and self.renormalise != (self.what != "zero"):
            parts.append("renormalised" if self.renormalise else "not renormalised")
        parts.append("" if self.state == "update" else f"state {self.state}")
        parts.append(f"seed {self.seed}" if self.seed else "")
        return " ".join(part for part in parts if part)


def parse_interventions(content: Any) -> list[Intervention]:
    """Return the interventions of a list of mappings, of distinct names.

    Raises:
        ConfigError: If one cannot be read (the message says which) or names repeat.
    """
    if not isinstance(content, Sequence) or isinstance(content, str):
        refuse("interventions", "a list", content)
    found = []
    for number, entry in enumerate(content):
        try:
            found.append(entry if isinstance(entry, Intervention) else Intervention.parse(entry))
        except ConfigError as error:
            raise ConfigError(f"interventions[{number}]: {error}") from None
    names = [intervention.name for intervention in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"interventions: expected distinct names, found {', '.join(repeated)} more than once")
    return found


def _check_amount(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    low, high = {"tau": (0.0, 1.0)}.get(name, (0.0, math.inf))
    if not number or not low <= value <= high or (name == "temperature" and value == 0):
        expected = {"tau": "a number in [0, 1]", "temperature": "a number > 0"}.get(name, "a number >= 0")
        refuse(name, expected, value)
