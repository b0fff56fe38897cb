"""What a run says and refuses before its first update, and what it may start from: weights, a shorter run, a text."""

import dataclasses
import json
import re
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import more.estimate
from more import commands
from more.checkpoints import CheckpointError, load_model, read_checkpoint, save_checkpoint
from more.config import MODEL_TYPES, ModelConfig
from more.cost import count_token_operations
from more.estimate import (
    TRIAL_SECONDS,
    MemoryShortError,
    Pace,
    check_memory,
    compute_least_memory,
    count_validations,
    format_duration,
    measure_free_memory,
    memory_shortage_told,
)
from more.initialisation import adopt
from more.model import MoreModel, count_parameters
from more.outlook import describe_pace, describe_start, estimate_updates
from more.runs import run_training
from more.settings import TrainingConfig
from pipeline.command.files import remove_leftovers
from pipeline.config import ConfigError
from pipeline.guard import RunFolderError
from tests.more_settings import CACHE, small_config, small_flags, small_trainer

ROOT = Path(__file__).parents[2]
RUN = "base_rec1"


# --------------------------------------------------------------------------------------------------------------- sizes


def test_the_variants_of_standard_have_comparable_sizes():
    """They went from 107 to 1,315 million parameters."""
    counts = []
    for model_type in MODEL_TYPES:
        config = TrainingConfig(model_type=model_type, num_recurrences=4).resolve().model_config(50_257)
        with torch.device("meta"):
            counts.append(count_parameters(MoreModel(config)))
    for kind in ("total", "active"):
        sizes = [getattr(count, kind) for count in counts]
        assert max(sizes) < 1.02 * min(sizes)


def test_the_preset_chooses_the_threads():
    assert TrainingConfig(preset="debug").resolve().torch_threads == 1
    assert TrainingConfig(preset="debug", torch_threads=3).resolve().torch_threads == 3
    assert TrainingConfig().resolve().torch_threads is None


