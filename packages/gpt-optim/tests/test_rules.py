"""Ready rules: every parameter of real models where a reader expects it, with the layout that Muon must know."""

import pytest
from torch import nn

from gpt_optim import param_groups
from gpt_optim.rules import default_rules, gpt_rules, hf_gpt2_rules, hf_llama_rules


def placed(model: nn.Module, rules: list) -> dict[str, dict]:
    """name -> options of its group."""
    groups = param_groups(model, rules)
    return {
        name: {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for group in groups
        for name in group["param_names"]
    }


def blocks_of(*parts: tuple[str, dict], layers: int) -> dict[str, dict]:
    return {f"{layer}.{name}": options for layer in range(layers) for name, options in parts}


class Tiny(nn.Module):
    def __init__(self, tied: bool = False, context: int = 32):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.position = nn.Embedding(context, 8)
        self.blocks = nn.ModuleList([nn.ModuleDict({"norm": nn.LayerNorm(8), "up": nn.Linear(8, 32)})])
        self.unusual = nn.Linear(8, 11, bias=False)
        if tied:
            self.unusual.weight = self.embed.weight


@pytest.mark.parametrize("tied", [False, True])
def test_default_rules_partition_any_module(tied):
    adamw, vector = {"kind": "adamw", "lr": 0.2}, {"kind": "adamw", "lr": 0.2, "weight_decay": 0.0}
    expected = {
        # `up` has the shape of the position embedding, and is a hidden matrix nevertheless
        "blocks.0.up.weight": {"kind": "muon", "lr": 0.1},
        "embed.weight": adamw,
        "position.weight": adamw,
        "blocks.0.norm.weight": vector,
        "blocks.0.norm.bias": vector,
        "blocks.0.up.bias": vector,
    }
    if not tied:
        expected["unusual.weight"] = adamw
    model = Tiny(tied)
    assert placed(model, default_rules(model, muon={"lr": 0.1}, adamw={"lr": 0.2})) == expected


def test_default_rules_know_heads_and_tables_by_their_names():
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"output": nn.Linear(4, 4, bias=False)})])})
    model["lm_head"] = nn.Linear(4, 6, bias=False)
    model["position"] = nn.Linear(4, 5, bias=False)  # a table, though no nn.Embedding
    kinds = {name: options["kind"] for name, options in placed(model, default_rules(model)).items()}
    assert kinds == {"blocks.0.output.weight": "muon", "lm_head.weight": "adamw", "position.weight": "adamw"}


def test_default_rules_give_convolutions_and_the_last_layer_to_adamw():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 8))
    kinds = {name: options["kind"] for name, options in placed(model, default_rules(model)).items()}
    assert kinds["0.weight"] == kinds["3.weight"] == "adamw" and kinds["2.weight"] == "muon"


def test_default_rules_take_no_matrix_of_a_block_for_the_last_layer():
    model = nn.Sequential(*(nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 4)}) for _ in range(2)))
    kinds = {name: options["kind"] for name, options in placed(model, default_rules(model)).items()}
    assert kinds["1.down.weight"] == "muon"


def test_default_rules_with_options_for_each_part():
    parts = {"embedding": {"lr": 0.6}, "head": {"lr": 0.008}, "vectors": {"lr": 0.04}}
    options = placed(Tiny(), default_rules(Tiny(), adamw={"lr": 1.0}, **parts))
    assert options["embed.weight"]["lr"] == options["position.weight"]["lr"] == 0.6
    assert options["unusual.weight"]["lr"] == 0.008
    assert options["blocks.0.up.bias"] == {"kind": "adamw", "lr": 0.04, "weight_decay": 0.0}


