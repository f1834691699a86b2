//! Kernel images from the distribution's packages: found, fetched and unpacked, never installed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::version;
use crate::{
    call::Call,
    rights::Rights,
    setup::{apt_candidate, apt_update},
};

/// Below this no kernel has what Weir needs (`weir doctor` says so too).
const OLDEST: (u32, u32) = (5, 15);

/// A kernel, unpacked.
#[derive(Debug)]
pub(crate) struct Image {
    /// What `uname -r` says on it.
    pub(crate) release: String,
    /// The compressed kernel.
    pub(crate) vmlinuz: PathBuf,
    /// The folder that has `lib/modules`.
    pub(crate) root: PathBuf,
}

/// A package with a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    /// As the name says it.
    version: String,
    signed: bool,
}

impl Package {
    /// The kernel that a package's name promises: `linux-image-6.1.0-56-cloud-amd64`, with `-unsigned` or without.
    /// Packages that only point at others (`linux-image-6.12-cloud-amd64`) name no whole version.
    fn of(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("linux-image-")?;
        let (rest, signed) = rest
            .strip_suffix("-unsigned")
            .map_or((rest, true), |signed| (signed, false));
        let version = rest.strip_suffix("-cloud-amd64")?;
        let whole = version.starts_with(|c: char| c.is_ascii_digit()) && version.split('.').count() > 2;
        whole.then(|| Self {
            name: name.to_owned(),
            version: version.to_owned(),
            signed,
        })
    }
}

