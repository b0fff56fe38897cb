"""How each analysis is asked: which traces and which effects it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.command.errors import UserError
from science import inputs
from science.plan import Design, path_experts
from science.store import Item, Store

if TYPE_CHECKING:
    from pathlib import Path

    from science.effects import Effects
    from science.forced import Forced
    from science.fronts import FrontPoint
    from science.observations import Observations
    from science.result import Result, Row
    from science.states import States
    from science.traces import Run as TracedRun
    from science.traces import Traces
    from science.transfer import Learned


@dataclass(frozen=True)
class Given:
    """What an analysis may read.

    Attributes:
        design: Of the study.
        store: Of it.
        item: The analysis.
    """

    design: Design
    store: Store
    item: Item

    def traces(self, kind: str) -> Traces:
        """Return traces of replay or of own play (played), of all runs there are.

        Raises:
            UserError: If there are none.
        """
        names = [n for n in self.item.needs if n.startswith(f"{kind}/") and not n.endswith(f"/{inputs.UNTRAINED}")]
        found = inputs.read_all(self.store, names)
        if found is None:
            raise UserError(f"expected traces of {kind}, found none: see what failed before")
        return found

    def untrained(self) -> Traces | None:
        """Return traces of policies before training."""
        return inputs.read_all(self.store, [n for n in self.item.needs if n.endswith(f"/{inputs.UNTRAINED}")])

    def effects(self, family: str, source: str) -> Effects | None:
        """Return the effects of a family of interventions, None if none was made."""
        from science.effects import Effects, read_effects

        names = [name for name in self.item.needs if name.startswith(f"intervene/{family}/{source}/")]
        tables = [read_effects(path) for name in names for path in self.store.files(name)]
        return Effects.concatenate(tables) if tables else None

    def observed(self) -> dict[str, Observations]:
        """Return what the replayed steps of each task show."""
        from science.observations import read_observations

        names = [name for name in self.item.needs if name.startswith("observe/")]
        return {name.partition("/")[2]: read_observations(path) for name in names for path in self.store.files(name)}

    def forced(self) -> list[Forced]:
        """Return what single paths would do, of each task and setting.

        Raises:
            UserError: If there is none.
        """
        from science.forced import read_forced

        return self._read_each("force/", read_forced, "policies with every path forced")

    def steps_to_learn(self) -> tuple[dict[str, float], list[str]]:
        """Return log env-steps that dense networks need to learn each task, infinity: they do not; none untried.

        And the tasks on which most were there as soon as it could be told.
        """
        from science.difficulty import rank_learning
        from science.learning import find_learned, find_whole

        found: dict[str, list[tuple[float, bool]]] = {}
        for run in self.design.learners:
            if (stamp := self.store.read(f"train/{run.name}")) is not None:
                enough = self.design.config.difficulty_baselines.success
                about = {"whole": find_whole(run.config), "window": run.config.window}
                found.setdefault(run.task, []).append(find_learned(stamp.notes["learning"], enough, **about))
        soonest = [task for task, each in found.items() if 2 * sum(early for _, early in each) > len(each)]
        return rank_learning({task: [steps for steps, _ in each] for task, each in found.items()}), soonest

    def grown(self) -> Iterator[tuple[Traces, Effects | None, Effects | None]]:
        """Yield of each task and setting what runs did while they trained: replay, own play, knock-outs.

        Raises:
            UserError: If there is nothing.
        """
        from science.effects import read_effects

        nothing = True
        for name in (n for n in self.item.needs if n.startswith("grown/replay/")):
            traces = inputs.read_all(self.store, [name])
            if traces is not None:
                nothing = False
                files = [self.store.files(name.replace("/replay/", f"/{kind}/")) for kind in ("played", "knockouts")]
                played, knockouts = (read_effects(paths[0]) if paths else None for paths in files)
                yield traces, played, knockouts
        if nothing:
            raise UserError("expected replays of checkpoints on the way, found none: see what failed before")

    def learned(self) -> list[Learned]:
        """Return how long policies took to learn new levels.

        Raises:
            UserError: If none was trained.
        """
        from science.adapting import list_learned

        found = list(list_learned(self.design, self.store))
        if not found:
            raise UserError("expected runs that learn new levels, found none: see what failed before")
        return found

    def states(self) -> list[States]:
        """Return the states of each task and setting.

        Raises:
            UserError: If there are none.
        """
        from science.states import read_states

        return self._read_each("states/", read_states, "states of some run")

    def _read_each(self, stage: str, read: Callable[[Path], Any], what: str) -> list[Any]:
        names = [name for name in self.item.needs if name.startswith(stage)]
        found = [read(path) for name in names for path in self.store.files(name)]
        if not found:
            raise UserError(f"expected {what}, found none: see what failed before")
        return found

    @property
    def drawn(self) -> dict[str, int]:
        """Draws and seed."""
        return {"draws": self.design.config.statistics.draws, "seed": self.design.config.statistics.seed}


def answer(name: str, design: Design, store: Store, item: Item) -> Result:
    """Return what an analysis finds.

    Raises:
        UserError: If there is nothing that it could read.
    """
    return _ASKED[name](Given(design, store, item))


def _pathways(given: Given) -> Result:
    from science import pathways

    return pathways.compute(
        given.traces("replay"), effects=given.effects("transplants", "R"), untrained=given.untrained(), **given.drawn
    )


def _distinctness(given: Given) -> Result:
    from science import distinctness

    return distinctness.compute(given.traces("replay"), effects=given.effects("knockouts", "R"), **given.drawn)


def _sufficiency(given: Given) -> Result:
    from science import sufficiency

    effects = given.effects("thresholds", "P")
    if effects is None:
        raise UserError("expected effects of thresholds, found none: see what failed before")
    return sufficiency.compute(effects)


def _knockouts(given: Given) -> Result:
    from science import knockouts

    parts = []
    for source, kind in (("R", "replay"), ("P", "played")):
        effects = given.effects("knockouts", source)
        if effects is not None:
            parts.append(knockouts.compute(effects, given.traces(kind)))
    if not parts:
        raise UserError("expected effects of knock-outs, found none: see what failed before")
    return add_rows(join(parts), list_usage("knockouts", given.traces("replay")))


def _price(given: Given) -> Result:
    from science import price

    played, knockouts, dial = given.traces("played"), given.effects("knockouts", "R"), given.effects("dial", "P")
    parts = []
    for task in dict.fromkeys(run.task for run in played.runs):
        traces = played.select([i for i, run in enumerate(played.runs) if run.task == task])
        dense = list_baselines(given, task)
        parts.append(price.compute(traces, effects=_of_task(knockouts, task), baselines=dense, **given.drawn))
        if (turned := _of_task(dial, task)) is not None:
            # Effects of one table are of one source: knock-outs on replay, the dial on own play.
            # Baselines too, though their rows are not kept: all hypervolumes of a task are of one box.
            rows = price.compute(traces, effects=turned, baselines=dense, draws=1).rows
            parts.append(replace(parts[-1], rows=tuple(row for row in rows if row.quantity == "dial_gap")))
            parts[-1] = add_rows(parts[-1], list_turned(turned))
        parts[0] = add_rows(parts[0], [row for point in dense for row in describe_baseline(task, point)])
    return add_rows(join(parts), list_usage("price", played))


def _of_task(effects: Effects | None, task: str) -> Effects | None:
    if effects is None:
        return None
    runs = [index for index, run in enumerate(effects.runs) if run.task == task]
    return effects.select(runs) if runs else None


def list_baselines(given: Given, task: str) -> list[FrontPoint]:
    """Return success and cost of a task's dense baselines: the LPC of the path each is matched with."""
    from science.fronts import FrontPoint

    points = []
    for run in given.design.runs:
        stamp = given.store.read(f"evaluate/{run.name}")
        if run.alpha is None and run.task == task and stamp is not None:
            layers = run.config.expert_hidden_sizes
            chosen = zip(layers, path_experts(layers, run.setting.partition("=")[2]), strict=True)
            cost = sum(float(sizes[expert]) ** run.config.lpc_exponent for sizes, expert in chosen if sizes[expert])
            points.append(FrontPoint(run.seed, cost, stamp.notes["success"], run.setting))
    return points


