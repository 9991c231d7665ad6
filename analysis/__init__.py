"""From the runs of a tracking server to a report: tables, tests, plots, plain sentences. Needs no torch and no GPU."""
