"""Which trained predictor a command means."""

import argparse
from pathlib import Path

from gpt_core.checkpoint import CheckpointError, find_checkpoint, load_model, read_meta
from gpt_core.checkpoint.discovery import runs_in
from gpt_core.distributed import distributed
from gpt_core.generate.generator import locate
from gpt_dag.predictor import PredictorOnlyModel
from gpt_dag.tokens import WordTokenizer

FACTORY = "gpt_dag.predictor."


def add_model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--checkpoint", default="latest", help="latest, best or a step of the newest run; or a run or checkpoint folder"
    )
    add("--out_dir", default="out", help="folder of runs (default: out)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: cuda where there is one)")


def open_predictor(options: argparse.Namespace) -> tuple[PredictorOnlyModel, WordTokenizer, str]:
    """The model, its tokenizer and what to call it. CheckpointError that lists what there is."""
    folder = find_predictor(options.checkpoint, Path(options.out_dir))
    with distributed(options.device) as process:
        model = load_model(folder, process.device)
    if not isinstance(model, PredictorOnlyModel):
        raise CheckpointError(f"{folder} is a {type(model).__name__}, not a predictor")
    if not reads_words(model):
        raise CheckpointError(f"{folder} was trained on GPT-2's tokens; text is read with the word tokenizer's")
    return model, WordTokenizer(), str(folder)


def reads_words(model: PredictorOnlyModel) -> bool:
    """Whether it was trained on the tokens that texts are read with here."""
    return model.config.vocab_size == WordTokenizer.vocab_size


def find_predictor(checkpoint: str, out_dir: Path) -> Path:
    """A checkpoint folder: of the path that is given, else of the newest run of a predictor."""
    if Path(checkpoint).is_dir():
        return locate(checkpoint)[1]
    runs = [run for run in runs_in(out_dir) if _is_predictor(run)]
    if runs and (checkpoint in ("latest", "best") or checkpoint.isdigit() or checkpoint.startswith("step_")):
        return find_checkpoint(runs[-1], checkpoint)
    named = next((run for run in runs if run.name == checkpoint), None)
    if named is not None:
        return find_checkpoint(named)
    shown = [run.name for run in reversed(runs)][:10]
    more = f" and {len(runs) - 10} more" if len(runs) > 10 else ""
    raise CheckpointError(
        f"no predictor {checkpoint!r}: runs of predictors in {out_dir}: {', '.join(shown) or 'none'}{more}. Train one "
        "with `uv run apps/predictor` (minutes on a CPU), or give --checkpoint the folder of a run"
    )


def _is_predictor(run: Path) -> bool:
    try:
        return read_meta(find_checkpoint(run))["model"]["module"].startswith(FACTORY)
    except (CheckpointError, KeyError):  # somebody else's, or damaged: not ours to use
        return False
