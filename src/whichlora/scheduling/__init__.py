"""Shares work among processes and machines: storage, leases, queue, retries, engines."""
