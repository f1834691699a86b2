use weir::{kernel::*, policy};
fn main() {
    let text = r#"
version = 1
[[service]]
name = "web"
protocol = "tcp"
ports = [80, 443]
[service.per_source]
packets = { rate = 1000, burst = 10 }
"#;
    let p = policy::parse(text, std::path::Path::new("x.toml"))
        .unwrap_or_else(|e| panic!("{e}"))
        .policy;
    let dir = std::path::PathBuf::from(format!("/sys/fs/bpf/weir-smoke-{}", std::process::id()));
    let r = (|| -> Result<(), KernelError> {
        let t = std::time::Instant::now();
        let (mut d, o) = Dataplane::open(&dir, &p.source)?;
        println!("open {o:?} {:?}", t.elapsed());
        println!("{:?}", d.apply(&p, text, &ListContents::new(), &[])?);
        println!("{:?}", d.apply(&p, text, &ListContents::new(), &[])?);
        let t = std::time::Instant::now();
        let prog = d.test_program(true)?;
        println!("load {:?} {}", t.elapsed(), prog.complexity());
        d.set_test_clock(1_000_000_000_000)?;
        let mut f = vec![0u8; 64];
        f[12] = 8;
        f[14] = 0x45;
        f[17] = 50;
        f[23] = 6;
        f[26..30].copy_from_slice(&[10, 0, 0, 1]);
        f[30..34].copy_from_slice(&[10, 0, 0, 2]);
        f[36] = 0;
        f[37] = 80;
        f[46] = 0x50;
        f[47] = 0x02;
        for _ in 0..12 {
            println!("{:?}", d.judge(&prog, &f)?);
        }
        println!("{:?} {:?}", d.losses()?, d.source_slots()?);
        for (n, port) in [("web", 80u8), ("default", 81)] {
            f[37] = port;
            let best = (0..15).map(|_| prog.run(&f, 1_000_000).unwrap().1).min();
            println!("{n} {best:?}");
        }
        let prog2 = d.test_program(false)?;
        f[37] = 80;
        println!(
            "real clock {:?}",
            (0..15).map(|_| prog2.run(&f, 1_000_000).unwrap().1).min()
        );
        Ok(())
    })();
    if let Err(e) = r {
        println!("ERR {e}");
    }
    if std::env::args().nth(1).is_none() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
