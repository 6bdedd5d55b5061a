"""Evidence: what was claimed about which bytes, by whom, and how a stranger checks it.

``digest`` turns bytes into subjects, ``statement`` and ``predicates`` say what is claimed, ``signing`` makes a bundle
of it, ``store`` and ``index`` keep and find it. ``verifying`` is the way back, and the only one: it alone makes a
`mlseal.evidence.verifying.VerifiedStatement`.
"""
