"""Stages about a model that serves."""
