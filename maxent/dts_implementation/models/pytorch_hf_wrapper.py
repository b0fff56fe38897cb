"""Any causal language model of the library transformers as a `SequenceModel`.

    model = load_hugging_face("Qwen/Qwen3-0.6B", device="cuda", dtype="bfloat16")
    search(model, "Describe the series: 3 4 5 4 3", reward, SearchSettings())

Each prefix of a search's tree is fed once (`packed_cache`), if a test at loading finds that this model allows it;
otherwise, and with kv "none", every prefix is read anew from the prompt on, which any model does right, at the price of
many times the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maxent.dts_implementation.models.network import Network
from maxent.dts_implementation.models.packed_cache import PackedCache, UnsupportedError
from maxent.dts_implementation.models.sequence_model import Cost

KV_MODES = ("auto", "packed", "none")
SHORT = 8  # tokens of the prompt that the test at loading reads
LONGEST_WINDOW = 64  # a sliding window up to this is tested beyond its end, a longer one within it
ALLOWED = {torch.float32: 1e-4, torch.float64: 1e-10}  # difference, relative to the largest logit; other types:
ALLOWED_HALF = 0.1


class PlainPrefixes:
    """Reads every prefix anew, with the words of `SequenceModel`: the plain twin of `PackedCache`.

    Args:
        network: The model.

    Attributes:
        cost: The account since `start`.
    """

    def __init__(self, network: Network) -> None:
        self.cost = Cost()
        self._network = network

    def start(self, prompt: Tensor) -> np.ndarray:
        """Read a prompt, as `Network.build_prompt` makes it, and return the logits after it, (vocabulary,)."""
        self._prompt = prompt
        self._prefixes: list[tuple[int, ...]] = [()]
        logits = self._network.forward(prompt, last=True, use_cache=False)
        self.cost = Cost(prefill=prompt.shape[1], forwards=1)
        return logits[0]

    def open(self, paths: Sequence[Sequence[int]]) -> None:
        """See `SequenceModel`; nothing is kept."""

    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        """See `SequenceModel`. Prefixes of one length go together, so that nothing is padded."""
        prefixes = [(*self._prefixes[node], int(token)) for token, node in zip(tokens, nodes, strict=True)]
        by_length: dict[int, list[int]] = {}
        for row, prefix in enumerate(prefixes):
            by_length.setdefault(len(prefix), []).append(row)
        found: list[np.ndarray | None] = [None] * len(prefixes)
        for rows in by_length.values():
            inputs = self._network.extend(self._prompt, [prefixes[row] for row in rows])
            for row, logits in zip(rows, self._network.forward(inputs, last=True, use_cache=False), strict=True):
                found[row] = logits
        self._prefixes += prefixes
        self.cost.new += len(prefixes)
        self.cost.recomputed += sum(self._prompt.shape[1] + len(prefix) - 1 for prefix in prefixes)
        self.cost.forwards += len(by_length)
        return np.stack(found)

    def close(self) -> None:
        """See `SequenceModel`."""


class HuggingFaceModel:
    """A causal language model that many answers to one prompt are drawn from; a `SequenceModel`.

    Prompts are text (with a tokenizer), token numbers (time,), or embeddings (time, width).

    Args:
        model: A `PreTrainedModel` with a language-model head.
        tokenizer: Of the library too; None takes token numbers only, and decodes to them.
        kv: `packed` keeps a column for each prefix; `none` keeps nothing; `auto` is packed where that gives what plain
            passes give, and says so where not.
        kv_budget_mb: MiB for the keys and values that are kept, None without bound (`PackedCache`).
        announce: Is told, in a line, why kv is `none`.

    Attributes:
        kv: `packed` or `none`: what is in use.
        prefixes: What keeps the columns, and counts.

    Raises:
        ValueError: If `kv` is unknown, or `packed` and the model does not allow it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        kv: str = "auto",
        kv_budget_mb: float | None = None,
        announce: Callable[[str], object] = print,
    ) -> None:
        if kv not in KV_MODES:
            raise ValueError(f"kv: expected one of {', '.join(KV_MODES)}, found {kv!r}")
        self._network = Network(model)
        self._tokenizer = tokenizer
        self.eos = find_end_tokens(model, tokenizer)
        self._length = 0
        reason = "" if kv == "none" else check_packing(self._network)
        if reason and kv == "packed":
            raise ValueError(f"kv: packed does not work for {type(model).__name__}: {reason}; use auto or none")
        if reason:
            announce(f"{type(model).__name__}: kv none, every prefix is read anew, which is slow: {reason}")
        self.kv = "none" if reason or kv == "none" else "packed"
        budget = None if kv_budget_mb is None else int(kv_budget_mb * 2**20)
        self.prefixes = PackedCache(self._network, budget) if self.kv == "packed" else PlainPrefixes(self._network)

    @property
    def cost(self) -> Cost:
        """See `SequenceModel`."""
        return self.prefixes.cost

    @property
    def limit(self) -> int | None:
        """See `SequenceModel`: what the model's positions leave beside the prompt."""
        return None if self._network.limit is None else self._network.limit - self._length

    @property
    def num_parameters(self) -> int:
        """Numbers that were trained."""
        return sum(parameter.numel() for parameter in self._network.model.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """Return its weights by name."""
        return self._network.model.state_dict()

    def count_tokens(self, prompt: str) -> int:
        """Return how many tokens a text is as a prompt, if there is a tokenizer."""
        return len(self._tokenizer(prompt)["input_ids"])

    def start(self, prompt: Any) -> np.ndarray:
        """See `SequenceModel`.

        Raises:
            ValueError: If the prompt is of no kind that is known, empty, or too long.
        """
        if isinstance(prompt, str):
            if self._tokenizer is None:
                raise ValueError("prompt: text needs a tokenizer, and this model was given none; pass token numbers")
            prompt = self._tokenizer(prompt)["input_ids"]
        inputs = self._network.build_prompt(prompt)
        self._length = inputs.shape[1]
        return self.prefixes.start(inputs)

    def open(self, paths: Sequence[Sequence[int]]) -> None:
        """See `SequenceModel`."""
        self.prefixes.open(paths)

    def step(self, tokens: Sequence[int], nodes: Sequence[int]) -> np.ndarray:
        """See `SequenceModel`."""
        return self.prefixes.step(tokens, nodes)

    def close(self) -> None:
        """See `SequenceModel`."""
        self.prefixes.close()

    def decode(self, tokens: Sequence[int]) -> str:
        """See `SequenceModel`; without a tokenizer, the numbers."""
        if self._tokenizer is None:
            return " ".join(str(token) for token in tokens if token not in self.eos)
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)


