"""A policy given as an ONNX file -> Policy.

`sidecar.py` reads when each input changes; `translate.py` turns the graph into a torch module, op by op, with the
tables in `elementwise.py`, `shaping.py` and `layers.py`; `read.py` combines them and compares with onnxruntime.
"""
