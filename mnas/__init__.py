"""Platform-aware neural architecture search: MnasNet (Tan et al., CVPR 2019), and beyond."""

__version__ = "0.1.0"
