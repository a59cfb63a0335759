"""`camora config check`: everything is looked at, and nothing is connected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from camora import Camora
from camora.config import app_arguments, read

from tests import forked


def check(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAMORA_")}
    return forked.run(
        [sys.executable, "-m", "camora", "config", "check", *arguments],
        cwd=folder,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


GOOD = """\
[broker]
url = "sqlite:///shop.db"
[profiles.prod.broker]
url = "${DATABASE}"
[profiles.prod.signing]
key = { env = "KEY" }
[profiles.dev.worker]
concurrency = 2
"""


def test_a_right_file_is_right_with_all_its_profiles(folder: Path) -> None:
    (folder / "camora.toml").write_text(GOOD)
    done = check(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "camora.toml: nothing is wrong, with profiles prod, dev\n"
    assert not (folder / "shop.db").exists()
    assert json.loads(check(folder, "--json").stdout) == {
        "ok": True,
        "file": "camora.toml",
        "problems": [],
        "remarks": [],
    }


def test_the_variables_of_a_profile_are_only_needed_where_it_is_chosen(folder: Path) -> None:
    (folder / "camora.toml").write_text(GOOD)
    for chosen in (check(folder, "--profile", "prod"), check(folder, CAMORA_PROFILE="prod")):
        assert chosen.returncode == 2
        assert chosen.stderr == (
            "camora.toml:4:1: broker.url: variable 'DATABASE' is not set: "
            "set it, or write ${DATABASE:-default}\n"
            "camora.toml:6:1: signing.key: variable 'KEY' is not set\n"
        )
    ready = check(folder, "--profile", "prod", DATABASE="sqlite:///prod.db", KEY="k" * 32)
    assert (ready.returncode, ready.stdout) == (0, "camora.toml: nothing is wrong, with profile prod\n")


def test_mistakes_of_profiles_that_are_not_chosen_are_told_once(folder: Path) -> None:
    (folder / "camora.toml").write_text(f"{GOOD}leese = 1\n[worker]\nlease = 0\n")
    done = check(folder)
    assert done.returncode == 2
    assert done.stderr == (
        "camora.toml:9:1: worker.leese: unknown setting: did you mean 'lease'?\n"
        "camora.toml:11:1: worker.lease: must be more than 0, found 0\n"
    )
    answer = json.loads(check(folder, "--json").stdout)
    assert (answer["ok"], len(answer["problems"])) == (False, 2)


def test_broken_urls_are_told_with_their_place_whatever_profile_they_stand_in(folder: Path) -> None:
    (folder / "camora.toml").write_text(
        '[broker]\nurl = "redis://a?tymeout=1&prefix="\n'
        '[profiles.prod.broker]\nurl = "redis+sentinel://a"\n'
        '[profiles.prod.middleware]\nuse = ["only_there:Audit"]\n'
        '[profiles.there.broker]\nurl = "${DATABASE}"\n'
    )
    done = check(folder)
    assert done.returncode == 2
    first, beside, second, *others = done.stderr.splitlines()
    assert first.startswith(
        "camora.toml:2:1: broker.url: redis://a: unknown setting 'tymeout': did you mean 'timeout'?"
    )
    assert beside == "camora.toml:2:1: broker.url: redis://a: prefix: expected a name, found ''"
    assert second.startswith("camora.toml:4:1: broker.url: redis+sentinel://a: name the service")
    assert others == []


def test_a_setting_in_the_url_and_beside_it(folder: Path) -> None:
    (folder / "camora.toml").write_text('[broker]\nurl = "redis://a/?timeout=3s&group=g"\ntimeout = "5s"\n')
    done = check(folder)
    assert done.returncode == 2
    assert done.stderr == "camora.toml:3:1: broker.timeout: is in the url, too (?timeout=…): say it once\n"


def test_of_a_setting_in_the_url_and_beside_it_the_stronger_layers_stands(folder: Path) -> None:
    (folder / "camora.toml").write_text('[broker]\nurl = "redis://a/?timeout=3s&group=g"\n')
    from_url = effective_timeout(folder)
    (folder / "camora.toml").write_text('[broker]\nurl = "redis://a/"\ntimeout = "5s"\n')
    over_file = effective_timeout(folder, CAMORA_BROKER__URL="redis://b/?timeout=4s")
    (folder / "camora.toml").write_text(
        '[broker]\nurl = "redis://a/?timeout=3s&group=g"\n[profiles.prod.broker]\ntimeout = "6s"\n'
    )
    over_url = effective_timeout(folder, CAMORA_BROKER__TIMEOUT="7s")
    of_profile = effective_timeout(folder, CAMORA_PROFILE="prod")
    assert (from_url, over_file, over_url, of_profile) == (3.0, 4.0, 7.0, 6.0)


def effective_timeout(folder: Path, **environ: str) -> float:
    assert check(folder, **environ).returncode == 0
    app = Camora(**app_arguments(read(folder / "camora.toml", environ=environ)))
    timeout: float = app.broker.database.settings.timeout
    return timeout


def test_keys_that_only_other_machines_have_are_no_mistake(folder: Path) -> None:
    (folder / "camora.toml").write_text(
        f'[signing]\nkeys = ["{"k" * 32}"]\n[profiles.prod.signing]\nkeys = ["${{PROD_KEY}}"]\n'
        '[profiles.other.signing]\nkeys = [{ env = "PROD_KEY" }]\n'
    )
    done = check(folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_shown_of_a_setting_in_the_url_can_be_read_again(folder: Path) -> None:
    (folder / "camora.toml").write_text('[broker]\nurl = "redis://a/?prefix=b&timeout=2s"\ngroup = "g"\n')
    command = [sys.executable, "-m", "camora", "config", "show"]
    shown = forked.run(command, cwd=folder, capture_output=True, text=True, timeout=60).stdout
    assert "?prefix=b&timeout=2s" in shown
    assert not any(line.startswith(("prefix =", "timeout =")) for line in shown.splitlines())
    assert 'group = "g"' in shown
    (folder / "camora.toml").write_text(shown)
    assert check(folder).returncode == 0


APP = """\
from camora import Camora
app = Camora.from_toml()
@app.task
def pay() -> None: ...
"""


def test_a_kind_of_queue_that_the_broker_does_not_serve(folder: Path) -> None:
    (folder / "shop.py").write_text(APP)
    (folder / "camora.toml").write_text(
        'app = "shop:app"\n[broker]\nurl = "memory://"\n[queues.bus]\nkind = "pubsub"\n'
    )
    done = check(folder)
    assert done.returncode == 2
    problem = "queues.bus.kind: queue 'bus' is a PubSubQueue (camora-redis), a kind of queue that MemoryBroker("
    assert done.stderr.startswith(f"camora.toml:5:1: {problem}")
    (folder / "camora.toml").write_text('[broker]\nurl = "memory://"\n[profiles.bad.queues.bus]\nkind = "pubsub"\n')
    assert check(folder).stderr.startswith(f"camora.toml:4:1: {problem}")


def test_two_queues_on_one_list(folder: Path) -> None:
    (folder / "shop.py").write_text(APP)
    (folder / "camora.toml").write_text(
        'app = "shop:app"\n[broker]\nurl = "redis://localhost:1"\n'
        '[queues.a]\nkind = "list"\nkey = "same"\n[queues.b]\nkind = "list"\nkey = "same"\n'
    )
    done = check(folder, "--json")
    [problem] = json.loads(done.stdout)["problems"]
    assert problem == "camora.toml:2:2: broker: the queues 'a' and 'b' are both on the list 'same'"


def test_an_option_that_the_broker_does_not_know(folder: Path) -> None:
    (folder / "shop.py").write_text(APP.replace("@app.task", "@app.task(wait_replicas=1)"))
    (folder / "camora.toml").write_text('app = "shop:app"\n[broker]\nurl = "memory://"\n')
    done = check(folder)
    assert done.returncode == 2
    assert "does not know the option 'wait_replicas': it has no options of its own" in done.stderr


def test_what_the_file_names_is_imported(folder: Path) -> None:
    (folder / "shop_links.py").write_text("class Audit: ...\n")
    (folder / "camora.toml").write_text('[middleware]\nuse = ["shop_links:Audti"]\n[broker]\nurl = "sqlite://"\n')
    done = check(folder)
    assert done.returncode == 2
    assert "camora.toml:2:8: middleware.use[0]: " in done.stderr
    assert "did you mean 'Audit'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_file_or_with_no_toml_in_it(folder: Path) -> None:
    assert check(folder).returncode == 2
    assert "camora init writes one" in check(folder).stderr
    (folder / "camora.toml").write_text("[broker")
    done = check(folder, "--json")
    assert (done.returncode, done.stderr) == (2, "")
    [problem] = json.loads(done.stdout)["problems"]
    assert problem.startswith("camora.toml:1:8: is no TOML")


TASKS = """\
app = "tasks:app"
[queues.mial]
concurrency = 1
[tasks."shop.*"]
timeout = 1
[tasks."shop.ad"]
timeout = 1
[tasks."stock.*"]
timeout = 1
[[schedules]]
key = "nightly"
task = "shop.reprot"
every = "1d"
[[schedules]]
key = "good"
task = "shop.add"
every = "1d"
"""


def test_tasks_that_the_app_does_not_have_are_remarked_upon(folder: Path) -> None:
    (folder / "camora.toml").write_text(TASKS)
    unchecked = check(folder)
    assert unchecked.returncode == 2
    assert unchecked.stderr.startswith("camora.toml:1:1: app: app 'tasks:app': there is no module 'tasks'")
    (folder / "tasks.py").write_text(
        "from camora import Camora\napp = Camora.from_toml()\n"
        "@app.task(name='shop.add', queue='mail')\ndef add(): ...\n@app.task(name='shop.report')\ndef report(): ...\n"
    )
    remarks = [
        "camora.toml:2:9: queues.mial: no task of the app is in this queue: did you mean 'mail'?",
        "camora.toml:6:8: tasks.\"shop.ad\": the app has no such task: did you mean 'shop.add'?",
        'camora.toml:8:8: tasks."stock.*": the app has no such task',
        "camora.toml:12:1: schedules[0].task: the app has no such task: did you mean 'shop.report'?",
    ]
    done = check(folder)
    assert (done.returncode, done.stdout) == (0, "camora.toml: no mistakes, 4 remarks\n")
    assert done.stderr.splitlines() == remarks
    assert check(folder, "--strict").returncode == 1
    assert json.loads(check(folder, "--json").stdout)["remarks"] == remarks


def test_a_schedule_with_two_triggers_and_a_wrong_zone_has_two_mistakes(folder: Path) -> None:
    (folder / "camora.toml").write_text(
        '[[schedules]]\nkey = "a"\ntask = "t"\nevery = "1d"\ncron = "0 1 * * *"\ntz = "Europe/Pariss"\n'
    )
    done = check(folder)
    assert done.returncode == 2
    assert "found cron and every" in done.stderr
    assert "camora.toml:6:1: schedules[0].tz: there is no time zone 'Europe/Pariss'" in done.stderr


def test_a_table_that_stands_twice_is_named(folder: Path) -> None:
    (folder / "camora.toml").write_text("[worker]\nlease = 3\n[worker]\nlease = 4\n")
    assert check(folder).stderr.startswith("camora.toml:3:8: [worker] stands here twice")
