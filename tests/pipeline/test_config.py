"""The configuration: its ranges, its files and its identity."""

import dataclasses
import re
from pathlib import Path

import pytest

from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig, parse_expert_sizes

ROOT = Path(__file__).parents[2]
FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]


def message_of(action) -> str:
    with pytest.raises(ConfigError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *((name, 0, "at least 1") for name in "num_envs unroll_len num_updates input_dim lang_dim window".split()),
        *((name, 0, "at least 1") for name in "intermediate_dim router_hidden_size hidden_size log_interval".split()),
        *((name, -1, "0 or more") for name in "trial seed plan_every checkpoint_interval eval_episodes".split()),
        ("lpc_alpha", -1e-4, "0 or more"),
        ("lpc_alpha", float("inf"), "a finite number"),
        ("lpc_alpha", float("nan"), "0 or more"),
        ("lr", 0.0, "a positive number"),
        ("lr", float("nan"), "a positive number"),
        ("lr", float("inf"), "a positive number"),
        ("lpc_eps", 0.0, "a positive number"),
        ("lpc_exponent", -2.0, "a positive number"),
        ("grad_clip", 0.0, "a positive number or null"),
        ("max_steps", 0, "at least 1, or null"),
        ("expert_action_prob", 1.5, "a probability"),
        ("expert_dropout_beta", -0.1, "a probability"),
        ("solo_env_share", 1.0, "a share of the environments below 1"),
        ("expert_dropout_gamma", 0.0, "a weight above 0"),
        *((name, 2**63, "less than 2^63") for name in "seed num_envs hidden_size max_steps".split()),
        ("expert_hidden_sizes", [[0, 8], [0, 10**20]], "sizes less than 2^63"),
        ("expert_hidden_sizes", [[2**63]], "sizes less than 2^63"),
        ("device", "gpu", "auto, cpu, cuda or cuda:N"),
        ("device", "cuda:", "auto, cpu, cuda or cuda:N"),
        ("torch_threads", 0, "at least 1"),
        ("checkpoint_updates", [3, 0], "updates, 1 or more"),
    ],
)
def test_impossible_values_are_refused(key, value, expected):
    message = message_of(lambda: TrainConfig(**{key: value}))
    assert message.startswith(f"{key}: expected {expected}")
    assert message.endswith(f"found {value!r}")


def test_parsed_sizes_are_no_one_else_s_lists():
    """A shared default list, changed by one owner, would change every later configuration."""
    TrainConfig().expert_hidden_sizes[0].append(99)
    assert TrainConfig().expert_hidden_sizes == [[0, 16, 32]] * 3
    mine = [[1], [2]]
    parse_expert_sizes(mine)[0].append(3)
    assert mine == [[1], [2]]


def test_evaluations_on_the_way_need_levels():
    """Training broke off at the first one."""
    with pytest.raises(ConfigError, match=r"eval_episodes: expected at least 1 with an eval_interval .*, found 0"):
        TrainConfig(eval_interval=1, eval_episodes=0)
    assert TrainConfig(eval_interval=0, eval_episodes=0).eval_episodes == 0


def test_identity_keeps_what_decides_the_weights():
    config = TrainConfig()
    longer = dataclasses.replace(
        config, num_updates=9999, checkpoint_interval=1, checkpoint_updates=[3], log_dir="elsewhere", eval_interval=5
    )
    assert longer.identity() == config.identity()
    for name, value in {"lr": 0.5, "seed": 1, "plan_every": 3, "expert_dropout": True, "policy": "mop"}.items():
        assert dataclasses.replace(config, **{name: value}).identity() != config.identity()


def test_docstring_describes_every_field_once():
    """The help texts come from it."""
    described = re.findall(r"^        (\w+): ", TrainConfig.__doc__, re.MULTILINE)
    assert described == FIELDS


def test_config_yaml_names_every_field_with_a_comment():
    lines = (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines()
    commented = {}
    for above, line in zip(["", *lines], lines, strict=False):
        if match := re.match(r"(\w+):(.*)", line):
            commented[match[1]] = bool(re.search(r"\s#\s*\S", match[2])) or above.lstrip().startswith("#")
    assert sorted(commented) == sorted(FIELDS)
    assert [key for key, has_comment in commented.items() if not has_comment] == []
