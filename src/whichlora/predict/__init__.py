"""Predicts the rows of a table with the model of a run, a registered model, or one in a folder.

`options` are parsed by `command`, and `pipeline` carries out the prediction. It uses `finding` (the folder of the
model), `reading` (the table) and `writing` (the table with predictions).
"""
