"""Search over hyperparameters, on top of `whichlora.run`."""
