"""Which public data set each benchmark is converted from."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gpt_eval.data import convert


class Source(NamedTuple):
    """A split of a data set of the hub, and the function that converts its rows."""

    dataset: str
    config: str | tuple[str, ...] | None
    """Several are read one after the other."""
    split: str
    convert: Callable[[Mapping[str, Any]], list[dict[str, Any]]]


MATH = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra")


def _bigbench(config: str, convert_row: Callable[[Mapping[str, Any]], list[dict[str, Any]]]) -> Source:
    return Source("hails/bigbench", f"{config}_zero_shot", "default", convert_row)


def _agi_eval(name: str) -> Source:
    return Source(f"hails/agieval-{name}", None, "test", convert.agi_eval)


HUB: Mapping[str, Source] = {
    "hellaswag": Source("Rowan/hellaswag", None, "validation", convert.hellaswag),
    "piqa": Source("baber/piqa", None, "validation", convert.piqa),
    "siqa": Source("lighteval/siqa", None, "validation", convert.siqa),
    "openbook_qa": Source("allenai/openbookqa", "main", "test", convert.openbook_qa),
    "commonsense_qa": Source("tau/commonsense_qa", None, "validation", convert.commonsense_qa),
    "arc_easy": Source("allenai/ai2_arc", "ARC-Easy", "test", convert.arc),
    "arc_challenge": Source("allenai/ai2_arc", "ARC-Challenge", "test", convert.arc),
    "mmlu": Source("cais/mmlu", "all", "test", convert.mmlu),
    "boolq": Source("aps/super_glue", "boolq", "validation", convert.boolq),
    "copa": Source("aps/super_glue", "copa", "validation", convert.copa),
    "winograd": Source("lighteval/winograd_wsc", "wsc273", "test", convert.winograd),
    "winogrande": Source("allenai/winogrande", "winogrande_xl", "validation", convert.winogrande),
    "lambada_openai": Source("EleutherAI/lambada_openai", "default", "test", convert.lambada),
    "triviaqa_sm_sub": Source("mandarjoshi/trivia_qa", "rc.nocontext", "validation", convert.triviaqa),
    "squad": Source("rajpurkar/squad", None, "validation", convert.squad),
    "coqa": Source("EleutherAI/coqa", None, "validation", convert.coqa),
    "gsm8k_raw": Source("openai/gsm8k", "main", "test", convert.gsm8k),
    "math": Source("EleutherAI/hendrycks_math", (*MATH, "precalculus"), "test", convert.math),
    "svamp": Source("ChilleD/SVAMP", None, "test", convert.svamp),
    "logi_qa": Source("EleutherAI/logiqa", "logiqa", "test", convert.logi_qa),
    "math_qa": Source("regisss/math_qa", None, "test", convert.math_qa),
    "pubmed_qa_labeled": Source("bigbio/pubmed_qa", "pubmed_qa_labeled_fold0_source", "test", convert.pubmed_qa),
    "agi_eval_lsat_ar": _agi_eval("lsat-ar"),
    "agi_eval_lsat_lr": _agi_eval("lsat-lr"),
    "agi_eval_lsat_rc": _agi_eval("lsat-rc"),
    "agi_eval_sat_en": _agi_eval("sat-en"),
    "bigbench_qa_wikidata": _bigbench("qa_wikidata", convert.bigbench_text),
    "bigbench_misconceptions": _bigbench("misconceptions", convert.bigbench_choice),
    "bigbench_movie_recommendation": _bigbench("movie_recommendation", convert.bigbench_choice),
    "bigbench_novel_concepts": _bigbench("novel_concepts", convert.bigbench_choice),
    "bigbench_strange_stories": _bigbench("strange_stories", convert.bigbench_choice),
    "bigbench_strategy_qa": _bigbench("strategyqa", convert.bigbench_choice),
    "bigbench_conlang_translation": _bigbench("conlang_translation", convert.bigbench_text),
    "bigbench_language_identification": _bigbench("language_identification", convert.bigbench_choice),
    "bigbench_conceptual_combinations": _bigbench("conceptual_combinations", convert.bigbench_choice),
    "bigbench_elementary_math_qa": _bigbench("elementary_math_qa", convert.bigbench_choice),
    "bigbench_dyck_languages": _bigbench("dyck_languages", convert.bigbench_text),
    "bigbench_operators": _bigbench("operators", convert.bigbench_text),
    "bigbench_cs_algorithms": _bigbench("cs_algorithms", convert.bigbench_text),
    "bigbench_logical_deduction": _bigbench("logical_deduction", convert.bigbench_choice),
    "bigbench_repeat_copy_logic": _bigbench("repeat_copy_logic", convert.bigbench_text),
    "bigbench_understanding_fables": _bigbench("understanding_fables", convert.bigbench_choice),
    "bigbench_simple_arithmetic": _bigbench("simple_arithmetic_json", convert.bigbench_text),
    "winogender_mc_female": Source("oskarvanderwal/winogender", "female", "test", convert.winogender),
    "winogender_mc_male": Source("oskarvanderwal/winogender", "male", "test", convert.winogender),
    "bbq": Source("oskarvanderwal/bbq", "All", "test", convert.bbq),
    "human_eval": Source("openai/openai_humaneval", "openai_humaneval", "test", convert.human_eval),
}

ELSEWHERE = (
    "it was made or curated in mosaicml/llm-foundry and is on GitHub in its folder scripts/eval/local_data; copy the "
    "file into the bundle"
)
"""For tasks without a data set of their own: jeopardy, simple_arithmetic, enterprise_pii, aqua, ..."""
