"""`mlseal doctor` reads, says, and finds what is wrong."""

import json

from click.testing import CliRunner

from mlseal.cli import main


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
