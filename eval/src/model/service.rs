//! A service and its customers, second by second.

use gateway_detect::Observation;

use super::{
    attack::Attack,
    crowd::{Crowd, Curve},
    frames::Playback,
    oddity::{self, Doing, Going, Oddity},
    plan::{Plan, Talk},
    population::{Population, Senders},
    random::{Random, Wander},
    season::{BEGIN, Season, WEEK},
    talk::{Now, Talking, single},
    tally::{ACK, FIN, PSH, SYN, Sampling, Shape, Tally, join, one, two},
};

/// How often what changes slowly is looked at, in seconds.
const SLOW_STEP: f64 = 10.0;
/// Connections that a source has within a minute, in the mean.
const CONNECTIONS: f64 = 2.0;
/// New networks a day of a service with a mean of one packet a second; more grow with the root.
const FRESH_PER_DAY: f64 = 20.0;

/// What attacks a service.
#[derive(Clone, Debug)]
pub(crate) enum Hostile {
    Modelled(Attack),
    Recorded(Playback),
}

/// A service that is modelled.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) plan: Plan,
    random: Random,
    season: Season,
    population: Population,
    talking: Talking,
    sampling: Sampling,
    /// What is to come of this week, the next last.
    coming: Vec<(f64, Oddity)>,
    week: i64,
    going: Vec<Going>,
    oddities: bool,
    crowds: Vec<Crowd>,
    pub(crate) hostile: Vec<Hostile>,
    completion: Wander,
    delay: Wander,
    renewed: f64,
    /// Sources of the minute that goes on, and of the last.
    sources: f64,
    last_sources: Option<f64>,
    minute: i64,
    /// How much there is is given, in the mean of the week: for recorded series.
    pub(crate) forced: Option<f64>,
    pub(crate) at: f64,
}

impl Service {
    /// A service in its usual state at [`BEGIN`].
    pub(crate) fn new(plan: Plan, seed: u64, sampling: Sampling, oddities: bool) -> Self {
        let mut random = Random::new(seed);
        // Of a second's packets many are of the same connections.
        let clump = match plan.talk {
            Talk::Web { .. } => 5.0,
            Talk::Names => 3.0,
            Talk::Game { per_second } => per_second,
        };
        let population = Population::new(
            &mut random,
            plan.accesses,
            clump,
            FRESH_PER_DAY * plan.packets.sqrt(),
        );
        let mut service = Self {
            season: Season::new(&mut random, plan.daily, plan.weekend, plan.noise),
            population,
            talking: Talking::new(plan),
            sampling,
            coming: Vec::new(),
            week: -1,
            going: Vec::new(),
            oddities: false,
            crowds: Vec::new(),
            hostile: Vec::new(),
            completion: Wander::new(&mut random, 0.35, 1_800.0),
            delay: Wander::new(&mut random, 0.12, 3_600.0),
            renewed: f64::NEG_INFINITY,
            sources: 0.0,
            last_sources: None,
            minute: -1,
            forced: None,
            at: BEGIN - 600.0,
            random,
            plan,
        };
        for _ in 0..600 {
            service.second();
        }
        service.last_sources = None;
        service.oddities = oddities;
        service
    }

    /// A crowd is to come.
    pub(crate) fn crowd(&mut self, crowd: Crowd) {
        self.crowds.push(crowd);
    }

    /// Goes to another time, as if nothing had been between.
    pub(crate) fn jump(&mut self, at: f64) {
        self.at = at;
        self.renewed = at;
        self.minute = -1;
    }

    /// From now on another chance; what is so far stays.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// From now on it is sampled so.
    pub(crate) fn sample(&mut self, sampling: Sampling) {
        self.sampling = sampling;
    }

    /// Packets a second that are usual at this time.
    pub(crate) fn usual(&self) -> f64 {
        self.plan.packets * self.season.expected(self.at)
    }

    /// Its season.
    #[cfg(test)]
    pub(crate) fn season(&self) -> &Season {
        &self.season
    }

    /// What goes on, or ended within the last seconds.
    pub(crate) fn oddities(&self, within: f64) -> impl Iterator<Item = Oddity> {
        self.going
            .iter()
            .filter(move |going| going.oddity != Oddity::Monitoring || self.at < going.begins + 600.0)
            .filter(move |going| self.at < going.ends + within)
            .map(|going| going.oddity)
    }

    /// The next second.
    pub(crate) fn second(&mut self) -> Observation {
        self.step(1.0)
    }

    /// The next second, in tenths; `look` gets each of them and its end.
    pub(crate) fn tenths(&mut self, mut look: impl FnMut(f64, &Observation)) -> Observation {
        let begins = self.at;
        let mut whole = Observation::default();
        for tenth in 1..=10 {
            let part = self.step(0.1);
            // Sums of tenths drift away from whole seconds.
            self.at = begins + f64::from(tenth) / 10.0;
            look(self.at, &part);
            join(&mut whole, part);
        }
        whole.seconds = 1.0;
        whole
    }

