"""Weights in and out: safetensors, nanoGPT checkpoints, Hugging Face models and folders."""

from .export import hf_architecture as hf_architecture
from .export import to_hf as to_hf
from .hf_gpt2 import from_hf_gpt2 as from_hf_gpt2
from .hf_llama import from_hf_llama as from_hf_llama
from .nanogpt import from_nanogpt as from_nanogpt
from .pretrained import load_pretrained as load_pretrained
from .surgery import crop_context as crop_context
from .surgery import with_dropout as with_dropout
from .vocabulary import grow_vocabulary as grow_vocabulary
from .weights import load_gpt as load_gpt
from .weights import load_weights as load_weights
from .weights import save_weights as save_weights
from .weights import strip_prefixes as strip_prefixes
