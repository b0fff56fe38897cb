"""The episodes that can be filmed: one that a checkpoint plays now, one of a cache, one that the bot plays.

    film = film_cached(read_cache(path), episode=7)
    film = film_bot("UnlockPickup", level_seed=3)

`film.make.make_film` writes them. Only `film_checkpoint` needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from babyai.facts import ACTION_NAMES, DIRECTION_NAMES, EVENT_NAMES, OBJECT_NAMES, OUTCOME_NAMES, SUBGOAL_NAMES
from babyai.level_seeds import EVALUATION_SEED, SeedList, evaluation_seeds
from babyai.levels import resolve_task_id
from babyai.render import replay
from pipeline.command.errors import MISTAKES, UserError
from pipeline.records.cache import Cache, played_level
from pipeline.records.tables import EpisodeTable, RoutingTable


class FilmError(UserError, ValueError):
    """There is no such episode to film; the message says what was expected and what to do."""


@dataclass(frozen=True, eq=False)
class FilmEpisode:
    """An episode of T steps, as a film shows it.

    Attributes:
        task_id: Full id.
        level_seed: Of the level.
        max_steps: Step limit it was played with; None for the level's own.
        mission: The instruction.
        outcome: success, failure, timeout, or what else ended it.
        player: Who played, in a few words.
        actions: int (T,), taken.
        expert_actions: int (T,), what the expert would have done; -1 not known.
        subgoals: T names of what the expert is after, "" where it is not known.
        events: (step, text) of what an action brought about, by step.
        weights: Per layer float (T, E), the routing weights; empty without routers.
        expert_sizes: Hidden size of each expert, per layer.
        lpc: float (T,); NaN without routers.
        lpc_exponent: Power of its size that an expert costs in `lpc`.
    """

    task_id: str
    level_seed: int
    max_steps: int | None
    mission: str
    outcome: str
    player: str
    actions: np.ndarray
    expert_actions: np.ndarray
    subgoals: tuple[str, ...]
    events: tuple[tuple[int, str], ...] = ()
    weights: tuple[np.ndarray, ...] = ()
    expert_sizes: tuple[tuple[int, ...], ...] = ()
    lpc: np.ndarray | None = None
    lpc_exponent: float = 2.0

    def __len__(self) -> int:
        """Return the number of steps, T."""
        return len(self.actions)


def film_checkpoint(
    path: str | Path,
    task_id: str | None = None,
    level_seed: int | None = None,
    *,
    max_steps: int | None = None,
    lang_encoder: str | None = None,
) -> FilmEpisode:
    """Let a checkpoint play a level, and return the episode.

    Args:
        path: A `.pt` file.
        task_id: Another task than the one it was trained on.
        level_seed: The level; None for the first that is evaluated.
        max_steps: Step limit; None takes what the checkpoint was trained with.
        lang_encoder: See `pipeline.evaluation.checkpoint.load_checkpoint`.

    Raises:
        FilmError: If the checkpoint cannot be used, or the expert cannot solve the level, which evaluation leaves out.
    """
    from pipeline.evaluation.checkpoint import load_checkpoint
    from pipeline.evaluation.play import evaluate

    seed = evaluation_seeds(EVALUATION_SEED, 1)[0] if level_seed is None else level_seed
    try:
        loaded = load_checkpoint(path, lang_encoder=lang_encoder)
        config = loaded.config
        task_id = resolve_task_id(task_id or config.task_id)
        limit = config.max_steps if max_steps is None else max_steps
        found = evaluate(
            *loaded.agent(task_id),
            task_id,
            [seed],
            max_steps=limit,
            lpc_exponent=config.lpc_exponent,
        )
    except MISTAKES as error:
        raise FilmError(str(error)) from error
    if found.routing is None:
        raise FilmError(f"{task_id}, level seed {seed}: expected a level that the bot can solve; choose another seed")
    player = f"{config.policy} after {loaded.update} updates"
    return _from_tables(task_id, limit, player, found.episodes, 0, found.routing)


def film_cached(cache: Cache, episode: int, task_id: str | None = None) -> FilmEpisode:
    """Return an episode of a cache. The level is made again and the stored actions are taken: torch is not needed.

    Args:
        cache: From `read_cache`.
        episode: Row of its episodes.
        task_id: Needed only where the cache does not tell.

    Raises:
        FilmError: If the episode is not in the cache or not recorded well enough, or if the actions do not lead where
            the cache says the agent was.
    """
    where = f"{cache.path}, episode {episode}"
    count = len(cache.episodes)
    if not 0 <= episode < count:
        raise FilmError(f"{cache.path}: expected an episode from 0 to {count - 1}, found {episode}")
    told = played_level(cache.header)
    if told is None and task_id is None:
        raise FilmError(f"{cache.path}: does not tell its task; give --task_id")
    if not isinstance(told, str | None):
        raise FilmError(f"{cache.path}: task_id: expected a text, found {str(told)[:60]!r}; evaluate again")
    if told is not None and task_id is not None and resolve_task_id(task_id) != told:
        raise FilmError(f"{cache.path}: holds episodes of {told}, found --task_id {task_id}; leave it out")
    task_id = resolve_task_id(told or task_id)
    table, seed = cache.routing, int(cache.episodes.level_seed[episode])
    if table is None or cache.layouts_only or seed < 0:
        raise FilmError(f"{where}: expected level seed and steps, found a cache that holds none; evaluate again")
    rows = table.select(table.episode == episode)
    if not len(rows) or (rows.action < 0).any() or (rows.t_step != np.arange(len(rows))).any():
        raise FilmError(f"{where}: expected all its steps with the actions taken, found none or gaps; evaluate again")
    limit = cache.header.get("max_steps")
    config, update = cache.header.get("config"), cache.header.get("update")
    policy = config.get("policy", "policy") if isinstance(config, dict) else "policy"
    player = f"{policy}{'' if update is None else f' after {update} updates'}"[:60]
    film = _from_tables(task_id, limit, player, cache.episodes, episode, rows)
    _check_replay(where, film, rows, int(cache.episodes.outcome[episode]))
    return film


def film_bot(task_id: str, level_seed: int | None = None, *, max_steps: int | None = None) -> FilmEpisode:
    """Let the bot play a level, to the end or until it gives up, and return the episode.

    Raises:
        FilmError: If there is no such level, or the bot has no idea how to begin.
        UnknownTaskError: If there is no such task.
    """
    from babyai.vector_env import VectorEnv  # takes a while to import, and the other films need none

    task_id = resolve_task_id(task_id)
    seed = evaluation_seeds(EVALUATION_SEED, 1)[0] if level_seed is None else level_seed
    env = VectorEnv(task_id, 1, SeedList([seed]), max_steps=max_steps, record=True)
    step = env.reset()
    if not step.active[0]:
        raise FilmError(f"{task_id}, level seed {seed}: expected a level that the bot can play; choose another seed")
    mission, outcome = env.missions[0], "the bot gave up"
    actions, subgoals, events = [], [], []
    while step.active[0] and step.expert_valid[0]:
        actions.append(int(step.expert_action[0]))
        subgoals.append(SUBGOAL_NAMES[step.facts.subgoal[0]])
        step = env.step(step.expert_action)
        if step.facts.event[0]:
            text = _describe_event(EVENT_NAMES[step.facts.event[0]], OBJECT_NAMES[step.facts.event_object[0]])
            events.append((len(actions) - 1, text))
        if step.ended:
            outcome = OUTCOME_NAMES[int(step.ended[0].outcome)]
    env.close()
    return FilmEpisode(
        task_id=task_id,
        level_seed=seed,
        max_steps=max_steps,
        mission=mission,
        outcome=outcome,
        player="the bot",
        actions=np.array(actions),
        expert_actions=np.array(actions),
        subgoals=tuple(subgoals),
        events=tuple(events),
    )


def _from_tables(
    task_id: str, max_steps: int | None, player: str, episodes: EpisodeTable, episode: int, rows: RoutingTable
) -> FilmEpisode:
    subgoals = tuple(rows.subgoal_names[code] if code >= 0 else "" for code in rows.subgoal.tolist())
    events = []
    for step in np.flatnonzero(rows.event > 0).tolist():
        thing = int(rows.event_object[step])
        name = rows.event_names[rows.event[step]]
        events.append((step, _describe_event(name, rows.object_names[thing] if thing >= 0 else "")))
    return FilmEpisode(
        task_id=task_id,
        level_seed=int(episodes.level_seed[episode]),
        max_steps=max_steps,
        mission=episodes.mission[episode],
        outcome=OUTCOME_NAMES.get(int(episodes.outcome[episode]), "unknown outcome"),
        player=player,
        actions=rows.action.astype(int),
        expert_actions=np.where(rows.expert_action < len(ACTION_NAMES), rows.expert_action, -1),
        subgoals=subgoals,
        events=tuple(events),
        weights=rows.weights,
        expert_sizes=tuple(tuple(layer) for layer in rows.expert_hidden_sizes),
        lpc=rows.lpc,
        lpc_exponent=rows.lpc_exponent,
    )


def _describe_event(name: str, thing: str) -> str:
    return "opened box" if name == "box_opened" else f"{name} {thing}".strip()


def _check_replay(where: str, film: FilmEpisode, rows: RoutingTable, outcome: int) -> None:
    """Refuse an episode whose actions do not lead where the table says."""
    advice = "the file was changed, or made with another version of minigrid; evaluate again"
    try:
        found = replay(film.task_id, film.level_seed, film.actions, max_steps=film.max_steps)
    except ValueError as error:  # the task, the step limit or an action is impossible
        raise FilmError(f"{where}: {error}; {advice}") from None
    if film.mission and found.mission != film.mission:
        raise FilmError(f"{where}: expected the mission {film.mission!r}, found {found.mission!r}; {advice}")
    astray = (found.position[:-1] != rows.position).any(axis=1)
    if "direction" not in rows.unknown:
        astray |= found.direction[:-1] != rows.direction
    if astray.any():
        step = int(astray.argmax())
        facing = (*DIRECTION_NAMES, "anywhere")  # -1 is the last
        stored, led = (f"{r.position[step].tolist()} facing {facing[r.direction[step]]}" for r in (rows, found))
        raise FilmError(
            f"{where}, step {step}: expected the agent at {stored}, the stored actions lead to {led}; {advice}"
        )
    if outcome > 0 and found.outcome != outcome:
        ends = OUTCOME_NAMES.get(found.outcome, "running")
        raise FilmError(f"{where}: expected {film.outcome} after the last action, found {ends}; {advice}")
