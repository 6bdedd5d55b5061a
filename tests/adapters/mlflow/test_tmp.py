import time, os, cProfile, pstats, io


def test_prof(new_shop, monkeypatch):
    s = new_shop(start=False)
    s.snapshot()
    for k, v in s.env.items():
        monkeypatch.setenv(k, v)
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(s.artifacts))
    from mlseal_mlflow.store import build_store

    st = build_store(f"mlseal:sqlite:///{s.base}/registry.db")
    p = s.artifacts / "0/models/m-1/artifacts"
    files = {"MLmodel": b"a", "model.pkl": b"b", "code/x.py": b"c", "requirements.txt": b"c", "conda.yaml": b"c"}
    for f, d in files.items():
        (p / f).parent.mkdir(parents=True, exist_ok=True)
        (p / f).write_bytes(d)
    st.create_registered_model("risk-a")
    st.create_model_version("risk-a", "mlflow-artifacts:/0/models/m-1/artifacts")

    def go():
        try:
            st.set_registered_model_alias("risk-a", "champion", "1")
            return "ok"
        except Exception as e:
            return str(e)[:100]

    for i in range(3):
        t = time.perf_counter()
        r = go()
        print("deny", r, time.perf_counter() - t)
    pr = cProfile.Profile()
    pr.enable()
    for i in range(10):
        go()
    pr.disable()
    o = io.StringIO()
    pstats.Stats(pr, stream=o).sort_stats("cumulative").print_stats(40)
    print(o.getvalue())
    s.prove(files)
    for i in range(120):
        t = time.perf_counter()
        c = time.process_time()
        r = go()
        if i % 10 == 0:
            print("allow", i, r, time.perf_counter() - t, "cpu", time.process_time() - c)
    pr = cProfile.Profile()
    pr.enable()
    for i in range(10):
        go()
    pr.disable()
    o = io.StringIO()
    pstats.Stats(pr, stream=o).sort_stats("cumulative").print_stats(70)
    print(o.getvalue())
