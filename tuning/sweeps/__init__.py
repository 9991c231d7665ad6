"""Equal sweeps of learning rates and of what else a recipe has, each described in a YAML file.

`sweep_file` reads the file, `stages` says which trainings a method needs next, `pipeline` runs those that are missing,
and `tables` prints all of them. The command is `tuning.learning_rates`.
"""
