"""Monitoring: FLOPs and MFU, memory, gradients, stability, and where a run's numbers go.

Sinks take metrics (`log`), events and summaries; `Sinks` fans out to several; `open_sinks` opens those of a
run. Everything a run leaves on disk can be read back with `read_run`. Importing this package
imports neither torch nor rich nor matplotlib: each is imported by the function that needs it.
"""

from .console import ConsoleSink as ConsoleSink
from .environment import hardware_record as hardware_record
from .environment import versions as versions
from .environment import write_run_records as write_run_records
from .flops import flops_breakdown as flops_breakdown
from .flops import flops_per_token as flops_per_token
from .gradients import gradient_stats as gradient_stats
from .hardware import HardwarePeak as HardwarePeak
from .hardware import compute_precision as compute_precision
from .hardware import hardware_peak as hardware_peak
from .hardware import peak_flops as peak_flops
from .jsonl import JsonlSink as JsonlSink
from .memory import memory_stats as memory_stats
from .mfu import MFUMeter as MFUMeter
from .plots import comparison as comparison
from .plots import loss_curve as loss_curve
from .redact import redact as redact
from .report import ParameterCounts as ParameterCounts
from .report import StartupInfo as StartupInfo
from .report import optimizer_record as optimizer_record
from .report import parameter_counts as parameter_counts
from .report import startup_report as startup_report
from .run_json import RunJsonSink as RunJsonSink
from .run_json import build_run_json as build_run_json
from .run_reader import Run as Run
from .run_reader import RunError as RunError
from .run_reader import latest_runs as latest_runs
from .run_reader import read_run as read_run
from .run_sinks import open_sinks as open_sinks
from .sinks import BaseSink as BaseSink
from .sinks import Sink as Sink
from .sinks import Sinks as Sinks
from .sinks import flatten as flatten
from .stability import StabilityMonitor as StabilityMonitor
from .summary import SummarySink as SummarySink
from .summary import summarize as summarize
from .summary import summary_table as summary_table
from .tensorboard_sink import TensorBoardSink as TensorBoardSink
from .text_log import TextLogSink as TextLogSink
from .wandb_sink import WandbSink as WandbSink
