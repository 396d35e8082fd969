"""Strategies: how a handover is done, each a pure state machine behind `base.Strategy`."""
