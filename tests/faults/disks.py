"""Small disks: a tmpfs of some megabytes, which can be filled without harm to the machine. Only root may mount one."""

import os
import subprocess
from pathlib import Path


def mount_small_disk(folder: Path, size_mb: int) -> bool:
    """Mount a tmpfs on a folder; False where that is not allowed."""
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
