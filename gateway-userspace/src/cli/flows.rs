//! `weir flows`.

use std::process::ExitCode;

use weir::api::traffic::{Flow, FlowsAnswer};

use super::{
    Context,
    output::Failure,
    sources::{Which, error, with_basis},
    table::{Align, Table, bit_rate, rate},
};

/// Show the flows that send the most
///
/// A flow is what has the same protocol, addresses and ports. Estimated from samples, as weir sources.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir flows                             the twenty that send most packets
  weir flows --source 192.0.2.0/24       those of one network
  weir flows --service shop --by bytes")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) which: Which,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let answer: FlowsAnswer = context.client().get(&args.which.path("flows"))?;
    context.show(&answer, text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &FlowsAnswer) -> String {
    let mut table = Table::new(&[
        ("PROTOCOL", Align::Left),
        ("SOURCE", Align::Left),
        ("DESTINATION", Align::Left),
        ("SERVICE", Align::Left),
        ("PACKETS/S", Align::Right),
        ("±", Align::Right),
        ("BIT/S", Align::Right),
        ("DROPPED/S", Align::Right),
        ("FLAGS", Align::Left),
        ("LAST", Align::Left),
    ]);
    for flow in &answer.flows {
        table.row([
            flow.protocol.clone(),
            place(&flow.source, flow.source_port),
            place(&flow.destination, flow.destination_port),
            flow.service.clone(),
            rate(flow.estimate.packets_per_second),
            error(&flow.estimate),
            bit_rate(flow.estimate.bytes_per_second),
            rate(flow.estimate.dropped_per_second),
            flow.tcp_flags.clone(),
            last(flow),
        ]);
    }
    with_basis(&table, answer.one_in, answer.span_seconds)
}

/// An address and a port, if there is one.
fn place(address: &std::net::IpAddr, port: u16) -> String {
    if port == 0 {
        address.to_string()
    } else {
        std::net::SocketAddr::new(*address, port).to_string()
    }
}

/// What was last said of it.
fn last(flow: &Flow) -> String {
    if flow.verdict == flow.reason {
        flow.verdict.clone()
    } else {
        format!("{} {}", flow.verdict, flow.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_with_their_ports() {
        assert_eq!(place(&"192.0.2.1".parse().unwrap(), 443), "192.0.2.1:443");
        assert_eq!(place(&"2001:db8::1".parse().unwrap(), 443), "[2001:db8::1]:443");
        assert_eq!(place(&"2001:db8::1".parse().unwrap(), 0), "2001:db8::1");
    }
}
