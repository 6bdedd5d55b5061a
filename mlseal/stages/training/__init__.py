"""Stages of the moment: while a model is made."""
