"""Tokenizers, token shards and loaders for GPT training."""

from .batch import Batch as Batch
from .dataset import Boundary as Boundary
from .dataset import DatasetInfo as DatasetInfo
from .dataset import ShardInfo as ShardInfo
from .dataset import SplitInfo as SplitInfo
from .errors import DatasetError as DatasetError
from .loaders import Loader as Loader
from .loaders import Splits as Splits
from .loaders import arithmetic as arithmetic
from .loaders import best_fit as best_fit
from .loaders import document_aligned as document_aligned
from .loaders import grokking as grokking
from .loaders import hf_streaming as hf_streaming
from .loaders import mixture as mixture
from .loaders import packed_chat as packed_chat
from .loaders import random_windows as random_windows
from .loaders import sequential as sequential
from .loaders import shuffled_windows as shuffled_windows
from .locate import open_dataset as open_dataset
from .preparation import describe_nanogpt as describe_nanogpt
from .preparation import describe_speedrun as describe_speedrun
from .preparation import prepare as prepare
from .root import data_root as data_root
from .tokenizers import Tokenizer as Tokenizer
from .tokenizers import load_tokenizer as load_tokenizer
