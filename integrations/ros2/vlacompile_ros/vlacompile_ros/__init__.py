"""A ROS 2 node that runs a bundle of vlacompile. Only node.py imports rclpy."""
