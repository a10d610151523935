"""A process with everything imported that forks a `dpo` for each request: a real process to kill, without the seconds of its start.

Reads a JSON object a line (`argv`, `cwd`, `out`, `at`, `limits`, `env`), answers with the child's pid, then with how it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

WARM = (
    "dpo_cli.cli.app",
    "dpo_cli.train.run",
    "dpo_cli.train.precompute",
    "rich.live",
    "rich.progress",
    "scipy.stats",
    "pandas",
)


def send_at(target: str, call: int, name: str) -> None:
    """Send this process a signal just before the n-th call of `package.module.function`, counted from 1."""
    module_name, _, attribute = target.rpartition(".")
    module = importlib.import_module(module_name)
    wrapped: Callable[..., Any] = getattr(module, attribute)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.Signals[name])
        return wrapped(*args, **kwargs)

    setattr(module, attribute, counted)


def become_dpo(request: dict[str, Any]) -> int:
    """Run the command line of a request in this process; give its exit code."""
    for number, name in enumerate(("out", "err"), start=1):
        handle = os.open(f"{request['out']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    for target, call, name in request["at"]:
        send_at(target, call, name)
    for name, value in request["limits"].items():
        limit = getattr(resource, name)
        resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
    sys.argv = ["dpo", *request["argv"]]
    from dpo_cli.cli.app import main

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve() -> None:
    """Warm up and serve until the requests end."""
    for name in WARM:
        importlib.import_module(name)
    importlib.import_module("tests.fakes").tiny_llama()
    print("{}", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = become_dpo(request)
            for thread in threading.enumerate():  # as the interpreter's own end does
                if not thread.daemon and thread is not threading.current_thread():
                    thread.join()
            sys.stdout.flush()
            os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)
        _, ended = os.waitpid(pid, 0)
        print(json.dumps({"rc": os.waitstatus_to_exitcode(ended)}), flush=True)


if __name__ == "__main__":
    serve()
