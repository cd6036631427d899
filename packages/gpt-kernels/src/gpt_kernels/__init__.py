"""Operations of GPT training: a readable reference and a fast version of each.

Every operation has its definition in plain PyTorch, which runs on any device, and takes a Triton kernel where its
arguments allow one; `NAME_backend` says which. Nothing is chosen at import time, and neither triton nor the compiler is
imported.
"""

from .modules import FP8Linear as FP8Linear
from .modules import FP8Scaling as FP8Scaling
from .modules import convert_to_fp8 as convert_to_fp8
from .ops.attention import ATTENTION_BACKENDS as ATTENTION_BACKENDS
from .ops.attention import MissingBackendError as MissingBackendError
from .ops.attention import attention as attention
from .ops.attention import attention_backend as attention_backend
from .ops.attention import attention_mask as attention_mask
from .ops.attention import document_mask as document_mask
from .ops.cross_entropy import cross_entropy as cross_entropy
from .ops.cross_entropy import cross_entropy_backend as cross_entropy_backend
from .ops.cross_entropy import cross_entropy_reference as cross_entropy_reference
from .ops.fp8 import dequantize as dequantize
from .ops.fp8 import quantize as quantize
from .ops.fp8 import saturating_cast as saturating_cast
from .ops.fp8_linear import FP8_BACKENDS as FP8_BACKENDS
from .ops.fp8_linear import fp8_linear as fp8_linear
from .ops.fp8_linear import fp8_linear_backend as fp8_linear_backend
from .ops.fp8_linear_cross_entropy import HeadScales as HeadScales
from .ops.fp8_linear_cross_entropy import fp8_linear_cross_entropy as fp8_linear_cross_entropy
from .ops.layer_norm import layer_norm as layer_norm
from .ops.layer_norm import layer_norm_backend as layer_norm_backend
from .ops.layer_norm import layer_norm_reference as layer_norm_reference
from .ops.linear import linear as linear
from .ops.linear import linear_backend as linear_backend
from .ops.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from .ops.linear_cross_entropy import linear_cross_entropy_and_lse as linear_cross_entropy_and_lse
from .ops.linear_cross_entropy import linear_cross_entropy_backend as linear_cross_entropy_backend
from .ops.linear_cross_entropy import linear_cross_entropy_reference as linear_cross_entropy_reference
from .ops.polar_express import NEWTON_SCHULZ as NEWTON_SCHULZ
from .ops.polar_express import POLAR_EXPRESS as POLAR_EXPRESS
from .ops.polar_express import newton_schulz as newton_schulz
from .ops.polar_express import polar_express as polar_express
from .ops.polar_express import polar_express_backend as polar_express_backend
from .ops.polar_express import polar_express_reference as polar_express_reference
from .ops.relu2_mlp import relu2_mlp as relu2_mlp
from .ops.relu2_mlp import relu2_mlp_backend as relu2_mlp_backend
from .ops.relu2_mlp import relu2_mlp_reference as relu2_mlp_reference
from .ops.rms_norm import rms_norm as rms_norm
from .ops.rms_norm import rms_norm_backend as rms_norm_backend
from .ops.rms_norm import rms_norm_reference as rms_norm_reference
from .ops.rotary import ROTARY_STYLES as ROTARY_STYLES
from .ops.rotary import apply_rotary as apply_rotary
from .ops.rotary import apply_rotary_backend as apply_rotary_backend
from .ops.rotary import apply_rotary_reference as apply_rotary_reference
from .ops.rotary import rotary_table as rotary_table
from .ops.rotary_tables import frequency_table as frequency_table
from .ops.rotary_tables import half_truncated_frequencies as half_truncated_frequencies
from .ops.rotary_tables import paired_table as paired_table
from .ops.rotary_tables import yarn_frequencies as yarn_frequencies
from .ops.rotary_tables import yarn_scale as yarn_scale
from .ops.softcap import SigmoidCap as SigmoidCap
from .ops.softcap import softcap as softcap
from .ops.softcapped_cross_entropy import softcapped_cross_entropy as softcapped_cross_entropy
from .ops.softcapped_cross_entropy import softcapped_cross_entropy_backend as softcapped_cross_entropy_backend
from .ops.softcapped_cross_entropy import softcapped_cross_entropy_backward as softcapped_cross_entropy_backward
from .ops.softcapped_cross_entropy import (
    softcapped_cross_entropy_backward_reference as softcapped_cross_entropy_backward_reference,
)
from .ops.softcapped_cross_entropy import softcapped_cross_entropy_reference as softcapped_cross_entropy_reference
from .ops.swiglu import swiglu as swiglu
from .ops.swiglu import swiglu_backend as swiglu_backend
from .ops.swiglu import swiglu_reference as swiglu_reference
from .ops.symmetric import ba_plus_caa as ba_plus_caa
from .ops.symmetric import ba_plus_caa_reference as ba_plus_caa_reference
from .ops.symmetric import symmetric_backend as symmetric_backend
from .ops.symmetric import symmetric_product as symmetric_product
from .ops.symmetric import symmetric_product_reference as symmetric_product_reference
from .ops.symmetric import xxt as xxt
from .ops.symmetric import xxt_reference as xxt_reference
from .ops.transpose import transpose_add as transpose_add
from .ops.transpose import transpose_add_reference as transpose_add_reference
from .ops.transpose import transpose_backend as transpose_backend
from .ops.transpose import transpose_copy as transpose_copy
from .ops.transpose import transpose_copy_reference as transpose_copy_reference