def _complexity(given: Given) -> Result:
    from science import complexity

    return complexity.compute(
        given.traces("replay"), effects=given.effects("inputs", "R"), observed=given.observed(), **given.drawn
    )


def _needed(given: Given) -> Result:
    from science import needed

    return needed.compute(given.forced(), held_out=given.design.held_out, **given.drawn)


def _shapley(given: Given) -> Result:
    from science import shapley

    effects = given.effects("coalitions", "R")
    if effects is None:
        raise UserError("expected effects of coalitions of experts, found none: see what failed before")
    return shapley.compute(effects, given.traces("replay"), **given.drawn)


def _difficulty(given: Given) -> Result:
    from science import difficulty

    steps_to_learn, soonest = given.steps_to_learn()
    return difficulty.compute(
        given.traces("replay"),
        played=given.traces("played"),
        effects=given.effects("lesions", "R"),
        untrained=given.untrained(),
        steps_to_learn=steps_to_learn,
        soonest=soonest,
        held_out=given.design.held_out,
        **given.drawn,
    )


def _similarity(given: Given) -> Result:
    from science import similarity

    return similarity.compute(
        given.traces("replay"),
        played=given.traces("played"),
        effects=given.effects("knockouts", "R"),
        untrained=given.untrained(),
        held_out=given.design.held_out,
        **given.drawn,
    )


