"""DVC that signs what it pushes and verifies what it pulls.

DVC has no hooks of its own and checks nothing on ``dvc pull``: bytes that somebody replaced on the remote arrive in the
workspace under the old MD5. This adapter adds

* provenance signed before the upload, by plain ``dvc push`` (with the opt-in autoload) or ``mlseal dvc push``;
* verification before anything reaches the workspace or a caller: fetch, pull, checkout, get, import, ``dvc.api``;
* a pre-push hook and ``mlseal dvc verify --rev`` for CI, which refuse outputs without valid provenance.

The autoload is convenience and can be left out by whoever wants to; hook and CI check are the control.

========================  ============================================================================================
module                    what it knows
========================  ============================================================================================
``autoload`` ``wheel``    the tiny wheel that loads the rest when an interpreter imports DVC
``wrapping``              which parts of DVC are wrapped, and what to do when they are not as expected
``guards`` ``reading``    nothing unsigned is uploaded · nothing unverified is read
``committed``             copies from other local repositories are made by commit
``upstream`` ``sources``  imports: judged as their source · where that keeps them
``versioned``             remotes that keep versions under the files' own paths
``pointers``              what ``.dvc`` and ``dvc.lock`` say: path, object id, stage, dependencies
``owners``                may this push hand these data on: the data policies of what it uploads
``signedas``              the identities that this user signed as
``origin`` ``noting``     how an output came to be, as far as this machine saw it
``queued``                the queue's workers are this interpreter's DVC
``objects``               DVC's cache: hash objects, read directory objects, quarantine
``layout`` ``places``     where evidence lies beside the data
``sealing`` ``statement`` sign outputs before their upload
``checking`` ``verifying`` evidence and bytes of an output, verified; refused objects quarantined
``shelf`` ``logcopy``     candidates for an output's evidence · the log's tiles beside the data
``revoked``               what was taken back
``governing``             which repositories are protected, and who may sign
``prepush`` ``commits``   git's pre-push hook as a file · which commits are checked, and the check
``frameworks``            hooks of the pre-commit program that get round it
``standing`` ``reports``  how each output stands · pages and annotations for a CI
``scheme`` ``s3remote``   strict remotes, ``mlseals3://``
``gateway``, ``gateway_…`` admission in front of a store: paths, bodies, evidence, log copies, stores, wire, command
``setup`` ``doctor``      installation, and whether it is in force
========================  ============================================================================================
"""

from __future__ import annotations

SUPPORTED = ((3, 64, 0), (3, 68, 0))
"""DVC versions from the first up to, not including, the second. Others are refused: their insides may differ.

The one place that says so; pyproject.toml and docs/dvc.md repeat it under a test, which also runs the first.
"""
