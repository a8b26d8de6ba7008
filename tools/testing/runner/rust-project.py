#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Adds the module's crates to the kernel's rust-project.json (stdin to stdout).

The kernel's generator finds the crates of an external module only if each has a Kbuild of its own,
and names Rust's own crates as they are called inside the toolchain root.

usage: rust-project.py TREE MODULE_BUILD
"""

import json
import os
import sys

tree, build = sys.argv[1:]
project = json.load(sys.stdin)
crates = project["crates"]
kernel = next(crate for crate in crates if crate["display_name"] == "kernel")
deps = kernel["deps"] + [{"crate": crates.index(kernel), "name": "kernel"}]
root = os.environ["ZPCI_IN_ROOT"]
project["sysroot"] = root + project["sysroot"]
for crate in crates:
    crate["is_workspace_member"] = False
    if crate["root_module"].startswith("/usr/"):
        crate["root_module"] = root + crate["root_module"]


def add(name, root):
    """A crate compiled as the kernel's are, on top of the crates added before."""
    crates.append(
        kernel
        | {
            "display_name": name,
            "root_module": f"{tree}/{root}",
            "is_workspace_member": True,
            "deps": list(deps),
            "env": kernel["env"] | {"VFIO_OBJTREE": build},
            "source": {"include_dirs": [tree, build], "exclude_dirs": []},
        }
    )
    deps.append({"crate": len(crates) - 1, "name": name})


add("vfio", "rust/vfio/lib.rs")
add("zpci_vfio_pci", "drivers/vfio/pci/zpci/main.rs")
json.dump(project, sys.stdout, indent=1)
