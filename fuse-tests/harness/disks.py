"""Small disks that can be full, read-only, broken, or lose their power.

`LoopDisk` is an ext4 on a loop device, `tmpfs` a filesystem in memory. Both need root and are taken away
again whatever happens: the loop device detaches itself with the last unmount.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from harness.openduck import lazy_unmount, mounted_types
from harness.processes import run, wait_until

# linux/fs.h of ext4 and xfs: _IOR('X', 125, __u32). The filesystem stops at once, as if the machine had died.
EXT4_IOC_SHUTDOWN = 0x8004587D
SHUTDOWN_LOSE_LOG = (2).to_bytes(4, "little")


class Disk:
    """A mounted filesystem of its own."""

    def __init__(self, mount_point: Path) -> None:
        self.path = mount_point
        self.path.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        for _ in range(4):
            if mounted_types(self.path):
                with contextlib.suppress(AssertionError):
                    run(["umount", str(self.path)], timeout_s=30)
            if mounted_types(self.path):
                lazy_unmount(self.path)

    def free_bytes(self) -> int:
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize


class TmpfsDisk(Disk):
    """A filesystem in memory, of a fixed size."""

    def __init__(self, mount_point: Path, mib: int) -> None:
        super().__init__(mount_point)
        must(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "openduck-test", str(mount_point)])


class LoopDisk(Disk):
    """An ext4 in a file. Errors make it read-only, as on most machines."""

    def __init__(self, mount_point: Path, mib: int) -> None:
        super().__init__(mount_point)
        self.image = mount_point.with_name(mount_point.name + ".ext4")
        with self.image.open("wb") as image:
            image.truncate(mib << 20)
        must(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-m", "0", self.image])
        self.attach()

    def attach(self) -> None:
        must(["mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.path)])

    def detach(self) -> None:
        """Unmounts; fails where something still holds files open."""
        must(["umount", str(self.path)])

    def lose_power(self) -> None:
        """Stops the filesystem: nothing that was not synced reaches the disk any more, not even the
        journal."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, SHUTDOWN_LOSE_LOG)
        finally:
            os.close(directory)

    def become_read_only(self) -> None:
        """What ext4 does by itself after an error in its metadata: no write works any more, reads go on."""
        source = next(
            line.partition(" - ")[2].split()[1]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4] == str(self.path)
        )
        Path(f"/sys/fs/ext4/{Path(source).name}/trigger_fs_error").write_text("test")

    def close(self) -> None:
        super().close()
        # The device lets go of its file shortly after the last unmount.
        wait_until(
            f"the loop device of {self.image} to be free",
            lambda: str(self.image) not in (path for path, _ in loop_devices()),
        )
        self.image.unlink(missing_ok=True)


def loop_devices() -> list[tuple[str, str]]:
    """Every loop device's file and name."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append((entry.read_text().rstrip("\n"), f"/dev/{entry.parent.parent.name}"))
    return found


def must(argv: list[str | Path]) -> None:
    outcome = run(argv, timeout_s=60)
    assert outcome.status == 0, f"preparing a disk failed:\n{outcome}"
