"""A process with everything imported that forks a `dpo` for each request: a real process to kill, without the seconds of its start.

Reads a JSON object a line (`argv`, `cwd`, `out`, `at`, `limits`, `env`), answers with the child's pid, then with how it ended.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM = (
    "dpo_cli.cli.app",
    "dpo_cli.train.run",
    "dpo_cli.reference.precompute",
    "rich.live",
    "rich.progress",
    "scipy.stats",
    "pandas",
)


def happen_at(target: str, call: int, what: str) -> None:
    """Let something happen just before the n-th call of a function, counted from 1: a signal to this process, or an error of the system.

    Args:
        target: `package.module.function`, and after a `?` what the arguments of a call that counts contain.
        call: n.
        what: name of a signal or of an errno.
    """
    path, _, part = target.partition("?")
    module_name, _, attribute = path.rpartition(".")
    module = importlib.import_module(module_name)
    wrapped: Callable[..., Any] = getattr(module, attribute)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += part in repr(args)
        if calls == call and part in repr(args):
            if not what.startswith("SIG"):
                number = getattr(errno, what)
                raise OSError(number, os.strerror(number))
            os.kill(os.getpid(), signal.Signals[what])
        return wrapped(*args, **kwargs)

    setattr(module, attribute, counted)


def leave_the_network() -> None:
    """Put this process into a network of its own, with nothing in it (Linux; as root, or with user namespaces)."""
    new_user, new_network = 0x10000000, 0x40000000
    for flags in (new_network, new_user | new_network):
        if ctypes.CDLL(None).unshare(flags) == 0:
            return
    raise OSError("no namespaces here")


def become_dpo(request: dict[str, Any]) -> int:
    """Run the command line of a request in this process; give its exit code."""
    for number, name in enumerate(("out", "err"), start=1):
        handle = os.open(f"{request['out']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    for target, call, what in request["at"]:
        happen_at(target, call, what)
    for name, value in request["limits"].items():
        limit = getattr(resource, name)
        if limit == resource.RLIMIT_AS:  # room beside what importing took
            value += resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
    if request["offline"]:
        leave_the_network()
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
