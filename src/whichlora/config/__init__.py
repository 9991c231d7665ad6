"""From option texts to a plan: options, checks, the run spec and its fingerprints."""
