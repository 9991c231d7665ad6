"""Tests over the tidy table: one idea a module, each with a function of its name from a table to records.

`blocked` is the primary analysis; `replication` is the paper's. A design that is too small gives records without p
whose notes say why. The modules' lower functions take plain numbers and raise `NotTestable`.
"""
