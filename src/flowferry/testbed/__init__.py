"""Flowferry: testbed."""
