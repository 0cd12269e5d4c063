"""From inside the walls of a prepare process: everything that a parser has no business with is refused."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prepare import run_confined
from worker.prepare.confine import missing_walls

TRY = '''
def attempt(name, action):
    """Passed, or the error number that the kernel gave."""
    try:
        action()
        seen[name] = "passed"
    except OSError as error:
        seen[name] = error.errno

libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
'''


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Something to reach for: a TCP and a UDP port, a unix socket by path and an abstract one."""
    made = []
    for family, kind, address in (
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        (socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "socket")),
        (socket.AF_UNIX, socket.SOCK_STREAM, f"\0basin-{os.getpid()}"),
    ):
        server = socket.socket(family, kind)
        server.bind(address)
        if kind == socket.SOCK_STREAM:
            server.listen()
        made.append(server)
    names = ("tcp", "udp", "unix", "abstract")
    yield {name: json.dumps(_address(each)) for name, each in zip(names, made, strict=True)}
    for each in made:
        each.close()


def _address(server: socket.socket) -> object:
    name = server.getsockname()
    return name.decode("latin-1") if isinstance(name, bytes) else name


def test_this_machine_has_all_of_it() -> None:
    """The tests below need Linux 6.12 or later with Landlock; without it this one says why they fail."""
    done = subprocess.run([sys.executable, "-m", "worker.prepare.confine"], capture_output=True, check=True)
    walls = json.loads(done.stdout)
    assert missing_walls(walls) == []
    assert int(walls[0].removeprefix("landlock-")) >= 6
    assert missing_walls(["rlimits"]) == ["landlock", "seccomp"]


