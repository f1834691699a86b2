//! `cargo xtask release` and `cargo xtask install`: what users get.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    call::Call,
    setup::{self, Mode, Scope},
    workspace::{build_weir, host, root, target_dir},
};

/// Where the unit file says that the program is.
const UNIT_PROGRAM: &str = "/usr/local/bin/weir";
/// Files of the archive besides the program: where they are in the workspace.
const ACCOMPANYING: [&str; 8] = [
    "packaging/weir.service",
    "packaging/weir.sysusers",
    "packaging/policy.example.toml",
    "packaging/README.md",
    "packaging/grafana/weir.json",
    "packaging/prometheus/weir.rules.yml",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];

/// Builds, checks and packs the archive for this machine's architecture.
pub(crate) fn release() -> Result<()> {
    setup::setup(Scope::Build, Mode::Quiet)?;
    let weir = build_weir()?;
    check_policy(&weir)?;
    let name = format!("weir-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let dist = target_dir()?.join("dist");
    let staging = dist.join(&name);
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(|| format!("cannot clear {}", staging.display()))?;
    }
    put(&weir, &staging.join("weir"), 0o755)?;
    for file in ACCOMPANYING {
        let from = root().join(file);
        let file_name = from.file_name().context("a file without a name")?;
        put(&from, &staging.join(file_name), 0o644)?;
    }
    let archive = format!("{name}.tar.gz");
    // The same files give the same archive: no names, times or orders of the machine that packed it.
    Call::new(
        "tar",
        [
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mtime=@0",
        ],
    )
    .args(["--use-compress-program=gzip -n", "-cf", &archive, &name])
    .dir(&dist)
    .run()?;
    let sum = Call::new("sha256sum", [&archive]).dir(&dist).output()?;
    let sum_file = dist.join(format!("{archive}.sha256"));
    fs::write(&sum_file, &sum).with_context(|| format!("cannot write {}", sum_file.display()))?;
    fs::remove_dir_all(&staging).with_context(|| format!("cannot clear {}", staging.display()))?;
    println!("{}\n{}", dist.join(&archive).display(), sum.trim_end());
    Ok(())
}

/// The example must be a policy that this very program takes.
fn check_policy(weir: &Path) -> Result<()> {
    let policy = root().join("packaging/policy.example.toml");
    Call::new(
        weir.to_string_lossy(),
        [
            "policy".into(),
            "check".into(),
            policy.to_string_lossy().into_owned(),
        ],
    )
    .run()
    .context("the example policy in packaging/ is not valid")
}

/// One file to be installed.
struct Item {
    to: PathBuf,
    content: Vec<u8>,
    mode: u32,
}

/// Builds and installs the program, the unit and, where there is none yet, an example policy.
pub(crate) fn install(prefix: &Path, destdir: Option<&Path>) -> Result<()> {
    if !prefix.is_absolute() {
        bail!(
            "--prefix must be an absolute path, not {}: a unit file cannot name another",
            prefix.display()
        );
    }
    setup::setup(Scope::Build, Mode::Quiet)?;
    let weir = build_weir()?;
    let unit = read(&root().join("packaging/weir.service"))?;
    let policy = read(&root().join("packaging/policy.example.toml"))?;
    let items = [
        Item {
            to: under(destdir, &prefix.join("bin/weir")),
            content: read(&weir)?,
            mode: 0o755,
        },
        Item {
            to: under(destdir, &prefix.join("lib/systemd/system/weir.service")),
            content: unit_for(&String::from_utf8(unit)?, prefix).into_bytes(),
            mode: 0o644,
        },
        Item {
            to: under(destdir, &prefix.join("lib/sysusers.d/weir.conf")),
            content: read(&root().join("packaging/weir.sysusers"))?,
            mode: 0o644,
        },
        Item {
            to: under(destdir, &prefix.join("share/weir/grafana/weir.json")),
            content: read(&root().join("packaging/grafana/weir.json"))?,
            mode: 0o644,
        },
        Item {
            to: under(destdir, &prefix.join("share/weir/prometheus/weir.rules.yml")),
            content: read(&root().join("packaging/prometheus/weir.rules.yml"))?,
            mode: 0o644,
        },
    ];
    for item in &items {
        item.install()?;
        println!("installed {}", item.to.display());
    }
    let policy = Item {
        to: under(destdir, Path::new("/etc/weir/policy.toml")),
        content: policy,
        mode: 0o644,
    };
    if policy.to.exists() {
        println!("kept {}, which was there", policy.to.display());
    } else {
        policy.install()?;
        println!(
            "installed {}: an example that drops nothing; put your interface into it",
            policy.to.display()
        );
    }
    if destdir.is_none() {
        println!("next: systemd-sysusers && systemctl daemon-reload && systemctl enable --now weir");
    }
    Ok(())
}

impl Item {
    /// Writes the file beside its place and moves it there, so that a running program is not disturbed.
    fn install(&self) -> Result<()> {
        let explain = |error: io::Error| {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                ": run it as root, or choose another --prefix or --destdir"
            } else {
                ""
            };
            anyhow::Error::new(error).context(format!("cannot install {}{hint}", self.to.display()))
        };
        let dir = self.to.parent().context("a place without a folder")?;
        fs::create_dir_all(dir).map_err(explain)?;
        let mut beside = self.to.clone().into_os_string();
        beside.push(".new");
        fs::write(&beside, &self.content).map_err(explain)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(self.mode)).map_err(explain)?;
        fs::rename(&beside, &self.to).map_err(explain)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    Item {
        to: to.to_owned(),
        content: read(from)?,
        mode,
    }
    .install()
}

/// `path` as seen from outside `destdir`.
fn under(destdir: Option<&Path>, path: &Path) -> PathBuf {
    destdir.map_or_else(
        || path.to_owned(),
        |dir| dir.join(path.strip_prefix("/").unwrap_or(path)),
    )
}

fn unit_for(unit: &str, prefix: &Path) -> String {
    unit.replace(UNIT_PROGRAM, &prefix.join("bin/weir").to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destdir_stands_for_the_root() {
        assert_eq!(under(None, Path::new("/etc/weir")), Path::new("/etc/weir"));
        assert_eq!(
            under(Some(Path::new("/tmp/x")), Path::new("/etc/weir")),
            Path::new("/tmp/x/etc/weir")
        );
    }

    #[test]
    fn the_unit_names_the_program_where_it_is_installed() {
        let unit = include_str!("../../packaging/weir.service");
        assert!(unit.contains(&format!("ExecStart={UNIT_PROGRAM} run ")));
        let moved = unit_for(unit, Path::new("/usr"));
        assert!(moved.contains("ExecStart=/usr/bin/weir run ") && !moved.contains(UNIT_PROGRAM));
    }

    #[test]
    fn every_accompanying_file_is_there() {
        for file in ACCOMPANYING {
            assert!(root().join(file).is_file(), "{file}");
        }
    }
}
