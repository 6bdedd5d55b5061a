"""The programs that listen. So far one: the trust service, a private Sigstore in one process.

    process ── lock, socket, idle exit          server ── HTTP with limits          routes ── which call is what
                                                   │
    authority ── the live parts of one generation of keys
       ├─ tokens        whose token is this?             (own issuer, Kubernetes, any OIDC provider)
       ├─ issuer        tokens for local users, by the uid that the kernel reports
       ├─ certificates  short-lived certificates (Fulcio profile), each in the issuance log before it leaves
       ├─ timestamping  RFC 3161
       └─ entries       Rekor v2 log of signatures
    state ── keys and public facts on disk      trust_root ── what clients pin      setup ── `mlseal init`, rotation

Nothing outside this package touches a service key, and nothing in it verifies evidence.
"""
