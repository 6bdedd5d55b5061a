"""Stages of the moment: what a model does to people, measured before it is released."""
