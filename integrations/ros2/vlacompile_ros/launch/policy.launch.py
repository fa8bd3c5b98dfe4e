"""Starts the node, and configures and activates it once it is there: `ros2 launch vlacompile_ros policy.launch.py
bundle:=pick.vlab topics:=topics.yaml`. With activate:=false it waits in the state inactive."""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition


def generate_launch_description() -> LaunchDescription:
    text = lambda name: ParameterValue(LaunchConfiguration(name), value_type=str)
    flag = lambda name: ParameterValue(LaunchConfiguration(name), value_type=bool)
    node = LifecycleNode(
        package="vlacompile_ros", executable="policy", name="vlacompile", namespace="", output="screen",
        parameters=[{"bundle": text("bundle"), "topics": text("topics"), "signers": text("signers"),
                     "native_code": flag("native_code"), "uncalibrated": flag("uncalibrated"),
                     "record": text("record"), "use_sim_time": flag("use_sim_time")}])
    to = lambda transition: EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node),
                                                        transition_id=transition))
    return LaunchDescription([
        DeclareLaunchArgument("bundle", description="the directory NAME.vlab"),
        DeclareLaunchArgument("topics", description="the YAML file that maps topics to inputs"),
        DeclareLaunchArgument("signers", default_value="", description="take only a bundle that one of these signed"),
        DeclareLaunchArgument("native_code", default_value="false"),
        DeclareLaunchArgument("uncalibrated", default_value="false"),
        DeclareLaunchArgument("record", default_value="", description="a file, which must not exist: what is recorded"),
        DeclareLaunchArgument("use_sim_time", default_value="false"),
        DeclareLaunchArgument("activate", default_value="true"),
        RegisterEventHandler(OnStateTransition(target_lifecycle_node=node, start_state="configuring",
                                               goal_state="inactive",
                                               entities=[to(Transition.TRANSITION_ACTIVATE)]),
                             condition=IfCondition(LaunchConfiguration("activate"))),
        node,
        to(Transition.TRANSITION_CONFIGURE),
    ])
