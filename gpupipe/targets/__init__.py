"""What is predicted: labels by barriers, their weights and class names."""
