"""Public policies, unchanged, compiled and compared with PyTorch.

    python -m benchmarks.gauntlet FOLDER          FOLDER holds the checkouts; `--clone` prints how to get them

Nothing of their code is here. A file of `policies/` is the glue that a user would write for one of them: it imports
what lies in the folder, with stubs for packages that inference never calls, constructs the module at a small size with
random weights, and names the sources. Every structural constant (layers per block, heads, solver steps, token counts
that the code fixes) stays; widths and depths shrink.
"""
