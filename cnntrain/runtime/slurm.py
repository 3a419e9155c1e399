"""What Slurm's srun tells each process that it starts, in the words of torchrun."""

import re
from collections.abc import Mapping

PLACE = ("SLURM_PROCID", "SLURM_LOCALID")  # of a process; the shell of a batch job has them too
SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")  # how many processes there are, in this order
SIGNS = ("SLURM_STEP_NUM_TASKS", "SLURM_LAUNCH_NODE_IPADDR")  # that srun started it, which that shell has not
NUMBERS = ("SLURM_JOB_ID", "SLURM_STEP_ID")
LEAST_PORT, PORTS = 15_000, 15_000


def variables(env: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE and the rest, as torchrun would set them; nothing where srun did not start this process.

    The first process is met on the first node of the step, at a port that follows from the numbers of job and step;
    MASTER_ADDR and MASTER_PORT of the environment come first.
    """
    size = next((env[name] for name in SIZES if env.get(name)), "")
    is_started = any(name in env for name in SIGNS) or "SLURM_JOB_ID" not in env
    if not size or not is_started or any(name not in env for name in PLACE):
        return {}
    local_size = _here(_first(env, "TASKS_PER_NODE"), env.get("SLURM_NODEID", "0")) or size
    hosts = _first(env, "NODELIST")
    away = _first_host(hosts) if hosts else env.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    job, step = (int("".join(re.findall("[0-9]", env.get(name, "")))[-18:] or 0) for name in NUMBERS)
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": size,
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": local_size,
        "MASTER_ADDR": env.get("MASTER_ADDR") or ("127.0.0.1" if local_size == size else away),
        "MASTER_PORT": env.get("MASTER_PORT") or str(LEAST_PORT + (31 * job + step) % PORTS),
    }


def source(env: Mapping[str, str], name: str) -> str:
    """The variable that one of `variables` was read from."""
    if name == "WORLD_SIZE":
        return next(key for key in SIZES if env.get(key))
    if name == "LOCAL_WORLD_SIZE":
        return next((key for key in _keys("TASKS_PER_NODE") if key in env), name)
    return dict(zip(("RANK", "LOCAL_RANK"), PLACE, strict=True)).get(name, name)


def _first(env: Mapping[str, str], name: str) -> str:
    """A fact of the step, else of the job."""
    return next((env[key] for key in _keys(name) if key in env), "")


def _keys(name: str) -> tuple[str, ...]:
    return f"SLURM_STEP_{name}", f"SLURM_JOB_{name}", f"SLURM_{name}"


def _first_host(hosts: str) -> str:
    """`node[03-07,9],other` begins with node03."""
    match = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\])?([^\[,]*)", hosts)
    return "".join(part or "" for part in match.groups()) if match else hosts


def _here(tasks: str, node: str) -> str:
    """How many tasks a node has: `2(x3),1` says 2 for each of the first three and 1 for the fourth; "": not said."""
    if not node.isdecimal() or len(node) > 9:
        return ""
    before = int(node)
    for count, times in re.findall(r"([0-9]+)(?:\(x([0-9]{1,18})\))?", tasks):
        if before < int(times or 1):
            return str(count)
        before -= int(times or 1)
    return ""
