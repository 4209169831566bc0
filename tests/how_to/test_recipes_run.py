"""The scripts of the how-to pages do what their pages say, against a real receiver."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import CliResult, Running, spawn, write_config
from support.pages import World, named_files, receiving
from support.spools import TINY, sdk_batches, snapshot
from support.users import NOBODY, needs_root, shared_folder

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def script(page: str, name: str) -> str:
    return named_files((HOW_TO / f"{page}.md").read_text(encoding="utf-8"))[name].text


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def store(world: World) -> Iterator[Path]:
    with receiving(world) as store:
        yield store


def install(world: World, name: str, text: str) -> Path:
    """Make an executable in the world's ``bin``."""
    program = world.root / "bin" / name
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    return program


def begin(world: World, *argv: str | Path, **environment: str) -> Running:
    argv_text = [str(part) for part in argv]
    return spawn(argv_text, cwd=world.work, home=world.home, env={**world.env, **environment})


def run(world: World, *argv: str | Path, **environment: str) -> CliResult:
    with begin(world, *argv, **environment) as running:
        return running.finish()


def names(directory: Path) -> list[str]:
    return [batch.name for batch in snapshot(directory)]


# -- cron


def flush_of_cron(world: World, **environment: str) -> CliResult:
    """What cron runs, in cron's poor environment."""
    local = world.home / ".local" / "bin"
    local.mkdir(parents=True, exist_ok=True)
    shutil.copy(world.root / "bin" / "cirron-spool", local)
    flush_spools = install(world, "flush-spools", script("cron", "~/bin/flush-spools"))
    return run(world, flush_spools, world.work, **{"PATH": "/usr/bin:/bin", **environment})


def test_cron_mails_nothing_after_a_flush_and_in_an_outage(world: World, store: Path) -> None:
    spool = world.work / ".cirron" / "spool"
    sealed = [batch.name for batch in sdk_batches(spool, 2, spans=TINY)]
    nowhere = flush_of_cron(world, CIRRON_API_ENDPOINT="http://127.0.0.1:9", HTTP_PROXY="", NO_PROXY="*")
    assert (nowhere.returncode, nowhere.out, nowhere.err) == (4, b"", b"")
    done = flush_of_cron(world)
    assert (done.returncode, done.out, done.err) == (0, b"", b"")
    assert names(store) == sealed


def test_cron_mails_what_a_person_must_do(world: World) -> None:
    sdk_batches(world.work / ".cirron" / "spool", 2, spans=TINY)
    done = flush_of_cron(world)
    assert done.returncode == 3
    assert "Error: Not authenticated. Run cirron auth login first." in done.lines


# -- GitHub Actions


def test_the_step_of_github_sends_and_says_what_it_could_not(world: World, store: Path) -> None:
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load(script("github-actions", ".github/workflows/train.yml"))
    (step,) = (step for step in workflow["jobs"]["train"]["steps"] if step.get("name") == "Send the spool")
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]  # as the runner starts it
    spool = world.work / ".cirron" / "spool"
    sealed = [batch.name for batch in sdk_batches(spool, 2, spans=TINY)]

    without = run(world, *argv, CIRRON_API_KEY="")
    assert (without.returncode, without.lines[0][:10]) == (0, "::notice::")
    away = run(world, *argv, CIRRON_API_ENDPOINT="http://127.0.0.1:9", NO_PROXY="*")
    assert away.returncode == 0 and "::warning::" in away.stdout
    refused = run(world, *argv, CIRRON_API_KEY="sk-wrong")
    assert refused.returncode == 3 and "::error::" in refused.stdout
    assert names(spool) == sealed
    assert run(world, *argv).returncode == 0
    assert names(store) == sealed


# -- Slurm

# A training under the real SDK, which needs a SIGTERM to end. It then saves its checkpoint and fails with 7.
_TRAINING = """
import signal, sys
import cirron as ci

ci.profile(frameworks=[], output="spool", flush_interval=3600)
with ci.scope("first"):
    ci.mark("loss", 0.5)
ci.flush()

def save(*_):
    with ci.scope("checkpoint"):
        ci.mark("loss", 0.25)
    sys.exit(7)

signal.signal(signal.SIGTERM, save)
print("training", flush=True)
signal.pause()
"""


