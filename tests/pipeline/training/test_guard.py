"""The guard of run folders: what is complete, begun, another run's, held or damaged, and what is deleted."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.checkpoints import read_checkpoint
from pipeline.config import TrainConfig
from pipeline.guard import hold_run
from pipeline.places import run_folder
from pipeline.training import plan as sweep_plan
from pipeline.training.batch import ReplicaBatch
from pipeline.training.mapping import write_mapping
from pipeline.training.plan import PlannedRun
from tests.checkpoints import flip_in
from tests.training_runs import RUN, TASK, files, folders, metrics


def test_complete_runs_are_skipped_and_a_sweep_can_grow(call):
    assert call("--seeds", "0-1")[0] == 0
    before = files()
    code, out, _ = call("--seeds", "0-1")
    assert code == 0
    assert "2 complete, skipped" in out
    assert "mean success" in out  # the tables come from the logs then
    assert files() == before

    code, out, _ = call("--seeds", "0-2", "--lpc_alphas", "1e-4,1e-2")
    assert code == 0
    assert "2 complete, skipped; 1 from the start" in out
    after = files()
    changed = {name for name in after if before.get(name) != after[name]}
    assert folders(changed) == {"trial_1/seed_2", *(f"trial_2/seed_{seed}" for seed in range(3))}
    # A part of it later: what the mapping knew of the rest stays.
    assert call("--seeds", "1")[0] == 0
    assert call("--seeds", "4", "--trial", "1")[0] == 0
    mapping = json.loads((Path("checkpoints") / TASK / "sweep_trial_1.json").read_text())
    assert [(t["trial"], t["lpc_alpha"], t["seeds"]) for t in mapping["trials"]] == [
        (1, 1e-4, [0, 1, 2, 4]),
        (2, 1e-2, [0, 1, 2]),
    ]


def test_trials_of_other_runs_are_refused_before_anything_is_written(call):
    assert call("--seed", "1")[0] == 0  # trial 1, alpha 1e-4
    before = files()
    code, _, err = call("--seeds", "0-2", "--lpc_alphas", "0,1e-4")
    assert code == 2
    for words in (
        "trial_1/seed_1 holds another run",
        "lpc_alpha is 0.0001 there, 0.0 here",
        "--trial 2",
        "--overwrite",
    ):
        assert words in err
    # Another seed of the trial is not ours to delete, but one trial is one setting.
    code, _, err = call("--seeds", "2-3", "--lpc_alphas", "0,1e-4", "--overwrite")
    assert code == 2
    for words in ("trial_1/seed_1 holds a run of another setting", "lpc_alpha is 0.0001 there, 0.0 here", "--trial 2"):
        assert words in err
    code, _, err = call("--seeds", "0-2", "--num_updates", "9")
    assert code == 2
    for words in ("trial_1/seed_1 holds this run, up to update 6", "--resume", "--overwrite"):
        assert words in err
    code, _, err = call("--seeds", "0-2", "--overwrite", "--lang_encoder", "no/such/folder/anywhere")
    assert (code, "no/such/folder/anywhere" in err) == (2, True)
    code, _, err = call("--seeds", "0-2", "--overwrite", "--lang_encoder", "no/such/folder/anywhere", "--jobs", "2")
    assert (code, err.count("no/such/folder/anywhere")) == (2, 1)
    assert files() == before


def test_overwrite_clears_exactly_the_runs_of_the_call(call):
    assert call("--seeds", "0-2")[0] == 0
    kept = Path("checkpoints") / TASK / RUN / "notes.txt"
    kept.write_text("mine")
    before = files()
    code, _, _ = call("--seeds", "0,2", "--overwrite", "--num_updates", "4")
    assert code == 0
    after = files()
    changed = {name for name in before if before[name] != after.get(name)}
    assert folders(changed) == {"trial_1/seed_0", "trial_1/seed_2"}
    assert kept.read_text() == "mine"
    assert f"checkpoints/{TASK}/trial_1/seed_0/checkpoint_4.pt" in before.keys() - after.keys()
    assert [row["update"] for row in metrics(RUN)] == [2, 4, 4]


def test_a_run_stopped_in_its_final_evaluation_is_evaluated_later(call):
    assert call("--seeds", "0-1")[0] == 0
    log = Path("runs") / TASK / RUN / "metrics.jsonl"
    whole = metrics(RUN)
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    before = files()
    code, out, _ = call("--seeds", "0-1")
    assert code == 0
    assert "1 complete, skipped; 1 trained, to be evaluated" in out
    assert metrics(RUN) == whole
    assert {name for name, content in files().items() if content != before.get(name)} == {str(log)}


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0-1")])
def test_a_periodic_evaluation_is_not_taken_for_the_final_one(flags, call):
    flags = (*flags, "--eval_interval", "3", "--eval_episodes", "2")
    assert call(*flags)[0] == 0
    log = Path("runs") / TASK / RUN / "metrics.jsonl"
    whole = metrics(RUN)
    assert [row.get("eval/episodes") for row in whole][-2:] == [2, 4]
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    before = files()
    assert call(*flags)[0] == 0
    assert metrics(RUN) == whole
    assert {name for name, content in files().items() if content != before.get(name)} == {str(log)}
    assert "complete" in call(*flags)[1]


def test_a_single_run_stopped_in_its_final_evaluation_is_evaluated_by_resume(call, monkeypatch):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReplicaBatch, "evaluate", stopped)
        assert call("--seed", "0")[0] == 130
    before = files()
    assert {Path(name).name for name in before} == {
        "checkpoint_4.pt",
        "checkpoint_final.pt",
        "config.yaml",
        "metrics.jsonl",
    }
    code, out, _ = call("--seed", "0", "--resume")
    assert (code, "final evaluation: 4 levels" in out, "next" in out) == (0, True, True)
    assert [row["update"] for row in metrics(RUN)] == [2, 4, 6, 6]
    assert metrics(RUN)[-1]["eval/episodes"] == 4
    assert {Path(name).name for name, content in files().items() if content != before[name]} == {"metrics.jsonl"}


@pytest.mark.parametrize("one", [True, False])
def test_metrics_without_a_checkpoint_of_theirs_are_not_replaced(one, call):
    flags = ("--seed", "0") if one else ("--seeds", "0-1")
    assert call("--seed", "0", "--checkpoint_dir", "a")[0] == 0
    before = files()
    for more in ((), ("--resume",), ("--lr", "0.5", "--resume")):  # its checkpoints are in a, --resume or not
        code, _, err = call(*flags, "--checkpoint_dir", "b", *more)
        assert (code, err.count("\n")) == (2, 1)
        for words in (f"runs/{TASK}/trial_1/seed_0 holds the metrics of another run", "--overwrite"):
            assert words in err
    assert files() == before
    assert call(*flags, "--checkpoint_dir", "b", "--overwrite")[0] == 0
    assert len(metrics(RUN)) == 4


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0")])
def test_a_run_stopped_before_its_first_checkpoint_starts_afresh_with_resume(flags, call):
    assert call(*flags)[0] == 0
    whole = metrics(RUN)
    for path in (Path("checkpoints") / TASK / RUN).iterdir():
        path.unlink()
    before = files()
    code, _, err = call(*flags)
    assert (code, "which has no checkpoint yet" in err, "--resume" in err) == (2, True, True)
    code, _, err = call(*flags, "--resume", "--lr", "0.5")
    assert (code, "metrics of another run" in err) == (2, True)
    assert files() == before
    assert call(*flags, "--resume")[0] == 0
    assert [row["update"] for row in metrics(RUN)] == [row["update"] for row in whole]


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0-1"), ("--seeds", "0-1", "--jobs", "2")])
def test_a_run_that_another_process_trains_is_refused(flags, call, monkeypatch):
    assert call("--seed", "0")[0] == 0
    before = files()
    logs = Path("runs") / TASK / RUN
    words = f"error: {logs} is being trained by another process\n"
    longer = (*flags, "--num_updates", "8")
    with hold_run(logs):
        for more in ((), ("--resume",), ("--overwrite",)):
            assert call(*longer, *more)[::2] == (2, words)
        assert (logs / ".lock").exists()
        # Begun between the plan and the training of this one.
        monkeypatch.setattr(sweep_plan, "is_held", lambda logs: False)
        if "--jobs" not in flags:
            assert call(*longer, "--overwrite")[::2] == (2, words)
    assert files() == before
    (logs / ".lock").touch()  # of a process that was killed
    assert call(*longer, "--resume")[0] == 0
    assert not (logs / ".lock").exists()


def test_overwrite_deletes_nothing_if_a_run_of_a_later_batch_is_held(call, monkeypatch):
    assert call("--seeds", "0-1")[0] == 0
    before = files()
    monkeypatch.setattr(sweep_plan, "is_held", lambda logs: False)
    with hold_run(Path("runs") / TASK / "trial_1/seed_1"):
        code, _, err = call("--seeds", "0-1", "--max_replicas", "1", "--overwrite")
    assert (code, "seed_1 is being trained by another process" in err) == (2, True)
    assert files() == before


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0-1")])
def test_a_run_that_another_process_has_trained_meanwhile_is_refused(flags, call, monkeypatch):
    assert call("--seed", "0", "--num_updates", "4")[0] == 0
    before = files()
    monkeypatch.setattr(sweep_plan, "newest_checkpoint", lambda folder: None)
    monkeypatch.setattr(sweep_plan, "stamp_checkpoints", lambda folder: ())
    monkeypatch.setattr(sweep_plan, "find_conflict", lambda *_, **__: None)
    code, _, err = call(*flags)
    assert (code, "changed by another process meanwhile" in err) == (2, True)
    assert files() == before


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0-1"), ("--seeds", "0-1", "--jobs", "2")])
@pytest.mark.parametrize("name", ["checkpoint_dir", "log_dir"])
def test_a_folder_that_is_a_file_is_refused_before_training(name, flags, call):
    Path("taken").write_text("mine")
    code, out, err = call(*flags, f"--{name}", "taken")
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert f"taken/{TASK}/trial_1/seed_0: cannot be written (Not a directory)" in line
    assert "updates of" not in out
    assert files() == {"taken": b"mine"}


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--seeds", "0")])
def test_damaged_metrics_are_named_in_one_line(flags, call):
    assert call(*flags)[0] == 0
    log = Path("runs") / TASK / RUN / "metrics.jsonl"
    log.write_text("not json\n" + log.read_text())
    before = files()
    code, _, err = call(*flags, "--num_updates", "8", "--resume")
    assert code == 2
    assert f"{log}, line 1" in err and "Traceback" not in err
    assert files() == before


def test_the_mapping_keeps_the_seeds_of_a_sweep_that_has_no_checkpoints_yet(tmp_path):
    def sweep_of(*seeds: int) -> list[PlannedRun]:
        configs = [TrainConfig(seed=s, checkpoint_dir=str(tmp_path / "c"), log_dir=str(tmp_path / "r")) for s in seeds]
        return [PlannedRun(c, run_folder(c.checkpoint_dir, c), run_folder(c.log_dir, c)) for c in configs]

    def write(runs: list[PlannedRun]) -> dict:
        path = write_mapping(runs, runs[0].config)
        assert [file.name for file in path.parent.iterdir()] == ["sweep_trial_1.json"]
        return json.loads(path.read_text())["trials"][0]

    first, second = sweep_of(0, 1), sweep_of(2, 3)
    with contextlib.ExitStack() as stack:
        for run in first:
            stack.enter_context(hold_run(run.logs))
            (run.logs / "config.yaml").touch()
        assert write(first)["seeds"] == [0, 1]
        assert write(second)["seeds"] == [0, 1, 2, 3]
    assert write(sweep_of(4))["seeds"] == [0, 1, 4]  # of 2 and 3 nothing was ever there


def test_mappings_written_at_once_are_all_kept(tmp_path):
    configs = [TrainConfig(seed=s, checkpoint_dir=str(tmp_path / "c"), log_dir=str(tmp_path / "r")) for s in range(8)]
    for config in configs:
        run_folder(config.log_dir, config).mkdir(parents=True)
    planned_runs = [PlannedRun(config, Path(), Path()) for config in configs]
    with ThreadPoolExecutor(8) as pool:
        (path,) = set(pool.map(lambda run: write_mapping([run], run.config), planned_runs))
    assert json.loads(path.read_text())["trials"][0]["seeds"] == list(range(8))


def test_only_a_mapping_that_exists_is_named(call):
    flags = ("--seeds", "0", "--lpc_alphas", "0,1e-2")
    assert "sweep_trial_1.json)" in call(*flags)[1]
    code, out, _ = call("--seeds", "0", "--lpc_alphas", "1e-2", "--trial", "2")
    assert (code, "all runs are complete" in out, "sweep_trial" in out) == (0, True, False)


# -------------------------------------------------------------------------------------------------- damaged checkpoints


def damage_state(path: Path) -> None:
    flip_in(path, read_checkpoint(path)["optimizer_state_dict"]["state"][0]["exp_avg"])


def damage_weights(path: Path) -> None:
    flip_in(path, read_checkpoint(path)["policy_state_dict"]["head.weight"])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [empty, damage_state, damage_weights])
def test_resume_names_the_damaged_checkpoint_and_the_one_to_go_on_from(damage, call):
    assert call("--checkpoint_interval", "1", "--num_updates", "3")[0] == 0
    folder = Path("checkpoints") / TASK / "trial_1" / "seed_0"
    final, second, first = (folder / f"checkpoint_{name}.pt" for name in ("final", 2, 1))
    damage(final)
    before = files()
    code, _, err = call("--num_updates", "5", "--resume")
    assert code == 2
    assert err.startswith(f"error: {final}: ")
    assert err.endswith(
        f"newest sound checkpoint before it is {second}, of update 2. To go on from there, delete or rename "
        "checkpoint_final.pt, and pass --resume\n"
    )
    damage(second)
    code, _, err = call("--num_updates", "5", "--resume")
    assert err.endswith(
        f"{first}, of update 1. To go on from there, delete or rename checkpoint_final.pt and "
        "checkpoint_2.pt, and pass --resume\n"
    )
    assert {name: content for name, content in files().items() if name != second.as_posix()} == {
        name: content for name, content in before.items() if name != second.as_posix()
    }
    final.unlink()
    second.unlink()
    assert call("--num_updates", "5", "--resume")[0] == 0
    assert metrics(RUN)[-1]["update"] == 5


def test_a_sweep_with_a_damaged_checkpoint_is_refused_before_anything_is_written(call):
    assert call("--seeds", "0-2", "--num_updates", "2")[0] == 0
    folder = Path("checkpoints") / TASK / "trial_1"
    for seed in (0, 2):
        damage_state(folder / f"seed_{seed}" / "checkpoint_final.pt")
    before = files()
    code, _, err = call("--seeds", "0-2", "--num_updates", "4", "--resume")
    assert code == 2
    assert f"{folder / 'seed_0'} has no sound one to go on from: --overwrite starts afresh" in err
    assert "likewise 1 other of these 3 runs" in err
    assert files() == before
    assert call("--seeds", "0-2", "--num_updates", "2")[0] == 0  # complete: its weights are sound
    damage_weights(folder / "seed_1" / "checkpoint_final.pt")
    code, _, err = call("--seeds", "0-2", "--num_updates", "2")
    assert code == 2
    assert "seed_1/checkpoint_final.pt: it is damaged: its weights" in err


def test_a_damaged_checkpoint_older_than_a_sound_final_one_is_in_nobody_s_way(call):
    assert call("--checkpoint_interval", "1", "--num_updates", "2")[0] == 0
    empty(Path("checkpoints") / TASK / "trial_1" / "seed_0" / "checkpoint_1.pt")
    assert call("--num_updates", "3", "--resume")[0] == 0


@pytest.mark.parametrize("seeds", [[0, 10**30], [0, 1.5], [0, True], [0, -1], [0, "1"]], ids=str)
def test_a_mapping_with_impossible_numbers_is_made_anew(tmp_path, seeds):
    config = TrainConfig(checkpoint_dir=str(tmp_path / "checkpoints"), log_dir=str(tmp_path / "runs"))
    run = PlannedRun(config, run_folder(config.checkpoint_dir, config), run_folder(config.log_dir, config))
    path = write_mapping([run], config)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "trials": [{**content["trials"][0], "seeds": seeds}]}))
    write_mapping([run], config)
    assert json.loads(path.read_text()) == content
