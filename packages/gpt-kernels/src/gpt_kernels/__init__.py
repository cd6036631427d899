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
from .ops.cross_entropy import cross_entropy as cross_entropy
from .ops.cross_entropy import cross_entropy_backend as cross_entropy_backend
from .ops.cross_entropy import cross_entropy_reference as cross_entropy_reference
from .ops.layer_norm import layer_norm as layer_norm
from .ops.layer_norm import layer_norm_backend as layer_norm_backend
from .ops.layer_norm import layer_norm_reference as layer_norm_reference
from .ops.linear import linear as linear
from .ops.linear import linear_backend as linear_backend
from .ops.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from .ops.linear_cross_entropy import linear_cross_entropy_backend as linear_cross_entropy_backend
from .ops.linear_cross_entropy import linear_cross_entropy_reference as linear_cross_entropy_reference
from .ops.relu2_mlp import relu2_mlp as relu2_mlp
from .ops.relu2_mlp import relu2_mlp_backend as relu2_mlp_backend
from .ops.relu2_mlp import relu2_mlp_reference as relu2_mlp_reference
from .ops.rms_norm import rms_norm as rms_norm
from .ops.rms_norm import rms_norm_backend as rms_norm_backend
from .ops.rms_norm import rms_norm_reference as rms_norm_reference
from .ops.rotary import ROTARY_STYLES as ROTARY_STYLES
from .ops.rotary import apply_rotary as apply_rotary
from .ops.rotary import rotary_table as rotary_table
from .ops.softcap import SigmoidCap as SigmoidCap
from .ops.softcap import softcap as softcap
from .ops.softcapped_cross_entropy import softcapped_cross_entropy as softcapped_cross_entropy
from .ops.softcapped_cross_entropy import softcapped_cross_entropy_backend as softcapped_cross_entropy_backend
from .ops.softcapped_cross_entropy import softcapped_cross_entropy_backward as softcapped_cross_entropy_backward
