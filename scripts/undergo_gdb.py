# SPDX-License-Identifier: Apache-2.0
"""gdb commands for programs that run under undergo's scheduler.

    (gdb) source scripts/undergo_gdb.py
    (gdb) undergo threads            every thread with its state and what it waits for
    (gdb) undergo bt N               the call chain of thread N (its goid, as listed), parked or not
    (gdb) undergo switch N           look at parked thread N with all of gdb's commands
    (gdb) undergo back               give the registers back: before the program goes on

A parked thread has no kernel thread, so gdb's own `info threads` does not know it. `switch` puts its
saved registers into the selected kernel thread; without `back` the program would go on with them,
so `continue` is refused meanwhile.
"""
import gdb

STATES = {
    "kRunnable": "runnable", "kRunning": "running", "kSyscall": "syscall",
    "kPinned": "running, locked to thread",
}
WAITS = [
    "", "sleep", "mutex", "condition variable", "semaphore", "rwlock", "barrier", "once", "join",
    "futex", "IO read", "IO write", "poll", "signal",
]
REGISTERS = ["rip", "rsp", "rbp", "rbx", "r12", "r13", "r14", "r15", "fs_base"]
PTHREAD_TID = 720


def short(value):
    return str(value).rsplit("::", 1)[-1]


def word(address):
    pointer = gdb.lookup_type("unsigned long").pointer()
    return int(gdb.Value(address).cast(pointer).dereference())


def variable(name):
    """By the whole program's symbols: the selected frame may be in another language."""
    symbol = gdb.lookup_global_symbol(name) or gdb.lookup_static_symbol(name)
    if symbol is None:
        raise gdb.GdbError("undergo: the library is not loaded, or has no debug information")
    return symbol.value()


def all_threads():
    """The live Gs, main first."""
    main = variable("undergo::sched::main_g")
    if int(main["fs"]) != 0 and short(main["state"]) != "kDead":
        yield main
    slot = variable("undergo::sched::(anonymous namespace)::all_slots")
    while int(slot) != 0:
        g = slot.dereference()
        slot = g["all_next"]
        if int(g["fs"]) == 0 or short(g["state"]) in ("kIdle", "kDead"):
            continue
        if word(int(g["fs"]) + PTHREAD_TID) & 0xFFFFFFFF:
            yield g


def find(goid):
    for g in all_threads():
        if int(g["goid"]) == goid:
            return g
    raise gdb.GdbError("undergo: no thread %d; `undergo threads` lists them" % goid)


def is_parked(g):
    return int(g["on_cpu"]) == 0


def saved_registers(g):
    """What undergo_switch left on the stack (lib/plat/context.h)."""
    sp = int(g["sp"])
    names = ["r15", "r14", "r13", "r12", "rbx", "rbp", "rip"]
    registers = {name: word(sp + 16 + 8 * i) for i, name in enumerate(names)}
    registers["rsp"] = sp + 72
    registers["fs_base"] = int(g["fs"])
    return registers


def state(g):
    name = short(g["state"])
    if name == "kWaiting":
        return WAITS[int(g["why"])]
    return STATES.get(name, name)


class Switched:
    """The registers of the kernel thread that shows another thread, while it does."""

    thread = None
    registers = None

    @classmethod
    def enter(cls, g):
        if not is_parked(g):
            raise gdb.GdbError("undergo: the thread runs: kernel thread %d has it" %
                               int(g["m"].dereference()["tid"]))
        if cls.registers is None:
            frame = gdb.newest_frame()
            cls.thread = gdb.selected_thread()
            cls.registers = {r: int(frame.read_register(r)) for r in REGISTERS}
        gdb.newest_frame().select()
        for name, value in saved_registers(g).items():
            gdb.execute("set $%s = %d" % (name, value), to_string=True)

    @classmethod
    def leave(cls):
        if cls.registers is None:
            return False
        cls.thread.switch()
        gdb.newest_frame().select()
        for name, value in cls.registers.items():
            gdb.execute("set $%s = %d" % (name, value), to_string=True)
        cls.registers = None
        return True


class Undergo(gdb.Command):
    """Threads of undergo's scheduler: threads, bt N, switch N, back."""

    def __init__(self):
        super().__init__("undergo", gdb.COMMAND_STACK, gdb.COMPLETE_NONE, True)


class Threads(gdb.Command):
    """List every thread: goid, tid, state, function."""

    def __init__(self):
        super().__init__("undergo threads", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        print("%6s %9s  %-24s %s" % ("goid", "tid", "state", "starts with"))
        for g in all_threads():
            start = int(g["start"])
            symbol = gdb.execute("info symbol %d" % start, to_string=True).split(" ")[0] if start else "main"
            print("%6d %9d  %-24s %s" % (int(g["goid"]), int(g["tid"]), state(g), symbol))


class Backtrace(gdb.Command):
    """Print the call chain of the thread with this goid."""

    def __init__(self):
        super().__init__("undergo bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        g = find(int(argument))
        if not is_parked(g):
            tid = int(g["m"].dereference()["tid"])
            for thread in gdb.selected_inferior().threads():
                if thread.ptid[1] == tid:
                    thread.switch()
            gdb.execute("bt")
            return
        nested = Switched.registers is not None
        if nested:
            raise gdb.GdbError("undergo: another thread is shown; `undergo back` first")
        Switched.enter(g)
        try:
            gdb.execute("bt")
        finally:
            Switched.leave()


class Switch(gdb.Command):
    """Show the parked thread with this goid in the selected kernel thread."""

    def __init__(self):
        super().__init__("undergo switch", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        Switched.enter(find(int(argument)))
        gdb.execute("frame")


class Back(gdb.Command):
    """Give the registers back."""

    def __init__(self):
        super().__init__("undergo back", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if not Switched.leave():
            raise gdb.GdbError("undergo: no thread is shown")
        gdb.execute("frame")


def before_continue(event):
    if Switched.leave():
        print("undergo: registers given back before the program goes on")


Undergo()
Threads()
Backtrace()
Switch()
Back()
gdb.events.cont.connect(before_continue)
