"""Exports the trained adapter of a run or trial, or a model with it merged, to a folder or the hub.

`options` are parsed by `command`, and `pipeline` carries out the export. It uses `merging` (merges the adapter, and
checks the predictions) and `hub` (uploads the folder).
"""
