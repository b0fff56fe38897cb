"""The table of levels: budgets of processor time, going on where it was stopped, the page; ready-made configs."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from babyai.levels import list_tasks, resolve_task_id
from benchmarks.levels import command, work
from benchmarks.levels.command import main
from benchmarks.levels.page import COLUMNS, collect_rows, find_status, write_page
from benchmarks.levels.records import CpuClock, clock_path, mark_key, read_record, short_name
from benchmarks.levels.reference import _BABYAI, _JAT, KINDS, PAPER, find_kind
from benchmarks.levels.settings import OPTIONS, parse_settings, resolve_settings_levels
from pipeline.command.cli import parse_command
from pipeline.command.errors import ConfigError
from pipeline.command.workers import Link, Stopped
from pipeline.config import TrainConfig
from pipeline.evaluation.checkpoint import evaluate_checkpoint, load_checkpoint
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.launch.journal import read_states
from pipeline.training.options import resolve_levels
from tests.launch_items import take_rays_place

ROOT = Path(__file__).parents[1]
DEBUG = ("--config", str(ROOT / "configs" / "debug.yaml"), "--final_eval_episodes", "6", "--max_steps", "12")
BUDGETS = "0.002,0.004"  # a quarter and half a second of processor time
LEVELS = "GoToObjS4,KeyInBox"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def run(out: Path, *flags: str, to_the_end: bool = True) -> int:
    """Run the command: of six short levels a policy may solve all by chance, and is trained on nonetheless."""
    return main([*DEBUG, "--out", str(out), "--jobs", "1", *flags, *(["--to_the_end"] if to_the_end else [])])


def settings_of(out: Path, *flags: str):
    words = [*DEBUG, "--out", str(out), *flags]
    config, beside = parse_command("", TrainConfig, words, options=OPTIONS)
    return parse_settings(config, **beside)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """Two levels, one of which the bot cannot solve, at two budgets."""
    out = tmp_path_factory.mktemp("levels")
    assert run(out, "--minutes", BUDGETS, "--only", LEVELS) == 0
    return out


def read(out: Path, name: str) -> dict:
    return json.loads((out / "results" / f"{name}.json").read_text())


def test_each_budget_has_a_checkpoint_that_took_it(done):
    marks = read(done, "GoToObjS4")["marks"]
    first, second = marks["0.002"], marks["0.004"]
    assert 0 < first["updates"] < second["updates"]
    for mark in (first, second):
        budget = 120 * mark["minutes"]
        assert mark["cpu_seconds"] >= round(budget, 1)
        checkpoint = load_checkpoint(done / mark["checkpoint"])
        assert (checkpoint.update, checkpoint.digest) == (mark["updates"], mark["digest"])
        assert mark["env_steps"] == mark["updates"] * 8 * 16
        assert mark["num_episodes"] == 6
        drawn = {name: mark[f"sample_{name}"] for name in work.KEPT_OF_SAMPLE}
        how = EvaluationSettings(num_episodes=6, eval_actions="sample", device="cpu")
        evaluated = evaluate_checkpoint(checkpoint, "BabyAI-GoToObjS4-v0", how, record=False).metrics
        assert drawn == {name: evaluated[name] for name in drawn}
        assert 0 <= mark["success_low"] <= mark["success_rate"] <= mark["success_high"] <= 1
        assert mark["versions"].keys() == {"python", "torch", "numpy", "numba", "minigrid"}
    assert first["digest"] != second["digest"]


def test_where_the_bot_solves_none_nothing_is_trained(done):
    record = read(done, "KeyInBox")
    assert record["bot"] == {"levels": 6, "solved": 0, "mean_steps": None}
    assert record["marks"] == {}
    assert not (done / "checkpoints" / "BabyAI-KeyInBox-v0").exists()
    bot = read(done, "GoToObjS4")["bot"]
    assert bot["solved"] == 6
    assert 1 <= bot["mean_steps"] <= 12


def test_page_and_table_hold_every_level(done):
    page = (done / "levels.md").read_text()
    with (done / "levels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["level"] for row in rows} == set(list_tasks())
    assert len(rows) == 2 * len(list_tasks())
    by_key = {(row["level"], row["minutes"]): row for row in rows}
    trained = by_key["BabyAI-GoToObjS4-v0", "0.002"]
    assert list(trained) == list(COLUMNS)
    assert json.loads(trained["settings"])["num_envs"] == 8
    assert float(trained["success_rate"]) == read(done, "GoToObjS4")["marks"]["0.002"]["success_rate"]
    assert by_key["BabyAI-KeyInBox-v0", "0.002"]["status"] == "the bot solves none"
    assert by_key["BabyAI-BossLevel-v0", "0.004"]["status"] == "not run"
    assert by_key["BabyAI-BossLevel-v0", "0.004"]["babyai_1_1_percent"] == "90.4"
    for task in list_tasks():
        assert page.count(f"\n| {short_name(task)} | ") == 1
    assert "| BossLevel | - | - | not run | not run |  |  |  | 77 % | 90.4 % | 0.54 |" in page
    assert "0.002 minutes: 1 levels run" in page
    assert [line for line in page.splitlines() if len(line) > 120 and not line.startswith("|")] == []
    assert (done / "images" / "levels.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_done_is_not_done_again(done, monkeypatch, tmp_path):
    before = {path: path.read_bytes() for path in done.rglob("*.json")}

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(work, "train_group", refuse)
    monkeypatch.setattr(work, "measure_bot", refuse)
    assert run(done, "--minutes", BUDGETS, "--only", LEVELS, "--docs", str(tmp_path)) == 0
    assert {path: path.read_bytes() for path in done.rglob("*.json")} == before
    assert {path.name for path in tmp_path.rglob("*.*")} == {"levels.md", "levels.csv", "levels.png"}


def test_a_later_budget_goes_on_from_the_earlier_ones_checkpoint(done, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    earlier = read(out, "GoToObjS4")["marks"]
    assert run(out, "--minutes", "0.002,0.006", "--only", "GoToObjS4") == 0
    marks = read(out, "GoToObjS4")["marks"]
    assert {name: marks[name] for name in earlier} == earlier
    assert marks["0.006"]["updates"] > marks["0.004"]["updates"]
    logged = (out / "runs/BabyAI-GoToObjS4-v0/trial_1/seed_0/metrics.jsonl").read_text().splitlines()
    updates = [json.loads(line)["update"] for line in logged]
    assert updates == sorted(set(updates))


def test_a_stop_saves_and_the_next_call_goes_on(tmp_path):
    out = tmp_path / "stopped"
    settings = settings_of(out, "--minutes", "0.003")
    seen: list[float] = []
    with pytest.raises(Stopped):
        work.train_level(Link(seen.append, lambda: len(seen) >= 5), settings, "BabyAI-GoToObjS4-v0", 0.003)
    run_ = work.plan_run(settings, "BabyAI-GoToObjS4-v0")
    assert run_.update == 6  # the first update is not told
    with closing(CpuClock(clock_path(settings, "BabyAI-GoToObjS4-v0"))) as clock:
        assert clock.seconds_at(6) == pytest.approx(sum(seen), abs=0.002)
    work.train_level(Link(seen.append, lambda: False), settings, "BabyAI-GoToObjS4-v0", 0.003)
    assert sum(seen) == pytest.approx(0.36, abs=0.3)
    assert read(out, "GoToObjS4")["marks"]["0.003"]["updates"] > 6


def test_ctrl_c_ends_the_command_and_the_same_one_goes_on(done, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    words = [*DEBUG, "--out", str(out), "--jobs", "1", "--minutes", "5", "--only", "OpenDoor"]
    command = [sys.executable, "-m", "benchmarks.levels", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    clock = out / "clocks" / "OpenDoor.csv"
    deadline = time.monotonic() + 120
    while not (clock.exists() and clock.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "the same command goes on from here" in error
    saved = work.plan_run(settings_of(out), "BabyAI-OpenDoor-v0").update
    assert saved > 0
    with closing(CpuClock(clock)) as rows:
        seconds = rows.seconds_at(saved)
    assert 0 < seconds < 600
    assert run(out, "--minutes", f"{seconds / 120 + 0.001}", "--only", "OpenDoor") == 0
    (mark,) = read(out, "OpenDoor")["marks"].values()
    assert mark["updates"] > saved


def test_a_budget_that_was_passed_unseen_is_refused(done, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    settings = settings_of(out, "--minutes", "0.0001")
    update = work.plan_run(settings, "BabyAI-GoToObjS4-v0").update
    clock_path(settings, "BabyAI-GoToObjS4-v0").write_text(f"{update},100.0\n")
    with pytest.raises(work.LevelError, match=r"no evaluation at 0\.0001; leave that budget out"):
        work.train_level(Link(print, lambda: False), settings, "BabyAI-GoToObjS4-v0", 0.0001)


def test_levels_are_work_items_that_a_launcher_does_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    take_rays_place(monkeypatch)
    words = ["--launcher", "ray", "--launcher_options", "sync_seconds=0.05,folder=record", "--only", LEVELS]
    assert main([*DEBUG, "--out", "out", "--minutes", "0.002", *words]) == 0
    for part, count in (("bot", 2), ("train_0.002", 1)):
        assert [state.state for state in read_states(Path("record") / part)] == count * ["done"]
    first = read(Path("out"), "GoToObjS4")["marks"]["0.002"]
    checkpoint = load_checkpoint(Path("out") / first["checkpoint"])
    assert (checkpoint.update, checkpoint.digest) == (first["updates"], first["digest"])
    assert read(Path("out"), "KeyInBox")["bot"]["solved"] == 0

    carrier = take_rays_place(monkeypatch)
    assert main([*DEBUG, "--out", "out", "--minutes", "0.002,0.004,0.006", "--to_the_end", *words]) == 0
    marks = read(Path("out"), "GoToObjS4")["marks"]
    assert marks["0.002"] == first and first["updates"] < marks["0.004"]["updates"] < marks["0.006"]["updates"]
    for sent, mark in zip(carrier.sent, (first, marks["0.004"]), strict=True):  # only what the next one starts from
        assert {path for path in sent if not path.startswith("out/runs/")} == {
            *("out/results/GoToObjS4.json", "out/clocks/GoToObjS4.csv", f"out/{mark['checkpoint']}")
        }
    assert all((Path("out") / mark["checkpoint"]).exists() for mark in marks.values())


def test_levels_that_fail_are_named_and_the_others_done(tmp_path, capsys, monkeypatch):
    real = work.measure_bot

    def fail_on_one(task_id, *rest):
        if task_id == "BabyAI-OpenDoor-v0":
            raise work.LevelError("no luck")
        return real(task_id, *rest)

    monkeypatch.setattr(work, "measure_bot", fail_on_one)
    assert run(tmp_path, "--only", "OpenDoor,GoToObjS4", "--bot_only") == 1
    assert "failed: OpenDoor: no luck" in capsys.readouterr().err
    assert read(tmp_path, "GoToObjS4")["bot"]["solved"] == 6


def test_a_run_that_diverges_fails_with_its_reason(tmp_path, capsys):
    flags = ("--lr", "1e30", "--minutes", "0.01", "--only", "GoToObjS4")
    assert run(tmp_path, *flags) == 1
    assert re.search(r"failed: GoToObjS4: .*(loss|gradient norm) (nan|inf)", capsys.readouterr().err)


def test_results_of_other_settings_are_refused(done, capsys):
    assert run(done, "--minutes", BUDGETS, "--only", LEVELS, "--num_envs", "9") == 2
    error = capsys.readouterr().err
    assert "was made with other settings (num_envs); choose another --out" in error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--minutes", "10,5"), "rising positive numbers"),
        (("--minutes", "x"), "rising positive numbers"),
        (("--minutes", "0"), "rising positive numbers"),
        (("--only", "GoTo,GoTo"), "distinct levels"),
        (("--only", "GoTo,BabyAI-GoTo-v0"), "found BabyAI-GoTo-v0 twice"),
        (("--only", "GoNowhere"), "found 'GoNowhere'"),
        (("--jobs", "0"), "at least 1"),
        (("--policy", "gru"), "expected moe or mop"),
        (("--only", "GoTo", "--task_id", "GoTo"), "exclude each other"),
        (("--checkpoint_dir", "here"), "exclude each other"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, capsys, flags, said):
    assert run(tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_clock_that_lost_the_end_of_its_run_goes_back(tmp_path):
    path = tmp_path / "clock.csv"
    clock = CpuClock(path)
    assert clock.seconds_at(5) == 0.0
    clock.note(10, 2.0)
    clock.note(20, 6.0)
    assert clock.seconds_at(15) == 4.0
    assert clock.seconds_at(40) == 12.0  # at the mean rate so far
    clock.note(15, 4.5)  # gone on from a checkpoint of update 12, say
    clock.close()
    again = CpuClock(path)
    assert [again.seconds_at(update) for update in (0, 10, 15, 30)] == [0.0, 2.0, 4.5, 9.0]
    again.close()
    path.write_text("ten,2\n")
    with pytest.raises(ConfigError, match="found 'ten,2'; delete it"):
        CpuClock(path)


def test_a_record_that_is_none_is_named(tmp_path):
    settings = settings_of(tmp_path)
    path = tmp_path / "results" / "GoTo.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"GoTo\.json: expected a level's results"):
        read_record(settings, "BabyAI-GoTo-v0")


def test_levels_come_in_the_papers_order_and_each_has_a_kind(tmp_path):
    levels = resolve_settings_levels(settings_of(tmp_path), PAPER)
    assert sorted(levels) == sorted(list_tasks())
    assert [short_name(level) for level in levels[: len(PAPER)]] == list(PAPER)
    kinds = {short_name(task): find_kind(short_name(task)) for task in list_tasks()}
    assert set(kinds.values()) == set(KINDS)
    some = {"GoToSeqS5R2": "compound", "GoToImpUnlock": "Unlock", "GoToObj": "GoTo", "UnblockPickup": "Pickup"}
    assert {name: kinds[name] for name in some} == some
    with pytest.raises(ValueError, match="say its kind"):
        find_kind("Dance")


def test_figures_of_others_are_of_registered_levels():
    names = {short_name(task) for task in list_tasks()}
    assert {*PAPER, *_BABYAI, *_JAT} <= names
    assert all(0 <= value <= 100 for pair in _BABYAI.values() for value in pair)
    assert all(0 <= value <= 1.1 for value in _JAT.values())


def test_solved_is_ninety_nine_percent(tmp_path):
    def of(success: float, **drawn: float | None) -> dict:
        return {"bot": {"solved": 1}, "marks": {"10": {"success_rate": success, **drawn}}}

    for drawn, status in ((None, "not solved"), (0.985, "not solved"), (0.99, "solved")):
        assert find_status(of(0.5, sample_success_rate=drawn), 10.0) == status
    assert [find_status(of(success), 10.0) for success in (0.985, 0.99)] == ["not solved", "solved"]
    assert [find_status(of(success), 60.0) for success in (0.985, 0.99)] == ["not run", "solved before"]
    assert [find_status(of(success), 1.0) for success in (0.985, 0.99)] == ["not run", "not run"]
    assert find_status({"bot": None, "marks": {}}, 10.0) == "not run"
    assert mark_key(10.0) == "10"


def test_a_level_that_is_solved_is_trained_no_further(done, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    path = out / "results" / "GoToObjS4.json"
    record = json.loads(path.read_text())
    record["marks"]["0.004"]["success_rate"] = 1.0
    path.write_text(json.dumps(record))
    real, trained = work.train_group, []
    monkeypatch.setattr(work, "train_group", lambda link, runs: trained.append(runs) or real(link, runs))
    words = ("--minutes", "0.004,0.006", "--only", "GoToObjS4")
    assert run(out, *words, to_the_end=False) == 0
    assert (trained, read(out, "GoToObjS4")) == ([], record)
    page = (out / "levels.md").read_text()
    assert "0.004 minutes: 1 levels run, 1 of them solved, 1 of these with the most probable actions; " in page
    assert "0.006 minutes: 0 levels run, 0 of them solved; 1 solved before; " in page
    (line,) = [line for line in page.splitlines() if line.startswith("| GoToObjS4 |")]
    assert "| **100** / " in line and " | solved |" in line
    assert run(out, *words) == 0
    assert read(out, "GoToObjS4")["marks"].keys() == {"0.002", "0.004", "0.006"}


def test_all_levels_reach_a_budget_before_one_is_trained_to_the_next(tmp_path):
    assert run(tmp_path, "--minutes", BUDGETS, "--only", "GoToObjS4,OpenDoor", "--max_steps", "3") == 0
    times = {
        (level, key): (tmp_path / mark["checkpoint"]).stat().st_mtime_ns
        for level in ("GoToObjS4", "OpenDoor")
        for key, mark in read(tmp_path, level)["marks"].items()
    }
    first, second = BUDGETS.split(",")
    assert times["OpenDoor", first] < times["GoToObjS4", second] < times["OpenDoor", second]


def test_what_is_published_is_taken_over_and_gone_on_with(done, tmp_path, capsys, monkeypatch):
    docs, out = tmp_path / "docs", tmp_path / "out"
    assert run(done, "--minutes", BUDGETS, "--tables", "--docs", str(docs)) == 0
    table = (docs / "levels.csv").read_bytes()
    assert run(out, "--minutes", BUDGETS, "--tables", "--docs", str(docs)) == 0
    assert "2 levels were published before" in capsys.readouterr().out
    assert (docs / "levels.csv").read_bytes() == table
    for name in ("GoToObjS4", "KeyInBox"):
        assert read(out, name) == read(done, name)
    words = ("--minutes", f"{BUDGETS},0.006", "--only", "GoToObjS4", "--docs", str(docs))
    totals, do_all = [], command.do_all
    monkeypatch.setattr(command, "do_all", lambda *about: totals.append(about[2]) or do_all(*about))
    assert run(out, *words) == 0  # from the beginning on: checkpoints are not published
    assert totals == [0, 0, 0, pytest.approx(0.72)]  # the bar was full half-way
    marks = read(out, "GoToObjS4")["marks"]
    assert {key: marks[key] for key in BUDGETS.split(",")} == read(done, "GoToObjS4")["marks"]
    assert marks["0.006"]["updates"] > 0


def test_a_call_with_fewer_budgets_loses_none_of_the_published_ones(done, tmp_path):
    docs = tmp_path / "docs"
    first, _ = BUDGETS.split(",")
    for out, budgets in ((done, BUDGETS), (tmp_path / "out", first)):
        assert run(out, "--minutes", budgets, "--tables", "--docs", str(docs)) == 0
    with (docs / "levels.csv").open() as file:
        found = {row["minutes"] for row in csv.DictReader(file) if row["cpu_seconds"]}
    assert found == set(BUDGETS.split(","))
    assert "| success, 0.002 min | success, 0.004 min |" in (docs / "levels.md").read_text()


def test_a_published_table_that_would_be_lost_is_not_written_over(done, tmp_path, capsys):
    docs = tmp_path / "docs"
    assert run(done, "--minutes", BUDGETS, "--tables", "--docs", str(docs)) == 0
    before = {path: path.read_bytes() for path in docs.rglob("*.*")}
    words = ("--minutes", BUDGETS, "--tables", "--docs", str(docs))
    for more, said in (
        (("--seed", "1"), "BabyAI-GoToObjS4-v0 was made with other settings (seed)"),
        ((), "found something"),
    ):
        if not more:
            (docs / "levels.csv").write_text("level,bot_levels\nBabyAI-GoToObjS4-v0,many\n")
            before[docs / "levels.csv"] = (docs / "levels.csv").read_bytes()
        assert run(tmp_path / "out", *words, *more) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert {path: path.read_bytes() for path in docs.rglob("*.*")} == before
        assert not (tmp_path / "out").exists()


def test_ready_made_settings_are_measured_each_on_its_level_beside_the_default(done, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    debug, _ = parse_command("", TrainConfig, DEBUG)
    sizes = ("num_envs", "unroll_len", "intermediate_dim", "router_hidden_size", "lang_dim", "lang_encoder")
    same = [word for name in sizes for word in (f"--{name}", str(getattr(debug, name)))]  # compiled already
    same += ["--expert_hidden_sizes", str(debug.expert_hidden_sizes), "--obs_encoding", debug.obs_encoding]
    assert run(out, "--ready_made", "--minutes", "0.002", "--only", "PickupLoc", *same) == 0
    record = json.loads((out / "ready_made/pickuploc/results/PickupLoc.json").read_text())
    assert record["settings"]["train_lang_proj"] and record["marks"].keys() == {"0.002"}
    assert not (out / "results" / "PickupLoc.json").exists()
    with (out / "levels.csv").open() as file:
        own = [row for row in csv.DictReader(file) if row["ready_made"] and row["cpu_seconds"]]
    assert [(row["ready_made"], row["level"], row["minutes"]) for row in own] == [
        ("pickuploc", "BabyAI-PickupLoc-v0", "0.002")
    ]
    page = (out / "levels.md").read_text()
    first, second = [line for line in page.splitlines() if line.startswith("| PickupLoc | ") and "0.002" in line]
    assert first.startswith("| PickupLoc | pickuploc | 0.002 | ")
    assert second == "| PickupLoc | default | 0.002 | not run |  |  |  |"
    assert first.count("|") == second.count("|")


def test_a_page_of_nothing_says_so(tmp_path):
    settings = settings_of(tmp_path)
    page = write_page(settings, collect_rows(settings), with_figure=False)
    assert f"10 minutes: 0 levels run, 0 of them solved; {len(list_tasks())} not run" in page
    assert f"The bot was not measured on {len(list_tasks())} levels" in page
    assert "images/levels.png" not in page


def test_the_published_table_holds_every_level():
    with (ROOT / "docs" / "levels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["level"] for row in rows} == set(list_tasks())
    assert {row["bot_solved"] for row in rows} - {""} != set()
    page = (ROOT / "docs" / "levels.md").read_text()
    assert [task for task in list_tasks() if f"\n| {short_name(task)} | " not in page] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_ready_made_configs_name_registered_levels(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_mop.py"])
    config, _ = parse_command("", TrainConfig, ["--config", str(path)])
    levels = resolve_levels(config)
    assert [resolve_task_id(level) for level in ([levels] if isinstance(levels, str) else levels)]
    text = path.read_text()
    assert text.startswith("# ")
    assert "python train_mop.py" in text or path.stem in ("debug", "gotoobj", "unlockpickup")