    fn step(&mut self, seconds: f64) -> Observation {
        let at = self.at;
        self.slow(at);
        self.happen(at);
        let mut tally = Tally::new(seconds);
        let now = self.now(at, seconds);
        let random = &mut self.random;
        self.talking.step(random, &now, &self.population, &mut tally);
        self.sources += self.talking.came / CONNECTIONS;
        let scanned = random.poisson(self.plan.radiation * seconds);
        let probe = Shape::tcp(SYN, self.plan.port, one(60, 60));
        tally.add(random, scanned, probe, Senders::Spoofed(244));
        tally.seen.syn_ack += scanned;
        self.sources += scanned;
        for going in &self.going {
            if at < going.begins || at >= going.ends {
                continue;
            }
            match going.doing {
                Doing::Stream(stream) => {
                    let sent = random.poisson(stream.packets_per_second * seconds * now.passes);
                    let from = Senders::Host(stream.host);
                    if !stream.requests || !matches!(self.plan.talk, Talk::Web { .. }) {
                        let shape = match self.plan.talk {
                            Talk::Names => Shape::udp(self.plan.port, one(70, 128)),
                            Talk::Game { .. } => Shape::udp(self.plan.port, one(67, 90)),
                            Talk::Web { .. } => single(stream.host, self.plan.port, stream.upload),
                        };
                        tally.add(random, sent, shape, from);
                    } else {
                        conversations(random, &mut tally, self.plan.port, sent, from, 8.0, stream.upload);
                    }
                }
                Doing::Probes {
                    host,
                    packets_per_second,
                } => {
                    let sent = random.poisson(packets_per_second * seconds);
                    tally.add(random, sent, probe, Senders::Host(host));
                    tally.seen.syn_ack += sent;
                }
                _ => {}
            }
        }
        for hostile in &mut self.hostile {
            self.sources += match hostile {
                Hostile::Modelled(attack) => attack.step(random, at, seconds, self.plan.port, &mut tally),
                Hostile::Recorded(playback) => playback.step(random, at, seconds, &mut tally),
            };
        }
        let load = tally.seen.packets / seconds / (25.0 * self.plan.packets);
        let (completed, asked) = (self.talking.completed, self.talking.asked);
        if self.plan.terminates && !matches!(self.plan.talk, Talk::Names | Talk::Game { .. }) {
            if completed > 0.0 {
                let noise = 1.0 + 0.6 / completed.sqrt() * random.normal();
                tally.seen.handshake_seconds = Some(now.round_trip * noise.max(0.2));
            }
            if asked > 0.0 {
                let noise = 1.0 + 0.9 / asked.sqrt() * random.normal();
                let busy = 1.0 + 0.5 * load + 4.0 * load.powi(4).min(50.0);
                let usual = 0.045 * self.talking.response.powf(0.3) * self.delay.value().exp();
                tally.seen.first_byte_seconds = Some(usual * busy * noise.max(0.2));
            }
        } else if !self.plan.terminates {
            (tally.seen.syn_ack, tally.seen.first_ack) = (0.0, 0.0);
        }
        let minute = (at / 60.0).floor() as i64;
        if minute != self.minute {
            // A HyperLogLog of 4,096 registers has a standard error of 1.6 %.
            let noise = 1.0 + 0.016 * random.normal();
            self.last_sources = (self.minute >= 0).then_some((self.sources * noise).round());
            (self.minute, self.sources) = (minute, self.talking.open() / CONNECTIONS);
        }
        tally.seen.sources_per_minute = self.last_sources;
        self.at = at + seconds;
        tally.finish(&mut self.random, &self.population, self.sampling)
    }

    /// What holds for an interval.
    fn now(&mut self, at: f64, seconds: f64) -> Now {
        let mut level = self.season.step(&mut self.random, at, seconds);
        if let Some(forced) = self.forced {
            let expected = self.season.expected(at);
            // The noise of the model, the level of the record.
            level = forced * (level / expected).clamp(0.7, 1.4);
        }
        let (mut fresh, mut slow, mut round_trip) = (self.plan.fresh, 0.0, 1.0);
        let (mut reconnect, mut passes) = (0.0, 1.0);
        let mut join = |crowd: &Crowd, level: &mut f64| {
            if let Some(factor) = crowd.factor(at) {
                *level *= factor;
                let part = (factor - 1.0).max(0.0) / factor.max(1.0);
                fresh = fresh * (1.0 - part) + crowd.fresh.max(fresh) * part;
            }
        };
        for crowd in &self.crowds {
            join(crowd, &mut level);
        }
        for going in &self.going {
            if at < going.begins || at >= going.ends {
                continue;
            }
            match &going.doing {
                Doing::Customers(crowd) => join(crowd, &mut level),
                Doing::Slow {
                    share,
                    round_trip: longer,
                } => {
                    slow += share;
                    round_trip *= 1.0 + (longer - 1.0) * share * 4.0;
                }
                Doing::Reconnect { share } => reconnect += share / (going.ends - going.begins),
                Doing::Cut { left } => passes *= left,
                _ => {}
            }
        }
        // 0.97 to 0.995, most of the time.
        let lost = 0.012 * self.completion.value().exp();
        Now {
            at,
            seconds,
            level,
            fresh,
            completion: (1.0 - lost - 0.3 * slow).clamp(0.0, 1.0),
            again: 0.006 + 0.5 * slow,
            reconnect,
            passes,
            round_trip: self.population.round_trip() * round_trip,
            capacity: 25.0 * self.plan.packets / Talking::packets_per_connection(&self.plan) + 20.0,
        }
    }

