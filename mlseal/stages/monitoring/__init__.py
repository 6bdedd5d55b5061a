"""Stages that watch a model in use."""
