"""Ready policies, one YAML file each with its controls beside it, and how their placeholders are filled.

The files are policies as they stand: they load, pass lint and their own controls, and permit nothing, since no evidence
is signed at ``authority.example`` or says ``SET-OUTCOME``. They are for models of ``training.run``; what takes the
place of its provenance for models of another stage lies in ``trained_by``. See docs/packs.md.
"""
