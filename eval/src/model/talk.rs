//! How customers talk to a service: what packets a connection, a question or a session brings.

use super::{
    plan::{Plan, Talk},
    population::{Host, Population, Senders},
    random::Random,
    tally::{ACK, FIN, PSH, Port, RST, SYN, Shape, Tally, one, two},
};

/// One connection in so many moves much more than others.
const LARGE_ONE_IN: f64 = 500.0;
/// How much that is, in packets: at least, and the index of the distribution (heavy-tailed, as file sizes on the web are:
/// Crovella and Bestavros, Self-Similarity in World Wide Web Traffic, 1997).
const LARGE_LEAST: f64 = 300.0;
const LARGE_INDEX: f64 = 1.3;
const LARGE_MOST: f64 = 200_000.0;
/// How long a game's session lasts, in seconds.
const SESSION: f64 = 1_800.0;

/// What holds for an interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Its beginning.
    pub(crate) at: f64,
    pub(crate) seconds: f64,
    /// How much there is, in the mean of the week.
    pub(crate) level: f64,
    /// Packets from networks never met.
    pub(crate) fresh: f64,
    /// Handshakes that are completed.
    pub(crate) completion: f64,
    /// SYNs that are sent again though the handshake is completed in the end.
    pub(crate) again: f64,
    /// Of the open connections, so many are closed and opened anew, a second.
    pub(crate) reconnect: f64,
    /// What arrives of what is sent.
    pub(crate) passes: f64,
    /// Round trip, in seconds.
    pub(crate) round_trip: f64,
    /// SYNs a second that are answered, at most.
    pub(crate) capacity: f64,
}

/// A connection that moves much.
#[derive(Clone, Copy, Debug)]
struct Large {
    host: Host,
    left: f64,
    packets_per_second: f64,
    upload: bool,
}

/// What goes on between customers and service.
#[derive(Clone, Debug)]
pub(crate) struct Talking {
    plan: Plan,
    /// Handshakes whose end is on the way.
    opening: f64,
    /// What open connections will yet send.
    requests: f64,
    acks: f64,
    closing: f64,
    quic_requests: f64,
    quic_acks: f64,
    quic_open: f64,
    large: Vec<Large>,
    players: f64,
    /// What deployments made of the responses' sizes.
    pub(crate) response: f64,
    /// And of the requests'.
    pub(crate) request_length: u16,
    /// Requests, questions or sessions that began in this interval.
    pub(crate) asked: f64,
    /// Connections, questions or players that began: for the count of sources.
    pub(crate) came: f64,
    /// Handshakes that were completed.
    pub(crate) completed: f64,
}