/// Fetches the kernels wanted, or the newest of each series, into `dir`; what is there already is not fetched again.
pub(crate) fn fetch(wanted: &[String], dir: &Path) -> Result<Vec<Image>> {
    let mut refreshed = false;
    let chosen = loop {
        let names = Call::new("apt-cache", ["pkgnames", "linux-image-"]).output()?;
        match choose(&names, wanted, &|name| apt_candidate(name)) {
            Ok(chosen) => break chosen,
            // A machine that never asked has no lists.
            Err(_) if !refreshed => refresh(&mut refreshed)?,
            Err(error) => return Err(error),
        }
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    chosen
        .iter()
        .map(|(package, version)| unpack(package, version, dir, &mut refreshed))
        .collect()
}

fn refresh(refreshed: &mut bool) -> Result<()> {
    *refreshed = true;
    let update = apt_update().as_root(Rights::of_this_process());
    println!("test-kernels: refreshing the package lists\ntest-kernels: $ {update}");
    update.run()
}

/// Which packages to take, with their versions: for each wanted kernel, or each series, the newest that can be had.
fn choose(
    names: &str,
    wanted: &[String],
    candidate: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(Package, String)>> {
    let mut packages: Vec<Package> = names.lines().filter_map(Package::of).collect();
    packages.sort_by(|a, b| version::compare(&b.version, &a.version).then(b.signed.cmp(&a.signed)));
    let newest = |fits: &dyn Fn(&Package) -> bool| {
        packages
            .iter()
            .filter(|package| fits(package))
            .find_map(|package| Some((package.clone(), candidate(&package.name)?)))
    };
    if wanted.is_empty() {
        let series: BTreeSet<_> = packages
            .iter()
            .filter_map(|package| version::series(&package.version))
            .filter(|series| *series >= OLDEST)
            .collect();
        let chosen: Vec<_> = series
            .iter()
            .filter_map(|series| newest(&|package| version::series(&package.version) == Some(*series)))
            .collect();
        if chosen.is_empty() {
            bail!(
                "the package lists have no cloud kernel (linux-image-VERSION-cloud-amd64), as Debian's have: add its archive"
            );
        }
        return Ok(chosen);
    }
    wanted
        .iter()
        .map(|wanted| {
            newest(&|package| version::is(&package.version, wanted)).with_context(|| {
                let mut offered: Vec<_> = packages.iter().map(|package| package.version.as_str()).collect();
                offered.dedup();
                format!(
                    "the package lists have no cloud kernel {wanted}; they have {}",
                    offered.join(", ")
                )
            })
        })
        .collect()
}

/// Fetches one package and takes it apart.
fn unpack(package: &Package, candidate: &str, dir: &Path, refreshed: &mut bool) -> Result<Image> {
    let name = &package.name;
    let file = format!("{name}_{}_amd64.deb", candidate.replace(':', "%3a"));
    let archive = dir.join(&file);
    if !archive.is_file() {
        let download = Call::new("apt-get", ["download", "-q", "-o", "APT::Sandbox::User="])
            .args([format!("{name}={candidate}")])
            .dir(dir);
        println!("test-kernels: $ {download}");
        if !download.succeeds()? {
            if *refreshed {
                bail!("cannot fetch {name}: the message of apt-get is above");
            }
            // Lists that are older than the archive name files that are no longer there.
            refresh(refreshed)?;
            let newer = apt_candidate(name).with_context(|| format!("{name} is not offered any more"))?;
            return unpack(package, &newer, dir, refreshed);
        }
        if !archive.is_file() {
            bail!("apt-get fetched {name}, but not as {}", archive.display());
        }
    }
    let root = dir.join(file.trim_end_matches(".deb"));
    if !root.is_dir() {
        let partial = dir.join(format!("{name}.partial"));
        let _ = fs::remove_dir_all(&partial);
        Call::new("dpkg-deb", ["-x"])
            .args([archive.to_string_lossy(), partial.to_string_lossy()])
            .run()?;
        // Where `/lib` is a link to `/usr/lib`, packages name the latter and the module tools the former.
        if !partial.join("lib").exists() {
            std::os::unix::fs::symlink("usr/lib", partial.join("lib"))?;
        }
        let release = release_in(&partial)?;
        Call::new("depmod", ["-b"])
            .args([partial.to_string_lossy().into_owned(), release])
            .run()?;
        fs::rename(&partial, &root)?;
    }
    let release = release_in(&root)?;
    Ok(Image {
        vmlinuz: root.join(format!("boot/vmlinuz-{release}")),
        release,
        root,
    })
}

/// The release of the one kernel under `root`.
fn release_in(root: &Path) -> Result<String> {
    let modules = root.join("lib/modules");
    let first = fs::read_dir(&modules)
        .with_context(|| format!("no modules in {}", root.display()))?
        .next();
    let entry = first.with_context(|| format!("{} is empty", modules.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
        linux-image-6.1.0-56-cloud-amd64-unsigned\nlinux-image-6.1.0-57-cloud-amd64-unsigned\n\
        linux-image-6.12-cloud-amd64\nlinux-image-6.12.117+deb12-cloud-amd64\nlinux-image-5.10.0-1-cloud-amd64\n\
        linux-image-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64-dbg\nlinux-image-6.1.0-99-amd64\n";

    fn chosen(wanted: &[&str], candidate: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>> {
        let wanted: Vec<String> = wanted.iter().map(|&it| it.to_owned()).collect();
        let chosen = choose(NAMES, &wanted, candidate)?;
        Ok(chosen.into_iter().map(|(package, _)| package.name).collect())
    }

    #[test]
    fn the_newest_of_each_series_that_can_be_had() -> Result<()> {
        let all = |_: &str| Some("1".to_owned());
        assert_eq!(
            chosen(&[], &all)?,
            [
                "linux-image-6.1.0-57-cloud-amd64-unsigned",
                "linux-image-6.12.117+deb12-cloud-amd64"
            ]
        );
        let signed = |name: &str| (!name.contains("57")).then(|| "1".to_owned());
        assert_eq!(chosen(&["6.1"], &signed)?, ["linux-image-6.1.0-56-cloud-amd64"]);
        assert_eq!(chosen(&["6.1.0-9"], &all)?, ["linux-image-6.1.0-9-cloud-amd64"]);
        Ok(())
    }

    #[test]
    fn what_is_not_there_is_said() {
        let error = chosen(&["4.19"], &|_| Some("1".to_owned())).expect_err("there is none");
        assert!(
            error
                .to_string()
                .contains("no cloud kernel 4.19; they have 6.12.117")
        );
        assert!(chosen(&[], &|_| None).is_err());
    }
}
