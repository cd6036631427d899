"""What happens beside the training steps, one hook per file."""

from gpt_core.training.hooks.evaluate import Evaluate as Evaluate
from gpt_core.training.hooks.log import Log as Log
from gpt_core.training.hooks.profile import Profile as Profile
from gpt_core.training.hooks.sample import Sample as Sample
from gpt_core.training.hooks.save import Save as Save
from gpt_core.training.hooks.stages import FollowStages as FollowStages
