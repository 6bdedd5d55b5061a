"""The command line: thin, lazy, and one place where an error becomes an exit code.

=============================================================  =============================  ====
outcome                                                        raised as                      exit
=============================================================  =============================  ====
done, or allowed                                               nothing                        0
evidence present and failing, bytes differ, identity wrong     ``errors.Refusal``             10
evidence missing, stale, insufficient, or not checkable        ``errors.Unchecked``           11
the caller is wrong                                            ``errors.Misuse``, click's own 2
a fault of mlseal itself                                       anything else                  1
interrupted (Ctrl-C) · the reader of the output went away      ``KeyboardInterrupt`` · EPIPE  130 · 141
a run of a stage was stopped (Ctrl-C or SIGTERM)               ``errors.Cancelled``           130
=============================================================  =============================  ====

Every code but 0 is a stop. Results go to standard output, failures to standard error as one sentence, or as one
JSON object with ``--json``. A traceback appears only with ``MLSEAL_DEBUG=1``.

A command is loaded when it is used: this table holds names, not functions, so that ``mlseal --help`` reads no
module of the core. Adapters add theirs through the entry-point group ``mlseal.commands``.
"""

from __future__ import annotations

import click

from mlseal import __version__
from mlseal.cli.group import Command, LazyGroup

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, Command] = {
    "init": Command("mlseal.cli.trust:init", "Create a trust service and its keys, and pin its root for this user."),
    "serve": Command("mlseal.cli.trust:serve", "Run the trust service: certificates, time stamps, the log."),
    "trust": Command("mlseal.cli.trust:trust", "Pin, show, export and rotate trust roots; grant and fetch tokens."),
    "run": Command("mlseal.cli.stage:run", "Run one stage and sign what it found."),
    "import": Command("mlseal.cli.stage:import_report", "Sign what another tool's report says, as declared."),
    "sign": Command("mlseal.cli.evidence:sign", "Sign a statement about a file or directory."),
    "verify": Command("mlseal.cli.evidence:verify", "Verify one bundle, and that the bytes at hand are its subject."),
    "gate": Command("mlseal.cli.policy:gate", "Judge a file or directory by a policy; exit 0 only when allowed."),
    "guard": Command("mlseal.cli.guard:guard", "Stand between callers and a model that serves; start it verified."),
    "explain": Command("mlseal.cli.policy:explain", "Say what a policy wants for a subject and what is missing."),
    "key": Command("mlseal.cli.key:key", "Make a signing key, show what a policy calls it, let it into the log."),
    "approve": Command("mlseal.cli.policy:approve", "Sign a human approval."),
    "waive": Command("mlseal.cli.policy:waive", "Sign a waiver of one rule, with a reason and an end."),
    "revoke": Command("mlseal.cli.evidence:revoke", "Withdraw a piece of evidence, or sign a revocation snapshot."),
    "monitor": Command("mlseal.cli.monitor:monitor", "Act on a monitoring report: an alarm takes evidence back."),
    "policy": Command("mlseal.cli.policy:policy", "Check policies, and run their negative controls."),
    "budget": Command("mlseal.cli.budget:budget", "Show what is left of the privacy budgets of data."),
    "log": Command("mlseal.cli.log:log", "List what the log holds."),
    "lineage": Command("mlseal.cli.lineage:lineage", "Show what a thing was made from, or what was made of it."),
    "names": Command("mlseal.cli.names:names", "Resolve committed names of files, and erase the salts behind them."),
    "audit": Command("mlseal.cli.log:audit", "Verify the whole log and all evidence offline."),
    "doctor": Command("mlseal.cli.doctor:doctor", "Say what is installed, trusted and reachable, and what to mend."),
    "completion": Command("mlseal.cli.completion:completion", "Print the completion script of a shell."),
}


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlseal")
def main() -> None:
    """Let nothing pass that cannot show signed evidence.

    Exit codes: 0 done or allowed · 10 refused · 11 cannot be checked · 2 wrong call · 1 fault of mlseal.
    """
