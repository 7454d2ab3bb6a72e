"""Models that leave the house: one file to share, and static networks for ONNX."""
