//! `weir services`.

use std::{collections::BTreeSet, fmt::Write as _, process::ExitCode};

use weir::{
    api::traffic::{PortUse, ServiceUse, ServicesAnswer},
    inventory,
};

use super::{
    Context,
    output::Failure,
    table::{Align, Table, bit_rate, grouped, rate},
};

/// Which ports of this host listen, which are asked for and by whom, and which service names each
///
/// Then what each service sees, counted packet by packet: rates, new connections and completed handshakes, different sources in
/// the last minute, and, where the policy asks for time, how long handshakes and first answers take.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir services
  weir services --json | jq '.ports[] | select(.service == null and .listening != [])'
  weir policy init > policy.toml           a first policy, drawn from this")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let mut answer: ServicesAnswer = context.client().get("/v1/services")?;
    name_programs(&mut answer);
    context.show(&answer, text)?;
    Ok(ExitCode::SUCCESS)
}

/// The controller's user may not look into other users' processes; the one who asks perhaps may.
pub(crate) fn name_programs(answer: &mut ServicesAnswer) {
    if answer
        .ports
        .iter()
        .all(|port| port.program.is_some() || port.listening.is_empty())
    {
        return;
    }
    let Ok(sockets) = inventory::listening() else {
        return;
    };
    for port in answer.ports.iter_mut().filter(|port| port.program.is_none()) {
        let same = sockets.iter().find(|socket| {
            inventory::protocol_name(socket.protocol) == port.protocol
                && socket.port == port.port
                && port.listening.contains(&socket.address)
        });
        port.program = same.and_then(|socket| socket.program.clone());
    }
}

fn text(answer: &ServicesAnswer) -> String {
    let mut text = ports(&answer.ports);
    let _ = write!(text, "\n{}", services(answer));
    let remarks = remarks(answer);
    if !remarks.is_empty() {
        let _ = write!(text, "\n{remarks}");
    }
    text
}

fn ports(ports: &[PortUse]) -> String {
    let asked = ports.iter().any(|port| port.estimate.packets_per_second > 0.0);
    let mut columns = vec![
        ("PORT", Align::Right),
        ("PROTOCOL", Align::Left),
        ("SERVICE", Align::Left),
        ("LISTENING", Align::Left),
        ("PROGRAM", Align::Left),
    ];
    if asked {
        columns.extend([
            ("ASKED/S", Align::Right),
            ("RATE", Align::Right),
            ("NEW/S", Align::Right),
            ("TOP SOURCE", Align::Left),
        ]);
    }
    let mut table = Table::new(&columns);
    for port in ports {
        let listening: Vec<String> = port.listening.iter().map(ToString::to_string).collect();
        let estimate = &port.estimate;
        let first = [
            port.port.to_string(),
            port.protocol.clone(),
            port.service.clone().unwrap_or_else(|| "-".into()),
            if listening.is_empty() {
                "-".into()
            } else {
                listening.join(", ")
            },
            port.program.clone().unwrap_or_else(|| "-".into()),
        ];
        if !asked {
            table.row(first);
            continue;
        }
        let [number, protocol, service, listening, program] = first;
        table.row([
            number,
            protocol,
            service,
            listening,
            program,
            rate(estimate.packets_per_second),
            bit_rate(estimate.bytes_per_second),
            rate(estimate.connections_per_second),
            port.top_source
                .map_or_else(|| "-".into(), |source| source.to_string()),
        ]);
    }
    if table.is_empty() {
        return "no port listens, and none is asked for\n".into();
    }
    table.to_string()
}

fn services(answer: &ServicesAnswer) -> String {
    let timed = |service: &ServiceUse| {
        service.handshake_seconds_p50.is_some() || service.first_byte_seconds_p50.is_some()
    };
    let timed = answer.services.iter().any(timed);
    let mut columns = vec![
        ("SERVICE", Align::Left),
        ("PACKETS/S", Align::Right),
        ("RATE", Align::Right),
        ("SYN/S", Align::Right),
        ("FIRST ACK/S", Align::Right),
        ("SOURCES/MIN", Align::Right),
    ];
    if timed {
        columns.extend([
            ("HANDSHAKE P50", Align::Right),
            ("P99", Align::Right),
            ("FIRST BYTE P50", Align::Right),
            ("P99", Align::Right),
        ]);
    }
    let mut table = Table::new(&columns);
    for service in &answer.services {
        let counts = [
            service.service.clone(),
            rate(service.packets_per_second),
            bit_rate(service.bytes_per_second),
            rate(service.syn_per_second),
            rate(service.first_ack_per_second),
            grouped(service.distinct_sources),
        ];
        if !timed {
            table.row(counts);
            continue;
        }
        let [name, packets, bits, syn, first_ack, sources] = counts;
        table.row([
            name,
            packets,
            bits,
            syn,
            first_ack,
            sources,
            time(service.handshake_seconds_p50),
            time(service.handshake_seconds_p99),
            time(service.first_byte_seconds_p50),
            time(service.first_byte_seconds_p99),
        ]);
    }
    let span = if answer.span_seconds > 0.0 {
        format!("over the last {:.0} s\n", answer.span_seconds)
    } else {
        "too early for rates: ask again in a few seconds\n".into()
    };
    format!("{table}{span}")
}

