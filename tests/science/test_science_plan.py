"""Runs, trials, stamps: what is stale is found, and nothing else; and what --plan says of it."""

import ast
import dataclasses
from pathlib import Path

import pytest

from pipeline.command.errors import ConfigError
from science import card, catalogue, forecast, growth, outputs, run, stages
from science.conditions import TURNS, build_conditions
from science.config import read_study
from science.plan import build_design, path_experts
from science.runs import fit_sizes, match_baselines, train_item
from science.stages import Stage
from science.statistics.inference import detectable_effect
from science.store import FAILED, Item, Store, digest_source
from science.study import main

ROOT = Path(__file__).parents[2]
SMALL = "{expert_hidden_sizes: [[0, 4, 8]], lang_encoder: builtin, device: cpu, num_updates: 3}"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--tasks", "[GoToObj, GoToObjS4]", "--seeds", "0-1", "--lpc_alphas", "0,1e-3", "--train", SMALL]
    return read_study("test", flags)[0]


# --------------------------------------------------------------------------------------------------------------- runs


def test_every_task_price_and_seed_is_a_run_and_baselines_are_too(config):
    config = dataclasses.replace(config, baselines=["largest"])
    design = build_design(config, {"largest": 12})
    assert len(design.runs) == 2 * 3 * 2 and len(design.routed) == 8
    assert design.settings == ["alpha=0", "alpha=0.001", "gru=largest"]
    assert design.tasks == ("BabyAI-GoToObj-v0", "BabyAI-GoToObjS4-v0")
    assert {r.config.hidden_size for r in design.runs if r.alpha is None} == {12}
    assert len({(r.task, r.config.trial, r.seed) for r in design.runs}) == len(design.runs)
    assert len({r.checkpoint for r in design.runs}) == len(design.runs)


def test_a_trial_keeps_its_number_whatever_is_added_to_the_study(config):
    first = build_design(config, {})
    first.trials.save()
    more = dataclasses.replace(config, lpc_alphas=[0.0, 1e-5, 1e-3])
    second = build_design(more, {})
    known = {r.name: r.config.trial for r in first.runs}
    assert {r.name: r.config.trial for r in second.runs if r.name in known} == known
    assert {r.config.trial for r in second.runs if r.alpha == 1e-5} == {3}
    other = build_design(dataclasses.replace(config, train={**config.train, "lr": 0.5}), {})
    assert not {r.config.trial for r in other.runs} & set(known.values())


def test_a_baseline_has_as_many_parameters_as_are_active(config):
    config = dataclasses.replace(config, baselines=["largest", "smallest"])
    found = match_baselines(config)
    from pipeline.config import TrainConfig
    from pipeline.policies import build_policy

    def active(sizes):
        settings = TrainConfig(**{**config.train, "expert_hidden_sizes": [[0, 4, 8]]})
        names = {name: w.numel() for name, w in build_policy(settings).named_parameters()}
        return sum(n for name, n in names.items() if ".experts." not in name or f".experts.{sizes}." in name)

    for path, expert in (("largest", 2), ("smallest", 1)):
        wanted = active(expert)
        near = [
            abs(fit_sizes(config.shared)(width) - wanted) for width in (found[path] - 1, found[path], found[path] + 1)
        ]
        assert near[1] == min(near)
    assert found["smallest"] < found["largest"]
    assert [path_experts([[0, 4, 8], [8, 2, 0]], path) for path in ("largest", "smallest")] == [[2, 0], [1, 1]]
    assert fit_sizes(config.shared)(5) == sum(
        p.numel() for p in build_policy(TrainConfig(policy="gru", hidden_size=5, lang_dim=32)).parameters()
    )
    for encoding in ("onehot", "embedding"):
        settings = dataclasses.replace(config.shared, obs_encoding=encoding)
        gru = build_policy(dataclasses.replace(settings, policy="gru", hidden_size=5))
        assert fit_sizes(settings)(5) == sum(p.numel() for p in gru.parameters())


