"""Tables of runs with a known truth, and their analysis in many draws at once."""
