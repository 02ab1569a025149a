"""What every process needs before it knows its business.

Names no business noun and imports neither a service nor the generated stubs.
"""
