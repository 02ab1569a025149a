"""The providers' own APIs, played from their documents: accounts, money, latencies and faults, nothing generated."""
