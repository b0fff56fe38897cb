"""A whole study, as small as can be: made, resumed, repeated, stopped, and what is said of what fails."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.checkpoints import save_checkpoint
from pipeline.command.folders import hold_lock
from science import run
from science.config import read_study
from science.run import Progress
from science.study import main

ROOT = Path(__file__).parents[2]
STUDY = {
    "name": "tiny",
    "train": {
        **{"policy": "mop", "num_updates": 3, "num_envs": 2, "unroll_len": 8, "lang_encoder": "builtin"},
        **{"lang_dim": 4, "intermediate_dim": 8, "expert_hidden_sizes": [[0, 4, 8]], "router_hidden_size": 4},
        **{"checkpoint_interval": 0, "device": "cpu", "max_steps": 6},
    },
    "tasks": ["GoToObjS4"],
    "seeds": "0-1",
    "lpc_alphas": [0, 1e-3],
    "baselines": ["largest"],
    "episodes": 8,
    "changed_episodes": 4,
    "analyses": ["pathways", "sufficiency", "price", "needed", "shapley", "dynamics", "probes"],
    "checkpoints": 3,
    "statistics": {"draws": 9, "calibration": 1},
    "claims": [
        {"claim": "pathways.consistency", "direction": "greater", "says": "Pathways are consistent"},
        {"claim": "price.price_trend_of_lpc", "direction": "less", "margin": 0.1},
    ],
}
OUT = Path("studies/out/tiny")


def write(folder: Path, **changes) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return str(path)


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.csv")) if "work" not in path.parts}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study that was made, by one process: its folder, exit code and what was said."""
    folder = tmp_path_factory.mktemp("study")
    done = call(folder, "--config", write(folder), "--jobs", "1")
    return folder, done


def call(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "science" / "study.py"), *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def study(made, tmp_path, monkeypatch, capsys, plain_pictures):
    """A copy of it: a function that makes it again here, and returns exit code, items made, and standard error."""
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    seen: list[Progress] = []
    conclude = run.conclude
    monkeypatch.setattr(run, "conclude", lambda design, store, progress, only: seen.append(progress) or
                        conclude(design, store, progress, only))  # fmt: skip

    def do(*flags, **changes):
        seen.clear()
        code = main(["--config", write(tmp_path, **changes), "--jobs", "1", *flags])
        return code, seen[0].made if seen else [], capsys.readouterr().err

    return do


# ---------------------------------------------------------------------------------------------------------- its outputs


def test_one_call_makes_all_and_marks_a_study_of_two_seeds_as_incomplete(made):
    folder, done = made
    assert done.returncode == 1, done.stderr
    assert "incomplete: 2 seeds alone: no interval over runs and no test, which take 3 or more" in done.stderr
    assert "Traceback" not in done.stderr
    names = {path.relative_to(folder / OUT).as_posix() for path in (folder / OUT).rglob("*") if path.is_file()}
    expected = {"report.html", "report.md", "claims.csv", "calibration.csv", "study.json"}
    expected |= {f"tables/{name}.csv" for name in STUDY["analyses"]}
    expected |= {f"figures/{name}.{kind}" for name in ("price_fronts", "sufficiency") for kind in ("png", "pdf")}
    assert expected <= names
    assert "<b>Incomplete.</b>" in (folder / OUT / "report.html").read_text()


def test_study_json_says_what_was_made_of_what(made):
    content = json.loads((made[0] / OUT / "study.json").read_text())
    assert content["config"]["train"]["num_updates"] == 3 and content["config"]["seeds"] == [0, 1]
    assert len(content["runs"]) == 6 and content["versions"]["commit"]
    assert {"train", "evaluate", "played", "replay", "intervene", "analyse", "draw"} <= {
        name.partition("/")[0] for name in content["items"]
    }
    files = content["items"]["analyse/price"]["files"]
    assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in files.values()) and "tables/price.csv" in files


def test_claims_get_verdicts(made):
    text = (made[0] / OUT / "claims.csv").read_text()
    assert "pathways.consistency,Pathways are consistent,greater" in text and "undecided" in text


# ------------------------------------------------------------------------------------------------------------ resuming


def test_the_same_call_does_nothing_and_the_tables_stay_as_they_are(study):
    before = tables(OUT)
    code, did, _ = study()
    assert (code, did) == (1, [])
    assert tables(OUT) == before


def test_what_is_deleted_is_made_again_with_what_depends_on_it_and_is_the_same(study):
    before = tables(OUT)
    (OUT / "tables" / "sufficiency.csv").unlink()
    assert study()[1] == ["analyse/sufficiency", "draw/sufficiency"]
    next((OUT / "work" / "intervene" / "dial" / "P").rglob("*.npz")).unlink()
    assert study()[1] == ["intervene/dial/P/BabyAI-GoToObjS4-v0/alpha=0", "analyse/price", "draw/price"]
    assert tables(OUT) == before


