"""Tokenizers behind one protocol; `load_tokenizer(folder)` opens any that was saved."""

from .base import TOKENIZER_FILE as TOKENIZER_FILE
from .base import Tokenizer as Tokenizer
from .bpe import BPETokenizer as BPETokenizer
from .bpe import gpt2_tokenizer as gpt2_tokenizer
from .byte import ByteTokenizer as ByteTokenizer
from .char import CharTokenizer as CharTokenizer
from .load import load_tokenizer as load_tokenizer
from .special import SpecialTokenizer as SpecialTokenizer
