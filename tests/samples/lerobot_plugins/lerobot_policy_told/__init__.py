"""One pass over a frame and an instruction, which the model itself tokenizes."""

from .configuration_told import ToldConfig as ToldConfig
from .modeling_told import ToldPolicy as ToldPolicy
from .processor_told import make_told_pre_post_processors as make_told_pre_post_processors
