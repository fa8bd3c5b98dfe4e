"""The node's package is on the path here, as colcon would install it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "integrations/ros2/vlacompile_ros"))
