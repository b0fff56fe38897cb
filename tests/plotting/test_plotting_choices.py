"""Which checkpoint a notebook shows first, and how it names them."""

from pipeline.places import Place, find_caches
from plotting.choices import Choice, choose_first, find_choices
from tests.notebooks import TASKS, write_example

ALPHA = "\N{GREEK SMALL LETTER ALPHA}"


def build_choice(folder, trial: int = 1, starts: int = 1, update: int | None = None, **told) -> Choice:
    """Return a choice whose cache tells only where its first episodes start."""
    path = folder / f"{trial}_{update}.json"
    rooms = ",\n".join(f'{{"agent_start_room": [{7 * (k % starts)}, 0]}}' for k in range(6))
    path.write_text(f'{{\n"episodes": [\n{rooms}\n],\n"routing_data": [\n\n]\n}}\n')
    metrics = {"success_rate": told.pop("success", 1.0), "mean_lpc": told.pop("lpc", 500.0)}
    header = {"num_steps": 10, "expert_hidden_sizes": [[0, 16, 32]], "num_episodes": 6, "metrics": metrics, **told}
    return Choice(Place(path, TASKS[0], trial, 0, update), path, header)


def test_what_has_most_to_show_comes_first(tmp_path):
    plain = build_choice(tmp_path, 1)
    rooms = build_choice(tmp_path, 2, starts=3, success=0.8)
    assert choose_first([plain, rooms]) is rooms
    # However many rooms: not without routers, not collapsed, not a policy that fails
    baseline = build_choice(tmp_path, 3, starts=6, expert_hidden_sizes=[])
    collapsed = build_choice(tmp_path, 4, starts=6, lpc=2.0)
    failing = build_choice(tmp_path, 5, starts=6, success=0.1)
    unread = Choice(plain.place, tmp_path / "none.json", {})
    assert choose_first([baseline, collapsed, failing, unread, plain]) is plain
    assert choose_first([collapsed, unread]) is collapsed
    assert choose_first([unread]) is unread and unread.num_starts == 0
    early = build_choice(tmp_path, 6, starts=3, update=50, success=0.9)
    assert choose_first([early, rooms]) is rooms
    better = build_choice(tmp_path, 7, starts=3, success=0.9)
    assert choose_first([rooms, better]) is better


def test_labels_tell_success_and_alpha(tmp_path):
    flags = write_example(tmp_path)
    caches = find_choices(find_caches(flags["cache_dir"]), flags["cache_dir"])
    success = f"success {100 * caches[0].metrics['success_rate']:.0f} %"
    assert caches[0].label == f"GoToObj · {success} · {ALPHA} = 1e-05 · trial 1 · seed 0 · final"
    assert [choice.num_starts for choice in caches] == [2, 2, 2, 1, 1, 1]
    # A checkpoint is told by its cache, where it has one
    checkpoints = [
        Place(tmp_path / "checkpoint_100.pt", TASKS[0], 1, 0, 100),
        Place(tmp_path / "checkpoint_final.pt", TASKS[0], 9, 0, None),
    ]
    labels = [choice.label for choice in find_choices(checkpoints, flags["cache_dir"])]
    assert labels == [
        f"GoToObj · {success} · {ALPHA} = 1e-05 · trial 1 · seed 0 · update 100",
        "GoToObj · trial 9 · seed 0 · final",
    ]
