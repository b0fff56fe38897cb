"""A language model of `more/` as transformers has its models: `generate`, padding at either side, labels, saving.

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    model(**tokenizer(texts, return_tensors="pt", padding=True), num_recurrences=8).logits
    model.generate(**prompts, max_new_tokens=20, num_recurrences=8)

The mathematics is in the files of the project that lie beside this one; here is what joins the two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import MoeCausalLMOutputWithPast

from more.exported.configuration_more import MoreConfig
from more.model import Cache, MoreModel, MoreOutput, routing_losses

_OF_THE_LOSS = ("num_items_in_batch", "shift_labels", "ignore_index")
_NOT_GIVEN = ("inputs_embeds", "position_ids", "output_attentions", "output_hidden_states")


class MoreCache(Cache):
    """What `MoreForCausalLM` keeps of the tokens that it has read, with the names by which transformers asks for it.

    Attributes:
        columns: Columns of the input read so far; with padding more than a sequence's tokens.
    """

    is_compileable = False
    is_croppable = False
    columns = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the columns of the input read so far."""
        return self.columns

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the sequences of these rows, (rows,), as beam search asks for."""
        self.select(beam_idx.to(self.lengths.device))


class MoreForCausalLM(PreTrainedModel, GenerationMixin):
    """A language model with recurrent experts.

    Args:
        config: Sizes.
    """

    config_class = MoreConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embedding.weight"}  # noqa: RUF012
    _no_split_modules = ["MoreModel"]  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config: MoreConfig) -> None:
        super().__init__(config)
        self.model = MoreModel(config.sizes())
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for parameter in self.parameters():  # drawn already; while a file is read they are on "meta"
            parameter._is_hf_initialized = parameter.device.type != "meta"
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding."""
        return self.model.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding."""
        self.model.embedding = value

    def _init_weights(self, module: nn.Module) -> None:
        """Draw what a file lacked, roughly as `MoreModel.reset` does; transformers names it in a warning."""
        std = 0.02 * (768 / self.config.hidden_size) ** 0.5
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.RMSNorm) or "gain" in name:
                nn.init.ones_(parameter)
            elif "bias" in name:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=std)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `generate` leaves making one to the first call

    def _validate_generated_length(
        self, generation_config: GenerationConfig, input_ids_length: int, has_default_max_length: bool
    ) -> None:
        """Refuse a text longer than a window before it is written instead of at its end.

        Raises:
            ValueError: If prompt and new tokens exceed the trained length.
        """
        super()._validate_generated_length(generation_config, input_ids_length, has_default_max_length)
        longest = self.config.max_position_embeddings + 1  # the last token is never read
        if generation_config.max_length is not None and generation_config.max_length > longest:
            raise ValueError(
                f"max_new_tokens, max_length: a prompt of {input_ids_length} tokens with the new ones makes "
                f"{generation_config.max_length}, and the model was trained on {longest - 1}; shorten one of them"
            )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: MoreCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_recurrences: int | None = None,
        logits_to_keep: int | Tensor = 0,
        output_router_logits: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast | tuple[Tensor, ...]:
        """Return logits, and what else is asked for.

        Args:
            input_ids: (batch, time) token numbers.
            attention_mask: (batch, time), or with columns of earlier calls before them: 0 where a token is padding,
                wherever that stands. The others are read as if it were not there. Padding has the logits of the token
                before it, for `generate` takes those of the last column; where there is none they mean nothing.
            past_key_values: What an earlier call with `use_cache` returned: these tokens follow those.
            labels: (batch, time) the tokens themselves, -100 where there is no loss. Tokens before t predict token t,
                and the first of a row has no loss, wherever padding stands; targets in the places where they are
                predicted are passed as `shift_labels` instead.
            use_cache: Return `past_key_values` too; None does not.
            num_recurrences: r of this call; None is the config's, or that of the cache.
            logits_to_keep: Logits of the last so many positions only, or of these positions; 0 for all.
            output_router_logits: Return `router_logits`, per layer (and pass of looped) (batch x time, experts), and
                `aux_loss`, balance and z-loss by the config's weights, which is added to the loss.
            return_dict: False returns a tuple.
            **kwargs: Of the loss, `num_items_in_batch`, `shift_labels` and `ignore_index`.

        Raises:
            ValueError: If shapes, r or the length do not fit model and cache, or something is asked for that there is
                not.
        """
        config = self.config
        self._check(input_ids, attention_mask, past_key_values, kwargs)
        time = input_ids.shape[1]
        if num_recurrences is None:
            num_recurrences = config.num_recurrences if past_key_values is None else past_key_values.num_recurrences
        cache = past_key_values
        if cache is None and use_cache:
            with torch.no_grad():
                cache = MoreCache(self.model, len(input_ids), config.max_position_embeddings, num_recurrences)

        order = lengths = None
        if attention_mask is not None:
            real = attention_mask[:, -time:].bool()
            if not real.all():  # real tokens to the left, in their order, as the model has them
                order, lengths = (~real).to(torch.uint8).argsort(dim=1, stable=True), real.sum(dim=1)
        tokens = input_ids if order is None else input_ids.gather(1, order)
        features, routing, mask = self.model.compute_features(
            tokens, num_recurrences=num_recurrences, lengths=lengths, cache=cache
        )
        back = None if order is None else order.argsort(dim=1)[..., None]
        if back is not None:
            shown = (real.cumsum(dim=1) - 1).clamp(min=0)[..., None]
            features = features.gather(1, shown.expand(-1, -1, features.shape[-1]))
        if cache is not None:
            cache.columns += time
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep  # -0: all
        logits = self.lm_head(features[:, kept])

        loss = aux_loss = router_logits = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            given = {name: kwargs[name] for name in _OF_THE_LOSS if name in kwargs}
            if labels is not None and order is not None:  # padding at the left is no token that could predict one
                labels = labels.masked_fill(real.cumsum(dim=1) <= real, given.get("ignore_index", -100))
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=config.vocab_size, **given)
        if config.output_router_logits if output_router_logits is None else output_router_logits:
            losses = routing_losses(MoreOutput(logits, routing, cache, mask, len(routing) // config.num_hidden_layers))
            aux_loss = config.router_aux_loss_coef * losses.balance + config.router_z_loss_coef * losses.z
            loss = None if loss is None else loss + aux_loss
            found = [routed.logits for routed in routing]  # (batch, time, experts)
            if back is not None:
                found = [part.gather(1, back.expand_as(part)) for part in found]
            router_logits = tuple(part.flatten(0, 1) for part in found)
        output = MoeCausalLMOutputWithPast(
            loss=loss, aux_loss=aux_loss, logits=logits, past_key_values=cache, router_logits=router_logits
        )
        return output.to_tuple() if return_dict is False else output

    @staticmethod
    def _check(input_ids: Tensor, mask: Tensor | None, cache: Any, others: dict[str, Any]) -> None:
        asked = [name for name in _NOT_GIVEN if others.get(name) is not None and others[name] is not False]
        if asked:
            raise ValueError(f"{asked[0]}: this model does not have it; places follow from attention_mask")
        if cache is not None and not isinstance(cache, MoreCache):
            raise ValueError(
                f"past_key_values: expected what a call with use_cache=True returned, found {type(cache).__name__}"
            )
        if mask is not None and (
            mask.dim() != 2 or mask.shape[0] != len(input_ids) or mask.shape[1] < input_ids.shape[1]
        ):
            raise ValueError(
                f"attention_mask: expected {tuple(input_ids.shape)}, a number for each token, or more columns with a "
                f"cache; found {tuple(mask.shape)}"
            )
