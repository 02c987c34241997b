"""Stage fetch_checkpoint: download one file and keep it only if its checksum is as expected."""

import argparse
import shutil
import urllib.error
import urllib.request

from tqdm import tqdm

from defectflow.core.files import UserError, atomic, sha256_of, stage


def main(args: argparse.Namespace) -> None:
    """Download ``args.url`` to ``args.out``.

    Raises:
        UserError: the server does not respond, or the content has another size or sha256.
    """
    with atomic(args.out) as temporary:
        try:
            with urllib.request.urlopen(args.url, timeout=60) as response, temporary.open("wb") as stream:
                total = int(response.headers.get("Content-Length") or 0) or None
                if args.bytes and total and total != args.bytes:
                    raise UserError(f"{args.url}: has {total} bytes, expected {args.bytes} (nothing was fetched)")
                with tqdm.wrapattr(stream, "write", total=total, desc="download") as progress:
                    shutil.copyfileobj(response, progress, 1 << 20)
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise UserError(f"{args.url}: download failed ({error}); give the path of a local copy instead") from None
        size = temporary.stat().st_size
        if args.bytes and size != args.bytes:
            raise UserError(f"{args.url}: received {size} bytes, expected {args.bytes} (nothing was kept: try again)")
        found = sha256_of(temporary)
        if found != args.sha256:
            raise UserError(f"{args.url}: sha256 is {found}, expected {args.sha256} (nothing was kept)")


def build_parser() -> argparse.ArgumentParser:
    """Command line of this stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.segmentation.fetch_checkpoint", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--bytes", type=int, help="size in bytes, if known")
    parser.add_argument("--out", required=True)
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
