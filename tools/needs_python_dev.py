"""Prints the Debian package that lacks for building extensions with this interpreter, or nothing."""

import sys
import sysconfig
from pathlib import Path

if not Path(sysconfig.get_path("include"), "Python.h").exists():
    print(f"python{sys.version_info.major}.{sys.version_info.minor}-dev")
