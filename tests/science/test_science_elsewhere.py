"""A study whose items are made by processes that share no folder with it: the same tables as made here."""

from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from pipeline.launch import items
from pipeline.launch.driver import drive
from pipeline.launch.journal import read_states
from science import run
from science.config import read_study
from science.plan import build_design
from science.runs import match_baselines
from science.stages import STAGES
from science.store import Store
from science.study import main
from tests.launch_items import ProcessCarrier, take_rays_place
from tests.science.test_science_study import OUT, STUDY, tables, write


def test_stages_that_are_made_elsewhere_are_stages():
    names = {stage.name for stage in STAGES}
    assert run.ELSEWHERE < names and {"analyse", "draw", "film"} <= names - run.ELSEWHERE


@pytest.mark.usefixtures("plain_pictures")
def test_a_study_made_elsewhere_has_the_tables_of_one_made_here(tmp_path, monkeypatch, capsys):
    sent: list[str] = []

    def carry(_, stack):
        carrier = ProcessCarrier()
        send = carrier.send

        def note(number, attempt, name, order):
            sent.append(name)
            send(number, attempt, name, order)

        monkeypatch.setattr(carrier, "send", note)
        return partial(drive, stack.enter_context(closing(carrier)))

    few = {"analyses": ["pathways", "sufficiency", "dynamics"], "baselines": [], "claims": STUDY["claims"][:1]}
    few |= {"checkpoints": 3, "seeds": "0-1", "lpc_alphas": [0]}
    found = []
    for name, words in (("here", ["--jobs", "1"]), ("there", ["--launcher", "ray"])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        config = write(tmp_path / name, **few)
        monkeypatch.setattr(items, "_open", carry)  # nothing that is made here asks for it
        assert main(["--config", config, *words]) == 1, capsys.readouterr().err  # of two seeds, it is incomplete
        assert "failed" not in capsys.readouterr().err
        found.append(tables(OUT))
    assert found[0] == found[1] and "tables/pathways.csv" in {f"tables/{name}" for name in found[0]}
    kinds = {name.partition("/")[0] for name in sent}
    assert {"played", "replay", "grown", "intervene", "calibrate"} <= kinds
    settings, _ = read_study("", ["--config", config])
    design = build_design(settings, match_baselines(settings))
    store = Store(design.folder)
    for stage in STAGES:  # made once, and known as made here
        assert all(store.is_fresh(item) for item in stage.items(design, settings.analyses)), stage.name
    assert Path(OUT, "report.html").exists()


def test_a_selftest_made_elsewhere_has_the_card_of_one_made_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = {"analyses": ["pathways"], "baselines": [], "claims": STUDY["claims"][:1], "seeds": "0-2", "lpc_alphas": [0]}
    words = ["--config", write(tmp_path, **few, statistics={"draws": 9, "calibration": 2}), "--selftest"]
    cards = []
    for more in (["--jobs", "1"], ["--launcher", "ray", "--launcher_options", "folder=record"]):
        carrier = take_rays_place(monkeypatch)
        code = main([*words, *more])
        said = capsys.readouterr()
        cards.append((code, said.out.partition("\n\n")[2], said.err.count("failed:")))
    assert cards[0] == cards[1] and "found where planted" in cards[0][1]
    states = read_states(tmp_path / "record" / "selftest")
    assert {state.state for state in states} == {"done"} and len(states) == len(carrier.sent) > 1


@pytest.mark.parametrize("name", ["grow", "train"])
def test_what_an_item_needs_is_named_with_the_stamps_of_all_before_it(name, tmp_path):
    from science.store import Item

    store = Store(tmp_path)
    for item, needs in (("train/a", ()), (f"{name}/b", ("train/a",))):
        path = tmp_path / item.replace("/", "_")
        path.write_text(item)
        store.write(Item(item, {}, needs), [path])
    found = store.inputs_of(Item("made/c", {}, (f"{name}/b", "lost/d")))
    assert {path.name for path in found if path.suffix != ".json"} == {f"{name}_b"}
    assert len([path for path in found if path.suffix == ".json"]) == 2
