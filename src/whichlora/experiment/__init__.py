"""Runs an experiment, a grid of runs described in a YAML file: `python -m whichlora.experiment`.

`command` parses the options, `grid` reads the file, `pipeline` does the missing runs, `progress` shows their state, and
`results_table` their scores at the end. `folder_plan` and `device_hours` say beforehand what experiments take.
"""
