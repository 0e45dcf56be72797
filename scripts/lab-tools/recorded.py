#!/usr/bin/env python3
"""Runs the ipvsadm lines of a recorded trace here, and compares texts and exit codes with the recorded ones.

    recorded.py TRACE.jsonl DIFFERENCES

DIFFERENCES says what may differ and why: `line REGEX => reason` for a whole command line, `omit REGEX => reason` for lines of a
recorded text that are not expected here. Every other difference is printed and makes the exit status 1. Services in the
kernel's unsorted listings are in hash order: compared as sets.
"""

import json
import re
import subprocess
import sys


def differences(path):
    lines, omitted = [], []
    with open(path, encoding="utf-8") as file:
        for row in file:
            if row.strip() and not row.startswith("#"):
                kind, rest = row.rstrip("\n").split(" ", 1)
                pattern, reason = rest.split(" => ", 1)
                {"line": lines, "omit": omitted}[kind].append((re.compile(pattern), reason))
    return lines, omitted


def blocks(text):
    """The listing's services, each with its servers, in any order."""
    result = []
    for line in text.splitlines():
        if line.startswith("  ->") and result:
            result[-1].append(line)
        else:
            result.append([line])
    return sorted(result)


def same(line, ours, recorded):
    if "--nosort" in line or "/proc/" in line:
        return blocks(ours) == blocks(recorded)
    return ours == recorded


def expected(text, omitted):
    kept = [line for line in text.splitlines(keepends=True) if not any(pattern.search(line) for pattern, _ in omitted)]
    return "".join(kept)


def shell(line):
    """ipvsadm is the wrapper; other programs that look at IPVS are run as it runs ipvsadm."""
    plain = ["sh", "-c", line]
    return plain if line.startswith("ipvsadm") else ["uvsctl", "exec", "--", *plain]


def main():
    trace = sys.argv[1]
    explained_lines, omitted = differences(sys.argv[2])
    equal = explained = wrong = 0
    with open(trace, encoding="utf-8") as file:
        records = [record for record in map(json.loads, file) if record["op"] == "ctl"]
    for record in records:
        line = record["line"].removeprefix("ctl ")
        done = subprocess.run(shell(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False)
        recorded = record.get("text", "")
        if done.returncode == record["rc"] and same(line, done.stdout, expected(recorded, omitted)):
            equal += 1
            continue
        reason = next((reason for pattern, reason in explained_lines if pattern.search(line)), None)
        if reason:
            explained += 1
            said = done.stdout.strip().splitlines()
            print(f"explained: {line} (status {done.returncode}: {said[0] if said else 'nothing said'}): {reason}")
            continue
        wrong += 1
        print(f"DIFFERS: {line}\nstatus {done.returncode}, recorded {record['rc']}; text:\n{done.stdout}recorded:\n{recorded}")
    print(f"{len(records)} lines, {equal} equal, {explained} explained, {wrong} differ")
    return 1 if wrong else 0


sys.exit(main())
