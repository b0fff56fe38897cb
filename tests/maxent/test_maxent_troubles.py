"""What goes wrong with models, memory and time ends in a message that says what to do, and in the right exit code.

Without Weights & Biases, its key or a network, kills and resuming: tests/maxent/test_maxent_experiments.py.
"""

import json
import re

import pytest
import torch

from maxent import experiment, loading
from maxent.dts_implementation.models.network import Network
from pipeline.command import hub
from pipeline.command.hub import HubError
from tests.maxent_networks import build_network, save_more, save_tokenizer

FLAGS = [*("--dataset", "sums", "--num_samples", "2", "--num_rollouts", "12", "--max_tokens", "4", "--wave", "12")]
FLAGS += ["--device", "cpu", "--no_wandb"]


def call(*flags, output):
    return experiment.main([*FLAGS, *flags, "--output_dir", str(output)])


def read_runs(output):
    (path,) = output.glob("*.json")
    return json.loads(path.read_text())["runs"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Return the folder of a small untrained model."""
    folder = tmp_path_factory.mktemp("network")
    build_network("llama", max_position_embeddings=256).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


# ------------------------------------------------------------------------------------------------------------- weights


def test_a_gated_model_names_license_keys_and_what_is_at_hand(network, tmp_path, capsys, monkeypatch):
    def refuse(repository, files, **_):
        raise HubError(f"{repository}: 401 Client Error. Access to model {repository} is restricted")

    monkeypatch.setattr(hub, "fetch", refuse)
    flags = ["--models", "llama-7b", "phi-2", "--model_path", f"phi-2={network}"]
    assert call(*flags, output=tmp_path) == 1
    assert [run["status"] for run in read_runs(tmp_path)] == ["failed", "done"]
    message = capsys.readouterr().err
    for words in ("failed: Llama-2-7B, dts: llama-7b: weights of meta-llama/Llama-2-7b-hf", "401", "hf auth login"):
        assert words in message
    for words in ("--model_path llama-7b=PATH", "--stand_in", f"at hand are toy (built in), phi-2 ({network})"):
        assert words in message


def test_weights_in_the_local_cache_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--microsoft--phi-2"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "config.json").write_text("{}")
    found = loading.list_at_hand(loading.ExperimentSettings())
    assert found == ["toy (built in)", f"phi-2 ({folder / 'snapshots' / 'abc'})"]


def test_weights_that_do_not_fit_name_the_flags(network, tmp_path, capsys, monkeypatch):
    from transformers import PreTrainedModel

    def refuse(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 250.00 MiB")

    monkeypatch.setattr(PreTrainedModel, "to", refuse)
    assert call("--models", "phi-2", "toy", "--model_path", f"phi-2={network}", output=tmp_path) == 1
    message = capsys.readouterr().err
    assert f"phi-2: the weights of {network} do not fit into the memory of cpu; --dtype bfloat16" in message
    assert [run["status"] for run in read_runs(tmp_path)] == ["failed", "done"]


# -------------------------------------------------------------------------------------------------------------- memory


@pytest.fixture
def small_memory(monkeypatch):
    """Return how many tokens a pass may have that goes on from others, and the sizes of those that ran."""
    limit, sizes = [10**9], []
    forward = Network.forward

    def limited(self, inputs, **arguments):
        goes_on = bool(getattr(arguments.get("past_key_values"), "layers", ()))
        if not goes_on or inputs.shape[1] <= limit[0]:
            sizes.append(inputs.shape[1])
            return forward(self, inputs, **arguments)
        model, self.model = self.model, refuse
        try:
            return forward(self, inputs, **arguments)
        finally:
            self.model = model

    def refuse(**_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Network, "forward", limited)
    return limit, sizes


def test_a_wave_that_does_not_fit_is_halved_and_answers_stay_the_same(network, tmp_path, small_memory):
    limit, sizes = small_memory
    flags = ["--models", "phi-2", "--model_path", f"phi-2={network}"]
    assert call(*flags, output=tmp_path / "roomy") == 0
    assert max(sizes[-20:]) > 3
    limit[0] = 3
    del sizes[:]
    assert call(*flags, output=tmp_path / "narrow") == 0
    roomy, narrow = (read_runs(tmp_path / name)[0]["samples"] for name in ("roomy", "narrow"))
    for one, other in zip(roomy, narrow, strict=True):
        assert [rollout["tokens"] for rollout in one["rollouts"]] == [
            rollout["tokens"] for rollout in other["rollouts"]
        ]
        assert one["cost"]["new"] == other["cost"]["new"] and one["cost"]["forwards"] < other["cost"]["forwards"]


def test_memory_that_does_not_suffice_names_the_flags_and_the_others_go_on(
    network, tmp_path, capsys, small_memory, monkeypatch
):
    limit, _ = small_memory
    whole = experiment.load

    def load(key, *others):
        loaded = whole(key, *others)
        limit[0] = 0  # once the test at loading has passed
        return loaded

    monkeypatch.setattr(experiment, "load", load)
    flags = ["--models", "phi-2", "toy", "--model_path", f"phi-2={network}"]
    assert call(*flags, output=tmp_path) == 1
    assert [(run["status"], len(run["samples"])) for run in read_runs(tmp_path)] == [("failed", 0), ("done", 2)]
    message = capsys.readouterr().err
    assert re.search(r"failed: Phi-2, dts: .*do not fit in memory.*--wave, --kv_budget_mb or --max_tokens", message)


# ---------------------------------------------------------------------------------------------------------------- time


def test_each_sample_shows_speed_and_reuse_and_a_slow_one_names_the_quick_preset(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiment, "LONG", 0.0)
    assert call("--models", "toy", output=tmp_path) == 0
    shown = capsys.readouterr().out
    assert len(re.findall(r"sample \d/2: .* \d+ new tokens \(\d+/s, \d+% reused\)", shown)) == 2
    assert len(re.findall(r"about \d+ minutes are left for this; --preset quick asks for less", shown)) == 1


def test_small_models_take_one_core_however_many_there_are(network, tmp_path, monkeypatch):
    """Two that others use too were 30 times slower than one."""
    seen = []
    searched = experiment.search_sample

    def note(*arguments):
        seen.append(torch.get_num_threads())
        return searched(*arguments)

    monkeypatch.setattr(experiment, "search_sample", note)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        path = save_more(tmp_path / "model.pth")
        paths = ["--models", "more", "phi-2", "--model_path", f"more={path}", f"phi-2={network}"]
        assert call(*paths, "--num_samples", "1", output=tmp_path / "own") == 0
        assert call(*paths, "--num_samples", "1", "--torch_threads", "2", output=tmp_path / "two") == 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 2, 2]