def test_a_claim_about_a_task_that_is_not_studied_is_refused(config):
    from science.config import Claim

    claims = [Claim("knockouts.audit", task="UnlockPickup")]
    with pytest.raises(ConfigError, match=r"claims: task: expected one of BabyAI-GoToObj-v0, .*found 'UnlockPickup'"):
        build_design(dataclasses.replace(config, claims=claims), {})


# ------------------------------------------------------------------------------------------------------------- stamps


def make_file(folder: Path, name: str, text: str = "x") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_an_item_is_fresh_until_something_changes(tmp_path):
    store, path = Store(tmp_path), make_file(tmp_path, "a.csv")
    item = Item("analyse/a", {"draws": 1}, ("replay/b",))
    assert not store.is_fresh(item)
    store.write(Item("replay/b", {}), [])
    store.write(item, [path], {"said": 1})
    again = Store(tmp_path)
    assert again.is_fresh(item) and again.read(item.name).notes == {"said": 1} and again.files(item.name) == [path]
    assert not again.is_fresh(dataclasses.replace(item, settings={"draws": 2}))
    assert not again.is_fresh(dataclasses.replace(item, sources=("science.pathways",)))
    assert not again.is_fresh(dataclasses.replace(item, needs=("replay/b", "replay/c")))
    path.write_text("y")
    assert not again.is_fresh(item)
    path.write_text("x")  # another time, the same content
    assert again.is_fresh(item)
    path.unlink()
    assert not again.is_fresh(item)


def test_what_is_made_anew_makes_its_dependants_stale_and_a_failed_input_counts(tmp_path):
    store = Store(tmp_path)
    item = Item("draw/a", {}, ("analyse/a",))
    store.write(item, [])
    assert store.tokens(item.needs) == {"analyse/a": FAILED} and store.is_fresh(item)
    store.write(Item("analyse/a", {}), [])
    assert not store.is_fresh(item)


def test_files_that_are_no_longer_made_go(tmp_path):
    store, item = Store(tmp_path), Item("draw/a", {})
    old, new = make_file(tmp_path, "old.png"), make_file(tmp_path, "new.png")
    store.write(item, [old])
    store.write(item, [new])
    assert not old.exists() and new.exists()
    store.forget(item, remove=True)
    assert not new.exists() and store.read(item.name) is None


def test_a_damaged_stamp_is_none(tmp_path):
    store, item = Store(tmp_path), Item("draw/a", {})
    store.write(item, [])
    (path,) = (tmp_path / "work" / "stamps").iterdir()
    path.write_text("{")
    assert Store(tmp_path).read(item.name) is None


def test_the_source_of_a_module_is_known_without_importing_it():
    assert digest_source("science.pathways") != digest_source("science.price")
    assert digest_source("science.statistics") != digest_source("science.nothing_of_that_name")


def imports_of(module: str, known: frozenset[str] = frozenset()) -> set[str]:
    """Return a module of `science` with all of `science` that it imports in the end."""
    found, todo = set(known), [module]
    while todo:
        name = todo.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name in found or not path.exists():
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("science"):
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


@pytest.mark.parametrize("name", ["calibration", *catalogue.ANALYSES])
def test_what_an_analysis_is_made_of_makes_it_stale(name):
    own = {"science.calibration"} if name == "calibration" else {catalogue.ANALYSES[name].module}
    sources = card.SOURCES if name == "calibration" else outputs.ANALYSIS_SOURCES
    (module,) = own
    missing = [
        found
        for found in sorted(imports_of(module) - own)
        if not any(found == source or found.startswith(f"{source}.") for source in sources)
    ]
    assert missing == []


# ------------------------------------------------------------------------------------------------------------- stages


