"""The speedrun's model (modded-nanogpt, record 68 and later): one switch per trick, one file per subject.

config.py       sizes and switches          plan.py         which layer does what
banks.py        parameters, first values    rotary.py       windows, frequencies, YaRN
embeddings.py   smear and bigrams           model.py        what goes in and out
attention.py    plain and paired heads      residual.py     the stream through the layers, record 68
gates.py        of heads, values, skip      sublayers.py    the same, records 73 and later
composition.py  mixed attention patterns    mudd.py         factors made for every token
loss.py         several next tokens         prefixes.py     prefix tokens
fp8.py          float8, where there is any
"""

from .banks import parameter_shapes as parameter_shapes
from .config import SpeedrunConfig as SpeedrunConfig
from .fp8 import check_fp8 as check_fp8
from .loss import SpeedrunLoss as SpeedrunLoss
from .loss import speedrun_loss as speedrun_loss
from .model import Speedrun as Speedrun
from .model import speedrun as speedrun
