//! A guest's whole file system: one archive that the kernel unpacks into memory.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{guest, image::Image, programs::Programs};
use crate::{call::Call, setup::find_program};

/// What the tests call, and the module loader, which busybox's does not replace where modules are compressed.
const TOOLS: [&str; 4] = ["ip", "nsenter", "ethtool", "kmod"];

/// Modules that the tests need where a kernel has them apart: the loader's and the lab's. A kernel may have them built in or lack them.
const MODULES: [&str; 9] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "8021q",
    "bridge",
    "bonding",
    "dummy",
    "ifb",
];

/// Makes the archive for a kernel; where it is.
pub(crate) fn make(image: &Image, programs: &Programs) -> Result<PathBuf> {
    let root = image.root.with_extension("guest");
    let _ = fs::remove_dir_all(&root);
    for dir in [
        "bin", "dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "weir",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    let busybox = find("busybox")?;
    install(&root, &busybox, "bin/busybox")?;
    symlink("busybox", root.join("bin/sh"))?;
    for tool in TOOLS {
        install(&root, &find(tool)?, &format!("bin/{tool}"))?;
    }
    symlink("kmod", root.join("bin/insmod"))?;

    install(&root, &programs.weir, "weir/weir")?;
    for (name, path) in &programs.tests {
        let place = format!("weir/{name}");
        install(&root, path, &place)?;
        // Memory is what the guest has for a disk, and these are mostly debugging information.
        let place = root.join(place);
        Call::new("strip", ["--strip-debug"])
            .args([place.to_string_lossy()])
            .run()?;
    }
    let mut order = String::new();
    for file in modules(image) {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !order.lines().any(|line| line == name) {
            fs::copy(&file, root.join("modules").join(&name))
                .with_context(|| format!("cannot copy {}", file.display()))?;
            order.push_str(&name);
            order.push('\n');
        }
    }
    fs::write(root.join("modules/order"), order)?;

    let init = root.join("init");
    fs::write(&init, guest::init())?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;

    let archive = root.with_extension("cpio");
    // Not compressed: unpacking costs an emulated processor more than reading.
    let script = r#"set -e; find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet > "$1""#;
    Call::new("sh", ["-c", script, "sh", &archive.to_string_lossy()])
        .dir(&root)
        .run()?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

fn find(program: &str) -> Result<PathBuf> {
    find_program(program).with_context(|| format!("there is no `{program}`: run `cargo xtask setup`"))
}

/// Copies a program, and the libraries it is linked to, to the places where it looks for them.
fn install(root: &Path, program: &Path, place: &str) -> Result<()> {
    // Silent for a static program: it has none.
    let libraries = Call::new("ldd", [program.to_string_lossy()])
        .probe()
        .unwrap_or_default();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        if target.exists() {
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(library, &target).with_context(|| format!("cannot copy {library}"))?;
    }
    if libraries.contains("not found") {
        bail!("{} lacks libraries: {libraries}", program.display());
    }
    fs::copy(program, root.join(place)).with_context(|| format!("cannot copy {}", program.display()))?;
    Ok(())
}

/// The files of the modules, each after those it depends on.
fn modules(image: &Image) -> Vec<PathBuf> {
    let show = |module: &&str| {
        Call::new("modprobe", ["--show-depends", "-d"])
            .args([
                image.root.to_string_lossy().as_ref(),
                "-S",
                &image.release,
                module,
            ])
            .probe()
    };
    MODULES
        .iter()
        .filter_map(show)
        .flat_map(|text| files(&text))
        .collect()
}

/// The files in lines such as `insmod /lib/modules/6.1/kernel/net/x.ko option=1`.
fn files(depends: &str) -> Vec<PathBuf> {
    depends
        .lines()
        .filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next())
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_listed_in_order_and_built_in_ones_left_out() {
        let text = "builtin tls\ninsmod /k/llc.ko \ninsmod /k/bridge.ko.xz x=1\n";
        assert_eq!(
            files(text),
            [Path::new("/k/llc.ko"), Path::new("/k/bridge.ko.xz")]
        );
    }
}