impl Talking {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut talking = Self {
            plan,
            opening: 0.0,
            requests: 0.0,
            acks: 0.0,
            closing: 0.0,
            quic_requests: 0.0,
            quic_acks: 0.0,
            quic_open: 0.0,
            large: Vec::new(),
            players: 0.0,
            response: 1.0,
            request_length: 380,
            asked: 0.0,
            came: 0.0,
            completed: 0.0,
        };
        if let Talk::Game { per_second } = plan.talk {
            talking.players = plan.packets / per_second * 0.3;
        }
        talking
    }

    /// Packets that a connection brings, in the mean: a plan's rate over this is its rate of connections.
    pub(crate) fn packets_per_connection(plan: &Plan) -> f64 {
        match plan.talk {
            Talk::Web {
                quic, requests, acks, ..
            } => {
                let large = 1_150.0 / LARGE_ONE_IN;
                let tcp = 5.5 + requests * (1.0 + acks);
                let udp = 3.3 + requests * (1.0 + acks);
                (1.0 - quic) * tcp + quic * udp + large
            }
            Talk::Names => 1.02,
            Talk::Game { per_second } => per_second * SESSION,
        }
    }

    /// Connections and sessions that are open: their senders are there at a minute's beginning.
    pub(crate) fn open(&self) -> f64 {
        match self.plan.talk {
            Talk::Web { .. } => self.closing + self.quic_open,
            Talk::Names => 0.0,
            Talk::Game { .. } => self.players,
        }
    }

    /// An interval of the customers' packets.
    pub(crate) fn step(
        &mut self,
        random: &mut Random,
        now: &Now,
        population: &Population,
        tally: &mut Tally,
    ) {
        (self.asked, self.came, self.completed) = (0.0, 0.0, 0.0);
        match self.plan.talk {
            Talk::Web {
                quic,
                requests,
                acks,
                lasts,
            } => self.web(random, now, population, tally, (quic, requests, acks, lasts)),
            Talk::Names => self.names(random, now, tally),
            Talk::Game { per_second } => self.game(random, now, tally, per_second),
        }
    }

    fn web(
        &mut self,
        random: &mut Random,
        now: &Now,
        population: &Population,
        tally: &mut Tally,
        (quic, requests, acks, lasts): (f64, f64, f64, f64),
    ) {
        let from = Senders::Customers { fresh: now.fresh };
        let seconds = now.seconds;
        let rate = self.plan.packets * now.level / Self::packets_per_connection(&self.plan);
        let anew = now.reconnect * self.closing * seconds;
        let began = random.poisson((rate * seconds + anew) * now.passes);
        self.came = began;
        let udp = random.binomial(began, quic);
        let tcp = began - udp;

        // Handshakes.
        let answered = (now.capacity / (rate + 1.0)).min(1.0);
        let completed = random.binomial(tcp, now.completion * answered);
        let again = random.poisson(tcp * now.again + (tcp - completed) * 1.2);
        let syns = tcp + again;
        let timestamps = population.timestamps();
        let port = self.plan.port;
        let syn = Shape::tcp(SYN, port, two((74, 78, timestamps), (66, 66, 1.0 - timestamps)));
        tally.add(random, syns, syn, from);
        if self.plan.terminates {
            tally.seen.syn_ack += random.binomial(syns, answered);
        }
        // The client's answer comes a round trip later.
        self.opening += completed;
        let opened = random.binomial(self.opening, 1.0 - (-seconds / now.round_trip.max(0.005)).exp());
        self.opening -= opened;
        self.completed = opened;
        if self.plan.terminates {
            tally.seen.first_ack += opened;
        }
        let pure = two((66, 66, timestamps), (60, 60, 1.0 - timestamps));
        let ack = Shape::tcp(ACK, port, pure);
        tally.add(random, opened, ack, from);
        // Newer clients' first flight is longer than a frame (post-quantum key shares).
        let hello = Shape::tcp(ACK | PSH, port, two((540, 800, 0.62), (1450, 1514, 0.38)));
        tally.add(random, opened, hello, from);
        let long = random.binomial(opened, 0.38);
        tally.add(random, long, Shape::tcp(ACK | PSH, port, one(300, 480)), from);
        tally.add(random, opened, Shape::tcp(ACK | PSH, port, one(118, 128)), from);

        // Requests, and the ACKs of what is sent back.
        self.requests += compound(random, opened, requests, 1.1);
        let asked = self.release(random, seconds, lasts * 0.5, |of| &mut of.requests) * now.passes;
        let asked = asked.round();
        let length = self.request_length;
        let request = [
            (90, 127, 0.35),
            (length - 110, length + 110, 0.45),
            (560, 1000, 0.15),
            (1200, 1514, 0.05),
        ];
        tally.add(random, asked, Shape::tcp(ACK | PSH, port, request), from);
        self.acks += compound(random, asked, acks * self.response, 2.0);
        let received = (self.release(random, seconds, 1.2, |of| &mut of.acks) * now.passes).round();
        tally.add(random, received, ack, from);

        // Ends.
        self.closing += opened;
        let closed = random
            .poisson(self.closing * ((1.0 - (-seconds / lasts).exp()) + now.reconnect * seconds))
            .min(self.closing.floor());
        self.closing -= closed;
        let fins = random.poisson(closed * 0.85 * now.passes);
        tally.add(random, fins, Shape::tcp(FIN | ACK, port, pure), from);
        let resets = random.poisson(closed * (0.08 + now.reconnect.min(0.5)) * now.passes);
        tally.add(random, resets, Shape::tcp(RST, port, one(60, 60)), from);

        if udp > 0.0 || self.quic_requests > 0.5 || self.quic_acks > 0.5 {
            self.quic(random, now, tally, (udp, requests, acks, lasts));
        }
        self.asked += asked;
        self.large(random, now, population, tally, began);
    }

    fn quic(
        &mut self,
        random: &mut Random,
        now: &Now,
        tally: &mut Tally,
        (began, requests, acks, lasts): (f64, f64, f64, f64),
    ) {
        let from = Senders::Customers { fresh: now.fresh };
        let port = self.plan.port;
        let initial = Shape {
            connection: true,
            ..Shape::udp(port, one(1242, 1294))
        };
        let initials = began + random.poisson(began * 0.3);
        tally.add(random, initials, initial, from);
        let rest = random.poisson(began * 2.0);
        tally.add(
            random,
            rest,
            Shape::udp(port, two((70, 127, 0.6), (1242, 1294, 0.4))),
            from,
        );
        self.quic_open += began;
        self.quic_open -= self.quic_open * (1.0 - (-now.seconds / lasts).exp());
        self.quic_requests += compound(random, began * now.completion, requests, 1.1);
        let asked =
            (self.release(random, now.seconds, lasts * 0.5, |of| &mut of.quic_requests) * now.passes).round();
        let request = [
            (75, 128, 0.5),
            (140, 250, 0.3),
            (280, 500, 0.15),
            (1200, 1294, 0.05),
        ];
        tally.add(random, asked, Shape::udp(port, request), from);
        self.quic_acks += compound(random, asked, acks * self.response, 2.0);
        let received = (self.release(random, now.seconds, 1.2, |of| &mut of.quic_acks) * now.passes).round();
        tally.add(random, received, Shape::udp(port, one(70, 90)), from);
        self.asked += asked;
    }

    /// Connections that move much: each a sender of its own.
    fn large(
        &mut self,
        random: &mut Random,
        now: &Now,
        population: &Population,
        tally: &mut Tally,
        began: f64,
    ) {
        for _ in 0..random.poisson(began / LARGE_ONE_IN) as u64 {
            self.large.push(Large {
                host: population.host(random),
                left: random.pareto(LARGE_LEAST, LARGE_INDEX, LARGE_MOST),
                packets_per_second: random.log_normal(self.plan.line, 0.9).min(40.0 * self.plan.line),
                upload: random.chance(self.plan.uploads),
            });
        }
        let port = self.plan.port;
        for large in &mut self.large {
            let sent = random
                .poisson(large.packets_per_second * now.seconds * now.passes)
                .min(large.left.ceil());
            large.left -= sent;
            let shape = single(large.host, port, large.upload);
            tally.add(random, sent, shape, Senders::Host(large.host));
        }
        self.large.retain(|large| large.left > 0.0);
    }

    fn names(&mut self, random: &mut Random, now: &Now, tally: &mut Tally) {
        let from = Senders::Customers { fresh: now.fresh };
        // Answers that were kept for five minutes are asked for anew together.
        let together = if now.at.rem_euclid(300.0) < 3.0 { 1.25 } else { 1.0 };
        let mean = self.plan.packets * now.level * now.seconds * together * now.passes / 1.02;
        let asked = random.poisson(mean);
        let question = [(70, 128, 0.93), (129, 180, 0.06), (260, 400, 0.01), (0, 0, 0.0)];
        // Some resolvers ask from port 53, as all once did.
        let old = random.binomial(asked, 0.012);
        tally.add(random, asked - old, Shape::udp(self.plan.port, question), from);
        let shape = Shape {
            source_port: Port::Fixed(53),
            ..Shape::udp(self.plan.port, question)
        };
        tally.add(random, old, shape, from);
        // What is too long for UDP is asked for again over TCP.
        let tcp = random.poisson(asked * 0.004);
        let pure = two((66, 66, 0.8), (60, 60, 0.2));
        let port = self.plan.port;
        tally.add(random, tcp, Shape::tcp(SYN, port, one(74, 74)), from);
        let completed = random.binomial(tcp, now.completion);
        tally.seen.syn_ack += tcp;
        tally.seen.first_ack += completed;
        tally.add(random, 2.0 * completed, Shape::tcp(ACK, port, pure), from);
        tally.add(
            random,
            completed,
            Shape::tcp(ACK | PSH, port, one(100, 128)),
            from,
        );
        tally.add(random, completed, Shape::tcp(FIN | ACK, port, pure), from);
        (self.asked, self.came, self.completed) = (asked, asked.powf(0.85), completed);
    }

    fn game(&mut self, random: &mut Random, now: &Now, tally: &mut Tally, per_second: f64) {
        let from = Senders::Customers { fresh: now.fresh };
        let wanted = self.plan.packets * now.level / per_second;
        let missing = (wanted - self.players).max(0.0);
        let began = random.poisson((self.players / SESSION + missing / 90.0) * now.seconds * now.passes);
        let surplus = (self.players - wanted).max(0.0);
        let ended = random
            .poisson((self.players / SESSION + surplus / 300.0 + self.players * now.reconnect) * now.seconds)
            .min(self.players);
        self.players += began - ended;
        let port = self.plan.port;
        // Others only look which servers there are.
        let looking = random.poisson(self.players * 0.02 * now.seconds);
        tally.add(random, looking + 4.0 * began, Shape::udp(port, one(67, 90)), from);
        // A new map every twenty minutes: for some seconds clients say little.
        let quiet = if now.at.rem_euclid(1_200.0) < 5.0 {
            0.55
        } else {
            1.0
        };
        let mean = self.players * per_second * quiet * now.seconds * now.passes;
        // Clients keep their pace: half the variance of chance.
        let sent = (mean + (mean * 0.5).sqrt() * random.normal()).round().max(0.0);
        tally.add(
            random,
            sent,
            Shape::udp(port, two((80, 128, 0.9), (129, 220, 0.1))),
            from,
        );
        (self.asked, self.came) = (0.0, began);
    }

    /// What a store releases within an interval, when it empties with this time constant.
    fn release(
        &mut self,
        random: &mut Random,
        seconds: f64,
        constant: f64,
        store: impl Fn(&mut Self) -> &mut f64,
    ) -> f64 {
        let held = *store(self);
        let released = random
            .poisson(held * (1.0 - (-seconds / constant).exp()))
            .min(held.floor());
        *store(self) -= released;
        released
    }
}

/// One host's data, or its ACKs.
pub(crate) fn single(host: Host, port: u16, upload: bool) -> Shape {
    let pure = if host.timestamps { 66 } else { 60 };
    if upload {
        Shape::tcp(ACK, port, two((1490, 1514, 0.97), (pure, pure, 0.03)))
    } else {
        Shape::tcp(ACK, port, two((pure, pure, 0.97), (300, 500, 0.03)))
    }
}

/// The sum of `count` draws from a distribution with this mean and this deviation relative to it.
fn compound(random: &mut Random, count: f64, mean: f64, deviation: f64) -> f64 {
    if count <= 0.0 || mean <= 0.0 {
        return 0.0;
    }
    if count < 24.0 {
        // Log-normal, with that mean.
        let variance = (1.0 + deviation * deviation).ln();
        let median = mean * (-variance / 2.0).exp();
        return (0..count.ceil() as u32)
            .map(|_| random.log_normal(median, variance.sqrt()))
            .sum();
    }
    (count * mean + count.sqrt() * mean * deviation * random.normal()).max(0.0)
}
