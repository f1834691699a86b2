//! `weir detach`.

use std::process::ExitCode;

use weir::{
    api::types::{DetachRequest, Detached, SCHEMA, code},
    kernel::{Dataplane, KernelError},
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
    let detached = match Dataplane::open_pinned(&context.bpffs) {
        Ok(dataplane) => directly(dataplane, args)?,
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

fn directly(mut dataplane: Dataplane, args: &Args) -> Result<Detached, Failure> {
    let attached: Vec<String> = dataplane
        .attachments()?
        .into_iter()
        .map(|attachment| attachment.interface)
        .collect();
    let wanted = wanted(&attached, &args.interfaces)?;
    for interface in &wanted {
        dataplane.detach(interface)?;
    }
    let remaining = attached
        .into_iter()
        .filter(|interface| !wanted.contains(interface))
        .collect();
    Ok(Detached {
        schema: SCHEMA,
        detached: wanted,
        remaining,
    })
}

/// The interfaces to detach from; all that are named must be attached, or nothing is done.
fn wanted(attached: &[String], named: &[String]) -> Result<Vec<String>, Failure> {
    if named.is_empty() {
        if attached.is_empty() {
            return Err(Failure::new(
                code::NOT_FOUND,
                "weir is attached to no interface; there is nothing to detach",
            ));
        }
        return Ok(attached.to_vec());
    }
    let strangers: Vec<&str> = named
        .iter()
        .filter(|name| !attached.contains(name))
        .map(String::as_str)
        .collect();
    if strangers.is_empty() {
        let mut wanted = named.to_vec();
        wanted.sort();
        wanted.dedup();
        return Ok(wanted);
    }
    let known = if attached.is_empty() {
        "nothing".to_owned()
    } else {
        attached.join(", ")
    };
    Err(Failure::new(
        code::NOT_FOUND,
        format!("weir is not attached to {}", strangers.join(", ")),
    )
    .hint(format!("it is attached to {known}; nothing was changed")))
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
    fn what_is_named_must_be_attached() {
        let attached = names(&["eth0", "eth1"]);
        assert_eq!(wanted(&attached, &[]).unwrap(), attached);
        assert_eq!(wanted(&attached, &names(&["eth1", "eth1"])).unwrap(), ["eth1"]);
        let failure = wanted(&attached, &names(&["eth1", "eth7"])).unwrap_err();
        assert!(format!("{failure:?}").contains("not attached to eth7"));
        assert_eq!(failure.exit_code(), 1);
        assert_eq!(wanted(&[], &[]).unwrap_err().exit_code(), 1);
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