/// A time in the unit that reads best.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

/// What to look at: ports that nothing limits, and services that nobody serves here.
fn remarks(answer: &ServicesAnswer) -> String {
    let mut text = String::new();
    let reachable = |port: &&PortUse| {
        port.listening
            .iter()
            .any(|address| inventory::reachable(*address))
    };
    for port in answer
        .ports
        .iter()
        .filter(reachable)
        .filter(|port| port.service.is_none())
    {
        let program = port
            .program
            .as_ref()
            .map_or_else(String::new, |program| format!(" ({program})"));
        let _ = writeln!(
            text,
            "{} port {}{program} listens, and no service of the policy names it",
            port.protocol, port.port
        );
    }
    let served: BTreeSet<&str> = answer
        .ports
        .iter()
        .filter(reachable)
        .filter_map(|port| port.service.as_deref())
        .collect();
    let named: BTreeSet<&str> = answer
        .ports
        .iter()
        .filter_map(|port| port.service.as_deref())
        .collect();
    for service in named.difference(&served) {
        let _ = writeln!(text, "service {service}: no socket of this host listens for it");
    }
    text
}

#[cfg(test)]
mod tests {
    use weir::api::traffic::Estimate;

    use super::*;

    fn port(port: u16, service: Option<&str>, listening: &[&str]) -> PortUse {
        PortUse {
            protocol: "tcp".into(),
            port,
            service: service.map(str::to_owned),
            listening: listening.iter().map(|address| address.parse().unwrap()).collect(),
            program: None,
            estimate: Estimate::default(),
            top_source: None,
        }
    }

    fn service(name: &str) -> ServiceUse {
        ServiceUse {
            service: name.into(),
            packets_per_second: 1234.0,
            bytes_per_second: 125_000.0,
            syn_per_second: 20.0,
            first_ack_per_second: 19.0,
            distinct_sources: 4321,
            handshake_seconds_p50: None,
            handshake_seconds_p99: None,
            first_byte_seconds_p50: None,
            first_byte_seconds_p99: None,
        }
    }

    #[test]
    fn ports_and_services_stand_in_tables_with_what_to_look_at() {
        let answer = ServicesAnswer {
            schema: 1,
            span_seconds: 10.0,
            ports: vec![
                port(25, None, &["0.0.0.0"]),
                port(80, Some("web"), &["::"]),
                port(5432, None, &["127.0.0.1"]),
                port(9999, Some("games"), &[]),
            ],
            services: vec![service("web"), service("games")],
        };
        let expected = "\
PORT  PROTOCOL  SERVICE  LISTENING  PROGRAM
  25  tcp       -        0.0.0.0    -
  80  tcp       web      ::         -
5432  tcp       -        127.0.0.1  -
9999  tcp       games    -          -

SERVICE  PACKETS/S    RATE  SYN/S  FIRST ACK/S  SOURCES/MIN
web          1,234  1 Mb/s     20           19        4,321
games        1,234  1 Mb/s     20           19        4,321
over the last 10 s

tcp port 25 listens, and no service of the policy names it
service games: no socket of this host listens for it
";
        assert_eq!(text(&answer), expected);
    }

    #[test]
    fn times_and_askers_have_columns_where_there_are_any() {
        let mut web = service("web");
        web.handshake_seconds_p50 = Some(0.000_250);
        web.handshake_seconds_p99 = Some(0.0123);
        web.first_byte_seconds_p99 = Some(1.5);
        let mut asked = port(80, Some("web"), &["::"]);
        asked.estimate.packets_per_second = 10.0;
        asked.top_source = Some("192.0.2.1/32".parse().unwrap());
        let text = text(&ServicesAnswer {
            ports: vec![asked],
            services: vec![web],
            ..ServicesAnswer::default()
        });
        for expected in ["250 µs  12.3 ms", "1.5 s", "192.0.2.1/32", "too early for rates"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
