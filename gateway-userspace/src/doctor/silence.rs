//! What the kernel does while no controller reports (`[controller] on_loss`), where Weir is attached.

use super::{Finding, Options};
use crate::kernel::{self, Dataplane};

/// Looks at the pinned maps, without their lock: a controller may hold it.
pub(super) fn findings(options: &Options) -> Option<Finding> {
    if options.weir_on.is_empty() {
        return None;
    }
    judge(kernel::open_at(&options.bpffs)?, Dataplane::now_ns())
}

fn judge(open_at_ns: u64, now_ns: u64) -> Option<Finding> {
    if open_at_ns == 0 {
        return None;
    }
    let seconds = |ns: u64| ns / 1_000_000_000;
    Some(if now_ns < open_at_ns {
        Finding::ok(
            "on_loss",
            format!(
                "without a controller the node opens in {} s: packets are then counted, and not dropped",
                seconds(open_at_ns - now_ns)
            ),
        )
    } else {
        Finding::fail(
            "on_loss",
            format!(
                "no controller reports, and the node has been open for {} s: packets are counted, and not dropped",
                seconds(now_ns - open_at_ns)
            ),
            "start weir: it enforces at once (systemctl start weir, or weir run)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn an_open_node_is_a_fault_and_one_that_may_open_is_not() {
        assert_eq!(judge(0, 5), None);
        let live = judge(70_000_000_000, 10_000_000_000).unwrap();
        assert!(
            live.level == Level::Ok && live.what.contains("in 60 s"),
            "{live:?}"
        );
        let open = judge(10_000_000_000, 70_000_000_000).unwrap();
        assert!(
            open.level == Level::Fail && open.what.contains("open for 60 s"),
            "{open:?}"
        );
    }
}