def test_default_rules_split_fused_queries_keys_and_values_by_shape():
    model = nn.ModuleDict({"embed": nn.Embedding(7, 8)})
    model["self"] = nn.ModuleDict({"qkv": nn.Linear(8, 24), "proj": nn.Linear(8, 8)})
    model["grouped"] = nn.ModuleDict({"qkv_proj": nn.Linear(8, 12)})
    model["torch"] = nn.MultiheadAttention(8, 2)
    options = placed(model, default_rules(model))
    assert options["self.qkv.weight"]["split"] == (8, 8, 8)
    assert options["grouped.qkv_proj.weight"]["split"] == (8, 2, 2)
    assert options["torch.in_proj_weight"]["split"] == (8, 8, 8)
    assert options["self.proj.weight"] == {"kind": "muon"} and options["torch.in_proj_bias"]["kind"] == "adamw"


def test_a_weight_that_cannot_be_queries_keys_values_is_an_error():
    model = nn.ModuleDict({"qkv": nn.Linear(8, 13)})
    with pytest.raises(ValueError, match=r"qkv\.weight of shape \(13, 8\) is no stack"):
        default_rules(model)
    assert placed(model, default_rules(model, qkv_names="none"))["qkv.weight"] == {"kind": "adamw"}, "the last layer"


def gpt(**options) -> nn.Module:
    models = pytest.importorskip("gpt_core.models", reason="gpt-core is not installed here: its names are not tested")
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 16, "vocab_size": 40, "context_length": 12}
    return models.GPT(models.GPTConfig(**{**sizes, **options}))


def test_gpt_rules_with_learned_positions_and_a_tied_head():
    model = gpt(bias=True, normalization="layernorm")
    vector, matrix = {"kind": "adamw", "lr": 1.0, "weight_decay": 0.0}, {"kind": "muon", "lr": 0.1}
    parts = [(f"{norm}_norm.{end}", vector) for norm in ("attn", "ffn") for end in ("weight", "bias")]
    parts += [(f"{name}.bias", vector) for name in ("attn.qkv", "attn.out", "ffn.up", "ffn.down")]
    parts += [(f"{name}.weight", matrix) for name in ("attn.out", "ffn.up", "ffn.down")]
    parts += [("attn.qkv.weight", {**matrix, "split": (16, 16, 16)})]
    expected = {f"blocks.{name}": options for name, options in blocks_of(*parts, layers=2).items()}
    expected |= {"norm.weight": vector, "norm.bias": vector}
    expected |= {name: {"kind": "adamw", "lr": 2.0} for name in ("embed.weight", "position.weight")}
    rules = gpt_rules(model, muon={"lr": 0.1}, adamw={"lr": 1.0}, embedding={"lr": 2.0}, head={"lr": 3.0})
    assert placed(model, rules) == expected


def test_gpt_rules_with_grouped_queries_swiglu_and_a_head_of_its_own():
    model = gpt(n_kv_head=2, ffn_type="swiglu", position_encoding="rope", weight_tying=False, normalization="rmsnorm")
    options = placed(model, gpt_rules(model, muon={"kind": "normuon"}, head={"lr": 3.0}, vectors={"lr": 4.0}))
    assert options["blocks.1.attn.qkv.weight"] == {"kind": "normuon", "split": (16, 8, 8)}
    for name in ("attn.out", "ffn.gate", "ffn.up", "ffn.down"):
        assert options[f"blocks.1.{name}.weight"] == {"kind": "normuon"}
    assert options["embed.weight"] == {"kind": "adamw"}
    assert options["head.weight"] == {"kind": "adamw", "lr": 3.0}
    assert options["norm.weight"] == {"kind": "adamw", "lr": 4.0, "weight_decay": 0.0}
    assert len(options) == len(list(model.parameters()))


def test_a_parameter_that_gpt_rules_do_not_know_is_named():
    model = gpt()
    model.value_embed = nn.Embedding(4, 4)
    with pytest.raises(ValueError, match=r"no rule matches value_embed\.weight"):
        param_groups(model, gpt_rules(model))


def hugging_face(model: str, **options) -> nn.Module:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: its models are not tested"
    )
    sizes = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0}
    if model.startswith("GPT2"):
        config = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=12, **sizes, **options)
    else:
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        sizes |= {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 24}
        config = transformers.LlamaConfig(**heads, **sizes, **options)
    return getattr(transformers, model)(config)


