"""Replay: every policy on the bot's trajectories, intact and under interventions."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from babyai.facts import EVENT_NAMES, NUM_ACTIONS, SUBGOAL_NAMES, SUCCESS
from babyai.level_seeds import SeedList
from babyai.missions import build_mission_encoder
from babyai.observations import OBSERVATION_DIM, encode_observations
from babyai.vector_env import VectorEnv
from mixture_of_experts import ENCODINGS
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig
from pipeline.evaluation.play import PlaySettings
from pipeline.interventions.catalogue import list_knockouts
from pipeline.interventions.spec import Intervention, parse_interventions
from pipeline.records.cache import read_cache, write_cache
from pipeline.records.effects import read_effects, write_effects
from pipeline.records.metrics import compute_metrics
from pipeline.replay.lanes import deal_episodes, deal_steps
from pipeline.replay.run import Intact, find_donors, intervene, replay
from pipeline.replay.tables import build_effect_table, build_tables, hash_observations
from pipeline.replay.trajectories import Trajectories, follow_expert
from pipeline.training.batch import ReplicaBatch
from tests.interventions import Scene, act_plainly, start_plain
from tests.policies import Widths, build_small_policy

TASK = "BabyAI-UnlockPickup-v0"
SIZES = [[0, 3, 6], [2, 0]]
ROWS = 16


def build_agents(kind: str = "moe", number: int = 2, obs_encoding: str = "raw") -> list:
    widths = Widths(OBSERVATION_DIM, 5, 8, 6, NUM_ACTIONS)
    encoder = build_mission_encoder("builtin")
    agents = []
    for seed in range(number):
        policy = build_small_policy(kind, SIZES, widths, seed, obs_encoding)
        agents.append((policy, encoder, torch.nn.Linear(encoder.width, 5)))
    return agents


@pytest.fixture(scope="module")
def agents() -> list:
    return build_agents()


@pytest.fixture(scope="module")
def way() -> Trajectories:
    return follow_expert(TASK, range(7))


@pytest.fixture(scope="module")
def intact(agents, way) -> Intact:
    return replay(agents, way, bank=True, rows=ROWS)


@pytest.fixture(scope="module")
def donors(agents):
    return find_donors(agents, follow_expert(TASK, range(100, 104)), rows=ROWS)


ITEMS = parse_interventions(
    [
        {},
        {"what": "zero", "where": {"size": 6}},
        {"what": "zero", "where": {"experts": [[1, 0]]}},
        {"what": "resample", "where": {"experts": [[0, 1]]}, "state": "freeze"},
        {"what": "mean", "by": "subgoal"},
        {"what": "random_direction", "where": {"layers": [1]}},
        {"what": "clamp", "to": "subgoal"},
        {"what": "dial", "lambda": 0.01},
        {"what": "none", "state": "zero"},
        {"what": "swap_mission"},
        {"what": "zero", "when": {"subgoal": "Open"}},
        {"what": "skip", "when": {"carrying": True}},
        {"what": "zero", "when": {"event": "picked", "steps": 3}, "state": "freeze", "name": "after the key"},
    ]
)


# -------------------------------------------------------------------------------------------------------- trajectories


def test_the_bot_solves_every_level_in_the_length_of_its_plan(way):
    assert way.level_seeds.tolist() == list(range(7))
    assert (way.outcomes == SUCCESS).all()
    np.testing.assert_array_equal(np.diff(way.begins), way.expert_steps)
    assert len(way) == way.begins[-1] == way.expert_steps.sum()
    for episode in range(7):
        rows = slice(way.begins[episode], way.begins[episode + 1])
        assert (way.episode[rows] == episode).all()
        np.testing.assert_array_equal(way.t_step[rows], np.arange(way.expert_steps[episode]))
    assert (way.unlabelled_episodes, way.unsolvable) == (0, ())


def test_the_columns_are_what_the_world_shows(way):
    env = VectorEnv(TASK, 1, SeedList([3]), plan_every=1, record=True)
    step = env.reset()
    for row in range(way.begins[3], way.begins[4]):
        for name in ("view", "direction", "carrying", "expert_action"):
            np.testing.assert_array_equal(way.steps[name][row], getattr(step, name)[0])
        for name in ("position", "door_unlocked", "subgoal", "walking", "straight"):
            np.testing.assert_array_equal(way.steps[name][row], getattr(step.facts, name)[0])
        assert way.missions[way.mission[3]] == env.missions[step.mission_id[0]]
        step = env.step(step.expert_action)
        assert way.steps["event"][row] == step.facts.event[0]
    assert step.ended[0].env_context == way.contexts[3]


def test_events_are_seen_from_the_step_after(way):
    picked = EVENT_NAMES.index("picked")
    rows = np.flatnonzero(way.steps["event"] == picked)
    assert len(rows)
    rows = rows[~np.isin(rows + 1, way.begins)]  # picking up the box ends a level
    assert len(rows)
    for row in rows:
        assert way.steps["since"][row + 1, picked] == 0
        assert way.steps["since"][row, picked] > 0


def test_trajectories_do_not_depend_on_how_many_are_played_together(way):
    other = follow_expert(TASK, range(7), num_envs=3)
    assert [other.missions[k] for k in other.mission] == [way.missions[k] for k in way.mission]
    np.testing.assert_array_equal(other.begins, way.begins)
    for name, values in way.steps.items():
        np.testing.assert_array_equal(other.steps[name], values, err_msg=name)


def test_levels_that_the_bot_cannot_solve_are_left_out_and_told():
    few = follow_expert("BabyAI-GoToImpUnlock-v0", [7, 6, 8, 14])
    assert few.level_seeds.tolist() == [7, 8]
    assert sorted(few.unsolvable) == [6, 14]
    with pytest.raises(ConfigError, match="expected levels that the bot solves, found none among 2"):
        follow_expert("BabyAI-GoToImpUnlock-v0", [6, 14])
    with pytest.raises(ConfigError, match="expected one or more distinct seeds, found 2 with 1 distinct"):
        follow_expert(TASK, [4, 4])


def test_an_episode_ends_where_the_bot_has_no_answer(monkeypatch):
    class Silent(VectorEnv):
        def step(self, actions):
            found = super().step(actions)
            for slot in np.flatnonzero(found.active & (self._rows["seed"] == 2) & (self._rows["taken"] == 4)):
                found.expert_valid[slot] = False
            return found

    monkeypatch.setattr("pipeline.replay.trajectories.VectorEnv", Silent)
    cut = follow_expert(TASK, range(4), num_envs=2)
    assert cut.unlabelled_episodes == 1
    lengths = np.diff(cut.begins)
    assert lengths[2] == 4
    assert (lengths[[0, 1, 3]] == cut.expert_steps[[0, 1, 3]]).all()


# --------------------------------------------------------------------------------------------------------------- lanes


def test_every_step_of_every_episode_is_dealt_once_under_every_condition_in_order():
    begins = np.array([0, 3, 3, 8, 9])
    seen: dict = {}
    running: dict = {}
    for lane in deal_episodes(begins, 3, 4):
        for row in np.flatnonzero(lane.active):
            key = (int(lane.condition[row]), int(lane.step[row]))
            assert key not in seen
            seen[key] = True
            if lane.start[row]:
                assert lane.step[row] in begins
            else:
                assert running[row] == (key[0], key[1] - 1)
            running[row] = key
    assert len(seen) == 3 * 9


def test_single_steps_are_dealt_once_each():
    starts = np.array([True, False, False, True, False])
    seen = []
    for lane in deal_steps(starts, 3, 4):
        assert len(lane.step) == 4
        np.testing.assert_array_equal(lane.start, starts[lane.step])
        seen += list(zip(lane.condition[lane.active].tolist(), lane.step[lane.active].tolist(), strict=True))
    assert sorted(seen) == [(condition, step) for condition in range(3) for step in range(5)]


# -------------------------------------------------------------------------------------------------------------- replay


def show(agents, way: Trajectories, p: int, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return observation and mission of one step, (1, width) each, float64."""
    shown = [way.steps[name][row : row + 1] for name in ("view", "direction", "carrying")]
    obs = torch.from_numpy(encode_observations(*shown)).double()
    _, encoder, projection = agents[p]
    sentence = encoder.encode([way.missions[way.mission[way.episode[row]]]]).double()
    weight, bias = projection.weight.double(), projection.bias.double()
    return obs, torch.nn.functional.linear(sentence, weight, bias)


