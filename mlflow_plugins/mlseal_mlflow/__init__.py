"""MLflow lets nothing through that cannot show signed evidence.

Two plugins. The registry store ``mlseal:`` stands in the server (``mlflow server --registry-store-uri mlseal:sqlite:///…``)
and brings every promotion to the gate before the database changes. The artifact repository ``attested:`` stands where
a model is loaded and verifies a private copy before anything in it is unpickled.

This package measures nothing, judges nothing and holds no key: it carries bytes to `mlseal.evidence.digest`, the
result to `mlseal.policy.gate`, and the verdict to whoever asked.
"""
