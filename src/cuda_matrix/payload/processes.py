"""Owns one forked process at a time: its pipes, its deadline, its end, and whatever it leaves behind.

Used twice: the supervisor runs its worker with it, the worker runs every check with it. Must not know what they do.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time

from . import events

OUTPUT_LIMIT = 16384  # bytes of output that are kept: the last ones
MESSAGE_LIMIT = 1 << 20  # bytes of one message; a longer one is dropped
_CHUNK = 65536
_READ_LIMIT_S = 1.0
_IDLE_S = 0.005  # how long a process must have been silent before its parent does something else
_POLL_S = 0.2  # how soon an end is seen where a grandchild keeps the pipes open
_LEAVING = []  # killed children of this process whose end was not waited for yet

SIGNAL_TEXTS = {
    "SIGSEGV": "Segmentation fault",
    "SIGABRT": "Aborted",
    "SIGBUS": "Bus error",
    "SIGFPE": "Floating point exception",
    "SIGILL": "Illegal instruction",
    "SIGKILL": "Killed",
    "SIGTERM": "Terminated",
}


class Deadline:
    """The moment (time.monotonic) at which the process is killed. Mutable: messages may move it.

    `over` says that nothing is expected of the process any more, and that nobody needs what it holds.
    """

    def __init__(self, at):
        self.at = at
        self.over = False

    def left(self):
        """Seconds until then; negative afterwards."""
        return self.at - time.monotonic()


class NotStartedError(Exception):
    """The system has no process, or no pipe, for us."""


class Ending:
    """How a process ended: its exit code, or its signal.

    Neither where it was killed at its deadline, or where the image let somebody else take its status.
    """

    def __init__(self, code, signal_number, timed_out, output):
        self.code = code
        self.signal = signal_number
        self.timed_out = timed_out
        self.output = output

    @property
    def signal_name(self):
        """For example SIGSEGV; `SIG 40` for a real-time signal."""
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"SIG {self.signal}"

    @property
    def signal_text(self):
        """As a shell would say it: `Segmentation fault (signal 11)`."""
        name = self.signal_name
        return f"{SIGNAL_TEXTS.get(name, name)} (signal {self.signal})"


class Output:
    """What a process prints: drained without end, kept to its last bytes."""

    def __init__(self):
        self._kept = b""

    def add(self, data):
        """Take the next bytes."""
        self._kept = (self._kept + data)[-OUTPUT_LIMIT:]

    def text(self):
        """The last bytes as text."""
        return self._kept.decode("utf-8", "replace")

    def take(self):
        """The text so far; what comes after it is another's."""
        text, self._kept = self.text(), b""
        return text


class _Messages:
    """Cuts a byte stream into JSON messages; what is no message is dropped."""

    def __init__(self, handle):
        self._handle = handle
        self._pending = b""

    def add(self, data):
        lines = (self._pending + data).split(b"\n")
        self._pending = lines.pop()[:MESSAGE_LIMIT]
        for line in lines:
            try:
                message = json.loads(line.decode("utf-8"))
            except ValueError:
                continue
            if isinstance(message, dict):
                self._handle(message)


def send(descriptor: int, message: dict) -> None:
    """Send one message to the parent."""
    events.write_all(descriptor, (events.encode(message) + "\n").encode("ascii"))


