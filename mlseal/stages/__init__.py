"""Stages measure and state; they know no policy. One file per stage, in the folder of the moment it belongs to."""
