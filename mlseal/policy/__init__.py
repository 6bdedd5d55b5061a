"""Policies and the gate: which evidence must exist, who may have made it, what it must say.

A policy never sees a stage; it sees verified statements only. `load` reads policies, `gate` judges, `verdict` states
the outcome. Errors, unknowns and absences are never permissions.
"""
