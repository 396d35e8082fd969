"""The controller: switches, instances, rules and handovers (docs/controller.md)."""
