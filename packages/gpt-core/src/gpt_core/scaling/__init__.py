"""One number for the size of a model: sizes, parameters, FLOPs, batch, horizon and rates that follow from its depth."""

from .batch import Step as Step
from .batch import align as align
from .config import ScalingConfig as ScalingConfig
from .counts import Counts as Counts
from .counts import counts_of as counts_of
from .horizon import steps_of_flops as steps_of_flops
from .horizon import steps_of_ratio as steps_of_ratio
from .meta import on_meta as on_meta
from .report import report as report
from .resolve import Data as Data
from .resolve import Plan as Plan
from .resolve import look_at as look_at
from .resolve import resolve as resolve
from .rules import Factors as Factors
from .rules import automatic_batch as automatic_batch
from .rules import device_batch as device_batch
from .rules import factors_of as factors_of
from .sizes import Sizes as Sizes
from .sizes import sizes_of as sizes_of
from .sizes import windows_of as windows_of
