"""Certificates for an experiment: an authority of its own, gone with its folder."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from flowferry.testbed.errors import TestbedError


@dataclass(frozen=True)
class Certificate:
    """Paths of PEM files: a certificate, its key, and the authority that has signed it."""

    cert: str
    key: str
    ca: str


class Authority:
    """Issues certificates into a folder, by `openssl`."""

    def __init__(self, folder: Path) -> None:
        """Make the authority there. Raises `TestbedError` without openssl."""
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self._issue("ca", [], "critical,CA:TRUE", days=3)

    @property
    def ca(self) -> str:
        """The authority's own certificate."""
        return str(self.folder / "ca.pem")

    def issue(self, name: str, *, file: str | None = None, days: int = 2) -> Certificate:
        """A certificate that stands for `name`, a host's or an address.

        `file`: the files' name, if it is not to be `name`. Valid for `days`; below 0: expired.
        """
        kind = "IP" if name.replace(".", "").isdigit() or ":" in name else "DNS"
        by = ["-CA", self.ca, "-CAkey", str(self.folder / "ca.key")]
        file = file or name
        self._issue(file, by, "critical,CA:FALSE", f"subjectAltName={kind}:{name}", days=days)
        return Certificate(
            str(self.folder / f"{file}.pem"), str(self.folder / f"{file}.key"), self.ca
        )

    def close(self) -> None:
        """Forget the authority's key: nothing more can be signed."""
        (self.folder / "ca.key").unlink()

    def _issue(self, file: str, by: list[str], constraints: str, *more: str, days: int) -> None:
        key, request = self.folder / f"{file}.key", self.folder / f"{file}.csr"
        extensions = self.folder / f"{file}.ext"
        extensions.write_text("\n".join([f"basicConstraints={constraints}", *more]) + "\n")
        key.touch(mode=0o600)
        signing = by or ["-signkey", str(key)]
        if by:
            signing += ["-CAcreateserial"]
        try:
            for words in (
                ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-keyout", str(key), "-out", str(request), "-subj", f"/CN={file}"],
                ["x509", "-req", "-in", str(request), *signing, "-days", str(days),
                 "-extfile", str(extensions), "-out", str(self.folder / f"{file}.pem")],
            ):  # fmt: skip
                subprocess.run(["openssl", *words], check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise TestbedError("openssl is missing", "install the package openssl") from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines()
            raise TestbedError(
                f"openssl cannot issue a certificate ({said[-1] if said else 'it said nothing'})",
                "look at the machine's openssl",
            ) from None
        finally:
            request.unlink(missing_ok=True)
            extensions.unlink()