def test_without_a_model_type_it_is_base_and_help_says_so(capsys):
    assert TrainingConfig().resolve().model_type == "base"
    with pytest.raises(SystemExit):
        commands.train(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--model_type MODEL_TYPE base (feed-forward experts)" in told
    assert "Null takes that of init_from, else base." in told
    assert "Required" not in told


# --------------------------------------------------------------------------------------------------------------- memory


def test_the_least_memory_is_what_training_holds(tmp_path):
    trainer = small_trainer(tmp_path)
    trainer.run_update()
    held = [*trainer.model.parameters(), *(p.grad for p in trainer.model.parameters())]
    held += [value for state in trainer.optimizer.state.values() for value in state.values() if value.dim()]
    assert compute_least_memory(count_parameters(trainer.model).total, 300, 0) == 4 * sum(t.numel() for t in held)
    assert compute_least_memory(0, 300, 7) == 2 * 4 * 300 * 7


def test_free_memory_is_what_limits_leave():
    free = measure_free_memory(torch.device("cpu"))
    assert free > 0
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = more.estimate._read_kilobytes(Path("/proc/self/status"), "VmSize:") + 10_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        assert 0 < measure_free_memory(torch.device("cpu")) <= 10_000_000
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_what_cannot_fit_is_refused_in_one_line_before_it_is_built(tmp_path, monkeypatch, capsys):
    """more_b of 1,315 million parameters ended in a traceback under a cap."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("more.training.measure_free_memory", lambda device: 10**9)
    monkeypatch.setattr("more.training.build_model", None)  # never reached
    flags = small_flags(cache_dir=CACHE, model_type="more_b", num_layers=12, num_experts=64, d_model=512, num_heads=8)
    assert commands.train(flags) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(
        r"error: memory: more_b_rec1, of [\d,]+ parameters, needs at least [\d.]+ GB to be trained, and 1\.0 GB are "
        r"free; --preset debug trains a small model; .*\n",
        err,
    )
    assert list(tmp_path.iterdir()) == []


def test_memory_that_runs_out_later_is_told_in_one_line():
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")):
        with pytest.raises(MemoryShortError, match=r"memory: it was used up .*; take less"):
            with memory_shortage_told("take less"):
                raise error
    with pytest.raises(RuntimeError, match="something else"):
        with memory_shortage_told("take less"):
            raise RuntimeError("something else")
    check_memory(5, None, "it", "")  # nothing says what is free


def test_memory_that_runs_out_in_the_trial_is_told_in_one_line(tmp_path, monkeypatch):
    """The first forward and backward pass of a run is that of the trial, before training proper."""

    def run_out(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("more.training.Trainer.time_trial", run_out)
    with pytest.raises(MemoryShortError, match=r"used up \(CUDA out of memory\); --preset debug"):
        run_training(small_config(tmp_path))
    assert not list(tmp_path.rglob("metrics.jsonl"))


# ----------------------------------------------------------------------------------------------------------------- time


def test_a_run_says_what_it_takes_before_its_first_update_and_measures_it_by_the_tenth(tmp_path, capsys):
    assert run_training(small_config(tmp_path, updates=12)) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{RUN}: "))
    assert re.match(rf"{RUN}: [\d,]+ parameters, [\d,]+ active, seed 42, 12 updates", lines[start])
    assert re.fullmatch(
        r"memory: at least .* of .* that are free; a checkpoint to resume from takes .*", lines[start + 1]
    )
    assert re.fullmatch(r"time: about \d+ s by a first trial", lines[start + 2])
    assert re.fullmatch(r"update 10: loss \d\.\d+, [\d,]+ tokens/s, \d+ s to go", lines[start + 3])


def test_the_trial_learns_nothing_and_changes_nothing(tmp_path):
    plain, tried = (small_trainer(tmp_path / name, dropout=0.2) for name in ("plain", "tried"))
    assert tried.time_trial() > 0
    for trainer in (plain, tried):
        trainer.run_update()
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, tried.model.state_dict()[name]), name
    first, second = (trainer.take_metrics()[0] for trainer in (plain, tried))
    assert {**first, "Tokens_per_Second": 0} == {**second, "Tokens_per_Second": 0}


def test_the_trial_leaves_out_what_compiling_takes(tmp_path, monkeypatch):
    """A first pass that compiles takes minutes, and the time of the run was foretold by it."""
    trainer = small_trainer(tmp_path)
    trainer.config = dataclasses.replace(trainer.config, compile=True)
    forward, times = trainer._forward, [100.0, 3.0]
    now = [0.0]

    def compiling(*inputs, **others):
        now[0] += times.pop(0)
        return forward(*inputs, **others)

    trainer._forward = compiling
    monkeypatch.setattr("more.training.time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    largest = max(trainer.plan.batch(number)[1].size for number in range(4))
    assert trainer.time_trial() == pytest.approx(3.0 / largest)


def test_the_time_that_is_left_is_that_of_the_updates_measured(tmp_path):
    """Updates of two seconds and a first one of a hundred: the rest takes two each, and validation its share."""
    trainer = small_trainer(tmp_path, updates=1000, eval_interval=100, eval_batches=3)
    times = iter([0.0, 100.0, *(100.0 + 2.0 * n for n in range(1, 10))])
    pace = Pace(lambda: next(times))
    told = []
    for trainer.update in range(1, 11):
        told.append(pace.add(50 * trainer.update, trainer.mean_work * trainer.update))
    assert told == [False] * 9 + [True]
    assert pace.tokens_per_second == pytest.approx(25)
    trainer._sums._sums[:2] = torch.tensor([30.0, 10.0])
    assert describe_pace(trainer, pace) == "update 10: loss 3.000, 25 tokens/s, 33 min to go"  # 990 x 2 s x 1.01


def test_the_time_that_is_left_is_told_by_work(tmp_path):
    """Ten updates may draw few recurrences or short windows: here they take what they work, and so does the rest."""
    special = {"model_type": "more_a", "num_recurrences": 4, "sample_recurrences": True}
    trainer = small_trainer(tmp_path, updates=1000, eval_interval=0, eval_batches=3, **special)
    pace = Pace(lambda: trainer.work)
    for _ in range(10):
        trainer.run_update()
        pace.add(trainer.tokens, trainer.work)
    drawn = trainer.work / trainer.tokens
    assert abs(drawn / (trainer.mean_work / trainer.mean_tokens) - 1) > 0.02  # more or less than the mean was drawn
    left = 990 + 3 / 3  # and the validation at the end
    assert pace.seconds_for(estimate_updates(trainer) * trainer.mean_work) == pytest.approx(left * trainer.mean_work)
    sizes = [trainer.plan.batch(number)[1].size for number in range(trainer.plan.batches_per_epoch)]
    operations = [count_token_operations(trainer.model_config, r) for r in range(1, 8)]  # all that may be drawn
    assert trainer.mean_work == pytest.approx(sum(sizes) / len(sizes) * sum(operations) / 7)


def test_validations_are_counted():
    cases = {(0, 1000, 100): 10, (0, 1000, 0): 1, (10, 40, 500): 1, (499, 1000, 500): 2, (500, 1000, 500): 1}
    cases |= {(999, 1000, 300): 1, (900, 1000, 300): 1, (899, 1000, 300): 2, (1000, 1000, 100): 0}
    for (update, total, interval), expected in cases.items():
        plainly = sum(k == total or bool(interval and k % interval == 0) for k in range(update + 1, total + 1))
        assert count_validations(update, total, interval) == expected == plainly


def test_slow_updates_are_told_of_earlier_and_once():
    times = iter(range(0, 10**9, int(TRIAL_SECONDS)))
    pace = Pace(lambda: next(times))
    assert [pace.add(n, n) for n in range(1, 15)] == [False, False, True, *[False] * 11]


def test_a_long_run_on_a_cpu_is_told_of_the_small_preset(tmp_path, monkeypatch):
    trainer = small_trainer(tmp_path, updates=10**6)
    monkeypatch.setattr(type(trainer), "time_trial", lambda self: 0.01)
    assert "preset debug" not in describe_start(trainer)[-1]  # it is that already
    trainer.config = dataclasses.replace(trainer.config, preset="standard")
    tokens = trainer.plan.tokens_per_epoch / trainer.plan.batches_per_epoch
    days = f"{0.01 * tokens * 1e6 / 86400:.1f} days"
    assert describe_start(trainer)[-1] == (
        f"time: about {days} by a first trial; --preset debug trains a small model on this CPU in minutes"
    )


def test_times_for_people():
    assert [format_duration(s) for s in (3, 600, 7 * 3600, 5 * 86400)] == ["3 s", "10 min", "7.0 h", "5.0 days"]


# -------------------------------------------------------------------------------------------------------------- compile


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("model_type", ["base", "more_a", "more_b"])
def test_a_model_can_be_traced_and_is_the_same(model_type):
    """`grouped_mm` was probed inside the trace, whose stand-in for it refuses float32."""
    config = ModelConfig(
        model_type, 2, vocab_size=50, d_model=16, num_heads=2, num_layers=1, num_experts=3, dropout=0.0
    )
    torch.manual_seed(0)
    model = MoreModel(config)
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    tokens = torch.randint(50, (2, 9))
    assert torch.allclose(compiled(tokens).logits, model(tokens).logits, atol=1e-5)
    compiled(tokens).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_model_is_read_without_loading_the_compiler():
    """It takes 0.9 s."""
    script = "import sys, more.model; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_compile_without_a_compiler_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    from torch._inductor import cpp_builder, exc

    def missing():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    monkeypatch.chdir(tmp_path)
    assert commands.train([*small_flags(cache_dir=CACHE), "--compile"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: compile: expected a C++ compiler") and err.count("\n") == 1


# ------------------------------------------------------------------------------------------------------ starting points


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The final checkpoint of a run of more_a at r = 2."""
    place = tmp_path_factory.mktemp("parent")
    assert run_training(small_config(place, model_type="more_a", num_recurrences=2), quiet=True) == 0
    return place / "checkpoint_dir" / "more_a_rec2" / "final_model.pth"


def write_novel(folder) -> Path:
    path = folder / "novel.txt"
    path.write_text("".join(f"The {n % 7} old ships went by the river at noon.\n" for n in range(300)))
    return path


def open_sizes(folder, **changes) -> TrainingConfig:
    """Return small settings whose sizes are left to the checkpoint."""
    left = dict.fromkeys(("d_model", "num_heads", "num_layers", "num_experts", "match", "seq_length"))
    return small_config(folder, **{**left, **changes})


def test_one_s_own_text_goes_on_from_a_checkpoint(tmp_path, parent):
    config = open_sizes(tmp_path, init_from=str(parent), text_file=str(write_novel(tmp_path)), updates=2, lr=1e-9)
    assert run_training(config, quiet=True) == 0
    before = load_model(parent)
    after = load_model(tmp_path / "checkpoint_dir" / "more_a_rec2" / "final_model.pth")
    assert after.model.config == before.model.config
    assert after.tokenizer.digest == before.tokenizer.digest
    for name, weight in before.model.state_dict().items():
        assert torch.allclose(weight, after.model.state_dict()[name], atol=1e-6), name
    assert after.data["text"].startswith(f"own ({tmp_path / 'novel.txt'}, ")


def test_sizes_that_contradict_the_start_are_refused(tmp_path, parent):
    for changes, said in (
        ({"d_model": 32}, "d_model: 32 was given, and .*, has 16; pass --d_model 16 or leave one"),
        ({"model_type": "base"}, "model_type: 'base' was given, and .* has 'more_a'"),
    ):
        with pytest.raises(ConfigError, match=said):
            adopt(open_sizes(tmp_path, init_from=str(parent), **changes))
    assert adopt(open_sizes(tmp_path, init_from=str(parent), num_recurrences=5)).num_recurrences == 5
    with pytest.raises(CheckpointError, match="cannot be read"):
        adopt(open_sizes(tmp_path, init_from="nothing.pth"))


def test_another_r_that_would_need_other_widths_is_refused(tmp_path, monkeypatch):
    """Weights of r = 1 that `match: active` had sized for it ended in a traceback at r = 4."""
    kept = ModelConfig("more_a", 1, match="active", d_model=64)
    monkeypatch.setattr("more.initialisation.read_model_config", lambda path: dataclasses.asdict(kept))
    config = TrainingConfig(init_from="one.pth")
    assert adopt(config).num_recurrences == 1
    with pytest.raises(ConfigError, match=r"of 1 and of 4 steps differ .*; pass --num_recurrences 1, or"):
        adopt(dataclasses.replace(config, num_recurrences=4))
    kept = dataclasses.replace(kept, match="total")
    assert adopt(dataclasses.replace(config, num_recurrences=4)).num_recurrences == 4


def test_the_run_that_is_started_from_is_not_overwritten(tmp_path, parent):
    folder = parent.parents[1]
    config = open_sizes(tmp_path, init_from=str(parent), checkpoint_dir=str(folder))
    before = parent.read_bytes()
    with pytest.raises(RunFolderError, match=r"another run .*init_from is None there"):
        run_training(config, quiet=True)
    with pytest.raises(ConfigError, match="is of the run that --overwrite deletes; choose another --checkpoint_dir"):
        run_training(config, overwrite=True, quiet=True)
    assert parent.read_bytes() == before


def test_training_from_a_text_is_evaluated_without_questions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_novel(tmp_path)
    flags = small_flags(cache_dir=CACHE, text_file="novel.txt", updates=2)
    assert commands.train(flags) == 0
    path = f"checkpoints/{RUN}/final_model.pth"
    assert commands.evaluate(["--checkpoint_path", path, "--cache_dir", CACHE]) == 0
    figures = json.loads((tmp_path / "checkpoints" / RUN / "evaluation.json").read_text())
    assert figures["questions"] == {} and figures["perplexity"]["1"]["tokens"] > 100
    assert commands.evaluate_for_llm(["--checkpoint_path", path]) == 2
    assert "babi_task_id 2: expected test questions, found none" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- a longer run


@pytest.mark.parametrize("kept", [True, False])
def test_a_complete_run_is_lengthened(tmp_path, kept, capsys):
    config = small_config(tmp_path, checkpoint_interval=4 if kept else 0)
    assert run_training(config, quiet=True) == 0
    folder = tmp_path / "checkpoint_dir" / RUN
    longer = dataclasses.replace(config, updates=9)
    with pytest.raises(RunFolderError, match=r"updates is 6 there, 9 here.*; --resume lengthens it if nothing"):
        run_training(longer)
    assert run_training(longer, resume=True) == 0
    out = capsys.readouterr().out
    begins = "from update 4" if kept else "from update 6, whose optimiser was not kept and begins anew"
    assert f"this run of 6 updates is lengthened {begins}\n" in out
    content = read_checkpoint(folder / "final_model.pth")
    assert (content["update"], content["total"]) == (9, 9)
    lines = (tmp_path / "log_dir" / RUN / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in lines] == [2, 4, 6, 8, 9]
    assert run_training(longer, resume=True) == 0
    assert "complete (9 updates)" in capsys.readouterr().out
    with pytest.raises(RunFolderError, match="updates is 9 there, 8 here"):
        run_training(dataclasses.replace(config, updates=8), resume=True)


def test_a_lengthened_run_that_is_stopped_goes_on(tmp_path):
    config = small_config(tmp_path, updates=4)
    assert run_training(config, quiet=True) == 0
    longer = dataclasses.replace(config, updates=9)
    asked = iter([False, False, True])
    assert run_training(longer, resume=True, quiet=True, stopping=lambda: next(asked)) == 143
    folder = tmp_path / "checkpoint_dir" / RUN
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint_6.pth", "final_model.pth"]
    assert run_training(longer, resume=True, quiet=True) == 0
    assert read_checkpoint(folder / "final_model.pth")["update"] == 9


# ------------------------------------------------------------------------------------------------------ what was killed


def test_what_a_kill_while_saving_has_left_is_removed_at_the_next_start(tmp_path, capsys):
    folder = tmp_path / "checkpoint_dir" / RUN
    folder.mkdir(parents=True)
    left = [folder / f".{name}.0123456789ab.tmp" for name in ("checkpoint_500.pth", "final_model.pth")]
    others = [folder / ".notes.pth.0123456789ab.tmp", folder / ".final_model.pth.mine.tmp"]
    for path in [*left, *others]:
        path.write_bytes(b"half")
    assert run_training(small_config(tmp_path)) == 0
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)
    assert f"a run that was killed while saving has left: {left[0]}, {left[1]}\n" in capsys.readouterr().out


def test_a_real_kill_while_saving_leaves_what_is_removed(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from pipeline.command.files import replace_atomically\n"
        "with replace_atomically(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "checkpoint_7.pth")], cwd=ROOT)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert remove_leftovers(tmp_path, "checkpoint_*.pth") == [left]
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_numbers_are_refused_in_one_line(tmp_path, parent, capsys):
    content = {key: value for key, value in read_checkpoint(parent).items() if key != "digests"}
    content["model_state_dict"]["norm.weight"][0] = float("nan")
    path = tmp_path / "diverged.pth"
    save_checkpoint(path, content)
    for command in (commands.evaluate, commands.evaluate_for_llm):
        assert command(["--checkpoint_path", str(path)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {path}: expected finite weights, found NaN or infinity in norm.weight")
        assert err.count("\n") == 1