ITEMS = {"one": ["one/a", "one/b"], "two": ["two/x", "two/y"], "three": ["three/r"]}
NEEDS = {"two/x": ("one/a",), "two/y": ("one/a", "one/b"), "three/r": ("two/x",)}


@pytest.fixture
def graph(config, monkeypatch):
    """A study whose stages write a small file for each item; returns a function that does it and says what was made."""
    design = build_design(config, {})

    def build(name):
        def items(design, only):
            return [Item(item, {}, NEEDS.get(item, ())) for item in ITEMS[name]]

        def make(design, store, item, link):
            if item.name == broken:
                raise ConfigError("expected a wheel, found none")
            folder = design.folder / "made"
            folder.mkdir(parents=True, exist_ok=True)
            return [make_file(folder, item.name.replace("/", "_"))], {}

        return Stage(name, items, make)

    monkeypatch.setattr(stages, "STAGES", tuple(build(name) for name in ITEMS))
    broken = ""

    def do(fail: str = ""):
        nonlocal broken
        broken = fail
        store, progress = Store(design.folder), run.Progress()
        for stage in stages.STAGES:
            run._do_stage(stage, design, store, [], 1, progress)
        return progress

    do.design = design
    return do


def test_a_second_call_makes_nothing(graph):
    assert graph().made == ["one/a", "one/b", "two/x", "two/y", "three/r"]
    again = graph()
    assert (again.made, again.kept) == ([], 5)


@pytest.mark.parametrize(
    ("deleted", "made"),
    [
        ("one_a", ["one/a", "two/x", "two/y", "three/r"]),
        ("one_b", ["one/b", "two/y"]),
        ("two_x", ["two/x", "three/r"]),
        ("two_y", ["two/y"]),
        ("three_r", ["three/r"]),
    ],
)
def test_deleting_an_artefact_makes_exactly_it_and_its_dependants(graph, deleted, made):
    graph()
    (graph.design.folder / "made" / deleted).unlink()
    assert graph().made == made
    assert graph().made == []


def test_what_fails_is_named_and_the_rest_is_made_and_the_next_call_retries(graph, capsys):
    progress = graph(fail="one/b")
    assert progress.failed == {"one/b": "expected a wheel, found none"}
    assert progress.made == ["one/a", "two/x", "two/y", "three/r"]
    assert graph().made == ["one/b", "two/y"]


def test_the_dial_is_as_strong_whatever_experts_cost():
    for exponent in (1.0, 2.0):
        dials = build_conditions("dial", "P", [[0, 4, 8], [16]], 0, exponent)
        assert [dial.amount * 16**exponent for dial in dials] == pytest.approx(TURNS)
        assert {dial.exponent for dial in dials} == {exponent}
    assert build_conditions("dial", "P", [[0]], 0)[0].amount == TURNS[0]  # skips cost nothing
    with pytest.raises(ValueError, match="family: expected knockouts"):
        build_conditions("dials", "P", [[0]], 0)


# --------------------------------------------------------------------------------------------------------------- plan


def test_the_plan_tells_what_is_to_be_done_and_what_can_be_shown_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    claims = "[{claim: knockouts.audit, margin: 0.1}, {claim: pathways.consistency}]"
    flags = ["--tasks", "GoToObj", "--lpc_alphas", "0,1e-4", "--train", SMALL, "--claims", claims, "--plan"]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert "runs        20: 10 seeds, prices 0, 0.0001" in text
    assert "knockouts R 16" in text and "train     20     20" in text
    effect = detectable_effect(10, alpha=0.025, power=0.8)
    assert "0.002" in text and "0.0039" in text and f"{effect:.2f} sd" in text  # 2 / 2^10, and twice that
    assert list(tmp_path.iterdir()) == []


