"""Compares two runs: `params` finds what differs in their specs, `answers` tests item by item, `text` prints it."""
