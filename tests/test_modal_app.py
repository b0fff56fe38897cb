"""`modal_app.py` without an account: built offline, its functions called by `.local()`."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.command.errors import ConfigError
from pipeline.command.launcher import parse_launcher
from pipeline.command.workers import WorkItem
from pipeline.launch.items import launch
from pipeline.records.results import read_results
from tests.launch_items import count_item, misbehave
from tests.training_runs import TASK

pytest.importorskip("modal", reason="needs requirements/cluster.txt")

import modal_app

pytestmark = pytest.mark.filterwarnings("ignore:.*is executing locally")  # which is meant

ROOT = Path(__file__).parents[1]
SHORT = "--num_updates 6 --num_envs 2 --unroll_len 8 --final_eval_episodes 2 --checkpoint_interval 4"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLMOP_VOLUME", str(tmp_path / "volume"))
    monkeypatch.setattr(modal_app, "PROJECT", str(ROOT))
    (tmp_path / "volume").mkdir()
    return tmp_path


def test_containers_get_the_code_and_nothing_else():
    kept = {
        p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file() and not modal_app.is_left_out(p.relative_to(ROOT))
    }
    from pipeline.launch.code import BESIDE, MODULES, PACKAGES

    needed = {Path(f"{name}.py") for name in (*MODULES, "train_mop", "batch_eval", "config")} - {Path("config.py")}
    needed |= {p.relative_to(ROOT) for name in (*PACKAGES, *BESIDE) for p in (ROOT / name).rglob("*.py")}
    assert needed <= kept
    assert {path.parts[0] for path in kept if len(path.parts) > 1} <= set(modal_app.CODE)


def test_runs_are_tasks_times_trials_times_seeds():
    runs = modal_app.list_runs("GoToObj, Open", "1-2", "0,3", "configs/debug.yaml", "--lr 1e-3")
    assert len(runs) == 8 and len({tuple(run) for run in runs}) == 8
    assert runs[0] == [
        *("--config", f"{ROOT}/configs/debug.yaml", "--trial", "1", "--seed", "0"),
        *("--task_id", "GoToObj", "--lr", "1e-3"),
    ]


def test_training_and_evaluation_on_a_volume_lose_no_row(folder):
    runs = modal_app.list_runs("", "1", "0-1", "configs/debug.yaml", SHORT)
    assert [modal_app.train_run.local(run) for run in runs] == [0, 0]
    assert [modal_app.train_run.local(run) for run in runs] == [0, 0]  # complete, and left as they are
    paths = modal_app.list_checkpoints.local(True)
    assert paths == [f"checkpoints/{TASK}/trial_1/seed_{seed}/checkpoint_final.pt" for seed in (0, 1)]
    assert len(modal_app.list_checkpoints.local(False)) == 4
    for path in [*paths, f"checkpoints/{TASK}/trial_1/seed_0/checkpoint_4.pt"]:
        assert modal_app.evaluate_checkpoint.local(path, ["--num_episodes", "3"]) == 0
    files = modal_app.read_rows.local()
    assert [name for name, _ in files] == [
        f"rows/{TASK}/trial_1/seed_{seed}/{name}.csv"
        for seed, name in ((0, "checkpoint_4"), (0, "checkpoint_final"), (1, "checkpoint_final"))
    ]
    assert modal_app.merge_rows(files, Path("evaluation_results.csv")) == 3
    assert modal_app.merge_rows(files, Path("evaluation_results.csv")) == 3
    rows = read_results("evaluation_results.csv")
    assert sorted(zip(rows["seed"], rows["update"], strict=True)) == [(0, 4), (0, 6), (1, 6)]
    one = read_results(folder / "volume" / files[1][0])
    mine = rows[rows["checkpoint_path"] == one["checkpoint_path"][0]].reset_index(drop=True)
    assert mine.equals(one)


def test_the_launcher_does_items_by_the_function_itself():
    events = []
    items = [count_item("a", 5, dies_at=3), WorkItem("refuse", misbehave, ("refuse",))]
    launcher = parse_launcher("modal", "executor=local,sync_seconds=0.1,containers=2")
    launch(items, launcher=launcher, jobs=None, report=events.append)
    found = {
        event.item.name: (event.kind, event.content) for event in events if event.kind not in ("started", "progress")
    }
    assert found == {"a": ("done", 3), "refuse": ("failed", "lr: expected a number, found none")}
    assert Path("out/a/log.jsonl").read_text() == "1\n2\n3\n4\n5\n"


def test_without_an_account_that_is_told(monkeypatch, tmp_path):
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"expected an account \(modal setup\) and the app rl-mop"):
        launch([WorkItem("x", misbehave, ("well",))], launcher=parse_launcher("modal", None), jobs=1, report=print)
    assert not Path("launches").exists()


def test_modal_run_shows_what_can_be_asked():
    command = [sys.executable, "-m", "modal", "run", "modal_app.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for flag in ("--do", "--tasks", "--trials", "--seeds", "--flags"):
        assert flag in done.stdout


def test_what_is_asked_is_done_and_failures_are_named(monkeypatch, capsys):
    asked = []

    class Calls:
        def map(self, runs, return_exceptions):
            asked.extend(runs)
            return iter([0, 1, RuntimeError("lost"), 0])

    monkeypatch.setattr(modal_app, "train_run", Calls())
    with pytest.raises(SystemExit, match="1"):
        modal_app.main("train", tasks="GoToObj,Open", seeds="0-1", config="configs/debug.yaml")
    said = capsys.readouterr()
    assert said.out == "2 of 4 done\n" and len(asked) == 4
    assert "Open: exit code 1" in said.err and "GoToObj: lost" in said.err
    with pytest.raises(SystemExit, match="2"):
        modal_app.main("dance")
    assert "expected train, evaluate or results, found 'dance'" in capsys.readouterr().err