def scene_of(way: Trajectories, row: int, donors) -> Scene:
    sentence = way.missions[way.mission[way.episode[row]]]
    return Scene(
        level_seed=int(way.level_seeds[way.episode[row]]),
        t_step=int(way.t_step[row]),
        subgoal=int(way.steps["subgoal"][row]),
        carrying=bool(way.steps["carrying"][row]),
        door_unlocked=int(way.steps["door_unlocked"][row]),
        since=tuple(way.steps["since"][row].tolist()),
        mission=donors.missions.index(sentence) if sentence in donors.missions else -1,
    )


@torch.no_grad()
def test_replay_is_the_policy_along_the_trajectory_under_every_intervention(agents, way, intact, donors):
    lasting = intervene(intact, ITEMS, donors=donors, keep_logits=True, keep_weights=True)
    single = intervene(intact, ITEMS, donors=donors, keep_logits=True, one_step=True)
    p, episode = 1, 4
    policy = intact.policies[p]
    for number, item in enumerate(ITEMS):
        hidden = plain = start_plain(policy)
        for row in range(way.begins[episode], way.begins[episode + 1]):
            obs, mission = show(agents, way, p, row)
            scene = scene_of(way, row, donors)
            logits, weights, hidden = act_plainly(policy, item, obs, mission, hidden, scene, donors, p)
            torch.testing.assert_close(lasting.logits[p, number, row], logits.float(), rtol=1e-5, atol=1e-5)
            for layer, expected in enumerate(weights):
                found = lasting.weights[layer][p, number, row]
                torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
            once, _, _ = act_plainly(policy, item, obs, mission, plain, scene, donors, p)
            torch.testing.assert_close(single.logits[p, number, row], once.float(), rtol=1e-5, atol=1e-5)
            _, _, plain = act_plainly(policy, Intervention(), obs, mission, plain, scene)