@pytest.fixture
def cluster(world: World) -> World:
    """A world with an ``srun`` that runs its command here."""
    install(world, "srun", '#!/bin/sh\nexec "$@"\n')
    install(world, "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (world.work / "train.py").write_text(_TRAINING, encoding="utf-8")
    world.env.update(SLURM_SUBMIT_DIR=str(world.work), SLURM_JOB_ID="42", CIRRON_ENABLED="1")
    return world


def test_a_job_hands_its_signal_to_the_training_and_sends_the_last_batch(cluster: World, store: Path) -> None:
    # The training has no key: the SDK would send its batches as well.
    key, endpoint = cluster.env.pop("CIRRON_API_KEY"), cluster.env.pop("CIRRON_API_ENDPOINT")
    write_config(cluster.home, apiUrl=endpoint, token=key)
    with begin(cluster, "bash", "-c", script("slurm", "train.sbatch")) as job:
        job.wait_for_text("training")
        job.send_signal(signal.SIGTERM)  # only the script: --signal=B:TERM
        done = job.finish()
    assert (done.returncode, done.stderr) == (7, "")
    assert names(cluster.work / "runs" / "42" / ".cirron" / "spool") == []
    assert [b'"checkpoint"' in batch.data for batch in snapshot(store)] == [False, True]


def test_a_job_says_that_its_delivery_failed_and_keeps_the_exit_code_of_the_training(cluster: World) -> None:
    (cluster.work / "train.py").write_text("raise SystemExit(5)\n", encoding="utf-8")
    done = run(cluster, "bash", "-c", script("slurm", "train.sbatch"))  # without a token
    assert done.returncode == 5
    assert "The delivery ended with exit code 3. Run cirron-spool flush later." in done.stderr


def test_one_job_sends_the_spools_of_all_trials(cluster: World, store: Path) -> None:
    sealed: list[str] = []
    for trial in range(5):
        spool = cluster.work / "runs" / "7" / f"trial {trial}" / ".cirron" / "spool"
        sealed += [
            batch.name for batch in sdk_batches(spool, 2, spans=TINY, seed=trial, first_ns=10**18 + trial)
        ]
    deliver = install(cluster, "deliver", script("slurm", "deliver.sbatch"))
    assert run(cluster, deliver, "runs/7").returncode == 0
    assert names(store) == sorted(sealed)
    assert run(cluster, deliver, "runs/7", CIRRON_API_KEY="sk-wrong").returncode == 0  # they are empty
    sdk_batches(cluster.work / "runs" / "7" / "late" / ".cirron" / "spool", 1, spans=TINY)
    assert run(cluster, deliver, "runs/7", CIRRON_API_KEY="sk-wrong").returncode == 3


def test_each_trial_of_an_array_has_a_spool(cluster: World) -> None:
    (cluster.work / "train.py").write_text(
        "import os, sys\nprint(os.environ['CIRRON_OUTPUT_DIR'], *sys.argv[1:])\n", encoding="utf-8"
    )
    done = run(
        cluster,
        *("bash", "-c", script("slurm", "sweep.sbatch")),
        SLURM_ARRAY_JOB_ID="7",
        SLURM_ARRAY_TASK_ID="3",
    )
    assert done.lines == [f"{cluster.work}/runs/7/3/.cirron --trial 3"]


# -- Kubernetes


def test_a_container_without_a_sidecar_hands_on_its_signal_and_flushes_at_its_end(
    cluster: World, store: Path
) -> None:
    yaml = pytest.importorskip("yaml")
    pod = yaml.safe_load(script("kubernetes", "training-pod.yaml"))
    token = cluster.root / "token"
    token.write_text(cluster.env.pop("CIRRON_API_KEY"), encoding="utf-8")
    token.chmod(0o600)
    (container,) = pod["spec"]["containers"]
    command = [part.replace("/token/token", str(token)) for part in container["command"]]
    output = cluster.work / "cirron"
    with begin(cluster, *command, CIRRON_OUTPUT_DIR=str(output)) as training:
        training.wait_for_text("training")
        training.send_signal(signal.SIGTERM)
        assert training.finish().returncode == 7
    assert names(output / "spool") == []
    assert len(snapshot(store)) == 2


@needs_root
def test_the_epilog_works_as_the_user_of_the_job_and_never_fails(tmp_path: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    text = script("slurm", "/etc/slurm/epilog.d/50-cirron-spool")
    with shared_folder() as place:
        # A command that says who runs it, and with which arguments. It fails.
        command = place / "cirron-spool"
        command.write_text('#!/bin/sh\necho "$(id -u) $*"\nexit 1\n', encoding="utf-8")
        command.chmod(0o755)
        text = text.replace("/opt/cirron-spool/bin", str(place)).replace("/local/scratch", str(place))
        text = text.replace("logger -t cirron-spool", f"cat >{place}/log")
        spool = place / "42" / ".cirron" / "spool"
        spool.mkdir(parents=True)
        for job, user in (("42", NOBODY), ("43", NOBODY), ("42", 999_999)):
            env = {"SLURM_JOB_ID": job, "SLURM_JOB_UID": str(user)}
            with spawn(["sh", "-c", text], cwd=place, home=tmp_path, env=env) as running:
                assert running.finish().returncode == 0
            log = (place / "log").read_text(encoding="utf-8")
            if (job, user) == ("42", NOBODY):
                assert log.startswith(f"{NOBODY} flush ")
                assert log.endswith(f" --dir {spool}\n")
            elif user == NOBODY:
                assert log == ""  # no spool