def hf_gpt2_expected(prefix: str, vector: dict, matrix: dict, table: dict) -> dict[str, dict]:
    parts = [(f"ln_{i}.{end}", vector) for i in (1, 2) for end in ("weight", "bias")]
    parts += [(f"{name}.bias", vector) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    parts += [(f"{name}.weight", matrix) for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    parts += [("attn.c_attn.weight", {**matrix, "split": (16, 16, 16)})]
    expected = {f"{prefix}h.{name}": options for name, options in blocks_of(*parts, layers=2).items()}
    expected |= {f"{prefix}ln_f.weight": vector, f"{prefix}ln_f.bias": vector}
    return expected | {f"{prefix}wte.weight": table, f"{prefix}wpe.weight": table}


VECTOR = {"kind": "adamw", "lr": 1.0, "weight_decay": 0.0}
TABLE = {"kind": "adamw", "lr": 1.0}
TRANSPOSED = {"kind": "muon", "lr": 0.1, "transposed": True}
LRS = {"muon": {"lr": 0.1}, "adamw": {"lr": 1.0}}


@pytest.mark.parametrize("rules", [hf_gpt2_rules, default_rules])
def test_hugging_face_gpt2_whose_matrices_are_stored_in_out(rules):
    model = hugging_face("GPT2LMHeadModel")
    assert model.transformer.h[0].attn.c_attn.weight.shape == (16, 48)  # the columns are queries, keys, values
    assert placed(model, rules(model, **LRS)) == hf_gpt2_expected("transformer.", VECTOR, TRANSPOSED, TABLE)


def test_hugging_face_gpt2_without_a_head():
    model = hugging_face("GPT2Model")
    assert placed(model, hf_gpt2_rules(model, **LRS)) == hf_gpt2_expected("", VECTOR, TRANSPOSED, TABLE)


def test_hugging_face_gpt2_with_an_untied_head():
    model = hugging_face("GPT2LMHeadModel", tie_word_embeddings=False)
    options = placed(model, hf_gpt2_rules(model, embedding={"lr": 2.0}, head={"lr": 3.0}))
    assert options["lm_head.weight"] == {"kind": "adamw", "lr": 3.0}
    assert options["transformer.wte.weight"] == {"kind": "adamw", "lr": 2.0}


@pytest.mark.parametrize("rules", [hf_llama_rules, default_rules])
@pytest.mark.parametrize("bias", [False, True])
def test_hugging_face_llama_has_nothing_fused(rules, bias):
    model = hugging_face("LlamaForCausalLM", attention_bias=bias)
    matrix = {"kind": "muon", "lr": 0.1}
    parts = [("input_layernorm.weight", VECTOR), ("post_attention_layernorm.weight", VECTOR)]
    parts += [(f"self_attn.{name}_proj.weight", matrix) for name in "qkvo"]
    parts += [(f"self_attn.{name}_proj.bias", VECTOR) for name in "qkvo" if bias]
    parts += [(f"mlp.{name}_proj.weight", matrix) for name in ("gate", "up", "down")]
    expected = {f"model.layers.{name}": options for name, options in blocks_of(*parts, layers=2).items()}
    expected |= {"model.norm.weight": VECTOR, "model.embed_tokens.weight": TABLE, "lm_head.weight": TABLE}
    assert placed(model, rules(model, **LRS)) == expected


def test_hugging_face_llama_with_a_tied_head_has_one_table():
    model = hugging_face("LlamaForCausalLM", tie_word_embeddings=True)
    options = placed(model, hf_llama_rules(model, embedding={"lr": 2.0}, head={"lr": 3.0}))
    assert options["model.embed_tokens.weight"] == {"kind": "adamw", "lr": 2.0} and "lm_head.weight" not in options


def test_rules_of_another_architecture_leave_parameters_over():
    with pytest.raises(ValueError, match=r"no rule matches .*self_attn"):
        model = hugging_face("LlamaForCausalLM")
        param_groups(model, hf_gpt2_rules(model))
