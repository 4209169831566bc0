"""The files of the how-to pages pass the checkers of the programs that read them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cirron_spool.cli.arguments.build import build_parser
from support.pages import NamedFile, blocks, named_files

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(HOW_TO.glob("*.md"))}
FILES: dict[str, NamedFile] = {}
for _page in PAGES.values():
    FILES.update(named_files(_page))


def documents() -> dict[str, Any]:
    """The YAML files, loaded."""
    yaml = pytest.importorskip("yaml")
    return {name: yaml.safe_load(file.text) for name, file in FILES.items() if file.language == "yaml"}


def kubernetes() -> dict[str, Any]:
    return {name: document for name, document in documents().items() if "apiVersion" in document}


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    """The pod's specification in a pod, a job or a cron job."""
    spec: dict[str, Any] = document["spec"]
    for key in ("jobTemplate", "template"):
        spec = spec[key]["spec"] if key in spec else spec
    return spec


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    pod = pod_of(document)
    return [*pod.get("initContainers", []), *pod["containers"]]


def shell_texts() -> dict[str, str]:
    """Every shell text of the pages: blocks, and the scripts inside of YAML files."""
    found = {
        f"{page}-{number}": text
        for page, content in PAGES.items()
        for number, text in enumerate(blocks("sh", content), 1)
    }
    for name, document in documents().items():
        if "jobs" in document:
            steps = [step for job in document["jobs"].values() for step in job["steps"] if "run" in step]
            found.update({f"{name}-{number}": step["run"] for number, step in enumerate(steps)})
        elif "spec" in document:
            scripts = [
                container["command"][2]
                for container in containers(document)
                if "-c" in container.get("command", [])
            ]
            found.update({f"{name}-{number}": script for number, script in enumerate(scripts)})
    return found


def cirron_commands() -> dict[str, list[str]]:
    """Every command of ours that a file gives to its program as a list, or as a line of its own kind."""
    found: dict[str, list[str]] = {}
    for name, file in FILES.items():
        if found_line := re.search(r"^ExecStart=(.*)$", file.text, re.MULTILINE):
            found[name] = shlex.split(found_line[1])[1:]
    for name, document in kubernetes().items():
        for container in containers(document):
            if "cirron-spool" in container["image"]:
                found[f"{name}-{container['name']}"] = container["args"]
            if "lifecycle" in container:
                found[f"{name}-preStop"] = container["lifecycle"]["preStop"]["exec"]["command"][1:]
    return found


def test_the_alerts_pass_promtool(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    rules = tmp_path / "rules.yml"
    rules.write_text(FILES["cirron-spool.rules.yml"].text, encoding="utf-8")
    done = subprocess.run([program, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_shell_text_passes_shellcheck(tmp_path: Path) -> None:
    program = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("shellcheck is not installed")
    texts = shell_texts()
    assert len(texts) > 10
    for name, text in texts.items():
        shell = "bash" if text.startswith("#!/bin/bash") or ".yml" in name else "sh"
        (tmp_path / f"{name.replace('/', '_')}.{shell}").write_text(text, encoding="utf-8")
    for shell in ("sh", "bash"):
        # SC2154: the variables of Slurm.
        argv = [
            program,
            f"--shell={shell}",
            "--exclude=SC2154",
            *sorted(map(str, tmp_path.glob(f"*.{shell}"))),
        ]
        done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout


def test_every_command_has_arguments_that_exist() -> None:
    commands = cirron_commands()
    assert len(commands) >= 5
    for arguments in commands.values():
        build_parser("cirron-spool").parse_args(arguments)  # exits for a wrong one


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / ".local" / "bin" / "cirron-spool"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    units = []
    for name, file in FILES.items():
        if name.endswith((".service", ".timer")):
            unit = tmp_path / Path(name).name.replace("@.", "@home-alice-resnet50.")
            # Not the home of this user, which may lack the command.
            unit.write_text(file.text.replace("%h", str(tmp_path)), encoding="utf-8")
            units.append(unit)
    assert len(units) == 3
    argv = ["systemd-analyze", "verify", "--user", "--man=no", *map(str, units)]
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, encoding="utf-8", check=False)
    ours = [line for line in done.stderr.splitlines() if "cirron" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_kubernetes_takes_the_manifests() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    assert len(kubernetes()) == 3
    for document in kubernetes().values():
        validate(document, "1.29", strict=True)  # raises; a sidecar is known from 1.29 on


def test_a_sidecar_has_the_time_of_its_grace() -> None:
    pod = pod_of(documents()["training-job.yaml"])
    (delivery,) = pod["initContainers"]
    options = build_parser("cirron-spool").parse_args(delivery["args"])
    assert options.grace_ms / 1000 + 10 <= pod["terminationGracePeriodSeconds"]
    assert delivery["restartPolicy"] == "Always"


def test_github_takes_the_workflow(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    (name,) = (name for name in FILES if ".github/workflows" in name)
    workflow = tmp_path / "train.yml"
    workflow.write_text(FILES[name].text, encoding="utf-8")
    argv = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        str(workflow),
    ]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout


def test_cron_takes_the_table() -> None:
    crontab = pytest.importorskip("crontab")
    table = crontab.CronTab(tab=FILES["crontab"].text)
    (job,) = table
    assert job.is_valid()
    assert job.command.endswith('"$HOME/bin/flush-spools" "$HOME/runs"')
    assert set(table.env.keys()) == {"MAILTO", "HTTPS_PROXY"}
