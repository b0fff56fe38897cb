"""The study file: what is accepted, and what is said of every mistake."""

import dataclasses

import pytest
import yaml

from pipeline.command.errors import ConfigError
from pipeline.command.launcher import HERE
from science.catalogue import ANALYSES, find_quantity
from science.config import Claim, Statistics, StudyConfig, name_setting, read_study
from science.study import main

CLAIM = {"claim": "knockouts.audit", "direction": "greater"}


def read(*flags):
    return read_study("test", ["--tasks", "GoToObj", *flags])


def write(tmp_path, **content):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"tasks": ["GoToObj"], **content}))
    return str(path)


def test_a_study_file_is_read_and_flags_win(tmp_path):
    claims = [{**CLAIM, "margin": 0.1, "says": "Usage predicts harm"}]
    path = write(
        tmp_path,
        name="one",
        train={"policy": "mop", "lr": "2e-3", "mop_layers": [[0, 4]]},
        seeds="0-2,7",
        lpc_alphas=["1e-4", 0],
        statistics={"draws": 9},
        claims=claims,
    )
    config, beside = read_study("test", ["--config", path, "--episodes", "7", "--only", "price,knockouts"])
    assert (config.name, config.seeds, config.lpc_alphas, config.episodes) == ("one", [0, 1, 2, 7], [0.0, 1e-4], 7)
    assert config.train == {"policy": "mop", "lr": 2e-3, "expert_hidden_sizes": [[0, 4]]}
    assert config.statistics == Statistics(draws=9)
    assert config.claims == [Claim("knockouts.audit", "greater", 0.1, "Usage predicts harm")]
    assert config.analyses == [name for name in ANALYSES if name != "transfer"]  # which needs settings
    asked = {"plan": False, "selftest": False, "only": ["knockouts", "price"], "jobs": None}
    assert beside == {**asked, "launcher": HERE}


def test_what_is_not_said_has_sensible_values():
    config, _ = read()
    assert (len(config.seeds), config.lpc_alphas, config.baselines, config.claims) == (10, [0.0], [], [])
    assert (config.episodes, config.changed_episodes) == (200, 100)
    assert dataclasses.asdict(config) == config.to_dict()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--analyses", "[pathway]"], "analyses: expected one of pathways, .*found 'pathway'; did you mean pathways"),
        (["--only", "price,dream"], "--only: expected one of .*found 'dream'"),
        (["--analyses", "[price]", "--only", "pathways"], "--only: expected one of price, found 'pathways'"),
        (["--held_out_tasks", "[GoTo]"], "held_out_tasks: expected a mixture with it"),
        (["--baselines", "[large]"], "baselines: expected one of largest, smallest, found 'large'"),
        (["--seeds", "3-1"], "seeds: expected a range from low to high"),
        (["--lpc_alphas", "[0, -1]"], "lpc_alphas: expected numbers of 0 or more"),
        (["--train", "{lr: fast}"], "train: lr: expected float, found 'fast'"),
        (["--train", "{num_update: 3}"], "train: unknown key 'num_update'; did you mean num_updates"),
        (["--train", "{seed: 3}"], "train: seed is set by the study itself"),
        (["--train", "{policy: gru}"], "train: policy: expected moe or mop"),
        (["--train", "[1]"], "train: expected lines of `key: value`"),
        (["--train", "{"], "expected YAML"),
        (["--statistics", "{draws: 0}"], "statistics: draws: expected at least 1, found 0"),
        (["--statistics", "{level: 2}"], "statistics: level: expected a number between 0 and 1"),
        (["--episodes", "0"], "episodes: expected at least 1"),
        (["--name", "../x"], "name: expected letters, digits"),
        (["--jobs", "none"], "--jobs: expected a whole number of at least 1, found 'none'"),
        (["--tasks", "[GoTo, GoTo]"], "tasks: expected distinct names, found GoTo twice"),
        (["--claims", "{a: 1}"], "claims: expected a list"),
        (
            ["--claims", "[{claim: knockouts.audits}]"],
            "number 1: .*found 'knockouts.audits'; did you mean knockouts.audit",
        ),
        (["--claims", "[{claim: nonsense}]"], "expected analysis.quantity, of pathways.consistency, "),
        (["--claims", "[{claim: knockouts.audit, direction: none}]"], "direction none needs a margin"),
        (["--claims", "[{claim: knockouts.audit, direction: up}]"], "direction: expected one of greater, less"),
        (["--claims", "[{claim: knockouts.audit, margin: -1}]"], "margin: expected a positive number"),
        (["--claims", "[{claim: knockouts.audit, alpha: 0.5}]"], "alpha: expected one of 0, found 0.5"),
        (["--claims", "[{claim: knockouts.audit}, {claim: knockouts.audit}]"], "expected each once"),
        (["--claims", "[{claim: knockouts.audit}]", "--analyses", "[price]"], "does not ask for knockouts"),
    ],
)
def test_mistakes_are_named(flags, words):
    with pytest.raises(ConfigError, match=words):
        read(*flags)


def test_a_study_without_tasks_says_how_to_name_some():
    with pytest.raises(ConfigError, match="tasks: expected at least one, found none; give --config"):
        read_study("test", [])


def test_the_command_refuses_in_one_line(capsys, tmp_path):
    assert main(["--config", write(tmp_path, analyses=["dream"])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --config") and error.count("\n") == 1 and "found 'dream'" in error


def test_quantities_that_can_be_claimed_are_those_of_the_analyses():
    assert find_quantity("pathways.consistency")
    for entry in ANALYSES.values():
        assert entry.quantities and all(entry.quantities.values())


def test_settings_are_named_without_loss():
    assert [name_setting(alpha) for alpha in (0.0, 1e-5, 0.1234567891)] == [
        *("alpha=0", "alpha=1e-05", "alpha=0.1234567891"),
    ]


def test_a_study_file_says_all_that_it_resolves_to():
    config = StudyConfig(tasks=["GoToObj"])
    assert {field.name for field in dataclasses.fields(StudyConfig)} == set(config.to_dict())


def test_the_help_has_the_values_of_a_study_file(tmp_path, capsys):
    path = write(tmp_path, statistics={"draws": 7}, claims=[{**CLAIM, "margin": 0.25}])
    with pytest.raises(SystemExit) as ended:
        read_study("test", ["--config", path, "--help"])
    text = "".join(capsys.readouterr().out.split())
    assert ended.value.code in (0, None)
    assert 'study.yaml:{"draws":7,"calibration":200' in text and '"margin":0.25' in text
