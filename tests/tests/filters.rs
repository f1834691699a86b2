//! The filters before the tries: whatever prefix a ban or a list has, all of it is found, and nobody else is.

use std::path::Path;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use weir::{
    kernel::{BanEntry, Dataplane, TestProgram},
    policy::{self, lists::contents},
};
use weir_tests::{bpffs::BpffsDir, frame::Frame, skip::require_root};

/// Around the bits that a filter looks at, and the ends.
const PREFIXES: [&str; 22] = [
    "64.0.0.0/3",
    "20.0.0.0/6",
    "41.0.0.0/8",
    "100.64.0.0/15",
    "172.20.0.0/16",
    "172.22.128.0/17",
    "198.51.100.0/24",
    "203.0.113.77/32",
    "9000::/4",
    "2400::/12",
    "3000::/15",
    "2a00::/16",
    "2a02:8000::/17",
    "2001:db8::/29",
    "2003:1000::/31",
    "2003:1002::/32",
    "2003:1003:8000::/33",
    "2003:1004:5::/48",
    "2003:1004:6:7::/64",
    "2003:1005::1/128",
    "3fff:ffff::/32",
    "4000::/16",
];

/// In none of them.
const OTHERS: [&str; 6] = [
    "172.21.0.1",
    "172.22.0.1",
    "203.0.113.78",
    "2003:1003::1",
    "2003:1004:6:8::1",
    "2003:1005::2",
];

fn reason(dataplane: &Dataplane, program: &TestProgram, source: &str) -> Result<String> {
    let target = if source.contains(':') {
        "2001:41d0::1"
    } else {
        "192.0.2.10"
    };
    let frame = Frame::new().ip(source, target).tcp(40_000, 80, 0x10).build();
    Ok(dataplane.judge(program, &frame)?.0.reason.to_owned())
}

fn nets() -> Result<Vec<IpNet>> {
    Ok(PREFIXES
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?)
}

/// Asserts that the first and the last address of each prefix meet their reason, and those of nobody else.
fn check(
    dataplane: &Dataplane,
    program: &TestProgram,
    nets: &[IpNet],
    wanted: &str,
    what: &str,
) -> Result<()> {
    for net in nets {
        for source in [net.network(), net.broadcast()] {
            let found = reason(dataplane, program, &source.to_string())?;
            ensure!(found == wanted, "{what}: {source} of {net}: {found}");
        }
    }
    for source in OTHERS {
        let found = reason(dataplane, program, source)?;
        ensure!(found == "pass", "{what}: {source}: {found}");
    }
    Ok(())
}

fn place(text: &str) -> Result<(Dataplane, TestProgram, BpffsDir)> {
    let parsed = policy::parse(text, Path::new("filters.toml"))?.policy;
    let bpffs = BpffsDir::create()?;
    let (mut dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &parsed.source)?;
    dataplane.apply(&parsed, text, &contents(&parsed, Path::new("/"))?, &[])?;
    let program = dataplane.test_program(false)?;
    Ok((dataplane, program, bpffs))
}

const SERVICE: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";

#[test]
fn bans_of_every_length_hold_from_the_first_address_to_the_last_and_end() -> Result<()> {
    require_root();
    let (mut dataplane, program, _bpffs) = place(SERVICE)?;
    let nets = nets()?;
    for service in [None, Some("web".to_owned())] {
        let entries: Vec<BanEntry> = nets
            .iter()
            .map(|prefix| BanEntry {
                prefix: *prefix,
                service: service.clone(),
                until_ns: u64::MAX,
            })
            .collect();
        dataplane.change_bans(&entries, &[])?;
        check(&dataplane, &program, &nets, "ban", "all banned")?;
        // One after the other goes, and the others stay.
        for at in 0..nets.len() {
            dataplane.change_bans(&[], &[(nets[at], service.clone())])?;
            let found = reason(&dataplane, &program, &nets[at].network().to_string())?;
            ensure!(found == "pass", "{} is banned no more: {found}", nets[at]);
            check(&dataplane, &program, &nets[at + 1..], "ban", "the rest")?;
        }
    }
    Ok(())
}

#[test]
fn a_list_of_every_length_holds_from_the_first_address_to_the_last() -> Result<()> {
    require_root();
    let text = format!("{SERVICE}[lists.bad]\naction = \"drop\"\nprefixes = {PREFIXES:?}\n");
    let (mut dataplane, program, _bpffs) = place(&text)?;
    let all = nets()?;
    check(&dataplane, &program, &all, "list", "the list")?;
    // Other filters take their turns, round and round, and that of bans, which lies beside them, stays what it was.
    let banned: IpNet = "198.18.7.0/24".parse()?;
    let ban = BanEntry {
        prefix: banned,
        service: None,
        until_ns: u64::MAX,
    };
    dataplane.change_bans(&[ban], &[])?;
    for at in 0..8 {
        let (few, most) = (&PREFIXES[at..=at], &all[at..=at]);
        let text = format!("{SERVICE}[lists.bad]\naction = \"drop\"\nprefixes = {few:?}\n");
        let parsed = policy::parse(&text, Path::new("filters.toml"))?.policy;
        dataplane.apply(&parsed, &text, &contents(&parsed, Path::new("/"))?, &[])?;
        check(&dataplane, &program, most, "list", "one prefix")?;
        let other = all[(at + 1) % 8].network().to_string();
        let found = reason(&dataplane, &program, &other)?;
        ensure!(found == "pass", "{other} is in no list: {found}");
        let found = reason(&dataplane, &program, &banned.network().to_string())?;
        ensure!(found == "ban", "{banned} is banned: {found}");
    }
    Ok(())
}

#[test]
fn a_ban_stays_when_a_neighbours_ends_after_a_restart() -> Result<()> {
    require_root();
    let (mut dataplane, program, bpffs) = place(SERVICE)?;
    // Of the same part of the addresses.
    let [stays, ends]: [IpNet; 2] = ["198.51.100.7/32".parse()?, "198.51.200.0/24".parse()?];
    let entry = |prefix| BanEntry {
        prefix,
        service: None,
        until_ns: u64::MAX,
    };
    dataplane.change_bans(&[entry(stays), entry(ends)], &[])?;
    drop(dataplane);
    let source = policy::parse(SERVICE, Path::new("filters.toml"))?.policy.source;
    let (mut dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &source)?;
    dataplane.change_bans(&[], &[(ends, None)])?;
    let found = [
        reason(&dataplane, &program, "198.51.100.7")?,
        reason(&dataplane, &program, "198.51.200.1")?,
    ];
    ensure!(found == ["ban", "pass"], "{found:?}");
    Ok(())
}
