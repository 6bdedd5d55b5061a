from adapters.dvc.people import Scene, fresh
from adapters.dvc.conftest import *  # fixtures
def test_loop(scene):
    for i in range(12):
        scene.add(f"d{i}.csv")
        done = scene.owner.dvc("push")
        print(i, len(scene.bundles()), done.stderr.strip().replace("\n"," | ")[-200:])
        assert len(scene.bundles()) == i+1
