"""A policy that is an ONNX file already -> Policy.

`sidecar.py` says which input changes when; `translate.py` turns the graph into a torch module, op by op from the tables
in `elementwise.py`, `shaping.py` and `layers.py`; `read.py` puts both together and compares with onnxruntime.
"""