def test_minutes_are_the_seconds_of_what_is_to_be_made_over_the_cores(graph, monkeypatch, capsys):
    graph()
    for name in ("two_x", "two_y"):
        (graph.design.folder / "made" / name).unlink()
    seconds = {"two/x": 90.0, "two/y": 210.0, "three/r": 60.0}  # the last one depends on the first
    monkeypatch.setattr(forecast, "estimate_seconds", lambda design, item: seconds.get(item.name, 0.0))
    monkeypatch.setattr(forecast, "count_cores", lambda: 2)
    assert forecast.print_plan(graph.design.config, []) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["two", "2", "2", "2.5"] in lines and ["three", "1", "1", "1.0"] in lines and ["one", "2", "0", "-"] in lines
    assert ["all", "3.5"] in lines


def test_a_missing_checkpoint_on_the_way_is_work_to_do(config):
    """The plan took the study for done, which then trained runs again."""
    config = dataclasses.replace(config, tasks=["GoToObjS4"], analyses=["dynamics"], checkpoints=3)
    design = build_design(config, {})
    store = Store(design.folder)
    fresh = {name: items for name, _, items in forecast.list_work(design, store, ["dynamics"])}
    assert len(fresh["grow"]) == 4 and not any(forecast.estimate_seconds(design, item) for item in fresh["grow"])
    for run_ in design.routed:
        run_.checkpoint.parent.mkdir(parents=True)
        names = [run_.checkpoint.name, *(f"checkpoint_{update}.pt" for update in design.updates[:-1])]
        made = [make_file(run_.checkpoint.parent, name) for name in names]
        store.write(train_item(run_), [run_.checkpoint])
        store.write(growth.grow_item(design, run_), made)
    for item in growth.list_items(design):
        store.write(item, [])

    def count() -> dict[str, int]:
        return {name: len(stale) for name, _, stale in forecast.list_work(design, store, ["dynamics"])}

    assert (count()["train"], count()["grow"], count()["grown"]) == (0, 0, 0)
    last = design.routed[-1]
    growth.find_checkpoint(design, last, 1).unlink()
    assert (count()["train"], count()["grow"], count()["grown"]) == (0, 1, 3)
    steps = 2 * last.config.num_envs * last.config.unroll_len  # to one update after the missing one
    seconds = forecast.estimate_seconds(design, growth.grow_item(design, last))
    assert seconds == pytest.approx(steps / forecast.STEPS_PER_SECOND)
    assert "grow" not in {name for name, *_ in forecast.list_work(design, store, ["price"])}


def test_training_is_told_by_its_steps(config):
    design = build_design(config, {})
    (first, *_) = [item for name, items, _ in forecast.list_work(design, Store(design.folder), []) for item in items
                   if name == "train"]  # fmt: skip
    own = design.runs[0].config
    steps = own.num_updates * own.num_envs * own.unroll_len
    assert forecast.estimate_seconds(design, first) == pytest.approx(steps / forecast.STEPS_PER_SECOND)


def test_the_plan_counts_what_depends_on_what_is_to_be_made(graph):
    graph()
    (graph.design.folder / "made" / "one_b").unlink()
    work = {name: [item.name for item in stale] for name, _, stale in
            forecast.list_work(graph.design, Store(graph.design.folder), [])}  # fmt: skip
    assert {name: work[name] for name in ITEMS} == {"one": ["one/b"], "two": ["two/y"], "three": []}


def test_too_few_seeds_for_the_claims_are_told(config):
    from science.config import Claim

    claims = [Claim("knockouts.audit"), Claim("pathways.consistency")]
    two = dataclasses.replace(config, claims=claims)
    assert forecast.describe_claims(two) == ["2 seed(s): no claim can be tested, which takes 3 runs or more"]
    eight = dataclasses.replace(config, claims=[Claim(f"knockouts.{q}") for q in ("audit", "dose", "audit_best")] +
                                [Claim(f"price.{q}") for q in ("dial_gap", "hypervolume", "price_trend", "dead")],
                                seeds=list(range(8)))  # fmt: skip
    assert any("8 runs cannot support 7 claims" in line for line in forecast.describe_claims(eight))
