"""Results for people: a table for the console, a page in Markdown, pictures."""

from gpt_eval.report.markdown import write_report as write_report
from gpt_eval.report.plots import plot_bars as plot_bars
from gpt_eval.report.plots import plot_radar as plot_radar
from gpt_eval.report.table import table as table