@pytest.mark.parametrize("one_step", [False, True])
def test_the_sham_is_intact_bit_for_bit_whatever_is_beside_it(intact, donors, one_step):
    effects = intervene(intact, ITEMS, one_step=one_step, donors=donors, keep_logits=True, keep_weights=True)
    assert torch.equal(effects.logits[:, 0], intact.logits)
    assert all(torch.equal(a[:, 0], b) for a, b in zip(effects.weights, intact.weights, strict=True))
    assert torch.equal(effects.lpc[:, 0], intact.lpc)
    assert (effects.kl[:, 0] == 0).all()
    assert (effects.kl[:, 1:].amax(dim=(0, 2)) > 0).all()  # of all others none is


@pytest.mark.parametrize("one_step", [False, True])
def test_what_is_found_does_not_depend_on_what_else_is_asked(agents, way, intact, donors, one_step):
    together = intervene(intact, ITEMS, one_step=one_step, donors=donors, keep_logits=True)
    for number in (1, 3, 5, 9):
        alone = intervene(intact, [ITEMS[number]], one_step=one_step, donors=donors, keep_logits=True)
        assert torch.equal(alone.logits[:, 0], together.logits[:, number])
        assert torch.equal(alone.kl[:, 0], together.kl[:, number])
    narrow = replay(agents, way, bank=True, rows=3)
    torch.testing.assert_close(narrow.logits, intact.logits, rtol=1e-6, atol=1e-6)
    fewer = intervene(narrow, ITEMS[:6], one_step=one_step, donors=donors, keep_logits=True)
    torch.testing.assert_close(fewer.logits, together.logits[:, :6], rtol=1e-6, atol=1e-6)


def test_at_an_episodes_first_step_one_step_and_lasting_are_one(way, intact, donors):
    first = way.t_step == 0
    lasting = intervene(intact, ITEMS, donors=donors, keep_logits=True)
    single = intervene(intact, ITEMS, donors=donors, keep_logits=True, one_step=True)
    assert torch.equal(lasting.logits[:, :, first], single.logits[:, :, first])
    later = torch.from_numpy(way.t_step > 2)
    assert not torch.equal(lasting.logits[:, 1, later], single.logits[:, 1, later])
    # The last layer's output reaches no state, so that an expert's silence there leaves no trace
    torch.testing.assert_close(lasting.logits[:, 2], single.logits[:, 2], rtol=1e-6, atol=1e-6)


