"""A real Slurm of one node on this machine, from Debian's packages, all of it in one folder but a link to its settings.

Partitions cpu and gpu, two GPUs that are /dev/null and /dev/zero, memory limits that are kept (cgroup v1). Needs root.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
MEMORY = 6000  # MB
# Where clients look that have lost SLURM_CONF, as the srun within a job of Snakemake's plug-in.
LINK = Path("/etc/slurm/slurm.conf")
SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_min_interval=0,sched_interval=1,batch_sched_delay=0,bf_interval=1
MinJobAge=3600
ReturnToService=2
KillWait=5
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=node1 Default=YES MaxTime=1440 State=UP
PartitionName=gpu Nodes=node1 MaxTime=1440 State=UP
"""
CGROUP = """
CgroupPlugin=cgroup/v1
CgroupAutomount=no
ConstrainCores=yes
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
ConstrainDevices=no
"""
GRES = """
AutoDetect=off
NodeName=node1 Name=gpu File=/dev/null
NodeName=node1 Name=gpu File=/dev/zero
"""


def missing() -> str:
    """Why no Slurm can be started here; "" if it can."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    if absent := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        return f"{', '.join(absent)} not installed (apt-get install {' '.join(PACKAGES)})"
    if LINK.exists():
        return f"this machine has a Slurm already ({LINK})"
    if not Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        return "no memory controller of cgroup v1"
    return ""


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and slurmd; yield the environment for clients; stop them, whatever still runs."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    values = {"folder": folder, "host": socket.gethostname(), "ports": _free_ports(2), "memory": MEMORY}
    (folder / "slurm.conf").write_text(SLURM.format(**values))
    (folder / "cgroup.conf").write_text(CGROUP)
    (folder / "gres.conf").write_text(GRES)
    files = {"socket": "sock", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munged = ["munged", "--foreground", "--force", *(f"--{k}={folder}/munge.{v}" for k, v in files.items())]
    daemons = []
    LINK.parent.mkdir(exist_ok=True)
    LINK.unlink(missing_ok=True)  # of a run that was killed: it leads nowhere, or missing() would have told
    LINK.symlink_to(folder / "slurm.conf")
    try:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "node1"]):
            log = open(folder / f"{command[0]}.out", "w")  # noqa: SIM115
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(1)
        for _ in range(60):
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
            if state.stdout.split() and set(state.stdout.split()) == {"idle"}:
                break
            time.sleep(1)
        else:
            logs = "\n".join(path.read_text() for path in sorted(folder.glob("*.out")))
            raise RuntimeError(f"Slurm does not come up: {state.stdout}{state.stderr}\n{logs}")
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root", "--signal=KILL"], env=environment, capture_output=True, timeout=30)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        LINK.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
