"""Text generation: key/value cache, sampling, batches, streaming, stop conditions.

`Generator` takes and returns text; `generate` and `stream` work on token ids; the rest are their parts.
"""

from .cache import KVCache as KVCache
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
from .sampling import Sampling as Sampling
from .sampling import sample as sample
from .text import IncrementalDecoder as IncrementalDecoder
from .text import TextStream as TextStream
