//! Harmless oddities: what happens to every service some day, and is no attack.

use super::{
    crowd::{Crowd, Curve},
    population::{Host, Population},
    random::Random,
    season::WEEK,
};

/// Oddities, as they are named where a false alarm is put down to one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Oddity {
    SpeedTest,
    BigUpload,
    BigDownload,
    Monitoring,
    Deploy,
    Restart,
    Outage,
    Mail,
    Sale,
    SlowNetwork,
    Crawler,
    Batch,
    Scanner,
    Renumbering,
}

impl Oddity {
    /// All, with how often each happens in a week.
    pub(crate) const ALL: [(Self, f64); 14] = [
        (Self::SpeedTest, 2.0),
        (Self::BigUpload, 3.0),
        (Self::BigDownload, 3.0),
        (Self::Monitoring, 0.3),
        (Self::Deploy, 2.0),
        (Self::Restart, 2.0),
        (Self::Outage, 0.5),
        (Self::Mail, 1.0),
        (Self::Sale, 0.5),
        (Self::SlowNetwork, 2.0),
        (Self::Crawler, 3.0),
        (Self::Batch, 2.0),
        (Self::Scanner, 6.0),
        (Self::Renumbering, 0.2),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SpeedTest => "speed_test",
            Self::BigUpload => "big_upload",
            Self::BigDownload => "big_download",
            Self::Monitoring => "monitoring",
            Self::Deploy => "deploy",
            Self::Restart => "restart",
            Self::Outage => "outage",
            Self::Mail => "mail",
            Self::Sale => "sale",
            Self::SlowNetwork => "slow_network",
            Self::Crawler => "crawler",
            Self::Batch => "batch",
            Self::Scanner => "scanner",
            Self::Renumbering => "renumbering",
        }
    }

    /// Whether it needs connections that carry data for long: name servers and games have none.
    pub(crate) const fn bulk(self) -> bool {
        matches!(self, Self::SpeedTest | Self::BigUpload | Self::BigDownload)
    }

    /// Whether it is one that only services with crowds of customers have.
    pub(crate) const fn crowded(self) -> bool {
        matches!(self, Self::Mail | Self::Sale)
    }
}

/// Packets of one host for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) host: Host,
    pub(crate) packets_per_second: f64,
    /// It sends data in full frames; otherwise it acknowledges them.
    pub(crate) upload: bool,
    /// It asks, connection by connection.
    pub(crate) requests: bool,
}

/// What an oddity does while it lasts.
#[derive(Clone, Debug)]
pub(crate) enum Doing {
    Stream(Stream),
    /// SYNs that one host sends to the port, and never answers.
    Probes {
        host: Host,
        packets_per_second: f64,
    },
    /// Of the customers, such a share completes no handshake, and sends its SYNs again; round trips are so much longer.
    Slow {
        share: f64,
        round_trip: f64,
    },
    /// So many times the usual.
    Customers(Crowd),
    /// All connections begin anew.
    Reconnect {
        share: f64,
    },
    /// Nothing gets through, but for this share.
    Cut {
        left: f64,
    },
}

/// An oddity that goes on.
#[derive(Clone, Debug)]
pub(crate) struct Going {
    pub(crate) oddity: Oddity,
    pub(crate) begins: f64,
    pub(crate) ends: f64,
    pub(crate) doing: Doing,
}

/// Which oddities begin, and when: drawn for a week in advance.
pub(crate) fn draw_week(random: &mut Random, begins: f64, crowds: bool, bulk: bool) -> Vec<(f64, Oddity)> {
    let mut drawn = Vec::new();
    for (oddity, a_week) in Oddity::ALL {
        if oddity.crowded() && !crowds || oddity.bulk() && !bulk {
            continue;
        }
        for _ in 0..random.poisson(a_week) as u64 {
            let mut at = begins + random.unit() * WEEK;
            // People send mails and open sales by day; deploys too.
            if oddity.crowded() || oddity == Oddity::Deploy {
                let day = (at / 86_400.0).floor() * 86_400.0;
                at = day + random.between(7.0, 21.0).floor() * 3600.0 + random.between(0.0, 120.0);
            }
            drawn.push((at, oddity));
        }
    }
    drawn.sort_by(|a, b| b.0.total_cmp(&a.0));
    drawn
}

