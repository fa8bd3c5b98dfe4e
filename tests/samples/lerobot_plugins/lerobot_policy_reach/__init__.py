"""A flow of three steps over two observations, with processor steps of its own."""

from .configuration_reach import ReachConfig as ReachConfig
from .modeling_reach import ReachPolicy as ReachPolicy
from .processor_reach import make_reach_pre_post_processors as make_reach_pre_post_processors
