"""ament_python: what colcon installs."""

from setuptools import setup

NAME = "vlacompile_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
                (f"share/{NAME}", ["package.xml"]),
                (f"share/{NAME}/launch", ["launch/policy.launch.py"]),
                (f"share/{NAME}/config", ["config/topics.yaml"])],
    install_requires=["setuptools", "vlacompile-runtime[ros]==0.1.0"],
    zip_safe=True,
    license="Apache-2.0",
    description="A lifecycle node that runs policies compiled by vlacompile",
    entry_points={"console_scripts": [f"policy = {NAME}.node:main"]},
)
