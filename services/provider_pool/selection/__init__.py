"""Which account serves a request: limits, prices, pace and policy, and the leases that hold its place."""