def test_numbers_by_hand(way, intact):
    effects = intervene(intact, ITEMS[:2], keep_logits=True)
    row, action = 5, int(way.steps["expert_action"][5])
    before = np.exp(intact.logits[0, row].double().numpy())
    after = np.exp(effects.logits[0, 1, row].double().numpy())
    before, after = before / before.sum(), after / after.sum()
    assert effects.ce[0, 1, row] == pytest.approx(-np.log(after[action]), rel=1e-5)
    assert effects.kl[0, 1, row] == pytest.approx((before * np.log(before / after)).sum(), rel=1e-4)
    assert bool(effects.agree[0, 1, row]) == (after.argmax() == action)
    weights = [layer[0, row].double().numpy() for layer in intact.weights]
    assert intact.lpc[0, row] == pytest.approx(weights[0] @ [0, 9, 36] + weights[1] @ [4, 0], rel=1e-5)


def test_a_bank_is_needed_for_single_steps_and_donors_are_of_other_levels(agents, way, donors):
    bare = replay(agents, way, rows=ROWS)
    with pytest.raises(ValueError, match="bank=True"):
        intervene(bare, ITEMS[:1], one_step=True)
    same = find_donors(agents, way, rows=ROWS)
    with pytest.raises(ValueError, match="expected other levels than those scored, found 7 in both"):
        intervene(bare, ITEMS[:1], donors=same)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_donors_hold_what_each_expert_gives(encoding):
    agents, way = build_agents(obs_encoding=encoding), follow_expert(TASK, range(100, 104))
    donors = find_donors(agents, way, rows=ROWS)
    policy = replay(agents, way, rows=ROWS).policies[0]
    hidden = start_plain(policy)
    with torch.no_grad():
        for row in range(way.begins[1]):
            obs, mission = show(agents, way, 0, row)
            x = policy.input_projection(torch.cat([policy.encoder(obs), mission], dim=-1))
            states = [(h["router"][None], [state[None] for state in h["experts"]]) for h in hidden]
            _, after, info = policy(obs, mission, states, return_routing_info=True)
            hidden = [{"router": r[0], "experts": [state[0] for state in experts]} for r, experts in after]
            for layer in range(2):
                torch.testing.assert_close(donors.outputs[layer][0, row], info[f"layer_{layer}"]["expert_outputs"][0])
                torch.testing.assert_close(donors.weights[layer][0, row], info[f"layer_{layer}"]["router_weights"][0])
            torch.testing.assert_close(donors.outputs[0][0, row, 0], x[0])  # the skip expert's


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["mop", "gru"])
def test_policies_with_a_residual_and_baselines_too(way, kind, encoding):
    intact = replay(build_agents(kind, obs_encoding=encoding), way, bank=True, rows=ROWS)
    items = [Intervention(), Intervention(state="zero")]
    for one_step in (False, True):
        effects = intervene(intact, items, one_step=one_step)
        assert (effects.kl[:, 0] == 0).all() and (effects.kl[:, 1] > 0).any()
        assert effects.lpc.isnan().all() == (kind == "gru")


# -------------------------------------------------------------------------------------------------------------- tables


def test_a_run_on_replay_is_a_cache_like_any_other(intact, way, tmp_path):
    episodes, routing = build_tables(intact, 0)
    assert len(episodes) == 7 and len(routing) == len(way)
    header = {"checkpoint_path": "a", "evaluated_at": "2026-01-02T03:04:05+00:00", "source": "R"}
    metrics = compute_metrics(episodes, bot_plan_failures=0)
    write_cache(tmp_path / "r.json", header=header, metrics=metrics, episodes=episodes, routing=routing)
    cache = read_cache(tmp_path / "r.json")
    assert cache.header["source"] == "R"
    np.testing.assert_array_equal(cache.routing.expert_action, way.steps["expert_action"])
    np.testing.assert_array_equal(cache.routing.action, intact.logits[0].argmax(dim=-1).numpy())
    np.testing.assert_allclose(cache.routing.weights[0], intact.weights[0][0].numpy(), atol=1e-4)
    assert cache.episodes.agreed.sum() == (cache.routing.action == cache.routing.expert_action).sum()
    assert (cache.episodes.labelled == cache.episodes.steps).all()
    assert (cache.episodes.t_pick >= 0).sum() == len(np.unique(way.episode[way.steps["event"] == 1]))


