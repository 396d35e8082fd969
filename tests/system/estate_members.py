"""Members of an estate that are processes of their own, told what to do line by line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys
from flowferry import estate

def say(**told):
    print(json.dumps(told), flush=True)

options = json.loads(sys.argv[1])
if "tls" in options:
    options["tls"] = estate.Tls(*options["tls"])
try:
    es = estate.open(**options)
except estate.EstateError as error:
    say(error=type(error).__name__, text=str(error))
    sys.exit(1)
with es:
    say(ok=es.node)
    for line in sys.stdin:
        call, args, options = json.loads(line)
        try:
            done = getattr(es, call)(*args, **options)
            if isinstance(done, estate.View):
                done = {"value": done.value, "missing": done.missing}
            say(ok=done)
        except estate.IncompleteError as error:
            view = error.view
            say(error="IncompleteError", text=str(error), missing=view.missing, value=view.value)
        except estate.EstateError as error:
            say(error=type(error).__name__, text=str(error))
"""

#: Starts a program with pipes for its input and output.
Start = Callable[[Sequence[str]], "subprocess.Popen[str]"]


def here(argv: Sequence[str]) -> "subprocess.Popen[str]":
    """Start a program where the caller is."""
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def stop(process: "subprocess.Popen[str]") -> None:
    """Stop a process, and wait until it has: between the signal and that it may still answer."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


class Refused(Exception):
    """The member's estate raised an error."""

    def __init__(self, told: dict[str, Any]) -> None:
        """Give what the member told of it: `error`, its class, `text`, and what a view said."""
        super().__init__(f"{told['error']}: {told['text']}")
        self.told = told


class Member:
    """A process with an open estate."""

    def __init__(self, start: Start = here, **options: Any) -> None:
        """Open it with these options of `estate.open`. Raises `Refused` if that fails."""
        options.setdefault("timeout", 10.0)
        self.node = options["node"]
        self.process = start([sys.executable, "-c", PROGRAM, json.dumps(options)])
        try:
            self.reply()
        except BaseException:
            self.end()
            raise

    def order(self, call: str, *args: Any, **options: Any) -> None:
        """Have a method of its estate called; `reply` gives what it returns."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([call, args, options]) + "\n")
        self.process.stdin.flush()

    def reply(self) -> Any:
        """What the method ordered first has returned. Raises `Refused` if it raised."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.node} has ended"
        told = json.loads(line)
        if "error" in told:
            raise Refused(told)
        return told["ok"]

    def say(self, call: str, *args: Any, **options: Any) -> Any:
        """Call a method of its estate."""
        self.order(call, *args, **options)
        return self.reply()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        """Stop it where it is; it does nothing more when this returns."""
        stop(self.process)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait(30)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Authority:
    """An authority, and the certificates that it signs."""

    def __init__(self, folder: Path) -> None:
        """Make its key and certificate in a folder that is not there yet."""
        folder.mkdir()
        self.folder = folder
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-days", "2", "-subj", "/CN=authority",
                      "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip

    def issue(self, name: str) -> tuple[str, str, str]:
        """Files for `Tls`: the authority, a certificate that stands for `name`, its key."""
        made, wanted = f"{name}.pem", f"{name}.csr"
        (self.folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{name}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", wanted)  # fmt: skip
        self._openssl("x509", "-req", "-in", wanted, "-CA", "ca.pem", "-CAkey", "ca.key",
                      "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext",
                      "-out", made)  # fmt: skip
        ca, certificate, key = (self.folder / file for file in ("ca.pem", made, f"{name}.key"))
        return str(ca), str(certificate), str(key)

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=self.folder)
