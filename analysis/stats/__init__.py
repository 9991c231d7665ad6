"""Statistical tests on the tidy table: one method per module, with a function of the same name that returns records.

`blocked` is the primary analysis; `replication` is the paper's. If the design is too small for a test, the record has
no p and its note says why. Lower-level functions take plain numbers and raise `NotTestable`.
"""
