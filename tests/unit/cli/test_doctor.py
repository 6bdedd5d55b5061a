"""`mlseal doctor` reads, says, and finds what is wrong."""

import json

from click.testing import CliRunner

from mlseal.cli import main
from mlseal.evidence import paths


def report(*arguments: str):
    done = CliRunner().invoke(main, ["doctor", "--json", *arguments])
    return done, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_new_user_has_no_fault_and_is_told_what_to_do_first(home):
    done, checks = report()
    assert done.exit_code == 0, done.stdout
    assert checks["trust root"]["state"] == "absent"
    assert "mlseal init" in checks["trust root"]["remedy"]
    assert checks["core libraries"]["state"] == "ok"
    assert list(home.path.rglob("*")) == [], "doctor only reads"


def test_the_owner_of_a_running_authority_sees_it(authority):
    done, checks = report()
    assert done.exit_code == 0, done.stdout
    assert authority.trust.fingerprint in checks["trust root"]["found"]
    assert checks["trust service"]["state"] == "ok"
    assert checks["trust end"]["state"] == "ok"


def test_a_configuration_that_others_can_write_is_a_fault(home):
    directory = home.path / ".config" / "mlseal"
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    done, checks = report()
    assert done.exit_code == 11
    assert checks["configuration directory"]["state"] == "fault"
    assert checks["configuration directory"]["remedy"].startswith("chmod go-w ")


def test_a_damaged_trust_root_is_a_fault(home, tmp_path):
    (tmp_path / "root.json").write_text('{"mediaType": "nonsense"}')
    done, checks = report("--trust", str(tmp_path / "root.json"))
    assert done.exit_code == 11
    assert checks["trust root"]["state"] == "fault"


def test_an_ended_root_is_a_fault(new_authority, tmp_path):
    from mlseal.evidence import trust

    one = new_authority(start=False)
    document = json.loads(one.trusted_root.read_text())
    text = json.dumps(document).replace(f"{trust.load(one.dir).expires:%Y-%m-%d}", "2020-01-01")
    (tmp_path / "ended.json").write_text(text)
    done, checks = report("--trust", str(tmp_path / "ended.json"))
    assert done.exit_code == 11
    assert checks["trust end"]["state"] == "fault"


def test_people_read_a_table(home):
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0
    assert "trust root" in done.stdout
    assert not done.stdout.lstrip().startswith("{")


def test_pinned_policies_are_compared_with_what_their_owner_released(authority, tmp_path):
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def of_policy():
        done, checks = report("--store", str(authority.store.root))
        return done.exit_code, checks["policy doctored/1"]

    assert report()[1]["policy pins"]["state"] == "absent"
    file = tmp_path / "policy.yaml"
    text = "policy: doctored/1\napplies: [{tool: t, action: a}]\nrevocationMaxAge: 24h\n"
    text += "require: [{predicate: slsa-provenance, by: [{issuer: i, san: s}]}]\n"
    file.write_text(text)
    store = ("--store", str(authority.store.root))
    owner = json.loads(run("policy", "release", str(file), *store))["owner"]
    run("policy", "pin", str(file), "--owner", owner["issuer"], owner["san"], *store)
    exit_code, check = of_policy()
    assert (exit_code, check["state"]) == (0, "ok"), check
    assert "number 1 " in check["found"] and "newest" in check["found"]
    file.write_text(text.replace("24h", "12h"))
    released = json.loads(run("policy", "release", str(file), *store))
    exit_code, check = of_policy()
    assert (exit_code, check["state"], check["remedy"]) == (11, "fault", f"mlseal policy pin {file}")
    assert "release 2 of doctored/1" in check["found"]
    run("policy", "pin", str(file), *store)
    assert of_policy()[0] == 0
    kept = paths.config_dir() / "policies" / f"{released['sha256']}.yaml"
    kept.write_text(text)
    exit_code, check = of_policy()
    run("policy", "pin", "--remove", "doctored/1")  # other tests have the same home
    assert (exit_code, check["state"]) == (11, "fault")
    assert "was changed" in check["found"]
