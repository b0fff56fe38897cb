"""What `rlmop ls` and `rlmop compare` say of the files that runs have left."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.checkpoints import save_checkpoint
from pipeline.command.folders import LOCK_NAME, hold_lock
from pipeline.config import TrainConfig, resolved_yaml
from pipeline.guard import write_settings
from pipeline.inspection import comparison, listing
from pipeline.inspection.runs import RunInfo, find_runs, read_known_rows
from pipeline.inspection.sources import InspectionSettings, find_sources
from pipeline.inspection.texts import differing_fields, format_setting, table
from pipeline.places import checkpoint_path, run_folder
from pipeline.records.adding import append_result
from tests.checkpoints import SMALL, make_content, make_foreign

ROOT = Path(__file__).parents[3]
TASK = "BabyAI-GoToObj-v0"


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leave(
    *, trial: int = 1, seed: int = 0, done: int = 20, final: bool = True, lines: list[dict] | None = None, **settings
) -> TrainConfig:
    """Leave what a run leaves: a checkpoint, settings, and metrics."""
    config = TrainConfig(task_id=TASK, trial=trial, seed=seed, num_updates=20, policy="mop", **SMALL | settings)
    folder, logs = run_folder("checkpoints", config), run_folder("runs", config)
    save_checkpoint(checkpoint_path(folder, None if final else done), make_content(config, update=done))
    write_settings(logs, resolved_yaml(config))
    lines = (
        lines if lines is not None else [{"update": done, "rollout/success_rate": 0.4, "rollout/window_episodes": 9}]
    )
    (logs / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return config


def evaluation(update: int, successes: int, levels: int = 100, lpc: float = 50.0) -> dict:
    rate = successes / levels
    return {"update": update, "eval/success_rate": rate, "eval/episodes": levels, "eval/mean_lpc": lpc,
            "eval/success_low": rate - 0.1, "eval/success_high": rate + 0.1}  # fmt: skip


def row(trial: int, seed: int | None, update: int, rate: float, levels: int = 100, **more: str) -> None:
    path = f"checkpoints/{TASK}/trial_{trial}/seed_{seed}/checkpoint_{update}.pt"
    values = {"task_id": TASK, "trial": trial, "seed": seed, "update": update, "success_rate": rate, "mean_lpc": 70.0}
    values |= more
    append_result("evaluation_results.csv", {"checkpoint_path": path, "num_episodes": levels, **values})


def known(folder: str = ".") -> list[RunInfo]:
    sources = find_sources(folder, InspectionSettings())
    return find_runs(sources, read_known_rows(sources.results))


# ------------------------------------------------------------------------------------------------------------- states


def test_states_are_told_from_the_files():
    leave(trial=1)
    leave(trial=2, done=10, final=False)
    held = leave(trial=3, done=10, final=False)
    damaged = leave(trial=4)
    path = checkpoint_path(run_folder("checkpoints", damaged), None)
    path.write_bytes(path.read_bytes()[:-100])
    failed = leave(trial=5, done=10, final=False)
    checkpoint_path(run_folder("checkpoints", failed), 10).unlink()
    extended = leave(trial=6, done=20)
    write_settings(run_folder("runs", extended), resolved_yaml(TrainConfig(**extended.to_dict() | {"num_updates": 40})))
    with hold_lock(run_folder("runs", held) / LOCK_NAME, timeout=0):
        runs = known()
    assert [run.state for run in runs] == ["finished", "stopped", "training", "damaged", "failed", "stopped"]
    assert [(run.update, run.target) for run in runs] == [(20, 20), (10, 20), (10, 20), (20, 20), (10, 20), (20, 40)]
    assert [run.problem is None for run in runs] == [True, True, True, False, False, True]
    assert str(path) in runs[3].problem


def test_looking_leaves_nothing_behind(work):
    config = leave()
    (run_folder("runs", config) / LOCK_NAME).touch()  # of a process that was killed
    before = {path for path in work.rglob("*") if path.name != LOCK_NAME}
    assert known()[0].state == "finished"
    assert {path for path in work.rglob("*") if path.name != LOCK_NAME} == before


def test_a_run_without_logs_is_known_from_its_checkpoint(work):
    folder = work / "checkpoints" / "BabyAI-GoToLocal-v0" / "trial_3"
    folder.mkdir(parents=True)
    save_checkpoint(folder / "checkpoint_final.pt", make_content(TrainConfig(policy="mop", lr=0.5, **SMALL)))
    (run,) = known()
    assert (run.name, run.seed, run.state, run.update) == ("BabyAI-GoToLocal-v0/3", None, "stopped", 12)
    assert run.settings["lr"] == 0.5


def test_a_checkpoint_made_elsewhere_does_not_tell_how_long_it_was_to_be(work):
    import torch

    folder = work / "checkpoints" / TASK / "trial_3"
    folder.mkdir(parents=True)
    content = make_foreign()
    content["config"].pop("num_updates", None)
    torch.save(content, folder / "checkpoint_final.pt")
    (run,) = known()
    assert (run.state, run.target) == ("finished", None)


# ------------------------------------------------------------------------------------------------------------ success


def test_the_newest_evaluation_counts_wherever_it_is_kept():
    leave(trial=1, lines=[evaluation(10, 10), evaluation(20, 60)])
    leave(trial=2, lines=[evaluation(20, 60)])
    row(1, 0, 10, 0.1, levels=1000)  # of an older checkpoint
    row(2, 0, 20, 0.75, levels=1000)  # of more levels
    row(2, 0, 600, 0.99)  # of an earlier run in the same place
    assert [run.score.success for run in known()] == [0.6, 0.75]
    assert [run.score.levels for run in known()] == [100, 1000]


def test_rows_of_an_earlier_run_with_other_settings_do_not_count():
    """After `--overwrite` the run before it lent its success and LPC to the new one, until that was evaluated."""
    leave(lines=[evaluation(20, 60)], lr=1e-3)
    row(1, 0, 20, 0.9, levels=1000, lr=2e-3)
    assert known()[0].score.success == 0.6
    row(1, 0, 20, 0.8, levels=500, lr=1e-3)
    assert known()[0].score.success == 0.8


def test_an_evaluation_with_actions_drawn_is_told(capsys):
    for trial, seed, actions in ((1, 0, "sample"), (2, 0, "greedy"), (2, 1, "sample")):
        leave(trial=trial, seed=seed)
        row(trial, seed, 20, 0.75, levels=50, eval_actions=actions)
    assert [run.score.drawn for run in known()] == [True, False, True]
    assert listing.main([]) == 0
    assert capsys.readouterr().out.count("50, actions drawn") == 2
    assert comparison.main([f"checkpoints/{TASK}/trial_{trial}" for trial in (1, 2)]) == 0
    told = capsys.readouterr().out
    assert "50 levels, actions drawn" in told and "2 runs, 1 of them with actions drawn" in told
    assert listing.main(["--json"]) == 0
    assert [run["actions_drawn"] for run in json.loads(capsys.readouterr().out)] == [True, False, True]


def test_without_evaluation_training_is_shown_as_such(capsys):
    leave(done=10, final=False)
    (run,) = known()
    assert (run.score.success, run.score.fixed) == (0.4, False)
    assert listing.main([]) == 0
    assert "last 9 of training" in capsys.readouterr().out
    assert comparison.main([f"{TASK}/1", f"{TASK}/1/0"]) == 0
    assert "not evaluated" in capsys.readouterr().out


def test_a_policy_without_experts_has_no_complexity_in_training(capsys):
    """A GRU logs "train/lpc": 0.0, which was shown as its LPC."""
    line = {"update": 20, "rollout/success_rate": 0.4, "rollout/window_episodes": 9, "train/lpc": 0.0}
    config = leave(lines=[line])
    assert known()[0].score.lpc == 0.0  # of experts that are not used
    write_settings(run_folder("runs", config), resolved_yaml(TrainConfig(**config.to_dict() | {"policy": "gru"})))
    assert (known()[0].score.success, known()[0].score.lpc) == (0.4, None)
    assert listing.main([]) == 0 and "40.0% - last 9 of training" in " ".join(capsys.readouterr().out.split())


def test_half_a_line_is_passed_over():
    config = leave(lines=[evaluation(20, 60)])
    with (run_folder("runs", config) / "metrics.jsonl").open("a") as file:
        file.write('{"update": 30, "eval/success_ra')
    assert (known()[0].score.success, known()[0].update) == (0.6, 20)


def test_results_that_are_none_are_named_and_left_out(capsys):
    leave(lines=[evaluation(20, 60)])
    Path("evaluation_results.csv").write_text("a,b\n1,2\n")
    assert listing.main([]) == 0
    output = capsys.readouterr()
    assert "60.0%" in output.out
    assert "left out: evaluation_results.csv" in output.err


# ----------------------------------------------------------------------------------------------------------- settings


def test_only_settings_that_differ_within_a_task_are_listed(capsys):
    leave(trial=1, lpc_alpha=1e-5)
    leave(trial=2, lpc_alpha=0.0)
    leave(trial=2, seed=1, lpc_alpha=0.0)
    assert differing_fields(known()) == ["lpc_alpha"]
    listing.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["lpc_alpha=1e-05", "lpc_alpha=0", "lpc_alpha=0"]
    assert lines[-1] == "3 runs: 3 finished"
    Path("checkpoints", TASK, "trial_2").rename("elsewhere")
    Path("runs", TASK, "trial_2").rename("elsewhere_too")
    listing.main([])
    assert "differ" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1e-05"), (0.1 + 0.2, "0.30000000000000004"), (2.0, "2"), (None, "null"), (True, "true"), ("a", "a"),
        ([[0, 16, 32]] * 3, "[0,16,32] x 3"), ([[0, 16], [8]], "[[0,16],[8]]"), ([[4]], "[[4]]"),
    ],
)  # fmt: skip
def test_settings_as_text(value, text):
    assert format_setting(value) == text


# --------------------------------------------------------------------------------------------------------------- where


@pytest.mark.parametrize(
    ("folder", "count"),
    [
        (".", 3), ("checkpoints", 3), ("runs", 3), (f"checkpoints/{TASK}", 3), (f"runs/{TASK}/trial_2/", 2),
        (f"checkpoints/{TASK}/trial_2/seed_1", 1), (f"./checkpoints/../checkpoints/{TASK}/trial_1", 1),
    ],
)  # fmt: skip
def test_folder_may_be_any_in_which_runs_are(folder, count, work, monkeypatch):
    leave()
    leave(trial=2)
    leave(trial=2, seed=1)
    if ".." not in folder:
        assert len(known(folder)) == count
    assert len(known(str((work / folder).resolve()))) == count
    monkeypatch.chdir("/")
    assert len(known(str((work / folder).resolve()))) == count


@pytest.mark.parametrize("folder", ["nowhere", "file", "empty"])
def test_folder_without_runs_is_refused(folder, capsys):
    Path("file").touch()
    Path("empty").mkdir()
    assert listing.main([folder]) == 2
    assert capsys.readouterr().err.startswith(f"error: {folder}: expected a folder")


def test_listing_of_nothing_says_how_to_begin(capsys):
    Path("runs").mkdir()
    assert listing.main([]) == 0
    assert "train one" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------------- forms


def test_json_and_csv_hold_all(capsys):
    leave(trial=1, lpc_alpha=1e-5, lines=[evaluation(20, 60)])
    leave(trial=2, lpc_alpha=0.0)
    assert listing.main(["--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], first["success_rate"], first["settings"]["lpc_alpha"]) == (f"{TASK}/1/0", 0.6, 1e-5)
    assert second["fixed_levels"] is False
    assert listing.main(["--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["lpc_alpha"] for row in rows] == ["1e-05", "0"]
    assert listing.main(["--csv", "--json"]) == 2


def test_a_narrow_terminal_gets_what_fits():
    leave(trial=1, lpc_alpha=1e-5, lines=[evaluation(20, 60)])
    leave(trial=2, lpc_alpha=0.0, lines=[evaluation(20, 60)])
    wide = listing.list_lines(known(), None)
    assert "95 %" in wide[0]
    for width in (60, 80, 100):
        lines = listing.list_lines(known(), width)
        assert max(map(len, lines)) <= width
        assert all("60.0%" in line for line in lines[1:])
    assert "95 %" not in listing.list_lines(known(), 80)[0]


def test_table_is_cut_with_an_ellipsis():
    assert table([["a", "b"], ["1", "long"]], [True, True], 5) == ["a  b", "1  l…"]


# ---------------------------------------------------------------------------------------------------------- comparison


def test_runs_and_trials_side_by_side(capsys):
    leave(trial=1, lpc_alpha=1e-5, lines=[evaluation(20, 50)])
    for seed, successes in enumerate((60, 70, 80)):
        leave(trial=2, seed=seed, lpc_alpha=0.0, lines=[evaluation(20, successes, lpc=10.0 * seed)])
    assert comparison.main(["GoToObj/1/0", "gotoobj-v0/2", f"checkpoints/{TASK}/trial_2/seed_1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["GoToObj-v0/1/0", "GoToObj-v0/2", "GoToObj-v0/2/1"]
    success = next(line for line in lines if line.startswith("success"))
    assert "50.0% (40.0% to 60.0%), 100 levels" in success
    assert "70.0% (45.2% to 94.8%), 3 runs" in success  # 70 +- 4.303 x 10 / sqrt(3)
    assert next(line for line in lines if line.startswith("lpc_alpha")).split()[1:] == ["1e-05", "0", "0"]
    assert not any(line.startswith("lr") for line in lines)


def test_runs_without_spread_get_the_interval_of_their_levels(capsys):
    for seed in range(3):
        leave(trial=1, seed=seed, lines=[evaluation(20, 100)])
    assert comparison.main(["GoToObj/1", "GoToObj/1/0", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["runs"]) == 3
    comparison.main(["GoToObj/1", "GoToObj/1/0"])
    # all seeds play the same list of levels: three runs that agree are no 300 levels
    assert "100.0% (96.3% to 100.0% over 100 levels), 3 runs" in capsys.readouterr().out


def test_a_numbered_checkpoint_is_compared_at_its_update(capsys):
    config = leave(lines=[evaluation(10, 30), evaluation(20, 60)])
    early = checkpoint_path(run_folder("checkpoints", config), 10)
    save_checkpoint(early, make_content(config, update=10))
    assert comparison.main([str(early), "GoToObj/1/0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "GoToObj-v0/1/0 at 10" in lines[0]
    assert "30.0%" in next(line for line in lines if line.startswith("success"))
    assert "10 (the run: 20/" in next(line for line in lines if line.startswith("updates"))


def test_settings_and_tasks_of_several_tasks(capsys):
    leave()
    leave(trial=2)
    for root in ("checkpoints", "runs"):
        folder = Path(root, "BabyAI-GoToLocal-v0", "trial_1")
        folder.parent.mkdir(parents=True)
        Path(root, TASK, "trial_2").rename(folder)
    config = Path("runs/BabyAI-GoToLocal-v0/trial_1/seed_0/config.yaml")
    config.write_text(config.read_text().replace(TASK, "BabyAI-GoToLocal-v0"))
    assert comparison.main(["GoToObj/1", "GoToLocal/1"]) == 0
    assert capsys.readouterr().out.count("task_id") == 1
    config.write_text(config.read_text().replace("BabyAI-GoToLocal-v0", f"[BabyAI-GoToLocal-v0, {TASK}]"))
    assert comparison.main(["GoToObj/1", "GoToLocal/1"]) == 0
    assert capsys.readouterr().out.count("task_id") == 1  # twice, where one was of a mixture


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "expected two or more"),
        (["GoToObj/1"], "expected two or more"),
        (["GoToObj/1", "GoToObj/7"], "GoToObj/7: expected a run with a checkpoint or metrics"),
        (["GoToObj/1", "GoToWall/1"], "expected a task that has runs, found runs of BabyAI-GoToObj-v0"),
        (["GoToObj/1", "what"], "what: expected a path that is there"),
        (["GoToObj/1", "checkpoints"], "checkpoints: expected the folder of a trial or a run"),
        (["GoToObj/1", "GoToObj/1", "--folder", "x"], "unknown key 'folder'"),
    ],
)
def test_what_cannot_be_compared_is_refused(items, words, capsys):
    leave()
    assert comparison.main(items) == 2
    assert words in capsys.readouterr().err


def test_runs_with_logs_are_listed_without_torch(work):
    leave()
    program = (
        "import sys; from pipeline.inspection.listing import main; main([]);"
        "sys.exit('torch' in sys.modules or 'minigrid' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=work, env=environment, timeout=120, check=False)
    assert done.returncode == 0
