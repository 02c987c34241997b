"""Options of `defectflow serve`. Standard library only: the command line imports this module."""

from dataclasses import dataclass
from pathlib import Path

from defectflow.core.addresses import is_loopback
from defectflow.core.files import UserError

MEGA = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of the service.

    Attributes:
        bundles: each a BUNDLE or NAME=BUNDLE.
        host, port: address to listen on; port 0: any free port.
        workers: processes that judge.
        threads: computing threads of each.
        runtime, precision: see `Inspector.load`.
        queue: photographs that may wait.
        timeout: seconds within which every request is answered; a worker that computes longer is killed.
        body: largest size of a request in bytes.
        held: largest size of all requests together in bytes.
        pixels: largest number of pixels of a photograph.
        pictures: largest number of photographs in a request.
        tokens: file of `defectflow token`; None: no access control.
        rate: requests per second for each token, or for each address without tokens; None: unlimited.
        certificate, key: PEM files for TLS.
        csv, webhook, webhook_token, mqtt, mqtt_login, mqtt_ca: see `delivery.destinations`.
        opcua, opcua_login: see `delivery.opcua`.
        spool: folder for verdicts that wait for delivery.
    """

    bundles: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int = 1
    runtime: str = "auto"
    precision: str = "fp32"
    queue: int = 64
    timeout: float = 30.0
    body: int = 32 * MEGA
    held: int = 256 * MEGA
    pixels: int = 100 * MEGA
    pictures: int = 32
    tokens: Path | None = None
    rate: float | None = None
    certificate: Path | None = None
    key: Path | None = None
    csv: Path | None = None
    webhook: str | None = None
    webhook_token: Path | None = None
    mqtt: str | None = None
    mqtt_login: Path | None = None
    mqtt_ca: Path | None = None
    opcua: str | None = None
    opcua_login: Path | None = None
    spool: Path | None = None

    @property
    def address(self) -> str:
        """URL of the service, without a trailing slash."""
        host = self.host.strip("[]")
        return f"{'https' if self.certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def check(self) -> None:
        """Refuse options that do not work or are not safe.

        Raises:
            UserError: a number is too small, a file is missing, or the address is open to others without tokens.
        """
        for name in ("workers", "threads", "queue", "pictures", "body", "pixels"):
            if getattr(self, name) < 1:
                raise UserError(f"--{_flag(name)}: must be more than 0")
        if not 0 < self.timeout < 1e6 or not (self.rate is None or 0 < self.rate < 1e6):
            raise UserError("--timeout, --rate: must be more than 0")
        if not 0 <= self.port < 1 << 16:
            raise UserError(f"--port {self.port}: must be a number from 0 to 65535")
        if self.tokens is None and not is_loopback(self.host):
            raise UserError(
                f"--host {self.host}: others can reach this address, so tokens are needed "
                "(make one with `defectflow token tokens.json NAME`, then give --tokens tokens.json)"
            )
        if bool(self.certificate) != bool(self.key):
            raise UserError("--certificate and --key: TLS needs both")
        for name in ("tokens", "certificate", "key", "webhook_token", "mqtt_login", "mqtt_ca", "opcua_login"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise UserError(f"--{_flag(name)} {path}: no such file")
        if (self.csv or self.webhook or self.mqtt or self.opcua) and not self.spool:
            raise UserError(
                "--csv, --webhook, --mqtt, --opcua: need --spool FOLDER, where verdicts wait until they are delivered"
            )


def _flag(name: str) -> str:
    return {"body": "max-body", "pixels": "max-pixels", "pictures": "max-pictures"}.get(name, name.replace("_", "-"))
