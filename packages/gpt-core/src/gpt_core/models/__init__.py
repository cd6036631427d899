"""Decoder-only transformers made of named components, with weights in and out."""

from .attention import KVCache as KVCache
from .config import COMPONENTS as COMPONENTS
from .config import GPTConfig as GPTConfig
from .gpt import GPT as GPT
from .gpt import gpt as gpt
from .gpt import init_weights as init_weights
from .parameters import ParameterCount as ParameterCount
from .parameters import count_model_parameters as count_model_parameters
from .parameters import count_parameters as count_parameters
from .parameters import parameter_group as parameter_group
from .presets import PRESETS as PRESETS
