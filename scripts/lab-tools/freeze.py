#!/usr/bin/env python3
"""Stops one thread of a process for a while, as a hung driver would: the others go on.

    freeze.py THREAD_ID SECONDS

A signal stops whole processes; ptrace stops one thread. Says "ready" when it stands still.
"""

import ctypes
import os
import sys
import time

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WAIT_FOR_THREADS_TOO = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) < 0:
        sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")


thread, seconds = int(sys.argv[1]), float(sys.argv[2])
ptrace(PTRACE_SEIZE, thread)
ptrace(PTRACE_INTERRUPT, thread)
os.waitpid(thread, WAIT_FOR_THREADS_TOO)
print("ready", flush=True)
time.sleep(seconds)
ptrace(PTRACE_DETACH, thread)
