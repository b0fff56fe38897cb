"""Command lines: who wins, which spellings work, and what an error says."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.config import TrainConfig, resolved_yaml

ROOT = Path(__file__).parents[3]
FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]


@pytest.fixture
def from_yaml(tmp_path):
    """Return a function that parses YAML text together with flags."""

    def parse(text: str, *flags: str) -> TrainConfig:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return parse_command("test", TrainConfig, ["--config", str(path), *flags])[0]

    return parse


def from_flags(*flags: str) -> TrainConfig:
    return parse_command("test", TrainConfig, flags)[0]


# -------------------------------------------------------------------------------------------------------- precedence


def test_default_holds_where_nothing_is_said():
    assert from_flags() == TrainConfig()


def test_yaml_wins_over_default_and_flag_over_yaml(from_yaml):
    config = from_yaml("lr: 0.5\nseed: 3\n", "--seed", "4")
    assert (config.lr, config.seed, config.trial) == (0.5, 4, 1)


def test_flag_wins_over_yaml_also_before_it(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("seed: 3\nlr: 0.5\n")
    config, _ = parse_command("test", TrainConfig, ["--seed", "4", f"--config={path}"])
    assert (config.seed, config.lr) == (4, 0.5)


def test_flag_that_repeats_the_default_still_wins_over_yaml(from_yaml):
    assert from_yaml("seed: 3\n", "--seed", "0").seed == 0


def test_expert_sizes_of_a_flag_replace_those_of_yaml(from_yaml):
    assert from_yaml("expert_hidden_sizes: [[1, 2], [3, 4], [5, 6]]\n", "--mop_layers", "16").expert_hidden_sizes == [
        [16]
    ]


def test_script_has_the_last_word(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("policy: mop")
    for flags in ([], ["--policy", "gru"]):
        config, _ = parse_command("test", TrainConfig, ["--config", str(path), *flags], policy="gru")
        assert config.policy == "gru"
    with pytest.raises(ConfigError, match=r"--policy: expected gru, which is all that .* does; found 'mop'"):
        parse_command("test", TrainConfig, ["--policy", "mop"], policy="gru")


def test_switches_are_no_fields():
    config, switches = parse_command(
        "test", TrainConfig, ["--resume", "--seed", "2"], switches={"resume": "a", "overwrite": "b"}
    )
    assert switches == {"resume": True, "overwrite": False}
    assert config.seed == 2


def test_empty_file_is_all_defaults(from_yaml):
    assert from_yaml("# nothing\n") == TrainConfig()


# ----------------------------------------------------------------------------------------------------------- spellings


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "'1e-4'"])
def test_small_numbers_in_yaml(from_yaml, text):
    """YAML 1.1 reads 1e-4 as text."""
    assert from_yaml(f"lr: {text}\n").lr == 1e-4


def test_small_numbers_in_flags():
    assert from_flags("--lpc_alpha", "1e-4", "--lr=1E-4").lpc_alpha == 1e-4


def test_null_switches_optional_fields_off(from_yaml):
    config = from_yaml("grad_clip: 1.0\nmax_steps: 9\nwandb_project: x\n", "--grad_clip", "null", "--max_steps=null")
    assert (config.grad_clip, config.max_steps, config.wandb_project) == (None, None, "x")


def test_dashes_are_taken_for_underscores():
    assert from_flags("--num-envs", "3").num_envs == 3


@pytest.mark.parametrize(
    ("written", "sizes"),
    [
        ("[[0, 16, 32], [0, 16, 32]]", [[0, 16, 32], [0, 16, 32]]),
        ("[16, 32]", [[16, 32]]),
        ('["32,64,128", "64,128,256"]', [[32, 64, 128], [64, 128, 256]]),
        ("16,32;32,64", [[16, 32], [32, 64]]),
        ("0,16", [[0, 16]]),
    ],
)
@pytest.mark.parametrize("key", ["expert_hidden_sizes", "mop_layers"])
def test_expert_sizes_in_every_spelling(from_yaml, key, written, sizes):
    quoted = written if written.startswith("[") else f'"{written}"'
    assert from_yaml(f"{key}: {quoted}\n").expert_hidden_sizes == sizes
    assert from_flags(f"--{key}", written).expert_hidden_sizes == sizes
    assert from_flags(f"--{key}={written}").expert_hidden_sizes == sizes


def test_other_spellings_of_widths(from_yaml):
    for config in (
        from_yaml("mop_intermediate_dim: 9\nmop_router_dim: 8\n"),
        from_flags("--mop_intermediate_dim", "9", "--mop_router_dim=8"),
        from_flags("--mop-intermediate-dim", "9", "--mop-router-dim=8"),
    ):
        assert (config.intermediate_dim, config.router_hidden_size) == (9, 8)


def test_no_other_spelling_is_a_field():
    spellings = [alias for field in dataclasses.fields(TrainConfig) for alias in field.metadata.get("aliases", ())]
    assert len(spellings) == len(set(spellings)) == 3
    assert not set(spellings) & set(FIELDS)


# -------------------------------------------------------------------------------------------------------------- errors


def message_of(action) -> str:
    with pytest.raises(ConfigError) as caught:
        action()
    return str(caught.value)


def test_unknown_key_in_yaml_is_named_with_a_suggestion(from_yaml):
    message = message_of(lambda: from_yaml("num_update: 5\n"))
    assert "unknown key 'num_update'" in message
    assert "did you mean num_updates" in message
    assert "config.yaml" in message


def test_unknown_flag_is_named_with_a_suggestion():
    assert message_of(lambda: from_flags("--lpc_alfa", "1")) == "unknown key 'lpc_alfa'; did you mean lpc_alpha?"
    assert "--help" in message_of(lambda: from_flags("--quux=1"))


def test_beginning_of_a_flag_is_not_a_flag():
    """Argparse takes --num_up for --num_updates until a second flag begins alike."""
    assert "unknown key 'num_up'" in message_of(lambda: from_flags("--num_up", "5"))


@pytest.mark.parametrize("flags", [["-seed", "3"], ["seed", "3"]])
def test_flag_with_too_few_dashes(flags):
    assert "expected --seed" in message_of(lambda: from_flags(*flags))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lr", "abc", "expected float, found 'abc'"),
        ("seed", "1.5", "expected int, found '1.5'"),
        ("normalize_lpc", "maybe", "expected bool, found 'maybe'"),
        ("policy", "x", "expected one of moe, mop, gru, found 'x'"),
        ("grad_clip", "abc", "expected float or null, found 'abc'"),
        ("max_steps", "2.5", "expected int or null, found '2.5'"),
    ],
)
def test_wrong_type_in_a_flag(key, value, expected):
    assert message_of(lambda: from_flags(f"--{key}", value)) == f"{key}: {expected}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lr: abc", "lr: expected float, found 'abc'"),
        ("seed: 1.5", "seed: expected int, found 1.5"),
        ("seed: true", "seed: expected int, found True"),
        ("num_envs: [1, 2]", "num_envs: expected int, found [1, 2]"),
        ("task_id: 5", "task_id: expected a level, or a list such as [GoToObj, PickupLoc], found 5"),
        ("normalize_lpc: 2", "normalize_lpc: expected bool, found 2"),
        ("lpc_denominator: papers", "lpc_denominator: expected one of detached, paper, found 'papers'"),
        ("grad_clip: abc", "grad_clip: expected float or null, found 'abc'"),
        ("wandb_project: false", "wandb_project: expected str or null, found False"),
        ("lr: null", "lr: expected float, found null"),
        ("lang_encoder:", "lang_encoder: expected str, found null"),
    ],
)
def test_wrong_type_in_yaml(from_yaml, line, expected):
    message = message_of(lambda: from_yaml(line + "\n"))
    assert message.endswith(f"config.yaml: {expected}")


@pytest.mark.parametrize(
    "sizes", ["[]", "[[]]", "[[1.5]]", "[[true]]", "[[-1]]", "[[a]]", "'1,b'", "3", "[1, [2]]", "''"]
)
@pytest.mark.parametrize("key", ["expert_hidden_sizes", "mop_layers"])
def test_impossible_expert_sizes_are_refused(from_yaml, key, sizes):
    assert "expected sizes such as" in message_of(lambda: from_yaml(f"{key}: {sizes}\n"))


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ("mop_layers: '16'\nexpert_hidden_sizes: [16]\n", "expert_hidden_sizes is given twice"),
        ("router_hidden_size: 3\nmop_router_dim: 3\n", "router_hidden_size is given twice"),
        ("lr: 0.1\nseed: 1\nlr: 0.2\n", "lr is given twice"),
    ],
)
def test_field_given_twice_in_yaml_is_refused(from_yaml, text, twice):
    """YAML itself would let the last one win without a word."""
    assert twice in message_of(lambda: from_yaml(text))


def test_missing_file_and_folder_are_named(tmp_path):
    assert "nowhere.yaml" in message_of(lambda: from_flags("--config", str(tmp_path / "nowhere.yaml")))
    assert str(tmp_path) in message_of(lambda: from_flags("--config", str(tmp_path)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr: [1, 2\n", "expected valid YAML"),
        ("- lr\n- seed\n", "found list"),
        ("just words\n", "found str"),
        ("lr: !!python/object/apply:os.getcwd []\n", "expected valid YAML"),
        ("{[1]: 2}\n", "expected valid YAML"),
    ],
)
def test_what_is_no_mapping_is_refused(from_yaml, text, expected):
    assert expected in message_of(lambda: from_yaml(text))


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "expected valid YAML" in message_of(lambda: from_flags("--config", str(path)))


@pytest.mark.parametrize("flags", [["--config"], ["--expert_hidden_sizes"], ["--lr"]])
def test_flag_without_its_value_is_named(flags):
    assert flags[0] in message_of(lambda: from_flags(*flags))


# ---------------------------------------------------------------------------------------------------------- round trip


@settings(max_examples=30, deadline=None)
@given(
    lr=st.floats(1e-12, 1e3),
    alpha=st.floats(0, 1e6),
    clip=st.none() | st.floats(1e-9, 1e9),
    steps=st.none() | st.integers(1, 10**6),
    sizes=st.lists(st.lists(st.integers(0, 512), min_size=1, max_size=4), min_size=1, max_size=4),
    text=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=12),
    flag=st.booleans(),
)
def test_resolved_yaml_reads_back_the_same(tmp_path_factory, lr, alpha, clip, steps, sizes, text, flag):
    config = TrainConfig(
        task_id=text.translate({ord(mark): None for mark in ",["}) or "level",  # which make a list of it
        lr=lr,
        lpc_alpha=alpha,
        grad_clip=clip,
        max_steps=steps,
        expert_hidden_sizes=sizes,
        wandb_project=text if flag else None,
        normalize_lpc=flag,
        policy="mop",
    )
    path = tmp_path_factory.mktemp("round") / "config.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    assert from_flags("--config", str(path)) == config


# --------------------------------------------------------------------------------------------------------------- files


def test_a_list_is_given_whole():
    with pytest.raises(ConfigError, match=r"'expert_hidden_sizes\+'; did you mean expert_hidden_sizes"):
        from_flags("--expert_hidden_sizes+", "[0,8]")
    with pytest.raises(ConfigError, match=r"given twice \(as --expert_hidden_sizes and as --mop_layers\)"):
        from_flags("--mop_layers", "[[0,8]]", "--expert_hidden_sizes", "[[0,4]]")


YAML_FILES = [ROOT / "config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_shipped_configurations_parse(path):
    config = from_flags("--config", str(path))
    for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        if key in FIELDS and isinstance(value, int):
            assert getattr(config, key) == value
