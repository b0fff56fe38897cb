"""The model of a key: built in, a folder or an id of the hub, a stand-in, a checkpoint of `more/` or of a policy.

loaded = load("mistral-7b", settings, dataset, print)
search(loaded.model, loaded.read_prompt(sample), ...)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from maxent.data.sample import Dataset, Sample
from maxent.dts_implementation.models.sequence_model import Cost, SequenceModel, ToyModel
from maxent.registry import MODEL_CONFIGS
from maxent.settings import ExperimentSettings
from maxent.stand_ins import train_stand_in
from maxent.threads import SMALL, use_threads
from pipeline.command.errors import ConfigError, UserError

NUM_PHRASES = 25


class WeightsError(UserError, ValueError):
    """Weights that cannot be had or used; the message says what to do."""


@dataclass(frozen=True)
class Loaded:
    """A model, ready to be asked.

    Attributes:
        model: Behind the protocol of searches.
        weights: `pretrained`, `stand-in` or `toy`.
        source: Where it is from.
        kv: What is kept of prefixes: `packed`, `none`, or the model's own way.
        count_tokens: Text -> tokens of it as a prompt.
        read_prompt: Sample -> prompt, as the model takes it.
        simulator: It looks ahead in the environment itself.
        num_recurrences: r of a MoRE; None for all others.
        threads: With which torch shall compute; None: as it would by itself.
        digest: SHA-256 of its weights, hexadecimal; None where it has none, or they are of a kind that cannot be told.
    """

    model: SequenceModel
    weights: str
    source: str
    kv: str
    count_tokens: Callable[[str], int]
    read_prompt: Callable[[Sample], Any] = attrgetter("prompt")
    simulator: bool = False
    num_recurrences: int | None = None
    threads: int | None = None
    digest: str | None = None


class PhraseToy:
    """A toy that says the commonest sentences of a dataset's answers, in an order that knows nothing of the prompt.

    Args:
        phrases: What each token says.
        seed: Another seed, another toy.

    Attributes:
        eos: See `SequenceModel`.
        limit: None, for it reads prompts of any length.
    """

    def __init__(self, phrases: Sequence[str], seed: int = 0) -> None:
        self._phrases = phrases
        self._inner = ToyModel(len(phrases) + 1, eos=len(phrases), scale=0.5, seed=seed)
        self.eos, self.limit = self._inner.eos, self._inner.limit

    @property
    def cost(self) -> Cost:
        """See `SequenceModel`."""
        return self._inner.cost

    def start(self, prompt: str) -> np.ndarray:
        """See `SequenceModel`."""
        return self._inner.start(prompt)

    def open(self, paths: Sequence[Sequence[int]]) -> None:
        """See `SequenceModel`."""
        self._inner.open(paths)

    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        """See `SequenceModel`."""
        return self._inner.step(tokens, nodes)

    def close(self) -> None:
        """See `SequenceModel`."""
        self._inner.close()

    def decode(self, tokens: Sequence[int]) -> str:
        """See `SequenceModel`."""
        return " ".join(self._phrases[token] for token in tokens if token not in self.eos)


def list_phrases(dataset: Dataset) -> list[str]:
    """Return the sentences that occur most in the answers that are to be learned, at least one."""
    lines = [sample.target.strip() for sample in dataset.splits["train"]]
    sentences = Counter(one.rstrip(".") + "." for line in lines for one in line.split(". ") if one)
    return [one for one, _ in sentences.most_common(NUM_PHRASES)] or ["..."]


def load(
    key: str,
    settings: ExperimentSettings,
    dataset: Dataset,
    announce: Callable[[str], object],
    check: Callable[[], object] = lambda: None,
) -> Loaded:
    """Return a model.

    Args:
        key: Of the registry.
        settings: Paths, device, types.
        dataset: What it will be asked.
        announce: Is told, in a line, what is worth telling.
        check: Called now and then within long work, which what it raises ends.

    Raises:
        WeightsError: If its weights cannot be had or used.
        ConfigError: If the device is none.
        OSError: If a stand-in cannot be kept.
    """
    if key == "toy":
        return Loaded(PhraseToy(list_phrases(dataset), settings.seed), "toy", "built in", "own", len)
    path = settings.find_paths().get(key)
    if path is not None and not Path(path).exists():
        raise WeightsError(f"--model_path {key}={path}: expected a folder or a file, found nothing there")
    if key == "more":
        return _load_more(path, settings, dataset, announce)
    if key == "babyai":
        return _load_policy(path, settings, dataset, announce)
    if settings.takes_stand_in(key):
        return _load_stand_in(key, settings, dataset, announce, check)
    return _load_language_model(key, path, settings, announce)


def _load_more(
    path: str | None, settings: ExperimentSettings, dataset: Dataset, announce: Callable[[str], object]
) -> Loaded:
    if path is None:
        raise WeightsError("more: expected a checkpoint, --model_path more=PATH; more/train.py makes one")
    from maxent.dts_implementation.models.more_model import load_more

    one_line = dataset.splits["test"][0].task in ("sum", "story")
    device = find_device(settings.device)
    model = load_more(path, device, num_recurrences=settings.num_recurrences, one_line=one_line)
    if settings.num_recurrences is not None and model.num_recurrences is None:
        announce("num_recurrences: changes nothing, for this is a base model, in which nothing recurs")
    threads = settings.torch_threads or (1 if model.num_parameters <= SMALL else None)
    options = {"num_recurrences": model.num_recurrences, "threads": threads}
    return Loaded(model, "pretrained", path, "own", model.count_tokens, digest=find_digest(model), **options)


def _load_policy(
    path: str | None, settings: ExperimentSettings, dataset: Dataset, announce: Callable[[str], object]
) -> Loaded:
    if path is None:
        raise WeightsError("babyai: expected a checkpoint, --model_path babyai=PATH; train_mop.py makes one")
    from maxent.dts_implementation.models.babyai_policy import load_babyai_policy

    device = find_device(settings.device)
    if device.type == "mps":
        announce("device: cpu, for policies compute in float64, which mps has not")
        device = "cpu"
    threads = settings.torch_threads or 1  # the policies of this project are small
    with use_threads(threads):
        model = load_babyai_policy(path, dataset.name, device=device)
        model.start(int(dataset.splits["test"][0].prompt))  # what is compiled at first use is no time of a search
        model.step([0], [0])
    announce(
        "simulator: true. The search tries actions in the level itself before it answers: this is planning, and not "
        "to be compared with the evaluation of a policy, which acts once"
    )
    options = {"read_prompt": lambda sample: int(sample.prompt), "simulator": True, "threads": threads}
    return Loaded(model, "pretrained", path, "own", len, digest=find_digest(model), **options)


def find_digest(model: Any) -> str | None:
    """Return the digest of a model's weights, None where they are no plain tensors, as packages of quantisation make.

    Args:
        model: With a `state_dict`.
    """
    from pipeline.checkpoint_files import compute_digest  # imports torch

    try:
        return compute_digest(model.state_dict())
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return None


def choose_options(settings: ExperimentSettings, announce: Callable[[str], object]) -> dict[str, Any]:
    """Return the options of `HuggingFaceModel`."""
    return {"kv": settings.kv, "kv_budget_mb": settings.kv_budget_mb, "announce": announce}


def _load_stand_in(
    key: str,
    settings: ExperimentSettings,
    dataset: Dataset,
    announce: Callable[[str], object],
    check: Callable[[], object],
) -> Loaded:
    device, options = find_device(settings.device), choose_options(settings, announce)
    threads = settings.torch_threads or 1
    with use_threads(threads):
        made = train_stand_in(key, settings, dataset, check=check, device=device, **options)
    model = made.model
    options = {"threads": threads, "digest": find_digest(model)}
    return Loaded(model, made.weights, str(made.folder), model.kv, model.count_tokens, **options)


def _load_language_model(
    key: str, path: str | None, settings: ExperimentSettings, announce: Callable[[str], object]
) -> Loaded:
    source = path or _find_on_hub(key, settings)
    from maxent.dts_implementation.models.network import memory_errors
    from maxent.dts_implementation.models.pytorch_hf_wrapper import load_hugging_face

    device = find_device(settings.device)
    options = choose_options(settings, announce)
    try:
        with memory_errors(source):
            model = load_hugging_face(source, device=device, dtype=settings.dtype, **options)
    except ValueError as error:
        raise WeightsError(str(error)) from None
    except MemoryError:
        raise WeightsError(
            f"{key}: the weights of {source} do not fit into the memory of {device}; --dtype bfloat16 takes half of "
            "what float32 does, --device cpu the main memory, --stand_in a small model of the same architecture"
        ) from None
    weights = "stand-in" if settings.is_stand_in(key) else "pretrained"
    threads = settings.torch_threads or (1 if model.num_parameters <= SMALL else None)
    options = {"threads": threads, "digest": find_digest(model)}
    return Loaded(model, weights, source, model.kv, model.count_tokens, **options)


def _find_on_hub(key: str, settings: ExperimentSettings) -> str:
    """Return a model's id if it is in the local cache or the hub answers.

    Raises:
        WeightsError: If neither is so.
    """
    from pipeline.command.hub import HubError, fetch

    source = MODEL_CONFIGS[key]["name"]
    try:
        fetch(source, ["config.json"])
    except HubError as error:
        raise WeightsError(
            f"{key}: weights of {source} cannot be had ({error}); name a local folder with --model_path {key}=PATH, or "
            "use --stand_in, a small model of the same architecture; a gated model needs its license accepted on the "
            f"hub and `hf auth login`; at hand are {', '.join(list_at_hand(settings))}"
        ) from None
    return source


def list_at_hand(settings: ExperimentSettings) -> list[str]:
    """Return the keys whose weights need no download, each with where they are."""
    paths = settings.find_paths()
    found = ["toy (built in)"]
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return found + [f"{key} ({path})" for key, path in paths.items()]
    for key, known in MODEL_CONFIGS.items():
        cached = known["name"] and try_to_load_from_cache(known["name"], "config.json")
        if key in paths:
            found.append(f"{key} ({paths[key]})")
        elif isinstance(cached, str):
            found.append(f"{key} ({Path(cached).parent})")
    return found


def find_device(name: str) -> Any:
    """Return a device; auto is cuda, else mps, else the CPU.

    Raises:
        ConfigError: If it is none.
    """
    import torch

    from pipeline.command.devices import resolve_device

    has_mps = torch.backends.mps.is_available()
    if name == "mps" and not has_mps:
        raise ConfigError("device: expected mps to be there, found none; use auto or cpu")
    if name == "auto" and has_mps and not torch.cuda.is_available():
        return torch.device("mps")
    return resolve_device(name)
