"""The training loop and what it is made of: losses, scalers, schedules of micro-steps, evaluation, hooks."""

from gpt_core.training.accumulation import BatchPlan as BatchPlan
from gpt_core.training.accumulation import plan_batches as plan_batches
from gpt_core.training.evaluation import Evaluation as Evaluation
from gpt_core.training.evaluation import evaluate as evaluate
from gpt_core.training.loop import train as train
from gpt_core.training.losses import Loss as Loss
from gpt_core.training.losses import LossSums as LossSums
from gpt_core.training.losses import arithmetic as arithmetic
from gpt_core.training.losses import autoregressive as autoregressive
from gpt_core.training.losses import grokking as grokking
from gpt_core.training.model_with_loss import ModelWithLoss as ModelWithLoss
from gpt_core.training.nonfinite import TrainingDiverged as TrainingDiverged
from gpt_core.training.nonfinite import batch_id as batch_id
from gpt_core.training.scalers import amp_grad_scaler as amp_grad_scaler
from gpt_core.training.scalers import keller_scaler as keller_scaler
from gpt_core.training.scalers import plain_scaler as plain_scaler
from gpt_core.training.state import Hook as Hook
from gpt_core.training.state import TrainState as TrainState
