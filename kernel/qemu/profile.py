#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""profile.py VMLINUZ UMCG_KO UMCG_TEST ONE OTHER: which functions the instructions of a call are in.

Boots the kernel with one CPU, runs `umcg-test bench`, and logs every instruction of two of its
measurements, by the names that it prints: nanosleep, "nanosleep of a worker", futex, "server
round", ... Prints for each function how many instructions a round takes in the two, largest
difference first.
"""
import collections, os, re, socket, subprocess, sys, tempfile, threading

GUEST = """
# A kernel tests its ciphers for a while after boot.
while pidof cryptomgr_test > /dev/null; do sleep 1; done
stty -F /dev/ttyS1 raw -echo
cat /proc/kallsyms > /dev/ttyS1
echo symbols-end > /dev/ttyS1
export UMCG_MARK=/dev/ttyS1
/umcg-test bench 200
"""


def listen(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(1)
    return server


class Monitor:
    def __init__(self, connection):
        self.connection = connection
        self.reply()

    def reply(self):
        text = b""
        while not text.endswith(b"(qemu) "):
            text += self.connection.recv(4096)

    def say(self, command):
        self.connection.sendall(command.encode() + b"\n")
        self.reply()


def record(kernel, module, test, wanted, folder):
    """Returns the kernel's symbols, and for each wanted measurement its rounds and its log file."""
    script = os.path.join(folder, "script")
    with open(script, "w") as file:
        file.write(GUEST)
    monitors, lines = (listen(os.path.join(folder, name)) for name in ("monitor", "line"))
    boot = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.sh")
    more = f"-chardev socket,id=m,path={folder}/monitor -mon chardev=m,mode=readline" \
           f" -chardev socket,id=l,path={folder}/line -serial chardev:l"
    guest = subprocess.Popen([boot, "--kernel", kernel, "--module", module, "--script", script,
                              "--add", f"{test}:/umcg-test", "--icount", "--time", "900",
                              "--append", "nokaslr", "--qemu", more])
    monitor = Monitor(monitors.accept()[0])
    line, _ = lines.accept()
    symbols, logs, reader = [], {}, line.makefile("rb")
    for text in reader:
        words = text.decode(errors="replace").split()
        if words == ["symbols-end"]:
            break
        if len(words) >= 3 and words[1] in "tTwW":
            symbols.append((int(words[0], 16), words[2]))
    for text in reader:
        rounds, what = text.decode().strip().split(" ", 1)
        if what == "end":
            monitor.say("log none")
            monitor.say("singlestep off")
        elif what in wanted:
            log = os.path.join(folder, f"log-{len(logs)}")
            logs[what] = int(rounds), log
            monitor.say(f"logfile {log}")
            monitor.say("singlestep on")
            monitor.say("log exec,nochain")
        line.sendall(b"\n")
        if what == "end" and len(logs) == len(wanted):
            break
    # The guest waits for an answer to every line.
    threading.Thread(target=lambda: [line.sendall(b"\n") for _ in reader], daemon=True).start()
    if guest.wait():
        sys.exit("profile.py: the guest failed")
    return sorted(symbols), logs


def count(rounds, log, symbols):
    """Returns the instructions per round of each function."""
    import bisect

    starts = [address for address, _ in symbols]
    pcs = collections.Counter()
    with open(log, errors="replace") as file:
        for text in file:
            found = re.match(r"Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", text)
            if found:
                pcs[int(found[1], 16)] += 1
    functions = collections.Counter()
    for pc, times in pcs.items():
        if pc < 1 << 63:
            functions["(user)"] += times
        else:
            functions[symbols[max(bisect.bisect(starts, pc) - 1, 0)][1]] += times
    return {name: times / rounds for name, times in functions.items()}


def main():
    *files, one, other = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        symbols, logs = record(*files, {one, other}, folder)
        first, second = (count(*logs[what], symbols) for what in (one, other))
    for what, functions in ((one, first), (other, second)):
        own = sum(n for name, n in functions.items() if name.startswith("umcg_"))
        print(f"{what}: {sum(functions.values()):.0f} instructions, {own:.0f} of them in the module")
    more = {name: second.get(name, 0) - first.get(name, 0) for name in {*first, *second}}
    for name, n in sorted(more.items(), key=lambda item: -abs(item[1]))[:60]:
        print(f"{n:+9.1f}  {first.get(name, 0):9.1f} {second.get(name, 0):9.1f}  {name}")


if len(sys.argv) != 6:
    sys.exit(__doc__)
main()
