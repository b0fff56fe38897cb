"""Models with weights as large as trained ones, as checkpoints hold them and as transformers opens them."""

import torch

from more.checkpoints import LoadedModel, build_model
from more.config import ModelConfig

SMALL = {"d_model": 16, "num_heads": 2, "num_experts": 3, "max_length": 32, "dropout": 0.0}


def build_loaded(tokenizer, kind="more_a", top_k=1, sees="same", seed=0, data=None, **changes) -> LoadedModel:
    """Return a model with weights as large as trained ones, as a checkpoint holds it."""
    sizes = {**SMALL, "num_layers": top_k, "num_recurrences": 3, "expert_attention": sees, **changes}
    config = ModelConfig(model_type=kind, top_k=top_k, vocab_size=tokenizer.vocab_size, **sizes)
    model = build_model(config, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    described = {"text": "embedded (seed 0)", "questions": "embedded (seed 0)", "tokenizer": tokenizer.name}
    described["settings"] = {"data": "embedded"}
    training = {"seed": 1, "balance_weight": 0.02, "z_weight": 0.004}
    return LoadedModel(model, tokenizer, training, data or described, update=10, tokens=1000)


def wrap(loaded: LoadedModel, **others):
    """Return a model as the exported folder has it, in this process."""
    from more.exported.configuration_more import MoreConfig
    from more.exported.modeling_more import MoreForCausalLM

    end = loaded.tokenizer.end_token
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    model = MoreForCausalLM(MoreConfig.of(loaded.model.config, **special, **others)).eval()
    model.model.load_state_dict(loaded.model.state_dict())
    return model
