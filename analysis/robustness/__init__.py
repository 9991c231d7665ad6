"""How far the results depend on the test items, on seeds, on collapsed runs and on single runs."""
