"""The `labkit` command in a process of its own, forked from one that has it imported.

Starting Python and importing labkit takes longer than most commands, and twice as long with
coverage. `tests/integration/test_cli.py` starts it as a shell does.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PATIENCE_S = 60
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["labkit.cli", "labkit.shop.inventory", "tests.toy", "tests.saga_flow"]
)


def labkit(
    environment: Mapping[str, str], *arguments: str, answer: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `labkit` under exactly this environment, with `answer` typed in."""
    with tempfile.TemporaryDirectory(prefix="labkit-command-") as place:
        said = [Path(place) / name for name in ("answer", "stdout", "stderr")]
        said[0].write_text(answer)
        process = _processes.Process(target=_be_labkit, args=(dict(environment), arguments, said))
        process.start()
        process.join(PATIENCE_S)
        try:
            assert process.exitcode is not None, f"labkit {arguments} is still at work"
            _, out, complaints = (path.read_text() for path in said)
            return subprocess.CompletedProcess(arguments, process.exitcode, out, complaints)
        finally:
            process.kill()
            process.join()
            process.close()


def _be_labkit(environment: dict[str, str], arguments: tuple[str, ...], said: list[Path]) -> None:
    for number, (path, flags) in enumerate(
        zip(said, (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT), strict=True)
    ):
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(environment)
    # multiprocessing gave this process another input.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it ends with the process
    sys.argv = ["labkit", *arguments]
    from labkit.cli import main  # noqa: PLC0415 - has to see the environment

    main()
