"""Loaders: infinite iterators of `Batch` with `state_dict()/load_state_dict()`."""

from .arithmetic import arithmetic as arithmetic
from .base import Loader as Loader
from .best_fit import BestFit as BestFit
from .best_fit import best_fit as best_fit
from .document_aligned import DocumentAligned as DocumentAligned
from .document_aligned import DocumentWindows as DocumentWindows
from .document_aligned import document_aligned as document_aligned
from .grokking import grokking as grokking
from .mixture import Mixture as Mixture
from .mixture import mixture as mixture
from .packed_chat import PackedChat as PackedChat
from .packed_chat import packed_chat as packed_chat
from .prefetch import Prefetch as Prefetch
from .prefetch import prefetched as prefetched
from .random_windows import RandomWindows as RandomWindows
from .random_windows import TiledWindows as TiledWindows
from .random_windows import random_windows as random_windows
from .sequential import SequentialRuns as SequentialRuns
from .sequential import sequential as sequential
from .shuffled_windows import ShuffledWindows as ShuffledWindows
from .shuffled_windows import shuffled_windows as shuffled_windows
from .splits import Splits as Splits
from .streaming import HFStream as HFStream
from .streaming import hf_streaming as hf_streaming
