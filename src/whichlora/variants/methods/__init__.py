"""The methods of the catalogue: a module declares one, or several that are built alike."""
