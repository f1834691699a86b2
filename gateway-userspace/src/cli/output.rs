//! What a command ends with: an answer on standard output, or a failure on standard error.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use serde::Serialize;
use weir::{
    api::types::{ErrorAnswer, ErrorBody, SCHEMA, code},
    client::ClientError,
    controller::RunError,
    kernel::KernelError,
    policy::PolicyErrors,
};

/// Wrong usage, for programs (the controller has no such code).
pub(crate) const USAGE: &str = "usage";
/// No controller on the socket, for programs.
pub(crate) const NO_CONTROLLER: &str = "no_controller";
/// The caller may not do this, for programs.
pub(crate) const NOT_PERMITTED: &str = "not_permitted";

/// Why a command failed, and what to do next.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Failure {
    body: ErrorBody,
}

impl Failure {
    /// A failure with one of the codes of the API, or of this module.
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            body: ErrorBody {
                code: code.to_owned(),
                message: message.into(),
                ..ErrorBody::default()
            },
        }
    }

    /// Wrong usage: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// The same failure with what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// The same failure with one line for each single fault.
    pub(crate) fn details(mut self, details: Vec<String>) -> Self {
        self.body.details = details;
        self
    }

    /// Why `weir run` ended.
    pub(crate) fn of_run(error: &RunError) -> Self {
        match error {
            RunError::Policy(errors) => Self::of_policy(errors),
            error if error.exit_code() == 2 => Self::usage(error.to_string()),
            error => Self::new(code::INTERNAL, error.to_string()),
        }
    }

    /// What is wrong with a policy: a single error is the sentence, several are its details.
    pub(crate) fn of_policy(errors: &PolicyErrors) -> Self {
        match errors.count() {
            1 => Self::new(code::INVALID_POLICY, errors.to_string()),
            count => Self::new(code::INVALID_POLICY, format!("the policy has {count} errors"))
                .details(errors.to_string().lines().map(str::to_owned).collect()),
        }
    }

    /// The sentence that says what is wrong.
    pub(crate) fn message(&self) -> &str {
        &self.body.message
    }

    /// True when it is for want of a controller.
    pub(crate) fn is_no_controller(&self) -> bool {
        self.body.code == NO_CONTROLLER
    }

    /// 2 for wrong usage and invalid policies, 1 for everything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.body.code.as_str() {
            USAGE | code::INVALID_POLICY | code::INVALID_REQUEST => 2,
            _ => 1,
        }
    }

    /// What stands on standard error: one JSON object, or the sentence, its details and the way out.
    fn render(&self, json: bool) -> String {
        if json {
            let answer = ErrorAnswer {
                schema: SCHEMA,
                error: self.body.clone(),
            };
            // The body is strings only, which always serialise.
            return serde_json::to_string(&answer).unwrap_or_default() + "\n";
        }
        let mut text = format!("weir: {}\n", self.body.message);
        // A single fault is often the sentence itself.
        let told = |line: &&String| !self.body.message.contains(line.as_str());
        for line in self.body.details.iter().filter(told) {
            let _ = writeln!(text, "  {line}");
        }
        if let Some(hint) = &self.body.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
        text
    }

    /// Says it on standard error and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        // Nobody is left to tell when standard error is closed.
        let _ = io::stderr().write_all(self.render(json).as_bytes());
        ExitCode::from(self.exit_code())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NoController { .. } => Self::new(NO_CONTROLLER, message).hint(
                "start one (systemctl start weir, or weir run --policy FILE), or name its socket with --socket",
            ),
            ClientError::NotPermitted { .. } => {
                Self::new(NOT_PERMITTED, message).hint("run this as root, or as a member of the socket's group")
            }
            ClientError::Timeout { .. } => Self::new(code::TIMEOUT, message)
                .hint("look at the controller's log; enforcement goes on in the kernel meanwhile"),
            ClientError::Refused { body, .. } => Self { body },
            ClientError::Protocol { .. } => {
                Self::new(code::INTERNAL, message).hint("is --socket a weir controller's socket, of this version?")
            }
            ClientError::Io { .. } => Self::new(code::INTERNAL, message).hint("look at the controller's log"),
        }
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let code = match &error {
            KernelError::Locked { .. } | KernelError::Pending | KernelError::NotPending => code::CONFLICT,
            KernelError::NotPermitted { .. } => NOT_PERMITTED,
            KernelError::NoInterface { .. }
            | KernelError::Renamed { .. }
            | KernelError::NotPinned { .. }
            | KernelError::NotAttached { .. }
            | KernelError::NoService { .. } => code::NOT_FOUND,
            KernelError::TooLarge { .. } => code::TOO_LARGE,
            _ => code::INTERNAL,
        };
        Self::new(code, error.to_string())
    }
}

/// Writes to standard output. A reader that has gone away (`weir bans | head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            code::INTERNAL,
            format!("cannot write to standard output: {error}"),
        )
        .hint("what was asked for is done; only its report is lost")),
        _ => Ok(()),
    }
}

/// Writes one JSON object to standard output.
pub(crate) fn print_json<T: Serialize>(answer: &T) -> Result<(), Failure> {
    let mut text = serde_json::to_string(answer).map_err(|error| {
        Failure::new(
            code::INTERNAL,
            format!("cannot write the answer as JSON: {error}"),
        )
    })?;
    text.push('\n');
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_and_what_next() {
        let failure = Failure::new(code::NOT_FOUND, "there is no list cdn")
            .details(vec!["one".into(), "two".into()])
            .hint("weir list show names them");
        assert_eq!(
            failure.render(false),
            "weir: there is no list cdn\n  one\n  two\n  hint: weir list show names them\n"
        );
        assert_eq!(
            failure.render(true),
            "{\"schema\":1,\"error\":{\"code\":\"not_found\",\"message\":\"there is no list cdn\",\
             \"hint\":\"weir list show names them\",\"details\":[\"one\",\"two\"]}}\n"
        );
    }

    #[test]
    fn what_the_sentence_says_is_not_said_twice() {
        let failure =
            Failure::new(code::NO_EFFECT, "this would do nothing: a is b").details(vec!["a is b".into()]);
        assert_eq!(failure.render(false), "weir: this would do nothing: a is b\n");
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        assert_eq!(Failure::usage("no").exit_code(), 2);
        assert_eq!(Failure::new(code::INVALID_POLICY, "no").exit_code(), 2);
        assert_eq!(Failure::new(code::INVALID_REQUEST, "no").exit_code(), 2);
        for code in [
            code::NOT_FOUND,
            code::NO_EFFECT,
            code::REFUSED,
            code::INTERNAL,
            NO_CONTROLLER,
            NOT_PERMITTED,
        ] {
            assert_eq!(Failure::new(code, "no").exit_code(), 1, "{code}");
        }
    }

    #[test]
    fn no_controller_says_how_to_start_one() {
        let failure = Failure::from(ClientError::NoController {
            socket: "/run/weir/weir.sock".into(),
        });
        let text = failure.render(false);
        assert!(
            text.contains("/run/weir/weir.sock") && text.contains("weir run --policy"),
            "{text}"
        );
        assert_eq!(failure.exit_code(), 1);
    }
}
