"""Stages of the moment: before anything learns from data."""
