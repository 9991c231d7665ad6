"""Coordinates processes and threads that train together.

`distributed`: the ranks of `accelerate launch`; `lockstep`: several runs in the threads of one process; `locks`: locks
of work folders. Workers that do separate work are in the package `scheduling`.
"""
