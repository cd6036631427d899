"""Models of other code bases as factories: the same forward, and a `.config: GPTConfig` that describes them."""

from .hf import hf_gpt2 as hf_gpt2
from .hf import hf_llama as hf_llama
from .nanogpt import nanogpt as nanogpt
from .te_llama3 import te_llama3 as te_llama3
from .tinyllama import tinyllama as tinyllama
