"""The language probe: the languages of the tokens that each layer predicts."""