def load_hugging_face(
    source: str, *, device: str | torch.device = "cpu", dtype: str = "auto", **options: Any
) -> HuggingFaceModel:
    """Return a model with its tokenizer, from a folder or by its id on the hub.

    Args:
        source: Folder or id.
        device: Where it runs.
        dtype: Name of a type of torch, or `auto`, which is what the weights were stored in.
        options: As of `HuggingFaceModel`.

    Raises:
        ValueError: If it cannot be had, or is no causal language model; the message says why.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # slow to import

    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # of files that anybody may have written, each reader has errors of its own
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"{source}: expected a model that transformers knows; its folder brings code of its own, which is "
                "never run; a MoRE is loaded by --models more --model_path more=CHECKPOINT"
            ) from None
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{source}: expected a causal language model and its tokenizer, in a folder or on the hub; they cannot be "
            f"had ({type(error).__name__}: {reason}); name a local folder with --model_path, or use --stand_in"
        ) from None
    return HuggingFaceModel(model.to(device), tokenizer, **options)


def find_end_tokens(model: Any, tokenizer: Any = None) -> frozenset[int]:
    """Return all tokens by which model, its settings for generation or its tokenizer end a text; may be empty."""
    found: set[int] = set()
    for holder in (model.config.get_text_config(decoder=True), getattr(model, "generation_config", None), tokenizer):
        tokens = getattr(holder, "eos_token_id", None)
        found.update([tokens] if isinstance(tokens, int) else tokens or ())
    return frozenset(found)


def check_packing(network: Network) -> str:
    """Return why a model's prefixes cannot be packed, "" if they can: three branches against plain passes.

    The branches fork at the prompt and later, in two waves, so that columns are kept, gathered and masked. A sliding
    window is passed if it has at most `LONGEST_WINDOW` positions; a longer one would cost more than many a search.
    """
    length = SHORT + (network.window if network.window and network.window <= LONGEST_WINDOW else 0)
    if network.limit is not None:
        length = max(min(length, network.limit - 4), 1)
    rng = np.random.default_rng(0)
    prompt = network.build_prompt(rng.integers(network.vocab_size, size=length))
    a, b, c, d, e, f = rng.choice(network.vocab_size, 6, replace=network.vocab_size < 6).tolist()
    try:
        packed = PackedCache(network)
        packed.start(prompt)
        packed.open([()])
        packed.step([a, b], [0, 0])
        packed.step([c], [1])
        packed.close()
        packed.open([(2,), (1, 3)])
        found = packed.step([d, e, f], [2, 3, 1])
        packed.close()
    except MemoryError:
        raise
    except UnsupportedError as error:
        return str(error)
    except Exception as error:  # whatever a model does with arguments that it was not made for
        return f"it refuses what packing needs ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    branches = [(b, d), (a, c, e), (a, f)]
    plain = np.stack(
        [network.forward(network.extend(prompt, [row]), last=True, use_cache=False)[0] for row in branches]
    )
    allowed = ALLOWED.get(network.dtype, ALLOWED_HALF) * max(1.0, float(np.abs(plain).max()))
    difference = float(np.abs(found - plain).max())
    if difference <= allowed:  # false for NaN too
        return ""
    return f"packed logits differ from plain ones by {difference:.2g}, where {allowed:.2g} is allowed"
