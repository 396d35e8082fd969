"""Example network functions, and one that makes delays and faults on purpose."""
