"""Preparation: from text to a dataset folder, in parallel, resumable, complete or absent."""

from .nanogpt import describe_nanogpt as describe_nanogpt
from .nanogpt import nanogpt_tokenizer as nanogpt_tokenizer
from .prepare import prepare as prepare
from .reading import read_texts as read_texts
from .recipes import NEEDS_TEXTS as NEEDS_TEXTS
from .recipes import PREPARED_ON_FIRST_USE as PREPARED_ON_FIRST_USE
from .recipes import RECIPES as RECIPES
from .speedrun import describe_speedrun as describe_speedrun
from .vocabulary import TOKENIZERS as TOKENIZERS
from .vocabulary import check_tokenizer_replaceable as check_tokenizer_replaceable
from .vocabulary import open_tokenizer as open_tokenizer
from .vocabulary import save_tokenizer as save_tokenizer
from .vocabulary import train_on_files as train_on_files
