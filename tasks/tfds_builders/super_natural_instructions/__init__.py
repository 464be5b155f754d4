"""Super-NaturalInstructions for TensorFlow Datasets."""