def test_no_file_outside_is_readable_or_writable(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.write_text("kept")
    code = f"""{TRY}
outside = {str(outside)!r}
attempt("read", lambda: open(outside, "rb"))
attempt("write", lambda: open(outside, "ab"))
attempt("create", lambda: open(outside + "2", "xb"))
attempt("truncate", lambda: os.truncate(outside, 0))
attempt("unlink", lambda: os.unlink(outside))
attempt("rename", lambda: os.rename(outside, folder / "taken"))
attempt("link", lambda: os.link(outside, folder / "taken"))
attempt("symlink", lambda: os.symlink(outside, folder / "taken"))
attempt("list", lambda: os.listdir({str(tmp_path)!r}))
attempt("list_root", lambda: os.listdir("/"))
attempt("environ", lambda: open(f"/proc/{{parent}}/environ", "rb"))
attempt("memory", lambda: open(f"/proc/{{parent}}/mem", "rb"))
attempt("descriptors", lambda: os.listdir(f"/proc/{{parent}}/fd"))
attempt("maps", lambda: open("/proc/self/maps", "rb"))
attempt("chdir", lambda: os.chdir({str(tmp_path)!r}))
attempt("chmod", lambda: os.chmod(outside, 0o777))
attempt("utime", lambda: os.utime(outside, (0, 0)))
attempt("chown", lambda: os.chown(outside, 1, 1))
attempt("xattr", lambda: os.setxattr(outside, "user.a", b"b"))
attempt("fifo", lambda: os.mkfifo(folder / "fifo"))
if os.uname().machine == "x86_64":
    attempt("mount", lambda: call(165, b"none", b"/mnt", b"tmpfs", 0, None))
"""
    before = outside.stat()
    seen = run_confined(code, out)
    assert {name: result for name, result in seen.items() if name != "walls" and result not in {1, 13}} == {}
    after = outside.stat()
    assert outside.read_text() == "kept"
    assert (stat.S_IMODE(after.st_mode), after.st_mtime_ns) == (stat.S_IMODE(before.st_mode), before.st_mtime_ns)
    assert not any(out.iterdir())


def test_nothing_is_reachable(tmp_path: Path, servers: dict[str, str]) -> None:
    """UDP and unix sockets pass Landlock; the filter has them all."""
    code = f"""{TRY}
def reach(family, kind, address):
    with socket.socket(family, kind) as made:
        made.connect(address)
        made.send(b"out")
tcp, udp = tuple({servers["tcp"]}), tuple({servers["udp"]})
attempt("tcp", lambda: reach(socket.AF_INET, socket.SOCK_STREAM, tcp))
attempt("udp", lambda: reach(socket.AF_INET, socket.SOCK_DGRAM, udp))
attempt("unix", lambda: reach(socket.AF_UNIX, socket.SOCK_STREAM, {servers["unix"]}))
attempt("abstract", lambda: reach(socket.AF_UNIX, socket.SOCK_STREAM, {servers["abstract"]}))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
attempt("pair", lambda: socket.socketpair())
earlier = made_before
attempt("earlier_connect", lambda: earlier.connect(tcp))
attempt("earlier_send", lambda: earlier_udp.sendto(b"out", udp))
attempt("earlier_bind", lambda: earlier_udp.bind(("127.0.0.1", 0)))
"""
    before = "made_before = socket.socket(); earlier_udp = socket.socket(type=socket.SOCK_DGRAM)"
    seen = run_confined(code, tmp_path, {"before": before})
    assert {name: result for name, result in seen.items() if name != "walls" and result not in {1, 13}} == {}


def test_no_other_process_is_touched_or_started(tmp_path: Path) -> None:
    code = f"""{TRY}
import signal, resource, subprocess
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("subprocess", lambda: subprocess.run(["/bin/true"]))
attempt("spawn", lambda: os.posix_spawn("/bin/true", ["true"], {{}}))
attempt("fork", lambda: os.fork())
attempt("forkpty", lambda: os.forkpty())
attempt("kill_parent", lambda: os.kill(parent, signal.SIGCONT))
attempt("probe_parent", lambda: os.kill(parent, 0))
attempt("kill_group", lambda: os.kill(0, signal.SIGCONT))
attempt("kill_all", lambda: os.kill(-1, 0))
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, parent, 10))
attempt("affinity", lambda: os.sched_setaffinity(parent, {{0}}))
attempt("limits", lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE))
if os.uname().machine == "x86_64":
    attempt("own_limits", lambda: call(302, 0, 0, ctypes.create_string_buffer(16), 0))
    attempt("ptrace", lambda: call(101, 16, parent, 0, 0))
    attempt("read_memory", lambda: call(310, parent, 0, 0, 0, 0, 0))
    attempt("pidfd", lambda: os.pidfd_open(parent))
    attempt("unshare", lambda: call(272, 0x10000000))
    attempt("keyring", lambda: call(250, 0, -3, 0))
    attempt("uring", lambda: call(425, 1, ctypes.create_string_buffer(120)))
    attempt("userfaultfd", lambda: call(323, 0))
    attempt("bpf", lambda: call(321, 0, ctypes.create_string_buffer(128), 128))
    attempt("shared_memory", lambda: call(29, 0, 4096, 0o1600))
    attempt("prctl", lambda: call(157, 15, b"name", 0, 0, 0))
    attempt("input", lambda: call(16, 0, 0x5412, b"a"))
attempt("owner_of_signals", lambda: __import__("fcntl").fcntl(0, 8, parent))
"""
    seen = run_confined(code, tmp_path)
    assert {name: result for name, result in seen.items() if name != "walls" and result not in {1, 13}} == {}


def test_other_abis_are_not_a_way_around(tmp_path: Path) -> None:
    """x32 has the same calls under other numbers; clone3 hides its flags, so that the C library must take clone."""
    code = f"""{TRY}
attempt("clone3", lambda: call(435, ctypes.create_string_buffer(88), 88))
if os.uname().machine == "x86_64":
    attempt("x32_socket", lambda: call(0x40000000 | 41, 2, 1, 0))
    attempt("clone_process", lambda: call(56, 17, 0, 0, 0, 0))
    attempt("clone_namespace", lambda: call(56, 0x10000 | 0x10000000, 0, 0, 0, 0))
"""
    seen = run_confined(code, tmp_path)
    assert {seen["clone3"], seen.get("x32_socket", 38)} == {38}  # ENOSYS
    assert {seen.get("clone_process", 1), seen.get("clone_namespace", 1)} == {1}


def test_ordinary_work_passes(tmp_path: Path) -> None:
    """Files in the output folder, threads, signals to itself, compression, arrays, images, tables, a tokenizer."""
    code = """
import gzip, io, tempfile, threading, zipfile, hashlib, signal, mmap
import numpy as np, pyarrow as pa, pyarrow.csv, pyarrow.parquet, pyarrow.json
from PIL import Image
from tokenizers import Tokenizer, decoders, models, trainers, pre_tokenizers
with tempfile.TemporaryFile() as file:
    file.write(b"x" * 100); file.flush(); os.fsync(file.fileno())
(folder / "a").write_bytes(b"1"); os.rename(folder / "a", folder / "b"); os.unlink(folder / "b")
done = []
threads = [threading.Thread(target=done.append, args=(1,)) for _ in range(4)]
[each.start() for each in threads]; [each.join() for each in threads]
seen["threads"] = len(done)
buffer = io.BytesIO()
with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("ä.png", b"1")
seen["zip"] = zipfile.ZipFile(buffer).namelist()
seen["random"] = len(os.urandom(8))
picture = io.BytesIO(); Image.new("RGB", (8, 8)).save(picture, "JPEG")
seen["image"] = Image.open(picture).convert("L").size
table = pa.csv.read_csv(io.BytesIO("a,b\\n1,é\\n".encode("latin-1")), pa.csv.ReadOptions(encoding="latin1"))
seen["csv"] = table.to_pylist()
stored = io.BytesIO(); pa.parquet.write_table(table, stored, compression="zstd")
seen["parquet"] = pa.parquet.ParquetFile(stored).read().num_rows
seen["jsonl"] = pa.json.read_json(io.BytesIO(b'{"a": 1}\\n')).num_rows
tokenizer = Tokenizer(models.BPE()); tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(["abab abab"] * 50, trainers.BpeTrainer(vocab_size=300, show_progress=False))
seen["tokens"] = tokenizer.decode(tokenizer.encode("abab").ids)
seen["sum"] = float((np.ones((64, 64)) @ np.ones((64, 64))).sum())
seen["codecs"] = "é€".encode("cp1252").decode("cp1252")
"""
    seen = run_confined(code, tmp_path)
    assert "stderr" not in seen, seen["stderr"]
    assert (seen["threads"], seen["zip"], seen["random"], seen["image"]) == (4, ["ä.png"], 8, [8, 8])
    assert (seen["csv"], seen["parquet"], seen["jsonl"]) == ([{"a": 1, "b": "é"}], 1, 1)
    assert (seen["tokens"].strip(), seen["sum"], seen["codecs"]) == ("abab", 64.0**3, "é€")
    assert not any(tmp_path.iterdir())


def test_walls_with_a_second_thread_are_refused(tmp_path: Path) -> None:
    """Landlock and the filter bind the calling thread and its later children: an older one stays free."""
    before = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    seen = run_confined("", tmp_path, {"before": before})
    assert seen["exit"] == 1
    assert "NotConfined: 2 threads run already" in seen["stderr"]


def test_the_limits_are_in_force(tmp_path: Path) -> None:
    code = """
def attempt(name, action):
    try:
        action(); seen[name] = "passed"
    except (OSError, MemoryError) as error:
        seen[name] = getattr(error, "errno", None) or type(error).__name__
attempt("memory", lambda: bytearray(3 << 30))
attempt("map", lambda: mmap.mmap(-1, 3 << 30))
def write():
    with open(folder / "big", "wb") as file:
        file.write(bytes(1 << 20)); file.write(bytes(1 << 20))
attempt("file", write)
attempt("descriptors", lambda: [os.open(folder, os.O_RDONLY) for _ in range(100)])
"""
    seen = run_confined(code, tmp_path, file_bytes=1 << 20)
    assert seen["memory"] == "MemoryError"
    assert (seen["map"], seen["file"], seen["descriptors"]) == (12, 27, 24)


def test_the_time_limit_is_seen_as_such(tmp_path: Path) -> None:
    """SIGXCPU, not SIGKILL: a kill for memory must look different."""
    assert run_confined("while True: pass", tmp_path, cpu_seconds=1)["exit"] == -24


def test_an_input_that_was_opened_before_cannot_be_opened_for_writing(tmp_path: Path) -> None:
    out, source = tmp_path / "out", tmp_path / "source"
    out.mkdir()
    source.write_bytes(b"content")
    code = f"""{TRY}
seen["content"] = os.pread(held, 10, 0).decode()
attempt("again", lambda: os.open(f"/proc/self/fd/{{held}}", os.O_RDWR))
attempt("dev", lambda: os.open(f"/dev/fd/{{held}}", os.O_RDONLY))
"""
    seen = run_confined(code, out, {"before": f"held = os.open({str(source)!r}, os.O_RDONLY)"})
    assert (seen["content"], seen["again"], seen["dev"]) == ("content", 13, 13)


def test_without_walls_all_of_it_passes(tmp_path: Path, servers: dict[str, str]) -> None:
    """The tests above would pass for the wrong reason if this machine refused these things to everyone."""
    outside = tmp_path / "outside"
    outside.write_text("content")
    code = f"""{TRY}
attempt("read", lambda: open({str(outside)!r}, "rb"))
attempt("environ", lambda: open(f"/proc/{{parent}}/environ", "rb"))
attempt("chmod", lambda: os.chmod({str(outside)!r}, 0o600))
attempt("udp", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"out", tuple({servers["udp"]})))
attempt("tcp", lambda: socket.create_connection(tuple({servers["tcp"]})))
attempt("kill_parent", lambda: os.kill(parent, 0))
attempt("fork", lambda: os.fork() or os._exit(0))
"""
    seen = run_confined(code, tmp_path, walls=False)
    assert {name: result for name, result in seen.items() if result != "passed"} == {"walls": []}
