"""Successive halving: many points are trained on few items, and the best of them on more (option `rungs`).

`rungs` says how many items and points a rung has, `promotion` which points rise, `proposals` which are tried next, and
`brackets` which trainings a study needs now. Why it is done like this: docs/tuning.md.
"""
