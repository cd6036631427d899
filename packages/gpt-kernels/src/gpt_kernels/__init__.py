"""Operations of GPT training: a readable reference and a fast version of each.

Every function here is plain PyTorch, runs on any device, is differentiable and compiles with
`torch.compile(fullgraph=True)`. Nothing is chosen at import time.
"""

from .ops.attention import ATTENTION_BACKENDS as ATTENTION_BACKENDS
from .ops.attention import MissingBackendError as MissingBackendError
from .ops.attention import attention as attention
from .ops.attention import attention_backend as attention_backend
from .ops.attention import attention_mask as attention_mask
from .ops.attention import document_mask as document_mask
from .ops.linear import linear as linear
from .ops.linear import linear_backend as linear_backend
from .ops.rms_norm import rms_norm as rms_norm
from .ops.rotary import ROTARY_STYLES as ROTARY_STYLES
from .ops.rotary import apply_rotary as apply_rotary
from .ops.rotary import rotary_table as rotary_table
