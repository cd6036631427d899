"""nanochat's model (karpathy/nanochat, July 2026): the preset `depth` with six extras, each a switch."""

from .config import NanochatConfig as NanochatConfig
from .model import Nanochat as Nanochat
from .model import nanochat as nanochat
