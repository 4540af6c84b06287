"""Tiny models of transformers with random weights, and where their filters go."""

from typing import Any

import pytest
import torch

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODER = SMALL | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
WINDOW = {"sliding_window": 4}
# Class of the model, of its config, its settings, and the layers.
TEXT: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("BertModel", "BertConfig", SMALL, "encoder.layer"),
    "modernbert": (
        "ModernBertModel",
        "ModernBertConfig",
        SMALL | {"local_attention": 8, "global_attn_every_n_layers": 2},
        "layers",
    ),
    "llama": ("LlamaModel", "LlamaConfig", DECODER, "layers"),
    "gpt2": (
        "GPT2Model",
        "GPT2Config",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40, "n_positions": 64},
        "h",
    ),
    "mistral": ("MistralModel", "MistralConfig", DECODER | WINDOW, "layers"),
    "gemma3": (
        "Gemma3TextModel",
        "Gemma3TextConfig",
        DECODER | WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
        "layers",
    ),
}


def build(model: str, config: str, settings: dict[str, Any], attention: str = "eager") -> Any:
    """Builds a model of transformers in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = getattr(transformers, config)(**settings)
    made._attn_implementation = attention
    return getattr(transformers, model)(made).eval()


def text_model(name: str, attention: str = "eager") -> tuple[Any, str]:
    """A text model, and the name of its layers."""
    model, config, settings, layers = TEXT[name]
    return build(model, config, settings, attention), layers


def causal_model(name: str = "Llama", **changes: Any) -> Any:
    """A language model that can generate."""
    settings = DECODER | {"initializer_range": 0.3} | changes
    return build(f"{name}ForCausalLM", f"{name}Config", settings)
