"""Two LeRobot policy plugins as LeRobot documents them (`lerobot_policy_*`, a registered configuration, modules named
configuration_, modeling_ and processor_), each with its distribution's metadata beside it: this folder on the path is
an environment in which they are installed."""
