"""A run's models as ONNX files, each checked against its model."""
