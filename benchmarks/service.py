"""The service: requests a second and waiting times by number of clients, memory, a full queue, killed workers.

    python benchmarks/service.py results/demo/template/crop/patchcore/bundle results/demo/source/images
    python benchmarks/service.py BUNDLE PHOTOGRAPHS --seconds 60 --requests 10000
    python benchmarks/service.py BUNDLE PHOTOGRAPHS --peer --also BUNDLE_IN_BFLOAT16 --seconds 10

With ``--peer``, the times of anomalib's OpenVINOInferencer behind the same web server stand beside ours, and nothing
else is measured: the same backbone and bank, but no part is found and isolated before.

Clients send one photograph at a time over a connection that stays open, and the next when the answer is there. Every
verdict and score is compared with the inspector's own; one that differs ends the script. Clients and service share the
processor.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.latency import quantile
from defectflow.inspection.photo_sources import photographs

Answer = tuple[int, dict[str, Any], float]  # status, content, seconds


def form(path: Path) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with one photograph."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n\r\n'.encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return head + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode(), headers


@contextmanager
def serving(*command: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A web server that is ready, as (process, port); it prints "listening on ...:PORT" to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        words = [sys.executable, *map(str, command)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with log.open("w") as stream:
            process = subprocess.Popen(words, stderr=stream, stdout=stream, env=environment)
        try:
            while "listening on" not in (text := log.read_text()):
                if process.poll() is not None:
                    sys.exit(text)
                time.sleep(0.1)
            port = int(text.partition("listening on")[2].split()[0].rpartition(":")[2])
            while get(port, "/v1/ready")[0] != 200:
                if process.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.1)
            yield process, port
        finally:
            process.terminate()
            process.wait()


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and content; status 0 if nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except ConnectionError:
        return 0, b""
    finally:
        connection.close()


def clients(
    port: int, paths: list[Path], count: int, go_on: Callable[[int], bool], seen: Callable[[Path, Answer], None]
) -> float:
    """Send photographs from ``count`` clients while ``go_on(number of requests)``; seconds that it took."""
    forms = [(path, *form(path)) for path in paths]
    lock, sent, problems = threading.Lock(), [0], list[BaseException]()

    def send(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            while True:
                with lock:
                    if problems or not go_on(sent[0]):
                        return
                    place, sent[0] = sent[0], sent[0] + 1
                path, body, headers = forms[place % len(forms)]
                start = time.perf_counter()
                connection.request("POST", "/v1/inspect", body, headers)
                answer = connection.getresponse()
                content = json.loads(answer.read())
                with lock:
                    seen(path, (answer.status, content, time.perf_counter() - start))
                if answer.status == 429:
                    time.sleep(0.02)  # a client that is impatient
        except BaseException as error:
            problems.append(error)
        finally:
            connection.close()

    threads, start = [threading.Thread(target=send, args=(number,)) for number in range(count)], time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return time.perf_counter() - start


def within(seconds: float) -> Callable[[int], bool]:
    """Go on for so long."""
    end = time.perf_counter() + seconds
    return lambda _: time.perf_counter() < end


def figure(port: int, name: str) -> float:
    """The sum of a figure of /metrics over its labels."""
    lines = get(port, "/metrics")[1].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def processes(parent: int) -> list[int]:
    """A process and its children."""
    found = [parent]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "status").read_text()
            except OSError:  # it has ended
                continue
            if f"\nPPid:\t{parent}\n" in status and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def megabytes(process: int) -> float:
    """Resident memory."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measured(
    port: int, paths: list[Path], count: int, seconds: float, seen: Callable[[Path, Answer], None]
) -> tuple[float, list[float]]:
    """Photographs a second of so many clients, and p50, p95, p99 of the waiting time in milliseconds."""
    times: list[float] = []

    def note(path: Path, answer: Answer) -> None:
        seen(path, answer)
        if answer[0] == 200:
            times.append(answer[2])

    took = clients(port, paths, count, within(seconds), note)
    return len(times) / took, [1000 * quantile(sorted(times), q) for q in (0.5, 0.95, 0.99)]


def warm(port: int, paths: list[Path], requests: int) -> None:
    """Send some photographs, so that every worker has judged one."""
    clients(port, paths, 4, lambda number: number < requests, lambda *_: None)


def by_clients(port: int, paths: list[Path], args: argparse.Namespace, seen: Callable[[Path, Answer], None]) -> None:
    """Print requests a second and quantiles of the waiting time for each number of clients."""
    warm(port, paths, 2 * len(paths[:20]))
    for count in args.clients:
        rate, times = measured(port, paths, count, args.seconds, seen)
        print(f"| {count} | {rate:.1f} | {' | '.join(f'{time:.0f}' for time in times)} |", flush=True)


