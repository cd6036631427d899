"""Tokenizers behind one protocol; `load_tokenizer(folder)` opens any that was saved."""

from .arithmetic import ArithmeticTokenizer as ArithmeticTokenizer
from .base import TOKENIZER_FILE as TOKENIZER_FILE
from .base import Tokenizer as Tokenizer
from .bpe import BPETokenizer as BPETokenizer
from .byte import ByteTokenizer as ByteTokenizer
from .char import CharTokenizer as CharTokenizer
from .evaluate import TokenizerReport as TokenizerReport
from .evaluate import evaluate_tokenizer as evaluate_tokenizer
from .evaluate import tokenizer_table as tokenizer_table
from .export import export_to_huggingface as export_to_huggingface
from .extension import first_new_id as first_new_id
from .gpt2 import gpt2_tokenizer as gpt2_tokenizer
from .grokking import GrokkingTokenizer as GrokkingTokenizer
from .huggingface import HuggingFaceTokenizer as HuggingFaceTokenizer
from .load import load_tokenizer as load_tokenizer
from .special import SpecialTokenizer as SpecialTokenizer
