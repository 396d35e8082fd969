"""Flowferry: functions."""
