"""Configuration: YAML and Python files, command line overrides, factories; see docs/configuration.md."""

from .aliases import ALIASES as ALIASES
from .aliases import Alias as Alias
from .config import Config as Config
from .config import load_config as load_config
from .errors import ConfigError as ConfigError
from .factory import Factory as Factory
from .paths import expand as expand
from .schema import Component as Component