    /// What changes slowly.
    fn slow(&mut self, at: f64) {
        let since = at - self.renewed;
        if since < SLOW_STEP {
            return;
        }
        let since = if since.is_finite() { since } else { 0.0 };
        self.renewed = at;
        self.population
            .renew(&mut self.random, (at / 3600.0).rem_euclid(24.0), since);
        self.completion.step(&mut self.random, since);
        self.delay.step(&mut self.random, since);
    }

    /// Whoever was cut off comes back at once.
    fn back(&mut self, cut: &Going) -> Option<Going> {
        matches!(cut.doing, Doing::Cut { .. }).then(|| Going {
            oddity: cut.oddity,
            begins: cut.ends,
            ends: cut.ends + 180.0,
            doing: Doing::Customers(Crowd {
                begins: cut.ends,
                curve: Curve::Rise {
                    factor: self.random.between(1.3, 2.5),
                    rise: 3.0,
                    hold: 5.0,
                    half: 20.0,
                },
                fresh: self.plan.fresh,
            }),
        })
    }

    /// What begins and ends.
    fn happen(&mut self, at: f64) {
        if !self.oddities {
            return;
        }
        let week = ((at - BEGIN) / WEEK).floor() as i64;
        if week != self.week {
            self.week = week;
            let bulk = matches!(self.plan.talk, Talk::Web { .. });
            self.coming = oddity::draw_week(
                &mut self.random,
                BEGIN + week as f64 * WEEK,
                self.plan.crowds,
                bulk,
            );
            self.coming.retain(|(begins, _)| *begins >= at);
        }
        while let Some(&(begins, oddity)) = self.coming.last()
            && begins <= at
        {
            self.coming.pop();
            match oddity {
                // Other pages: longer or shorter answers, and requests.
                Oddity::Deploy => {
                    let change = self.random.log_normal(1.0, 0.18);
                    self.talking.response = (self.talking.response * change).clamp(0.5, 2.0);
                    let length = f64::from(self.talking.request_length) * self.random.log_normal(1.0, 0.05);
                    self.talking.request_length = length.clamp(380.0, 400.0) as u16;
                    self.going.push(Going {
                        oddity,
                        begins,
                        ends: begins + 120.0,
                        doing: Doing::Reconnect { share: 0.3 },
                    });
                }
                // The way from the internet becomes longer or shorter.
                Oddity::Renumbering => self.population.reroute(&mut self.random),
                _ => {
                    let usual = self.usual();
                    let going = oddity::begin(
                        &mut self.random,
                        oddity,
                        begins,
                        &self.population,
                        usual,
                        self.plan.crowds,
                    );
                    let back = going.as_ref().and_then(|going| self.back(going));
                    self.going.extend(going);
                    self.going.extend(back);
                }
            }
        }
        self.going.retain(|going| at < going.ends + 600.0);
    }
}

/// Whole conversations of such a number of packets: handshakes, requests, ACKs, ends.
pub(crate) fn conversations(
    random: &mut Random,
    tally: &mut Tally,
    port: u16,
    packets: f64,
    from: Senders,
    requests: f64,
    upload: bool,
) {
    let each = 5.0 + 2.0 * requests;
    let began = random.poisson(packets / each);
    let pure = two((66, 66, 0.9), (60, 60, 0.1));
    tally.add(random, began, Shape::tcp(SYN, port, one(74, 74)), from);
    tally.seen.syn_ack += began;
    tally.seen.first_ack += began;
    tally.add(random, began, Shape::tcp(ACK | PSH, port, one(560, 620)), from);
    tally.add(random, began, Shape::tcp(ACK | PSH, port, one(118, 128)), from);
    tally.add(random, began, Shape::tcp(FIN | ACK, port, pure), from);
    let asked = random.poisson(packets * requests / each);
    let request = if upload {
        two((1490, 1514, 0.8), (260, 320, 0.2))
    } else {
        one(260, 320)
    };
    tally.add(random, asked, Shape::tcp(ACK | PSH, port, request), from);
    let acks = random.poisson(packets * (requests + 1.0) / each);
    tally.add(random, acks, Shape::tcp(ACK, port, pure), from);
}
