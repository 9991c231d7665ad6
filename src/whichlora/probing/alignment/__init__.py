"""The alignment probe: how close translations lie, layer by layer."""
