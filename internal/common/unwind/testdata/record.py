# Steps through a program in gdb, and writes the registers, the stack and gdb's own backtrace at
# each instruction. Of the environment: OUT, the file; STEPS, how many; and SIGNALS, to be passed on.
import base64
import json
import os

import gdb

STACK = 32 << 10
RED_ZONE = 128

for command in (
    "set pagination off",
    "set confirm off",
    "set debuginfod enabled off",
    "set backtrace past-main on",
    "set backtrace past-entry on",
    "handle all nostop noprint pass",
    "break main",
    "run",
):
    gdb.execute(command, to_string=True)

inferior = gdb.selected_inferior()
names = ("rip", "rsp", "rbp") if "x86" in inferior.architecture().name() else ("pc", "sp", "x29", "x30")


def maps():
    with open("/proc/%d/maps" % inferior.pid) as f:
        for line in f:
            fields = line.split(None, 5)
            start, end = (int(x, 16) for x in fields[0].split("-"))
            yield start, end, fields[1], int(fields[2], 16), (fields[5].strip() if len(fields) > 5 else "")


def memory(sp):
    for start, end, _, _, _ in maps():
        if start <= sp < end:
            begin = max(start, sp - RED_ZONE)
            return begin, bytes(inferior.read_memory(begin, min(end - begin, STACK)))
    return sp, b""


def backtrace():
    pcs = []
    frame = gdb.newest_frame()
    while frame is not None and frame.is_valid() and len(pcs) < 1024:
        if frame.type() != gdb.INLINE_FRAME:
            pcs.append(frame.pc())
        frame = frame.older()
    return pcs


mapped = [m for m in maps() if "x" in m[2]]
with open(os.environ["OUT"], "w") as out:
    out.write(json.dumps({"maps": [{"start": m[0], "end": m[1], "offset": m[3], "path": m[4]} for m in mapped]}) + "\n")
    for _ in range(int(os.environ["STEPS"])):
        if not inferior.pid:
            break
        frame = gdb.newest_frame()
        registers = [int(frame.read_register(n).cast(gdb.lookup_type("unsigned long"))) for n in names]
        start, stack = memory(registers[1])
        record = {"registers": registers, "start": start, "stack": base64.b64encode(stack).decode(), "pcs": backtrace()}
        out.write(json.dumps(record) + "\n")
        gdb.execute("stepi", to_string=True)
if inferior.pid:
    gdb.execute("kill", to_string=True)
