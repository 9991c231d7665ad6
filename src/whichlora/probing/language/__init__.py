"""The language probe: the language of the tokens that each layer predicts."""
