"""Equal sweeps of learning rates and of what else a recipe has, each described in a YAML file.

`sweep_file` reads the file, `methods` checks that its methods have equal trainings, `stages` says which of them a
method needs next, `pipeline` runs those that are missing, `tables` prints all of them, `ranking` compares the methods
under several recipes, and `best_arms` has the best rates.
The command is `tuning.learning_rates`.
"""