def _transfer(given: Given) -> Result:
    from science import transfer

    first = given.design.adapted[0].config
    budget = float(first.num_updates * first.num_envs * first.unroll_len)
    return transfer.compute(given.learned(), budget=budget, success=given.design.config.transfer.success)


def _dynamics(given: Given) -> Result:
    from science import dynamics

    return join(
        [
            dynamics.compute(traces, played=played, effects=knockouts, **given.drawn)
            for traces, played, knockouts in given.grown()
        ]
    )


def _probes(given: Given) -> Result:
    from science import probes

    return probes.compute(given.states(), effects=given.effects("erasures", "R"), seed=given.drawn["seed"])


def list_usage(analysis: str, traces: Traces) -> list[Row]:
    """Return each expert's usage in each run, its mean weight: the map that knock-outs are held against."""
    import numpy as np

    from science.result import Row
    from science.traces import group_means

    means, episodes = group_means(traces, np.zeros(len(traces.episode), np.int32), 1)
    rows = []
    for place, run in enumerate(traces.runs):
        for layer, expert in np.argwhere(traces.experts).tolist():
            about = {**_name_run(run), "layer": layer, "expert": expert, "n_episodes": int(episodes[place, 0])}
            rows.append(Row(analysis, "usage", value=float(means[place, 0, layer, expert]), n_runs=1, **about))
    return rows


def list_turned(effects: Effects) -> list[Row]:
    """Return success and LPC of each run at each strength of the dial."""
    import numpy as np

    from science.result import Row

    rows = []
    for dial in effects.of_kind("dial"):
        for quantity, column in (("dial_lpc", effects.lpc), ("dial_success", effects.success)):
            values = effects.per_run(np.asarray(column, np.float64), dial)
            for run, value in zip(effects.runs, values, strict=True):
                about = {**_name_run(run), "condition": effects.conditions[dial].name}
                rows.append(Row("price", quantity, value=float(value), n_runs=int(np.isfinite(value)), **about))
    return rows


def describe_baseline(task: str, point: FrontPoint) -> list[Row]:
    """Return success and LPC of a dense baseline."""
    from science.result import Row

    about = {"task": task, "setting": point.setting, "seed": point.seed, "n_runs": 1}
    return [
        Row("price", "baseline_lpc", value=point.lpc, **about),
        Row("price", "baseline_success", value=point.success, **about),
    ]


def _name_run(run: TracedRun) -> dict[str, Any]:
    return {name: getattr(run, name) for name in ("task", "setting", "trial", "seed", "update")}


def add_rows(result: Result, rows: list[Row]) -> Result:
    """Return a result with more rows."""
    return replace(result, rows=result.rows + tuple(rows))


def join(parts: list[Result]) -> Result:
    """Return results of one analysis as one; notes and dropped runs once."""
    return replace(
        parts[0],
        rows=tuple(row for part in parts for row in part.rows),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        dropped=tuple(dict.fromkeys(entry for part in parts for entry in part.dropped)),
    )


_ASKED: Mapping[str, Callable[[Given], Result]] = {
    "pathways": _pathways,
    "distinctness": _distinctness,
    "sufficiency": _sufficiency,
    "knockouts": _knockouts,
    "price": _price,
    "complexity": _complexity,
    "needed": _needed,
    "shapley": _shapley,
    "difficulty": _difficulty,
    "similarity": _similarity,
    "transfer": _transfer,
    "dynamics": _dynamics,
    "probes": _probes,
}