def test_a_deleted_checkpoint_is_trained_again_with_all_that_is_made_of_it(study):
    before = tables(OUT)
    path = next((OUT / "work" / "checkpoints").rglob("trial_2/seed_1/checkpoint_final.pt"))
    path.unlink()
    _, did, _ = study()
    assert path.exists() and tables(OUT) == before
    cell = "BabyAI-GoToObjS4-v0/alpha=0.001"
    assert {f"played/{cell}", f"replay/{cell}", f"intervene/thresholds/P/{cell}", "analyse/price"} <= set(did)
    assert not {name for name in did if name.endswith("/alpha=0")}


def test_only_some_analyses_are_made_and_the_others_stay(study):
    _, did, _ = study("--only", "sufficiency", statistics={**STUDY["statistics"], "seed": 1})
    kinds = {name.partition("/")[0] for name in did}
    assert kinds == {"intervene", "calibrate", "analyse", "draw"}
    assert {name for name in did if name.startswith("analyse")} == {"analyse/sufficiency"}
    sections = re.split(r'<h2 id="(\w+)"', (OUT / "report.html").read_text())
    text = dict(zip(sections[1::2], sections[2::2], strict=True))
    old = {name for name, section in text.items() if "of earlier inputs, settings or code" in section}
    assert (
        old == {"pathways", "price", "needed", "shapley", "dynamics", "probes"}
        and "Consistency of pathways" in text["pathways"]
    )
    study()
    assert "of earlier inputs" not in (OUT / "report.html").read_text()


def test_what_replayed_steps_show_is_kept_for_those_who_ask_and_made_again_alone(study):
    before = tables(OUT)
    asked = {"analyses": [*STUDY["analyses"], "complexity"]}
    _, did, _ = study(**asked)
    assert {"observe/BabyAI-GoToObjS4-v0", "analyse/complexity"} <= set(did)
    assert not {name for name in did if name.startswith(("train", "evaluate", "played", "replay"))}
    again = tables(OUT)
    assert {name: again[name] for name in before if name not in ("calibration.csv", "claims.csv")} == {
        name: text for name, text in before.items() if name not in ("calibration.csv", "claims.csv")
    }
    next((OUT / "work" / "observe").glob("*.npz")).unlink()
    assert study(**asked)[1] == ["observe/BabyAI-GoToObjS4-v0", "analyse/complexity", "draw/complexity"]
    assert tables(OUT) == again


def test_a_damaged_evaluation_cache_is_played_again_and_all_is_the_same(study):
    before = tables(OUT)
    cache = next(path for path in (OUT / "work" / "evaluation_cache").rglob("*.json*") if "trial_1" in str(path))
    cache.write_bytes(cache.read_bytes()[:100])
    code, did, error = study()
    assert code == 1 and "Traceback" not in error and "evaluate of" not in error
    assert "played/BabyAI-GoToObjS4-v0/alpha=0" in did and not {name for name in did if name.startswith("replay")}
    assert tables(OUT) == before


