"""`mlseal guard`: what stands between callers and a model that serves.

A request passes these steps, in this order; the first that fails answers, and the model does not see it:

1. standing: the policy still allows this model to serve (`standing`: judged at start and again all the time; looked at
   before the body, before the model is asked and before its answer leaves);
2. size: method, media type and length of the body, before it is read as anything (`intake`);
3. identity: whose token is this (`callers`);
4. rate: how much this caller asked for lately (`rates`);
5. schema: the rows are what the model's own signature declares, no column more, none less (`signature`);
6. signals: rows far from the reference data (`outliers`), texts that look like instructions (`injection`);
7. the model, whose bytes were verified and of which a private copy is what serves (`upstream`), is asked (`asking`);
8. output: personal data are masked or withheld (`output`), and an answer that cannot be read is no answer.

Who is told what of an error is `telling`'s to say.

Nothing a caller sent is logged or counted by value. `posture` tells what is in force and how many requests ended at
which step; `inference.guard`, a stage, measures the guard off against on.

    settings ─▶ app ─▶ callers · rates · payload ─▶ signature ─▶ outliers · injection ─▶ asking ─▶ output
                 ▲
              standing ◀─ policy.gate over the archive
"""
