"""Base models: locating, loading, packing several texts into one pass, hidden states, memory."""
