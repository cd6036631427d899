"""Our models as folders that Hugging Face `AutoModelForCausalLM.from_pretrained` loads."""

from pathlib import Path

from torch import nn

from ..config import GPTConfig
from .hf_gpt2 import ACTIVATION_NAMES, to_hf_gpt2
from .hf_llama import to_hf_llama
from .weights import strip_prefixes


def to_hf(
    model: nn.Module,
    folder: str | Path,
    *,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
) -> None:
    """Write config.json and model.safetensors of the Hugging Face model that computes the same logits.

    GPT2LMHeadModel for pre-norm models with learned positions, LlamaForCausalLM for those with RoPE, RMSNorm
    and SwiGLU. ValueError that names the fields in the way for every other architecture. Rows that pad the
    vocabulary are left out.
    """
    config = model.config
    assert isinstance(config, GPTConfig)
    wrapped = getattr(model, "hf", None)
    if wrapped is not None:
        wrapped.save_pretrained(folder)
        return
    state = {name: tensor.detach().cpu() for name, tensor in strip_prefixes(model.state_dict()).items()}
    for name in ("embed.weight", "head.weight"):
        if name in state:
            state[name] = state[name][: config.vocab_size]
    convert = {"GPT2LMHeadModel": to_hf_gpt2, "LlamaForCausalLM": to_hf_llama}[hf_architecture(config)]
    hf = convert(config, state, bos_token_id=bos_token_id, eos_token_id=eos_token_id)
    hf.save_pretrained(folder)


def hf_architecture(config: GPTConfig) -> str:
    """Name of the transformers class that computes the same function; ValueError if there is none."""
    reasons = {"GPT2LMHeadModel": _not_gpt2(config), "LlamaForCausalLM": _not_llama(config)}
    for name, reason in reasons.items():
        if not reason:
            return name
    text = "; ".join(f"not {name} because of {', '.join(reason)}" for name, reason in reasons.items())
    raise ValueError(f"no Hugging Face architecture computes the same as {config.name}: {text}")


def _not_gpt2(config: GPTConfig) -> list[str]:
    wanted = {
        "normalization": ("layernorm", "layernorm_nobias"),
        "position_encoding": ("learned_absolute",),
        "ffn_type": ("standard",),
        "activation": tuple(ACTIVATION_NAMES),
        "kv_heads": (config.n_head,),
    }
    return _differences(config, wanted)


def _not_llama(config: GPTConfig) -> list[str]:
    wanted = {"normalization": ("rmsnorm",), "position_encoding": ("rope",), "ffn_type": ("swiglu",)}
    return _differences(config, wanted)


def _differences(config: GPTConfig, wanted: dict[str, tuple]) -> list[str]:
    everywhere = {
        "norm_position": ("pre",),
        "qk_norm": (False,),
        "window": (None,),
        "attention_softcap": (0,),
        "logit_softcap": (0,),
    }
    fields = {**wanted, **everywhere}
    return [f"{name}={getattr(config, name)}" for name, good in fields.items() if getattr(config, name) not in good]
