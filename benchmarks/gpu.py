"""What can only be known on a GPU: one program, most valuable claim first, results on disk after each of them.

    python benchmarks/gpu.py data=DIR [budget=400] [only=smoke,sync] [device=cuda] [tiny=false] [out=$OUT]

Each stage is a process of its own, so that a crash, a hang or a broken CUDA context costs that stage alone. What is
done is kept in out/gpu.json and in the temporary folder: a second call on the same warm machine goes on behind it.
A stage that would not fit the rest of the budget is left for that call. The last lines are a table.
"""

import json
import subprocess
import sys
import time

from gpu_stages import STAGES
from gpu_tools import OUT, WORDS, all_kept, kept, save_part


def main():
    if "stage" in WORDS:
        stage = next(stage for stage in STAGES if stage.__name__ == WORDS["stage"])
        save_part(stage.__name__, stage())
        return
    end = time.monotonic() + float(WORDS.get("budget", 400))
    known = all_kept()
    chosen = WORDS.get("only", "").split(",") if "only" in WORDS else [stage.__name__ for stage in STAGES]
    OUT.mkdir(parents=True, exist_ok=True)
    for stage, seconds in STAGES.items():
        name, left = stage.__name__, end - time.monotonic()
        if name not in chosen or (name in known and "fault" not in known[name]):
            continue
        if left < seconds:
            print(f"{name}: left out, {left:.0f} s are left and it takes {seconds}", flush=True)
            continue
        begin = time.monotonic()
        try:
            said = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], f"stage={name}", f"out={OUT}"],
                timeout=min(left, 2.5 * seconds + 20),
                capture_output=True,
                text=True,
            )
            fault = "" if said.returncode == 0 else said.stderr[-1500:].strip() or f"exit {said.returncode}"
        except subprocess.TimeoutExpired as late:
            fault = f"longer than {late.timeout:.0f} s"
        if fault:
            save_part(name, kept(name) | {"fault": fault})
        told = f"FAULT {fault.splitlines()[-1][:200]}" if fault else ""
        print(f"{name}: {time.monotonic() - begin:.0f} s {told}", flush=True)
    print(json.dumps(all_kept(), indent=1)[-11000:])


if __name__ == "__main__":
    main()
