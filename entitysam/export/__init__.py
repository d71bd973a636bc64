"""The network outside Python: four graphs in ONNX or as exported PyTorch programs, and a runtime for the ONNX ones."""
