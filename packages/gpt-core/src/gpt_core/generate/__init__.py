"""Text generation: key/value cache, sampling, batches, streaming, stop conditions, tools.

`Generator` takes and returns text; `generate` and `stream` work on token ids; `ContinuousBatch` lets requests join and
leave a running batch; the rest are their parts.
"""

from .cache import KVCache as KVCache
from .calculator import calculate as calculate
from .continuous import ContinuousBatch as ContinuousBatch
from .continuous import Event as Event
from .continuous import Request as Request
from .decoder import Cached as Cached
from .decoder import Decoder as Decoder
from .decoder import Recompute as Recompute
from .engine import Completion as Completion
from .engine import Step as Step
from .engine import generate as generate
from .engine import stream as stream
from .generator import Generator as Generator
from .generator import Piece as Piece
from .generator import Tokenizer as Tokenizer
from .generator import locate as locate
from .prefixes import Prefixes as Prefixes
from .sampling import Sampling as Sampling
from .sampling import sample as sample
from .slots import SlotCache as SlotCache
from .text import IncrementalDecoder as IncrementalDecoder
from .text import TextStream as TextStream
from .tool import Tool as Tool
