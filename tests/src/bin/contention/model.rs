//! What CPUs that share a total do to each other, by two costs: of a packet on a CPU alone, and of the cache line that the total's
//! cell lies in, when it moves from one CPU to another.
//!
//! The line is in one place at a time, so it is a server with a queue; a CPU is a customer who works on its own for a packet's
//! cost, then needs the line. That is a closed queueing network, solved by mean value analysis (Reiser and Lavenberg, 1980):
//! a customer that comes finds the queue as it is on the average with one customer fewer.

/// The costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// Nanoseconds of a packet while nobody else charges the total.
    pub(crate) packet_ns: f64,
    /// Nanoseconds in which the line moves to a CPU and is changed there.
    pub(crate) transfer_ns: f64,
    /// Packets of a CPU for each time it needs the line: 1 without leases.
    pub(crate) per_transfer: f64,
}

/// Packets a second of so many CPUs together.
pub(crate) fn rate(cpus: u32, costs: Costs) -> f64 {
    // The line is where it was left: with one of the CPUs, and as likely with this one as with any other.
    let elsewhere = f64::from(cpus - 1) / f64::from(cpus);
    let needed_ns = costs.transfer_ns * elsewhere / costs.per_transfer;
    let (mut queue, mut rate) = (0.0, 0.0);
    for customers in 1..=cpus {
        let at_line_ns = needed_ns * (1.0 + queue);
        rate = f64::from(customers) / (costs.packet_ns + at_line_ns);
        queue = rate * at_line_ns;
    }
    rate * 1e9
}

/// Packets that a CPU pays from one lease where the traffic of all of them is the total's whole rate, evenly spread: by how long a
/// lease lasts while little is owed, and how large it may be (`gateway_core::lease`), and half of that, for it does not fit exactly.
pub(crate) fn packets_of_a_lease(cpus: u32, packet_ns: f64) -> f64 {
    let others = f64::from(cpus - 1);
    // Of refill of the total, in nanoseconds: the largest lease, and half of the floor, which is the life that it gives.
    let largest_ns = 1e6 / 8.0;
    let lasts_ns = ((others * 0.75 - 0.25) * 1e6 / 2.0).min(1e7);
    (lasts_ns.min(largest_ns * f64::from(cpus)) / packet_ns / 2.0).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: Costs = Costs {
        packet_ns: 150.0,
        transfer_ns: 100.0,
        per_transfer: 1.0,
    };

    fn close(one: f64, other: f64) -> bool {
        (one / other - 1.0).abs() < 1e-9
    }

    #[test]
    fn one_cpu_pays_its_own_cost_only() {
        assert!(close(rate(1, BARE), 1e9 / 150.0));
    }

    #[test]
    fn two_cpus_are_as_by_hand() {
        // Each needs the line for 50 ns a packet on the average; one alone would be at it for a quarter of its time.
        let at_line_ns = 50.0 * (1.0 + 50.0 / 200.0);
        assert!(close(rate(2, BARE), 2e9 / (150.0 + at_line_ns)));
    }

    #[test]
    fn without_leases_the_line_is_the_bound_and_with_them_cores_are() {
        let mut last = 0.0;
        for cpus in 1..=64 {
            let bare = rate(cpus, BARE);
            assert!(bare <= f64::from(cpus) * 1e9 / 150.0 + 1e-3);
            if cpus > 1 {
                assert!(bare <= 1e9 / 100.0 * f64::from(cpus) / f64::from(cpus - 1) + 1e-3);
                let leased = Costs {
                    per_transfer: packets_of_a_lease(cpus, BARE.packet_ns),
                    ..BARE
                };
                assert!(rate(cpus, leased) > 0.99 * f64::from(cpus) * 1e9 / 150.0);
                assert!(rate(cpus, leased) > bare && rate(cpus, leased) > last);
                last = rate(cpus, leased);
            }
        }
    }
}
