"""Uses the model of a finished run outside of it: reloads it, predicts, and logs it to MLflow as a model.

`saved` says what is stored beside an adapter, `base_model` finds the model under it, `inputs` makes items of a table's
rows, and `predictor` predicts them. `logged_model` logs all this to MLflow, which loads it with `pyfunc`.
"""