def test_a_deleted_checkpoint_on_the_way_is_trained_again_aside_and_is_the_same(study):
    before = tables(OUT)
    folder = next((OUT / "work" / "checkpoints").rglob("trial_2/seed_1"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint_1.pt",
        "checkpoint_2.pt",
        "checkpoint_final.pt",
    ]
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checkpoint_1.pt"}
    (folder / "checkpoint_1.pt").unlink()
    _, did, _ = study()
    cell = "BabyAI-GoToObjS4-v0/alpha=0.001"
    grown = [f"grown/{kind}/{cell}" for kind in ("replay", "played", "knockouts")]
    assert did == [*grown, "analyse/dynamics", "draw/dynamics"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    aside = list((OUT / "work" / "aside" / "checkpoints").rglob("checkpoint_1.pt"))
    assert len(aside) == 1 and "trial_2/seed_1" in str(aside[0])
    assert tables(OUT) == before
    assert study()[1] == []


def test_states_are_kept_and_probed_again_alone(study):
    before = tables(OUT)
    next((OUT / "work" / "states").rglob("alpha_0.npz")).unlink()
    assert study()[1] == ["states/BabyAI-GoToObjS4-v0/alpha=0", "analyse/probes", "draw/probes"]
    assert tables(OUT) == before


def test_the_knockouts_that_matter_most_are_filmed(study):
    asked = {"analyses": ["knockouts"], "films": 1, "claims": []}
    _, did, _ = study(**asked)
    assert [name for name in did if name.startswith("film")] == ["film/BabyAI-GoToObjS4-v0/alpha=0"]
    (film,) = (OUT / "films").iterdir()
    named = re.fullmatch(r"BabyAI-GoToObjS4-v0_layer_0_expert_([012])\.gif", film.name)
    assert named and film.read_bytes().startswith(b"GIF8")
    size = STUDY["train"]["expert_hidden_sizes"][0][int(named[1])]
    text = (OUT / "report.html").read_text()
    shown = rf'films/{film.name}".*layer 0 without its expert of size {size}'
    assert re.search(shown + r", seed [01], level \d+: (they part at step \d+|the actions are the same)", text)
    before = film.read_bytes()
    film.unlink()
    assert study(**asked)[1] == ["film/BabyAI-GoToObjS4-v0/alpha=0"]
    assert film.read_bytes() == before


def test_another_price_is_trained_and_the_others_are_not(study):
    _, did, _ = study("--only", "sufficiency", lpc_alphas=[0, 1e-4, 1e-3], claims=[])
    log = (OUT / "work" / "checkpoints").rglob("trial_*")
    assert {path.name for path in log if path.is_dir()} == {"trial_1", "trial_2", "trial_3", "trial_4"}
    assert {name for name in did if name.startswith("played")} == {"played/BabyAI-GoToObjS4-v0/alpha=0.0001"}


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_a_damaged_checkpoint_is_named_and_the_rest_is_made(study):
    path = next((OUT / "work" / "checkpoints").rglob("trial_1/seed_0/checkpoint_final.pt"))
    path.write_bytes(path.read_bytes()[:200])
    code, did, error = study()
    assert code == 1 and "Traceback" not in error
    assert re.search(r"incomplete: train of BabyAI-GoToObjS4-v0/alpha=0/seed=0: .*trial_1/seed_0", error)
    assert "analyse/price" in did
    text = (OUT / "report.html").read_text()
    assert "Incomplete" in text and "train of BabyAI-GoToObjS4-v0/alpha=0/seed=0" in text
    path.unlink()
    assert study()[0] == 1 and "train of" not in (OUT / "report.html").read_text()  # trained afresh


def test_a_run_that_diverged_is_named_and_the_rest_is_made(study):
    import torch

    path = next((OUT / "work" / "checkpoints").rglob("trial_1/seed_0/checkpoint_final.pt"))
    content = torch.load(path, weights_only=True)
    for weight in content["policy_state_dict"].values():
        weight.fill_(float("nan"))
    save_checkpoint(path, {name: value for name, value in content.items() if name not in ("schema_version", "digests")})
    code, did, error = study()
    assert code == 1 and "Traceback" not in error
    assert "evaluate of BabyAI-GoToObjS4-v0/alpha=0/seed=0: " in error
    assert "analyse/price" in did and "diverged" in (OUT / "report.html").read_text()


def test_one_seed_alone_is_told_and_the_report_is_made(study):
    code, _, error = study(seeds="0")
    assert code == 1 and "Traceback" not in error
    assert "incomplete: 1 seed alone: no interval over runs and no test, which take 3 or more" in error
    claims = (OUT / "claims.csv").read_text()
    assert claims.count("undecided") == len(STUDY["claims"]) and "takes 3 runs or more" in claims + error
    assert "<b>Incomplete.</b>" in (OUT / "report.html").read_text()


def test_two_processes_do_not_do_one_study(study):
    with hold_lock(OUT / "work" / ".lock", 0):
        code, did, error = study()
    assert (code, did) == (2, []) and "another process is at this study" in error


def test_ctrl_c_leaves_nothing_half_written_and_the_next_call_does_the_rest(study, monkeypatch):
    from science import outputs, stages

    before = tables(OUT)
    for path in (OUT / "tables").iterdir():
        path.unlink()
    make = outputs.make_table
    begun = []

    def interrupted(*arguments):
        begun.append(arguments)
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return make(*arguments)

    changed = [stages.Stage(s.name, s.items, interrupted) if s.name == "analyse" else s for s in stages.STAGES]
    with monkeypatch.context() as patch:
        patch.setattr(stages, "STAGES", tuple(changed))
        code, _, error = study()
    assert code == 130 and "the same call does the rest" in error
    assert not [path for path in OUT.rglob("*.tmp")]
    assert study()[1][:2] == ["analyse/sufficiency", "analyse/price"]
    assert tables(OUT) == before


@pytest.mark.slow
def test_results_do_not_depend_on_processes_nor_on_what_was_made_before(made, tmp_path, monkeypatch, plain_pictures):
    monkeypatch.chdir(tmp_path)
    assert main(["--config", write(tmp_path), "--jobs", "1", "--only", "price"]) == 1
    done = call(tmp_path, "--config", write(tmp_path), "--jobs", "2")
    assert done.returncode == 1, done.stderr
    assert tables(tmp_path / OUT) == tables(made[0] / OUT)


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_command_runs_from_within_its_folder_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "study.py", "--config", "../studies/debug.yaml", "--plan", "--out", str(tmp_path)],
        cwd=ROOT / "science",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "study debug" in done.stdout and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["debug", "pathways"])
def test_the_study_files_are_sound(name):
    config, _ = read_study("test", ["--config", str(ROOT / "studies" / f"{name}.yaml")])
    assert config.name == name and config.claims


def test_a_task_that_does_not_exist_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--tasks", "GoToMoon"]) == 2
    assert "GoToMoon" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
