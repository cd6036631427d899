"""Checkpoints: a folder per step that appears complete or not at all, and holds nothing that is unpickled.

checkpoints/step_000500/model.safetensors   weights, under the model's own parameter names
                        meta.json           step, losses, architecture, hyper-parameters, versions
                        state/              optimizer tensors (torch.distributed.checkpoint, safetensors shards)
                        state/rank_0.json   random state and data position of each rank
checkpoints/latest, checkpoints/best        symbolic links
checkpoint_log.yaml                         one entry per save
"""

from gpt_core.checkpoint.discovery import CheckpointError as CheckpointError
from gpt_core.checkpoint.discovery import find_checkpoint as find_checkpoint
from gpt_core.checkpoint.discovery import list_checkpoints as list_checkpoints
from gpt_core.checkpoint.discovery import newest_run as newest_run
from gpt_core.checkpoint.discovery import step_folder as step_folder
from gpt_core.checkpoint.model_file import load_model as load_model
from gpt_core.checkpoint.model_file import load_weights as load_weights
from gpt_core.checkpoint.model_file import read_meta as read_meta
from gpt_core.checkpoint.model_file import save_model as save_model
