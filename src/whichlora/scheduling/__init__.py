"""Shares work among processes and machines: queue, leases, retries, storage, engines."""
