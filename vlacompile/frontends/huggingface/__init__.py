"""Hugging Face transformers checkpoint directories (`save_pretrained`) of native policies -> Policy.

`read.py` checks the files and builds the Policy with transformers' own model code; one small adapter per model type.
"""
