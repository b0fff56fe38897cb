"""Where an intervention acts, and when: values that read and write themselves as a study's YAML has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from babyai.facts import EVENT_NAMES, SUBGOAL_NAMES
from pipeline.command.errors import ConfigError


@dataclass(frozen=True)
class Where:
    """Which experts, layers or routers: `all`, `routers`, or a mapping of these keys.

    Attributes:
        layers: Numbers of layers, from 0; None is every layer.
        experts: Pairs (layer, expert), from 0; None is every expert.
        size: Experts of this hidden size only; 0 are the skip experts.
        routers: The routers, and no expert.

    Raises:
        ConfigError: If keys do not go together or a number is impossible.
    """

    layers: tuple[int, ...] | None = None
    experts: tuple[tuple[int, int], ...] | None = None
    size: int | None = None
    routers: bool = False

    def __post_init__(self) -> None:
        layers, experts = self.layers, self.experts
        if layers is not None and (not layers or not all(map(_is_count, layers))):
            refuse("where: layers", "numbers of layers, from 0", list(layers))
        if experts is not None and (
            not experts or not all(len(pair) == 2 and all(map(_is_count, pair)) for pair in experts)
        ):
            refuse("where: experts", "pairs [layer, expert], from 0", [list(pair) for pair in experts])
        if self.size is not None and not _is_count(self.size):
            refuse("where: size", "the hidden size of an expert, an integer >= 0", self.size)
        if (experts is not None) + (self.size is not None) + self.routers > 1 or (experts and layers):
            refuse("where", "experts, size (of layers), routers (of layers) or layers", self.to_plain())

    @classmethod
    def parse(cls, content: Any) -> Where:
        """Return what `all`, `routers` or a mapping says.

        Raises:
            ConfigError: If it says something else.
        """
        if isinstance(content, Where):
            return content
        if content in ("all", "routers"):
            return cls(routers=content == "routers")
        if not isinstance(content, Mapping) or set(content) - {"layers", "experts", "size", "routers"}:
            refuse("where", "all, routers, or a mapping with layers, experts, size or routers", content)
        found = dict(content)
        for name in {"layers", "experts"} & set(found):
            entries = found[name]
            if not isinstance(entries, Sequence) or isinstance(entries, str):
                refuse(f"where: {name}", "a list", entries)
            try:
                found[name] = tuple(sorted({tuple(entry) if name == "experts" else entry for entry in entries}))
            except TypeError:
                wanted = "pairs [layer, expert], from 0" if name == "experts" else "numbers of layers, from 0"
                refuse(f"where: {name}", wanted, list(entries))
        if not isinstance(found.get("routers", False), bool):
            refuse("where: routers", "true or false", found["routers"])
        return cls(**found)

    def to_plain(self) -> Any:
        """Return it in plain types, which `parse` takes back."""
        if self == Where():
            return "all"
        if self == Where(routers=True):
            return "routers"
        found: dict[str, Any] = {}
        if self.layers is not None:
            found["layers"] = list(self.layers)
        if self.experts is not None:
            found["experts"] = [list(pair) for pair in self.experts]
        if self.size is not None:
            found["size"] = self.size
        return found | ({"routers": True} if self.routers else {})

    def describe(self) -> str:
        """Return it in a few words, empty for all."""
        parts = []
        if self.experts is not None:
            parts.append("+".join(f"l{layer}e{expert}" for layer, expert in self.experts))
        parts += ["routers"] if self.routers else []
        parts += [] if self.size is None else [f"size {self.size}"]
        parts += [] if self.layers is None else ["layers " + "+".join(map(str, self.layers))]
        return " ".join(parts)

    def find_layers(self, sizes: Sequence[Sequence[int]]) -> list[bool]:
        """Return which layers are meant, of a policy with these expert sizes.

        Raises:
            ConfigError: If it has no such layer.
        """
        layers = self.layers if self.experts is None else {layer for layer, _ in self.experts}
        beyond = [layer for layer in layers or () if layer >= len(sizes)]
        if beyond:
            refuse("where", f"layers below {len(sizes)}, as many as the policy has", beyond[0])
        return [layers is None or layer in layers for layer in range(len(sizes))]

    def find_experts(self, sizes: Sequence[Sequence[int]]) -> list[list[bool]]:
        """Return which experts of each layer are meant, none where routers are.

        Raises:
            ConfigError: If the policy has no such layer or expert, or none of that size.
        """
        layers = self.find_layers(sizes)
        for layer, expert in self.experts or ():
            if expert >= len(sizes[layer]):
                refuse("where", f"experts of layer {layer} below {len(sizes[layer])}", expert)

        def is_meant(layer: int, expert: int) -> bool:
            named = self.experts is None or (layer, expert) in self.experts
            return layers[layer] and named and not self.routers and self.size in (None, sizes[layer][expert])

        found = [[is_meant(layer, expert) for expert in range(len(row))] for layer, row in enumerate(sizes)]
        if self.size is not None and not any(map(any, found)):
            refuse("where: size", f"a size among {sorted({size for row in sizes for size in row})}", self.size)
        return found


@dataclass(frozen=True)
class When:
    """At which steps: `always`, or a mapping; if it has several keys, all must hold.

    Attributes:
        subgoal: While the bot is after this, one of `babyai.facts.SUBGOAL_NAMES`.
        carrying: While something is carried, or while not.
        door_unlocked: While a door that was locked at the start is unlocked, or while all still are locked.
        event: After this has happened, one of `babyai.facts.EVENT_NAMES`; with `steps`.
        steps: How many steps after the last such event, the first being the one that sees it.
        step: One step of the episode, from 0.

    Phases of a level are `carrying` and `door_unlocked`.

    Raises:
        ConfigError: If a value is unknown.
    """

    subgoal: str | None = None
    carrying: bool | None = None
    door_unlocked: bool | None = None
    event: str | None = None
    steps: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        events = EVENT_NAMES[1:]
        if self.subgoal is not None and self.subgoal not in SUBGOAL_NAMES:
            refuse("when: subgoal", f"one of {', '.join(SUBGOAL_NAMES)}", self.subgoal)
        if self.event is not None and self.event not in events:
            refuse("when: event", f"one of {', '.join(events)}", self.event)
        if (self.event is None) != (self.steps is None):
            refuse("when", "event and steps together", self.to_plain())
        if self.steps is not None and (not _is_count(self.steps) or self.steps < 1):
            refuse("when: steps", "an integer >= 1", self.steps)
        if self.step is not None and not _is_count(self.step):
            refuse("when: step", "an integer >= 0", self.step)
        for name in ("carrying", "door_unlocked"):
            if not isinstance(getattr(self, name), bool | None):
                refuse(f"when: {name}", "true or false", getattr(self, name))

    @classmethod
    def parse(cls, content: Any) -> When:
        """Return what `always` or a mapping says.

        Raises:
            ConfigError: If it says something else.
        """
        if isinstance(content, When):
            return content
        if content == "always":
            return cls()
        known = list(cls.__dataclass_fields__)
        if not isinstance(content, Mapping) or set(content) - set(known):
            refuse("when", f"always, or a mapping with {', '.join(known)}", content)
        return cls(**content)

    def to_plain(self) -> Any:
        """Return it in plain types, which `parse` takes back."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in found.items() if value is not None} or "always"

    def describe(self) -> str:
        """Return it in a few words, empty for always."""
        plain = self.to_plain()
        return "" if plain == "always" else "when " + ", ".join(f"{name} {value}" for name, value in plain.items())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def refuse(name: str, expected: str, found: Any) -> NoReturn:
    """Raise the error that says what was expected under a name and what was found."""
    raise ConfigError(f"{name}: expected {expected}, found {found!r}")


def choose(name: str, value: Any, known: Sequence[str]) -> None:
    """Raise the error that says which values are known, if this is none."""
    if value not in known:
        refuse(name, f"one of {', '.join(known)}", value)
