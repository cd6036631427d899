"""Parameter names of other systems for ours. Used in both directions."""

_GPT2 = {
    "embed": "transformer.wte",
    "position": "transformer.wpe",
    "blocks": "transformer.h",
    "attn_norm": "ln_1",
    "attn.qkv": "attn.c_attn",
    "attn.out": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
_LLAMA = {
    "embed": "model.embed_tokens",
    "blocks": "model.layers",
    "attn_norm": "input_layernorm",
    "attn.qkv": "self_attn.qkv",  # split into q_proj, k_proj, v_proj by the converter
    "attn.out": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}


def gpt2_name(name: str) -> str:
    """Name in Hugging Face GPT-2 and in nanoGPT: blocks.0.attn.qkv.bias is transformer.h.0.attn.c_attn.bias."""
    return _translate(name, _GPT2)


def llama_name(name: str) -> str:
    """Name in Hugging Face Llama; the fused attn.qkv becomes self_attn.qkv, which has to be split."""
    return _translate(name, _LLAMA)


def _translate(name: str, table: dict[str, str]) -> str:
    words = name.split(".")
    if words[0] != "blocks":
        return f"{table[words[0]]}.{words[1]}"
    part, kind = ".".join(words[2:-1]), words[-1]
    return f"{table['blocks']}.{words[1]}.{table[part]}.{kind}"
