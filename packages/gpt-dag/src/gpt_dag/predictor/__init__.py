"""Phase 1: a network that reads worded and symbolic expressions into plans, which are then computed exactly."""

from gpt_dag.predictor.batch_rate import batch_cosine as batch_cosine
from gpt_dag.predictor.batch_rate import batch_factor as batch_factor
from gpt_dag.predictor.config import PredictorConfig as PredictorConfig
from gpt_dag.predictor.decode import Prediction as Prediction
from gpt_dag.predictor.decode import Problem as Problem
from gpt_dag.predictor.loss import TagLoss as TagLoss
from gpt_dag.predictor.loss import tag_loss as tag_loss
from gpt_dag.predictor.model import PredictorOnlyModel as PredictorOnlyModel
from gpt_dag.predictor.model import TagLogits as TagLogits
from gpt_dag.predictor.model import predictor as predictor
from gpt_dag.predictor.reading import Reading as Reading
from gpt_dag.predictor.reading import read as read
