"""Sizes of an exported language model in the words of transformers; `config.json` holds them."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from more.config import ModelConfig


class MoreConfig(PreTrainedConfig):
    """Configuration of `MoreForCausalLM`; `more.config.ModelConfig` says what the sizes mean.

    Args:
        variant: base, more_a to more_d, or looped: what an expert is.
        num_recurrences: r of a call that names none. It may be changed, as `from_pretrained(..., num_recurrences=8)`.
        trained_recurrences: r of training, by which the experts' widths were found; None takes `num_recurrences`.
        vocab_size: Tokens known.
        hidden_size: Width of the residual stream.
        num_attention_heads: Heads of every attention.
        num_hidden_layers: Blocks of attention and mixture.
        num_experts: Experts of each mixture.
        num_experts_per_tok: Experts that a token goes to.
        max_position_embeddings: Longest sequence, tokens; longer ones are refused.
        hidden_dropout_prob: In training.
        match: How the experts' widths were found.
        dispatch: How rows meet their expert's weights: grouped, loop or auto.
        expert_attention: What an attending expert sees, same or all.
        output_router_logits: Return the routers' logits and the auxiliary loss, and add that to the loss.
        router_aux_loss_coef: Weight of the balance loss in it.
        router_z_loss_coef: Weight of the z-loss in it.
        use_cache: Whether `generate` keeps what it has read.
        tie_word_embeddings: The head is the embedding; nothing else was trained.
        **kwargs: Of `PreTrainedConfig`.

    Raises:
        ValueError: If a size cannot be used.
    """

    model_type = "more"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        variant: str = "base",
        num_recurrences: int = 1,
        trained_recurrences: int | None = None,
        vocab_size: int = 50257,
        hidden_size: int = 512,
        num_attention_heads: int = 8,
        num_hidden_layers: int = 6,
        num_experts: int = 8,
        num_experts_per_tok: int = 1,
        max_position_embeddings: int = 256,
        hidden_dropout_prob: float = 0.1,
        match: str = "none",
        dispatch: str = "auto",
        expert_attention: str = "all",
        output_router_logits: bool = False,
        router_aux_loss_coef: float = 0.01,
        router_z_loss_coef: float = 0.001,
        use_cache: bool = True,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.variant = variant
        self.num_recurrences = num_recurrences
        self.trained_recurrences = num_recurrences if trained_recurrences is None else trained_recurrences
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.num_hidden_layers = num_hidden_layers
        self.num_experts = num_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.max_position_embeddings = max_position_embeddings
        self.hidden_dropout_prob = hidden_dropout_prob
        self.match = match
        self.dispatch = dispatch
        self.expert_attention = expert_attention
        self.output_router_logits = output_router_logits
        self.router_aux_loss_coef = router_aux_loss_coef
        self.router_z_loss_coef = router_z_loss_coef
        self.use_cache = use_cache
        self.tie_word_embeddings = tie_word_embeddings
        if not tie_word_embeddings:
            raise ValueError("tie_word_embeddings: expected True (the head is the embedding), found False")
        self.sizes()
        super().__init__(**kwargs)

    def sizes(self) -> ModelConfig:
        """Return the sizes as the model takes them.

        Raises:
            ValueError: If one cannot be used; the message names it as `ModelConfig` does.
        """
        return ModelConfig(
            model_type=self.variant,
            num_recurrences=self.trained_recurrences,
            vocab_size=self.vocab_size,
            d_model=self.hidden_size,
            num_heads=self.num_attention_heads,
            num_layers=self.num_hidden_layers,
            num_experts=self.num_experts,
            top_k=self.num_experts_per_tok,
            dropout=self.hidden_dropout_prob,
            max_length=self.max_position_embeddings,
            match=self.match,
            dispatch=self.dispatch,
            expert_attention=self.expert_attention,
        )

    @classmethod
    def of(cls, sizes: ModelConfig, **others: Any) -> MoreConfig:
        """Return the configuration of a model of these sizes; `others` are further arguments."""
        return cls(
            variant=sizes.model_type,
            num_recurrences=sizes.num_recurrences,
            vocab_size=sizes.vocab_size,
            hidden_size=sizes.d_model,
            num_attention_heads=sizes.num_heads,
            num_hidden_layers=sizes.num_layers,
            num_experts=sizes.num_experts,
            num_experts_per_tok=sizes.top_k,
            max_position_embeddings=sizes.max_length,
            hidden_dropout_prob=sizes.dropout,
            match=sizes.match,
            dispatch=sizes.dispatch,
            expert_attention=sizes.expert_attention,
            **others,
        )
