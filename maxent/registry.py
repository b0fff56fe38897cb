"""The models that `--models` knows. Imports nothing, so that listing them needs nothing."""

MODEL_CONFIGS = {
    "llama-7b": {"name": "meta-llama/Llama-2-7b-hf", "color": "#FF6B6B", "display_name": "Llama-2-7B"},
    "llama-13b": {"name": "meta-llama/Llama-2-13b-hf", "color": "#4ECDC4", "display_name": "Llama-2-13B"},
    "mistral-7b": {"name": "mistralai/Mistral-7B-v0.1", "color": "#95E1D3", "display_name": "Mistral-7B"},
    "phi-2": {"name": "microsoft/phi-2", "color": "#F38181", "display_name": "Phi-2"},
    "gemma-7b": {"name": "google/gemma-7b", "color": "#AA96DA", "display_name": "Gemma-7B"},
    "toy": {"name": None, "color": "#888888", "display_name": "Toy"},
    "more": {"name": None, "color": "#F9C74F", "display_name": "MoRE"},
    "babyai": {"name": None, "color": "#577590", "display_name": "BabyAI"},
}
"""Key -> `name` (id on the Hugging Face hub; None where there is none), `color` (hex) and `display_name`.

`toy` is built in; `more` and `babyai` are checkpoints named with `--model_path KEY=PATH`.
"""

STAND_IN_INFO = "stand_in.json"
"""The file in a stand-in's folder by which it is known, whoever names that folder."""
