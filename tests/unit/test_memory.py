"""What the kernel has killed for memory, under every layout of control groups."""

from pathlib import Path

import pytest

from worker.kernel_oom import oom_kills

V1_EVENTS = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
V2_EVENTS = "low 0\nhigh 3\nmax 27\noom 4\noom_kill {}\noom_group_kill 0\n"
V1_LINES = "12:pids:/elsewhere\n5:memory:/docker/ab:cd\n4:cpu,cpuacct:/\n1:name=systemd:/docker/ab:cd\n"
HYBRID_LINES = "4:memory:/box/a\n3:cpuset:/\n0::/other\n"


def tree(folder: Path, groups: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A /proc/self/cgroup and a /sys/fs/cgroup."""
    (folder / "cgroup").write_text(groups)
    mounts = folder / "mounts"
    mounts.mkdir()
    for name, content in files.items():
        path = mounts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder / "cgroup", mounts


@pytest.mark.parametrize(
    ("groups", "files", "kills"),
    [
        pytest.param("0::/a/b\n", {"a/b/memory.events": V2_EVENTS.format(3)}, 3, id="version 2"),
        pytest.param("0::/\n", {"memory.events": V2_EVENTS.format(2)}, 2, id="version 2, a namespace of its own"),
        pytest.param("0::/host/a\n", {"memory.events": V2_EVENTS.format(4)}, 4, id="version 2, the host's names"),
        pytest.param(V1_LINES, {"memory/docker/ab:cd/memory.oom_control": V1_EVENTS.format(5)}, 5, id="version 1"),
        pytest.param(V1_LINES, {"memory/memory.oom_control": V1_EVENTS.format(6)}, 6, id="version 1, the host's names"),
        pytest.param(
            HYBRID_LINES,
            {"memory/box/a/memory.oom_control": V1_EVENTS.format(7), "unified/other/cgroup.procs": ""},
            7,
            id="hybrid, memory in version 1",
        ),
        pytest.param(
            "3:cpuset:/\n0::/other\n",
            {"unified/other/memory.events": V2_EVENTS.format(8)},
            8,
            id="hybrid, in version 2",
        ),
        pytest.param("2:cpu,memory:/a\n", {"cpu,memory/a/memory.oom_control": V1_EVENTS.format(9)}, 9, id="together"),
        pytest.param("5:memory:/a\n", {"memory/a/memory.oom_control": "under_oom 0\n"}, 0, id="a kernel without it"),
        pytest.param("5:memory:/a\n", {}, 0, id="no such file"),
        pytest.param("nonsense\n", {}, 0, id="nonsense"),
        pytest.param("0::/\n", {"memory.events": "\xff nonsense\n\n"}, 0, id="more nonsense"),
    ],
)
def test_kills_are_counted(tmp_path: Path, groups: str, files: dict[str, str], kills: int) -> None:
    assert oom_kills(*tree(tmp_path, groups, files)) == kills


def test_a_system_without_control_groups_has_killed_nobody(tmp_path: Path) -> None:
    assert oom_kills(tmp_path / "nothing", tmp_path) == 0


def test_ours_can_be_read() -> None:
    assert oom_kills() >= 0
