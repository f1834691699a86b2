//! `weir detach`.

use std::process::ExitCode;

use weir::{
    api::types::{DetachRequest, Detached, SCHEMA, code},
    kernel::{self, KernelError},
};

use super::{Context, output::Failure};

/// Take enforcement off, and remove what is pinned
///
/// Works with and without a controller; one that runs is asked, and does not attach again. With the last interface the
/// shared maps go too: bans, buckets and counters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir detach                      off every interface
  weir detach --interface eth1     off this one only")]
pub(crate) struct Args {
    /// Detach from here (several times for several); without: from every interface
    #[arg(long = "interface", value_name = "IF")]
    pub(crate) interfaces: Vec<String>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let detached = match kernel::detach(&context.bpffs, &args.interfaces) {
        Ok((detached, _)) if detached.is_empty() => {
            return Err(Failure::new(code::NOT_FOUND, "weir is attached to no interface; there is nothing to detach"));
        }
        Ok((detached, remaining)) => Detached { schema: SCHEMA, detached, remaining },
        // Somebody holds the pins: the controller, which must know.
        Err(locked @ KernelError::Locked { .. }) => through_controller(args, context).map_err(|failure| {
            if failure.is_no_controller() {
                Failure::from(locked).hint(format!(
                    "it does not answer at {}: name its socket with --socket, or wait for the command that runs",
                    context.socket.display()
                ))
            } else {
                failure
            }
        })?,
        Err(error) => return Err(error.into()),
    };
    context.show(&detached, text)?;
    Ok(ExitCode::SUCCESS)
}

fn through_controller(args: &Args, context: &Context) -> Result<Detached, Failure> {
    let request = DetachRequest {
        interfaces: args.interfaces.clone(),
    };
    Ok(context.client().post("/v1/detach", &request)?)
}

fn text(detached: &Detached) -> String {
    let off = if detached.detached.is_empty() {
        "nothing".to_owned()
    } else {
        detached.detached.join(", ")
    };
    let rest = match detached.remaining.as_slice() {
        [] => "nothing is enforced any more".to_owned(),
        remaining => format!("still enforcing on {}", remaining.join(", ")),
    };
    format!("detached from {off}; {rest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_rest_is_told() {
        let mut detached = Detached {
            schema: SCHEMA,
            detached: names(&["eth0"]),
            remaining: names(&["eth1", "eth2"]),
        };
        assert_eq!(
            text(&detached),
            "detached from eth0; still enforcing on eth1, eth2\n"
        );
        detached.remaining.clear();
        assert_eq!(
            text(&detached),
            "detached from eth0; nothing is enforced any more\n"
        );
    }
}
