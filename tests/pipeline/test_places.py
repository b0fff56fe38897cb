"""Places: what is written is read back, in the order of its numbers; what does not follow the grammar is no place."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import TrainConfig
from pipeline.places import (
    Place,
    PlaceError,
    cache_path,
    checkpoint_path,
    find_caches,
    find_checkpoints,
    find_run_folders,
    find_strays,
    find_trials,
    list_checkpoints,
    list_run_folders,
    locate_cache,
    locate_checkpoint,
    locate_run,
    plot_path,
    root_of,
    run_folder,
)

TASK = "BabyAI-GoToObj-v0"
NUMBERS = st.integers(0, 2**63 - 1)
TASKS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", fullmatch=True)
MAYBE = st.none() | NUMBERS


# ------------------------------------------------------------------------------------------------------- round trips


@given(task_id=TASKS, trial=NUMBERS, seed=MAYBE, update=MAYBE, root=st.sampled_from(["c", "a/trial_1", "x/T/seed_3"]))
def test_path_of_a_cache_says_what_it_was_made_of(task_id, trial, seed, update, root):
    path = cache_path(root, task_id, trial, seed, update)
    place = Place(path, task_id, trial, seed, update)
    assert locate_cache(path) == locate_cache(path, root) == place
    assert locate_checkpoint(path) is None
    assert plot_path("plots", place, "map") == Path("plots", path.relative_to(root)).with_name("map.png")


@given(task_id=TASKS, trial=NUMBERS, seed=MAYBE, update=MAYBE, root=st.sampled_from(["c", "a/trial_1", "x/T/seed_3"]))
def test_path_of_a_checkpoint_says_what_it_was_made_of(task_id, trial, seed, update, root):
    path = checkpoint_path(run_folder(root, Place(Path(), task_id, trial, seed, None)), update)
    assert locate_checkpoint(path) == locate_checkpoint(path, root) == Place(path, task_id, trial, seed, update)
    assert locate_cache(path) is None


def test_path_of_any_text_is_a_place_or_none():
    for text in ("", "/", "x.json", "routing_data.json", "/trial_1/routing_data.json", "\n/trial_1/routing_data.json"):
        assert locate_cache(text) is None


# ------------------------------------------------------------------------------------------------------------- paths


def test_paths():
    assert cache_path("c", TASK, 1) == Path("c/BabyAI-GoToObj-v0/trial_1/routing_data.json")
    assert cache_path("c", "T", 1, seed=0) == Path("c/T/trial_1/seed_0/routing_data.json")
    assert cache_path("c", "T", 1, update=500) == Path("c/T/trial_1/update_500/routing_data.json")
    expected = Path("c/T/trial_1/seed_2/update_500/routing_data.json")
    assert cache_path("c", "T", np.int64(1), seed=2, update=500) == expected
    folder = run_folder("checkpoints", TrainConfig(task_id=TASK, trial=3, seed=4))
    assert folder == Path("checkpoints/BabyAI-GoToObj-v0/trial_3/seed_4")
    assert checkpoint_path(folder, 12) == folder / "checkpoint_12.pt"
    assert checkpoint_path(folder, None) == folder / "checkpoint_final.pt"


@pytest.mark.parametrize(
    "parts",
    [
        ("../x", 1),
        ("..", 1),
        (".hidden", 1),
        ("a/b", 1),
        ("/etc", 1),
        ("a\\b", 1),
        ("", 1),
        ("a\n", 1),
        ("a\0", 1),
        ("x" * 101, 1),
        (None, 1),
        ("T", "../1"),
        ("T", -1),
        ("T", True),
        ("T", np.bool_(True)),
        ("T", 1.5),
        ("T", None),
        ("T", 1, "0"),
        ("T", 1, 0, "../../x"),
        ("T", 2**63),
        ("T", 10**30),
    ],
)
def test_hostile_paths_are_refused(tmp_path, parts):
    with pytest.raises(PlaceError, match="expected"):
        cache_path(tmp_path, *parts)


@pytest.mark.parametrize(
    "text",
    [
        "T/trial_01/routing_data.json",
        "T/trial_1/seed_00/routing_data.json",
        "T/trial_1/update_5/seed_0/routing_data.json",
        "T/trial_1/old/routing_data.json",
        "T/trial_1/checkpoint_final.pt/routing_data.json",
        "T/trial_1/Routing_data.json",
        "T/trial_1/routing_data.json.tmp",
        "T/trial_9223372036854775808/routing_data.json",
        "T/trial_1/seed_9300000000000000000/routing_data.json",
        "T/trial_10000000000000000000/routing_data.json",
        "T/trial_1/seed_-1/routing_data.json",
        "T/trial_\u0661/routing_data.json",
        "x/-a/trial_1/routing_data.json",
    ],
)
def test_what_would_not_be_written_is_no_place(text):
    assert locate_cache(text) is None


def test_last_folders_of_a_doubled_path_count():
    path = Path("T/trial_1/seed_2/trial_3/routing_data.json")
    assert locate_cache(path) == Place(path, "seed_2", 3, None, None)
    assert locate_cache(path, "T/trial_1").trial == 3
    assert locate_cache(path, "T") is None


def test_folders_of_older_code_are_found_and_told_apart(tmp_path):
    folders = [
        *(f"{TASK}/trial_1/seed_0", f"{TASK}/{TASK}/trial_1/seed_0", f"{TASK}/trial_1/seed_0/update_unknown"),
        *(f"{TASK}/trial_1/seed_0/update_600", f"{TASK}/{TASK}/trial_2/update_unknown", "trial_1/trial_1/trial_1"),
    ]
    for folder in [*folders, f"{TASK}/Other/trial_1", f"{TASK}/{TASK}/{TASK}/trial_1", f"{TASK}/trial_1/update_None"]:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "routing_data.json").touch()
    places = find_caches(tmp_path)
    assert [place.path.parent.relative_to(tmp_path).as_posix() for place in places] == folders
    assert [place.run for place in places] == [(TASK, 1, 0)] * 4 + [(TASK, 2, None), ("trial_1", 1, None)]
    assert [place.update for place in places] == [None, None, None, 600, None, None]
    assert [place.unknown_update for place in places] == [False, False, True, False, True, False]
    assert [place.doubled for place in places] == [False, True, False, False, True, True]
    figures = [plot_path("plots", place, "map").as_posix() for place in places]
    assert figures == [f"plots/{folder}/map.png" for folder in folders]  # none in place of another's


def test_caches_behind_links_are_found(tmp_path):
    """Folders of results are often links to a larger disk."""
    for folder in (f"disk/{TASK}/trial_1", "disk/seed_3/update_5", "disk/update_7"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "routing_data.json").touch()
    (tmp_path / "caches" / TASK / "trial_2" / "seed_0").mkdir(parents=True)
    (tmp_path / "caches" / TASK / "trial_1").symlink_to(tmp_path / "disk" / TASK / "trial_1")
    (tmp_path / "caches" / TASK / "trial_2" / "seed_3").symlink_to(tmp_path / "disk" / "seed_3")
    (tmp_path / "caches" / TASK / "trial_2" / "seed_0" / "update_7").symlink_to(tmp_path / "disk" / "update_7")
    found = [(place.trial, place.seed, place.update) for place in find_caches(tmp_path / "caches")]
    assert found == [(1, None, None), (2, 0, 7), (2, 3, 5)]


def test_place_can_be_used_as_a_path(tmp_path):
    path = tmp_path / "x"
    path.write_text("content")
    place = Place(path, TASK, 1, 0, None)
    assert Path(place).read_text() == "content"
    assert str(place) == str(path)
    assert place.run == (TASK, 1, 0)


# ----------------------------------------------------------------------------------------------------------- finding


def test_caches_are_found_in_order_of_their_numbers(tmp_path):
    places = [
        ("A", 2, None, None),
        ("A", 2, None, 1000),
        ("A", 2, 0, None),
        ("A", 2, 3, 250),
        ("A", 2, 3, 1000),
        ("A", 2, 12, None),
        ("A", 10, None, None),
        ("B", 1, None, None),
    ]
    strays = ["A/trial_x/routing_data.json", "A/trial_01/routing_data.json", "A/trial_1/old/routing_data.json"]
    for path in [cache_path(tmp_path, *place) for place in places[::-1]] + [tmp_path / stray for stray in strays]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    found = find_caches(tmp_path)
    assert [(c.task_id, c.trial, c.seed, c.update) for c in found] == places
    assert [Path(c) for c in found] == [c.path for c in found] == [cache_path(tmp_path, *place) for place in places]
    assert find_caches(tmp_path / "nothing") == []


def test_checkpoints_are_found_in_numeric_order_and_others_passed_over(tmp_path):
    names = [
        "BabyAI-GoTo-v0/trial_10/checkpoint_final.pt",
        "BabyAI-GoTo-v0/trial_9/seed_2/checkpoint_1000.pt",
        "BabyAI-GoTo-v0/trial_9/seed_2/checkpoint_250.pt",
        "BabyAI-GoTo-v0/trial_9/seed_2/checkpoint_final.pt",
        "BabyAI-GoTo-v0/trial_9/seed_10/checkpoint_5.pt",
        "BabyAI-GoTo-v0/trial_x/checkpoint_5.pt",
        "BabyAI-GoTo-v0/trial_01/checkpoint_5.pt",
        "BabyAI-GoTo-v0/trial_9/seed_2/deeper/checkpoint_5.pt",
        "..elsewhere/trial_1/checkpoint_5.pt",
        "another_program/trial_1/checkpoint_5.pt",
        "BabyAI-GoTo-v0/trial_9/seed_2/checkpoint_best.pt",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(c.trial, c.seed, c.update) for c in find_checkpoints(tmp_path)]
    assert found == [(9, 2, 250), (9, 2, 1000), (9, 2, None), (9, 10, 5), (10, None, None)]
    with pytest.raises(PlaceError, match="train"):
        find_checkpoints(tmp_path / "absent")


@given(number=st.integers(2**63 - 10**6, 2**63 + 10**6) | st.integers(0, 10**22))
def test_numbers_of_paths_are_those_that_results_can_hold(number):
    assert (locate_checkpoint(f"T/trial_{number}/checkpoint_5.pt") is not None) == (number < 2**63)


def test_links_and_folders_in_odd_places_lead_nowhere_twice(tmp_path):
    task = tmp_path / "runs" / TASK
    for name in ("trial_1/seed_0", "trial_2/seed_0/checkpoint_final.pt", "trial_3"):
        (task / name).mkdir(parents=True)
    (task / "trial_1/seed_0/checkpoint_final.pt").touch()
    (task / "trial_4").touch()
    (task / "trial_3/seed_7").symlink_to(task / "trial_1/seed_0")  # runs kept on another disk
    (task / "trial_3/seed_8").symlink_to(task / "trial_3", target_is_directory=True)
    (task / "trial_3/checkpoint_5.pt").symlink_to("checkpoint_5.pt")
    (tmp_path / "runs/again").symlink_to(tmp_path / "runs")
    found = [(c.trial, c.seed, c.update) for c in find_checkpoints(tmp_path / "runs")]
    assert found == [(1, 0, None), (2, 0, None), (3, None, 5), (3, 7, None), (3, 8, 5)]


def test_checkpoints_that_lie_in_no_run_s_folder_are_strays(tmp_path):
    strays = [
        "BabyAI-GoTo-v0/trial_007/seed_0/checkpoint_final.pt",
        "BabyAI-GoTo-v0/trial_1/seed_-1/checkpoint_5.pt",
        f"BabyAI-GoTo-v0/trial_1/seed_{2**63}/checkpoint_5.pt",
        "BabyAI-GoTo-v0/trial_1/seed_0/seed_0/checkpoint_final.pt",
        "BabyAI-GoTo-v0/trial_1/s\u00ebed_0/checkpoint_5.pt",
    ]
    others = ["BabyAI-GoTo-v0/trial_1/seed_0/checkpoint_5.pt", "BabyAI-GoTo-v0/trial_1/best/checkpoint_best.pt"]
    for name in (*strays, *others, "another/trial_01/checkpoint_5.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_strays(tmp_path) == sorted(tmp_path / name for name in strays)


def test_checkpoints_are_listed_by_number_and_the_final_one_last(tmp_path):
    names = ["checkpoint_1000.pt", "checkpoint_final.pt", "checkpoint_250.pt", "checkpoint_9.pt", "checkpoint_0.pt"]
    others = ["checkpoint_.pt", "checkpoint_5.pt.tmp", ".checkpoint_7.pt.x.tmp", "checkpoint_best.pt", "notes.txt"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    listed = [path.name for path in list_checkpoints(tmp_path)]
    assert listed == [f"checkpoint_{update}.pt" for update in (0, 9, 250, 1000, "final")]
    assert list_checkpoints(tmp_path / "nowhere") == []
    assert checkpoint_path(tmp_path, 250) in list_checkpoints(tmp_path)
    assert checkpoint_path(tmp_path, None) == list_checkpoints(tmp_path)[-1]


def test_trials_are_found_by_number(tmp_path):
    for name in ("trial_10", "trial_9", "trial_010", "trial_x", "sweep_trial_3.json"):
        (tmp_path / TASK / name).mkdir(parents=True)
    assert find_trials(tmp_path, TASK) == [9, 10]
    assert find_trials(tmp_path, "another") == []


def test_places_need_neither_numpy_nor_torch():
    program = "import sys, pipeline.places; print({'numpy', 'torch', 'minigrid'} & set(sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "none"


def test_runs_of_a_trial_come_by_seed(tmp_path):
    trial = tmp_path / TASK / "trial_3"
    for name in ("seed_10", "seed_2", "seed_02", "notes", "seed_x"):
        (trial / name).mkdir(parents=True)
    run = TrainConfig(task_id=TASK, trial=3, seed=7)
    assert list_run_folders(tmp_path, run) == [trial, trial / "seed_2", trial / "seed_10"]


# --------------------------------------------------------------------------------------------------- folders of runs


@given(task_id=TASKS, trial=NUMBERS, seed=MAYBE, update=MAYBE)
def test_path_of_a_run_says_what_it_was_made_of(task_id, trial, seed, update):
    folder = run_folder("/project/checkpoints", Place(Path(), task_id, trial, seed, None))
    assert locate_run(folder) == Place(folder, task_id, trial, seed, None)
    assert locate_run(checkpoint_path(folder, update)) == Place(folder, task_id, trial, seed, update)
    assert root_of(locate_run(folder)) == Path("/project/checkpoints")
    assert locate_run(folder.parents[1 if seed is not None else 0] / "more") is None


def test_folders_of_runs_are_found_in_order(tmp_path):
    for name in ("trial_10/seed_2", "trial_10/seed_10", "trial_2", "trial_02/seed_1", "trial_3/seed_x", "other/seed_1"):
        (tmp_path / TASK / name).mkdir(parents=True)
    (tmp_path / TASK / "trial_4").touch()
    (tmp_path / TASK / "trial_5").symlink_to(tmp_path / TASK / "trial_2")  # a name is what it is called here
    found = [(place.trial, place.seed) for place in find_run_folders(tmp_path)]
    assert found == [(2, None), (3, None), (5, None), (10, None), (10, 2), (10, 10)]
    assert find_run_folders(tmp_path / "nowhere") == []
