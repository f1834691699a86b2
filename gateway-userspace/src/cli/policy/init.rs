//! `weir policy init`: a first policy, drawn from what this host serves.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;
use weir::{
    api::{
        traffic::ServicesAnswer,
        types::{SCHEMA, code},
    },
    client::ClientError,
    guard,
    inventory::{self, Draft},
};

use super::super::{Context, output::Failure, services::name_programs};

/// Draw a first policy from what this host serves
///
/// Looks at the sockets that listen, at the SSH sessions that stand and, where a controller runs, at what it has measured. The
/// draft is in monitor mode and drops nothing; each limit says in a comment where it comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The interface to attach to; without it, those of the default routes
    #[arg(long = "interface", value_name = "IF")]
    pub(crate) interfaces: Vec<String>,
    /// Write the draft to this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Answer {
    schema: u32,
    /// The policy.
    text: String,
    /// Whether a controller's measurements are in it.
    measured: bool,
    /// Where it was written, if not to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let sockets = inventory::listening().map_err(|error| {
        Failure::new(
            code::INTERNAL,
            format!("cannot read this host's sockets: {error}"),
        )
    })?;
    let measured = measured(context)?;
    let (mut sessions, ssh_ports) = guard::ssh();
    sessions.extend(guard::own_session());
    let interfaces = if args.interfaces.is_empty() {
        inventory::default_interfaces()
    } else {
        args.interfaces
    };
    let draft = Draft {
        interfaces,
        sockets,
        sessions,
        ssh_ports,
        measured,
    };
    let answer = Answer {
        schema: SCHEMA,
        text: inventory::draft(&draft),
        measured: draft.measured.is_some(),
        output: args.output,
    };
    if let Some(path) = &answer.output {
        write_new(path, &answer.text)?;
    }
    context.show(&answer, |answer| match &answer.output {
        None => answer.text.clone(),
        Some(path) => format!(
            "wrote {0}; read it, then: weir policy check {0}\n",
            path.display()
        ),
    })
}

/// What a controller has measured; where none runs, nothing, said aloud.
fn measured(context: &Context) -> Result<Option<ServicesAnswer>, Failure> {
    match context.client().get::<ServicesAnswer>("/v1/services") {
        Ok(mut answer) => {
            name_programs(&mut answer);
            Ok(Some(answer))
        }
        Err(error @ (ClientError::NoController { .. } | ClientError::NotPermitted { .. })) => {
            context.remark(&format!(
                "{error}: the draft is from this host's sockets alone, and its limits are what is usual"
            ));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let what = format!("cannot write {}: {error}", path.display());
        let failure = Failure::new(code::INTERNAL, what);
        if error.kind() == io::ErrorKind::AlreadyExists {
            failure.hint("name another file with --output: a draft never replaces a policy")
        } else {
            failure
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        write_new(&path, "one").unwrap();
        let failure = write_new(&path, "two").unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        assert!(format!("{failure:?}").contains("never replaces"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        assert!(write_new(&directory.path().join("no/where"), "x").is_err());
    }
}
