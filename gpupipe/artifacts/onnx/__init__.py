"""A run's models as ONNX files, each checked against the model that it was made of."""
