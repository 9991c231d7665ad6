"""Distributes work among processes and machines.

`engines` starts workers (`ray_cluster` on a Ray cluster), which run a job of `jobs`. Workers take work from a `queue`
or a tuning study in an Optuna database (`storage`); `leases` tracks which worker holds a trial, and `retries` repeats
work after lost connections.
"""