/// Begins an oddity. Nothing for those that change the service for good ([`Oddity::Deploy`], [`Oddity::Renumbering`]).
pub(crate) fn begin(
    random: &mut Random,
    oddity: Oddity,
    at: f64,
    population: &Population,
    usual: f64,
    public: bool,
) -> Option<Going> {
    let stream = |random: &mut Random, packets_per_second: f64, upload, requests| {
        Doing::Stream(Stream {
            host: population.host(random),
            packets_per_second,
            upload,
            requests,
        })
    };
    let (lasts, doing) = match oddity {
        // 40 to 400 Mbit/s in full frames, or the ACKs for them.
        Oddity::SpeedTest => {
            let upload = random.chance(0.5);
            let frames = random.between(40e6, 400e6) / 8.0 / 1514.0;
            let rate = if upload { frames } else { frames / 2.0 };
            (random.between(8.0, 15.0), stream(random, rate, upload, false))
        }
        // What a link of 5 to 80 Mbit/s takes, for minutes.
        Oddity::BigUpload => {
            let rate = random.log_normal(20e6, 0.8).min(100e6) / 8.0 / 1514.0;
            (random.between(60.0, 1200.0), stream(random, rate, true, false))
        }
        Oddity::BigDownload => {
            let rate = random.log_normal(60e6, 0.8).min(400e6) / 8.0 / 1514.0 / 2.0;
            (random.between(60.0, 1200.0), stream(random, rate, false, false))
        }
        Oddity::Monitoring => {
            let rate = random.between(0.5, 4.0);
            (4.0 * WEEK, stream(random, rate, false, true))
        }
        Oddity::Deploy | Oddity::Renumbering => return None,
        Oddity::Restart => (4.0, Doing::Reconnect { share: 0.8 }),
        Oddity::Outage => (
            random.between(60.0, 400.0),
            Doing::Cut {
                left: random.between(0.0, 0.3),
            },
        ),
        Oddity::Mail => {
            let crowd = Crowd {
                begins: at,
                curve: Curve::Rise {
                    factor: random.between(1.8, 4.0),
                    rise: random.between(120.0, 400.0),
                    hold: random.between(300.0, 1200.0),
                    half: 1500.0,
                },
                fresh: random.between(0.05, 0.12),
            };
            (4.0 * 3600.0, Doing::Customers(crowd))
        }
        Oddity::Sale => {
            let crowd = Crowd {
                begins: at,
                curve: Curve::Rise {
                    factor: random.between(6.0, 14.0),
                    rise: random.between(60.0, 300.0),
                    hold: random.between(600.0, 3600.0),
                    half: 1200.0,
                },
                fresh: random.between(0.08, 0.25),
            };
            (6.0 * 3600.0, Doing::Customers(crowd))
        }
        Oddity::SlowNetwork => (
            random.between(300.0, 3600.0),
            Doing::Slow {
                share: random.between(0.01, 0.08),
                round_trip: random.between(1.2, 3.0),
            },
        ),
        Oddity::Crawler => {
            // 2 to 200 requests a second, and never much of a service: who takes more than that is a plague, and blocked.
            let rate = (5.0 * 100_f64.powf(random.unit())).min(0.15 * usual);
            (random.between(600.0, 7200.0), stream(random, rate, false, true))
        }
        Oddity::Batch => {
            // Where programs are the customers, one job may be as much as all others; a public site has small ones.
            let most = if public { 0.08 } else { 0.8 };
            let rate = usual * random.between(0.1, 1.0) * most;
            let upload = random.chance(0.3);
            (random.between(300.0, 2400.0), stream(random, rate, upload, true))
        }
        // A research scanner that comes back to the same port, or somebody's first tool.
        Oddity::Scanner => (
            random.between(5.0, 60.0),
            Doing::Probes {
                host: population.host(random),
                packets_per_second: 0.5 * 40_f64.powf(random.unit()),
            },
        ),
    };
    Some(Going {
        oddity,
        begins: at,
        ends: at + lasts,
        doing,
    })
}
