"""Building blocks that several systems share: backbones and heads in plain PyTorch."""
