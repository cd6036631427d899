"""Results for people: a table for the console, a page in Markdown, pictures."""

from gpt_eval.report.markdown import markdown as markdown
from gpt_eval.report.plots import plot_bars as plot_bars
from gpt_eval.report.plots import plot_radar as plot_radar
from gpt_eval.report.saved import write_results as write_results
from gpt_eval.report.table import table as table
