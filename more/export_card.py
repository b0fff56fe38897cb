"""What is told of an exported model: its README.md, how it is opened, what it cannot do, what it learned from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from more.checkpoints import LoadedModel
from more.config import ModelConfig
from more.task_data import is_task
from more.tasks import TaskSettings, generate_task

EXPERTS = {
    "base": "a feed-forward network; nothing recurs",
    "more_a": "a recurrent-depth block: its state takes r steps, each of which mixes state and token, attends to "
    "earlier tokens and applies a gated MLP",
    "more_b": "an up-projection, a GRU cell iterated r times on the projected token, and a down-projection",
    "more_c": "a feed-forward network and a recurrent branch of r steps side by side, mixed by a gate per token",
    "more_d": "a feed-forward network whose output a gated recurrent cell refines r times",
    "looped": "a feed-forward network; all blocks are passed r times, the embedding added each time",
}
"""What an expert of each model type is."""

_TEXT = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
prompts = tokenizer(["Mary went to", "12+30="], return_tensors="pt", padding=True)
written = model.generate(**prompts, max_new_tokens=20{steps})
print(tokenizer.batch_decode(written, skip_special_tokens=True))
"""

_TASK = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
tokens = tokenizer("{example}", return_tensors="pt")
values = model(**tokens{steps}).logits.argmax(-1)[0]
print(tokenizer.convert_ids_to_tokens(values))
"""


_PLACE = re.compile(r"\((/.*?)(, [\d,]+ characters)?\)$")
"""The folder or file at the end of a name of data."""


def describe_model(loaded: LoadedModel) -> dict[str, Any]:
    """Return what `LoadedModel.describe` returns, with names of folders and files in place of their paths."""
    about = loaded.describe()
    return {**about, "data": {part: hide_path(name) for part, name in about["data"].items()}}


def hide_path(name: str) -> str:
    """Return a name of data, as `more.data.Source.describe` has it, without the folders above what it names."""
    return _PLACE.sub(lambda match: f"({Path(match[1]).name}{match[2] or ''})", name)


def render_card(loaded: LoadedModel, name: str) -> str:
    """Return the card of a model, Markdown with the front matter that the hub reads.

    Args:
        loaded: The model.
        name: Of its folder.
    """
    config = loaded.model.config
    tags = ["more", "mixture-of-experts", *["recurrent"] * (config.model_type != "base")]
    front = ["library_name: transformers", "tags:", *(f"- {tag}" for tag in tags)]
    if not is_task(loaded.data):
        front.insert(1, "pipeline_tag: text-generation")
    parts = [
        f"# {name}",
        f"A decoder-only transformer whose feed-forward parts are mixtures of experts, of the type "
        f"`{config.model_type}`: an expert is {EXPERTS[config.model_type]}. Written by more/export.py of rl-mop, a "
        "research project; this is a small model for experiments.",
        _render_table(loaded),
        "## How to open it",
        _render_code(loaded, name),
        _render_notes(config),
        "## What it cannot do",
        _render_limits(loaded),
    ]
    return "\n".join(["---", *front, "---", "", ""]) + "\n\n".join(parts) + "\n"


def _render_table(loaded: LoadedModel) -> str:
    config, about = loaded.model.config, describe_model(loaded)
    parameters, data = about["parameters"], about["data"]
    rows = {
        "parameters": f"{parameters['total']:,}, of which a token uses {parameters['active']:,}",
        "recurrences r": "none" if config.model_type == "base" else f"{config.num_recurrences} in training",
        "layers, width, heads": f"{config.num_layers}, {config.d_model}, {config.num_heads}",
        "experts": f"{config.num_experts} a layer, {config.top_k} for each token",
        "longest sequence": f"{config.max_length} tokens",
        "trained on": _name_data(data, "text", "stories in the manner of bAbI 1 to 3, sums and plain sentences"),
        "questions in it": _name_data(data, "questions", "places of persons and things in the stories"),
        "tokenizer": data["tokenizer"],
        "training": f"{about['update']:,} updates, {about['tokens']:,} targets, seed {about['seed']}",
    }
    if config.model_type == "more_a":
        seen = {"same": "of the same expert", "all": "all"}[config.expert_attention]
        rows["earlier tokens that an expert attends to"] = seen
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _name_data(data: Mapping[str, Any], part: str, embedded: str) -> str:
    """Return what a part of the data was; of what the project generates itself, what that is."""
    name = data[part]
    return f"{embedded}, generated{name.removeprefix('embedded')}" if name.startswith("embedded") else name


def _render_code(loaded: LoadedModel, name: str) -> str:
    steps = (
        "" if loaded.model.config.model_type == "base" else f", num_recurrences={loaded.model.config.num_recurrences}"
    )
    if not is_task(loaded.data):
        return f"```python\n{_TEXT.format(name=name, steps=steps)}```"
    settings = TaskSettings(**loaded.data["settings"]["task"])
    few = generate_task(dataclasses.replace(settings, num_sequences=1), "train", loaded.data["settings"]["data_seed"])
    example = loaded.tokenizer.decode(few.inputs[0].tolist())
    return f"```python\n{_TASK.format(name=name, steps=steps, example=example)}```"


def _render_notes(config: ModelConfig) -> str:
    notes = [
        "It needs torch and transformers; the `.py` files here are all its code. Padding may stand at either side, "
        "with `attention_mask`. `labels` give the cross-entropy; `output_router_logits=True` adds the routers' losses "
        "to it, as in training."
    ]
    if config.model_type != "base":
        notes.append(
            "`num_recurrences` may be changed: for all calls, `from_pretrained(..., num_recurrences=8)`, or for one, "
            "`model(..., num_recurrences=8)` and `model.generate(..., num_recurrences=8)`."
        )
    return "\n\n".join(notes)


def _render_limits(loaded: LoadedModel) -> str:
    limits = [
        f"Sequences of more than {loaded.model.config.max_length} tokens are refused: nothing beyond was trained."
    ]
    if is_task(loaded.data):
        limits.append(
            "It is no language model: at each token it says the value that is asked there, and not what comes next. "
            "Pass targets as `shift_labels`; `generate` means nothing."
        )
    else:
        limits.append(
            "It knows the kind of text that it was trained on and no other, and nothing keeps it from writing what is "
            "wrong. Every text begins with the end-of-text token, which the tokenizer puts there."
        )
    return "\n".join(f"- {limit}" for limit in limits)