def beside_anomalib(paths: list[Path], args: argparse.Namespace) -> None:
    """Print the same of each service in turn: anomalib's inferencer in float32 and by default, and ours."""
    from anomalib_peer import anomalib_graph

    def answered(path: Path, answer: Answer) -> None:
        if answer[0] != 200 or answer[1]["results"][0]["cause"]:
            raise SystemExit(f"{path}: {answer}")

    with tempfile.TemporaryDirectory() as place, ExitStack() as running:
        bundle = args.bundle.resolve()
        with chdir(place):  # anomalib makes a folder for its cache where it runs
            graph = anomalib_graph(bundle, Path(place)).resolve()
        peer = [Path(__file__).parent / "anomalib_service.py", bundle, graph]
        options = ["--port", 0, "--workers", args.workers, "--timeout", 120, "--runtime", "openvino"]
        commands = {
            "anomalib, float32": [*peer, "f32", args.workers],
            "anomalib, default": [*peer, "default", args.workers],
        }
        commands["defectflow"] = ["-m", "defectflow", "serve", bundle, *options]
        for also in args.also:
            commands[f"defectflow, {read_bundle(also).settings['network']['precision']}"] = [
                "-m",
                "defectflow",
                "serve",
                also,
                *options,
            ]
        ports = {name: running.enter_context(serving(*command))[1] for name, command in commands.items()}
        for port in ports.values():
            warm(port, paths, 4 * args.workers)
        print(f"{len(paths)} photographs, {args.workers} workers, {args.seconds:g} s each, one after the other\n")
        print("| clients | service | photographs a second | p50 ms | p95 ms | p99 ms | times float32 | default |")
        print("|---" * 8 + "|")
        for count in args.clients:
            rates: list[float] = []
            for name, port in ports.items():
                rate, times = measured(port, paths, count, args.seconds, answered)
                rates.append(rate)
                ratios = [f"{rate / other:.1f}" if len(rates) > 2 else "" for other in rates[:2]]
                cells = [*(f"{time:.0f}" for time in times), *ratios, *[""] * (2 - len(ratios))]
                print(f"| {count} | {name} | {rate:.1f} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run all of it and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--seconds", type=float, default=5, help="for each number of clients (%(default)g)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64], help="(1 4 16 64)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="(%(default)s)")
    parser.add_argument("--requests", type=int, default=500, help="that memory is watched over (%(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="workers to kill (%(default)s)")
    parser.add_argument("--peer", action="store_true", help="only: beside anomalib's OpenVINOInferencer")
    parser.add_argument("--also", nargs="+", default=[], type=Path, help="more bundles of ours, for --peer")
    args = parser.parse_args()
    paths = list(photographs(args.photographs))[:60]
    if args.peer:
        beside_anomalib(paths, args)
        return
    inspector = Inspector.load(args.bundle)
    verdicts = {path: inspector(path) for path in paths}
    expected = {path: (verdict.raw_score, verdict.bad) for path, verdict in verdicts.items()}
    statuses: Counter[str] = Counter()

    def seen(path: Path, answer: Answer) -> None:
        status, content, _ = answer
        statuses[str(status)] += 1
        if status == 200:
            (result,) = content["results"]
            statuses[result["cause"] or "judged"] += 1
            if not result["cause"] and (result["raw_score"], result["bad"]) != expected[path]:
                raise SystemExit(f"{path}: {result} instead of {expected[path]}")

    command = ["-m", "defectflow", "serve", args.bundle, "--port", 0, "--workers", args.workers, "--timeout", 120]
    table = "\n| clients | photographs a second | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|"
    with serving(*command) as (process, port):
        print(f"{len(paths)} photographs, {args.workers} workers, {args.seconds:g} s for each number of clients")
        print(table)
        by_clients(port, paths, args, seen)
        if statuses.keys() - {"200", "judged"}:
            sys.exit(f"not all were judged: {dict(statuses)}")
        print(f"\nMemory in MB over {args.requests} requests, the service and its workers:")
        for share in (0.1, 0.5, 1.0):
            many = int(args.requests * (share - {0.1: 0, 0.5: 0.1, 1.0: 0.5}[share]))
            clients(port, paths, 4, lambda number, many=many: number < many, seen)
            sizes = ", ".join(f"{megabytes(number):.0f}" for number in processes(process.pid))
            print(f"- after {args.requests * share:.0f}: {sizes}", flush=True)
        statuses.clear()
        stop = threading.Event()

        def kill() -> None:
            for _ in range(args.kills):
                time.sleep(1)
                if workers := processes(process.pid)[1:]:
                    os.kill(workers[0], signal.SIGKILL)
                time.sleep(2)
            stop.set()

        killer = threading.Thread(target=kill)
        killer.start()
        clients(port, paths, 8, lambda _: not stop.is_set(), seen)
        killer.join()
        print(f"\n{args.kills} workers killed among 8 clients: {dict(statuses)}")
        if statuses["worker"] > args.kills or set(statuses) - {"200", "judged", "worker"}:
            sys.exit("a killed worker has cost more than its own photograph")
    statuses.clear()
    with serving(*command, "--queue", 4) as (_, port):
        clients(port, paths, 32, within(args.seconds), seen)
        print(f"\n32 clients and a queue of 4: {dict(statuses)}")
        judged = figure(port, "defectflow_verdicts_total")
        if statuses["judged"] != statuses["200"] or judged != statuses["200"]:
            sys.exit(f"a photograph was lost: the service has judged {judged:.0f}")


if __name__ == "__main__":
    main()