def flush() -> None:
    """Write out what Python still holds of stdout and stderr; either may be closed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue


def wait_until_read(descriptor: int) -> None:
    """Wait until the parent has read everything from a pipe of ours: so its logs are cut where the turns change."""
    try:
        import fcntl
        import termios

        until = time.monotonic() + _READ_LIMIT_S
        while time.monotonic() < until:
            unread = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
            if not any(unread):
                return
            time.sleep(0.0002)
    except (ImportError, OSError):  # an incomplete Python, or no pipe: a log line may stand with its neighbour
        return


def run(main, on_message, deadline: Deadline, close=(), output=None, idle=None) -> Ending:
    """Fork, run `main(descriptor)` in the child until it returns, and say how it ended.

    The child is the leader of its own process group, which is killed with it. Its fds 1 and 2 are a pipe that is
    drained all the time. `close` are descriptors that only the parent may hold. `idle` is called while the child says
    nothing, until it returns False. Once the deadline is `over`, the child is killed, and its end (10 ms for a process
    with torch in it) is waited for when the next one has ended, or in `let_leave`.
    """
    message_read, message_write, output_read, output_write, pid = _start()
    if pid == 0:
        _child(main, message_write, output_write, (message_read, output_read, *close))
    os.close(message_write)
    os.close(output_write)
    output = output if output is not None else Output()
    # Output before messages: what was printed before a message is there when the message is handled.
    sinks = {output_read: output.add, message_read: _Messages(on_message).add}
    timed_out = True
    try:
        on_message({"event": "child", "pid": pid})
        timed_out = not _wait(pid, dict(sinks), deadline, idle)
    finally:
        kill_group(pid)
        if not timed_out:
            _drain(sinks)
        for descriptor in sinks:
            os.close(descriptor)
        status = 0
        let_leave()
        if deadline.over:
            _LEAVING.append(pid)
        else:
            status = _reap(pid)
    if timed_out or status is None:
        return Ending(None, None, timed_out, output)
    if os.WIFSIGNALED(status):
        return Ending(None, os.WTERMSIG(status), False, output)
    return Ending(os.WEXITSTATUS(status), None, False, output)


def let_leave() -> None:
    """Wait until those that were killed have ended."""
    while _LEAVING:
        _reap(_LEAVING.pop())


def _start():
    """Two pipes and a fork: (message_read, message_write, output_read, output_write, pid)."""
    descriptors = []
    try:
        descriptors += os.pipe()
        descriptors += os.pipe()
        return (*descriptors, _fork())
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise NotStartedError(str(error)) from error


def _fork() -> int:
    try:
        return os.fork()
    except OSError:
        if not _LEAVING:
            raise
        let_leave()  # where processes are counted, one that has not left yet is one too many
        return os.fork()


def _reap(pid: int):
    """The status of a child that has ended or was killed; None where somebody else has taken it."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


def own_signals() -> None:
    """What is inherited or set by the image, and breaks us: an ignored SIGCHLD takes the status of every child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def cancel_timers() -> None:
    """An alarm that was set before us survives `exec`, and would end us."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)


def kill_group(pid: int) -> None:
    """Kill a process and its group. Not yet reaped, so the number still belongs to it."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except OSError:
            continue


def _wait(pid: int, sinks: dict, deadline: Deadline, idle) -> bool:
    """Feed the sinks until the process has ended (True) or its deadline has passed (False)."""
    while True:
        left = deadline.left()
        if left <= 0:
            return False
        if deadline.over or _has_ended(pid):
            return True
        poller = select.poll()  # `select` cannot name descriptors above 1023, and an image may hold that many open
        for descriptor in sinks:
            poller.register(descriptor, select.POLLIN)
        patience_s = (_IDLE_S if idle else _POLL_S) if sinks else 0.002
        ready = [descriptor for descriptor, _ in poller.poll(1e3 * min(left, patience_s))]
        if idle and not ready and not idle():
            idle = None
        for descriptor in [each for each in sinks if each in ready]:
            data = os.read(descriptor, _CHUNK)
            sinks[descriptor](data)
            if not data:
                del sinks[descriptor]


def _has_ended(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # and its status is lost
        return True


def _drain(sinks):
    """Read what is left, without waiting for a grandchild that keeps a pipe open."""
    for descriptor in sinks:
        os.set_blocking(descriptor, False)
        for _ in range(64):
            try:
                data = os.read(descriptor, _CHUNK)
            except OSError:
                break
            if not data:
                break
            sinks[descriptor](data)


def _child(main, message_write, output_write, close):
    code = 1
    try:
        os.setpgid(0, 0)
        own_signals()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in close:
            os.close(descriptor)
        os.dup2(output_write, 1)
        os.dup2(output_write, 2)
        os.close(output_write)
        main(message_write)
        code = 0
    except BaseException:  # whatever it is, it must not unwind into the parent's code
        import traceback

        events.write_all(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        flush()
        os._exit(code)