def test_effects_are_means_over_episodes_and_over_subgoals(intact, way, donors, tmp_path):
    effects = intervene(intact, ITEMS[:3], donors=donors)
    table = build_effect_table(intact, effects, [{"seed": 0}, {"seed": 1}])
    frame = table.to_frame()
    whole = frame[frame.group == "all"]
    assert len(whole) == 2 * 3 * 7
    assert whole.steps.sum() == 2 * 3 * len(way)
    parts = frame[frame.group != "all"]
    summed = parts.groupby(["run", "level_seed", "condition"], observed=True).steps.sum()
    assert (summed == whole.set_index(["run", "level_seed", "condition"]).steps.loc[summed.index]).all()
    subgoal = int(way.steps["subgoal"][0])
    rows = np.flatnonzero((way.episode == 0) & (way.steps["subgoal"] == subgoal))
    mine = frame[(frame.run == 1) & (frame.level_seed == 0) & (frame.group == SUBGOAL_NAMES[subgoal])]
    one = mine[mine.condition == ITEMS[1].name].iloc[0]
    assert one.steps == len(rows)
    assert one.ce == pytest.approx(float(effects.ce[1, 1, rows].mean()), rel=1e-5)
    assert one.kl == pytest.approx(float(effects.kl[1, 1, rows].mean()), rel=1e-5)
    assert one.ce_intact == pytest.approx(float(effects.ce[1, 0, rows].mean()), rel=1e-5)
    assert one.agreement == pytest.approx(float(effects.agree[1, 1, rows].float().mean()))
    assert frame.success.isna().all()
    assert table.header["source"] == "R" and table.header["mode"] == "persistent"
    write_effects(tmp_path / "e.npz", table)
    assert read_effects(tmp_path / "e.npz").to_frame().equals(frame)
    with pytest.raises(ValueError, match="runs: expected 2"):
        build_effect_table(intact, effects, [{}])


def test_phases_are_groups_too(intact, way):
    effects = intervene(intact, ITEMS[:2])
    frame = build_effect_table(intact, effects, [{}, {}], by="phase").to_frame()
    assert set(frame.group) == {"all", "locked", "locked, carrying", "unlocked", "unlocked, carrying"}
    rows = np.flatnonzero((way.episode == 2) & (way.steps["door_unlocked"] == 0) & way.steps["carrying"])
    one = frame[(frame.run == 0) & (frame.level_seed == 2) & (frame.group == "locked, carrying")]
    one = one[one.condition == ITEMS[1].name].iloc[0]
    assert one.steps == len(rows) > 0
    assert one.kl == pytest.approx(float(effects.kl[0, 1, rows].mean()), rel=1e-5)


def test_a_grid_of_knock_outs_has_a_row_for_each(intact):
    items = [Intervention(), *list_knockouts(SIZES)]
    table = build_effect_table(intact, intervene(intact, items, one_step=True), [{}, {}])
    assert [c["kind"] for c in table.header["conditions"]] == ["sham", *["knockout"] * 5]
    assert table.header["mode"] == "one_step"
    assert PlaySettings().lpc_exponent == intact.lpc_exponent


def test_equal_observations_have_equal_numbers_and_others_have_not(way):
    numbers = hash_observations(way)
    shown = {}
    for row in range(len(way)):
        parts = [way.steps[name][row].tobytes() for name in ("view", "direction", "carrying")]
        shown.setdefault((*parts, way.missions[way.mission[way.episode[row]]]), set()).add(int(numbers[row]))
    assert all(len(found) == 1 for found in shown.values())
    assert len(np.unique(numbers)) == len(shown) > 20
    np.testing.assert_array_equal(hash_observations(follow_expert(TASK, range(7), num_envs=2)), numbers)


def test_the_page_s_example_runs(tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs" / "interventions.md").read_text(encoding="utf-8")
    example = text.partition("and on the policy's own\n\n")[2].partition("\n- **Replay**")[0]
    sizes = {"expert_hidden_sizes": [[0, 4]], "intermediate_dim": 8, "router_hidden_size": 8, "lang_dim": 8}
    config = TrainConfig(task_id=TASK, lang_encoder="builtin", device="cpu", num_envs=2, unroll_len=2, **sizes)
    ReplicaBatch([config], announce=lambda line: None).save(0, tmp_path / "checkpoint.pt")
    monkeypatch.chdir(tmp_path)
    program = textwrap.dedent(example).replace("150", "6").replace("100", "3")
    exec(program, {"paths": [tmp_path / "checkpoint.pt"]})
    replayed, own = (read_effects(name).to_frame() for name in ("effects.npz", "effects_own.npz"))
    assert (
        set(replayed.condition)
        == set(own.condition)
        == {"sham", *(f"{w} l0e{e}" for w in ("zero", "resample") for e in "01")}
    )
    assert len(own) == 5 * 3
