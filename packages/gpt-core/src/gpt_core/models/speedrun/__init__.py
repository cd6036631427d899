"""The speedrun's model (modded-nanogpt, record 68 and later): one switch per trick, one file per subject.

config.py      sizes and switches            plan.py    which layer does what
banks.py       parameters, first values      rotary.py  windows, frequencies, YaRN
embeddings.py  smear and bigrams             model.py   the forward pass
attention.py   plain and paired heads        loss.py    several next tokens, float8
"""

from .banks import parameter_shapes as parameter_shapes
from .config import SpeedrunConfig as SpeedrunConfig
from .loss import SpeedrunLoss as SpeedrunLoss
from .loss import check_fp8 as check_fp8
from .loss import speedrun_loss as speedrun_loss
from .model import Speedrun as Speedrun
from .model import speedrun as speedrun
