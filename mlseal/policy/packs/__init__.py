"""Ready policies, one YAML file each with its controls beside it, and how their placeholders are filled.

The files are policies as they stand: they load, pass lint and their own controls, and permit nothing, since no evidence
is signed at ``authority.example`` or says ``SET-OUTCOME``. See docs/packs.md.
"""
