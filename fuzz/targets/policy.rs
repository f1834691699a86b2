//! Any text as a policy: an error has its place in the text, and what is accepted compiles or says what does not fit.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use weir::{
    compile::{compile, registry::Registry},
    kernel::ListContents,
    policy,
};

/// Longer texts say nothing that shorter ones do not.
const LONGEST: usize = 16 * 1024;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if text.len() > LONGEST {
        return;
    }
    let lines = text.lines().count().max(1) as u32;
    match policy::parse(text, Path::new("fuzz.toml")) {
        Err(errors) => {
            let shown = errors.to_string();
            assert!(!shown.is_empty());
            for error in errors.errors() {
                // An error at the end of the text is on the line after a last line break.
                assert!(
                    error.line <= lines + 1,
                    "{error} is behind the text's {lines} lines"
                );
                assert!(!error.message.is_empty());
            }
        }
        Ok(parsed) => {
            let again = policy::parse(text, Path::new("fuzz.toml")).expect("parsed a moment ago");
            assert_eq!(again.policy, parsed.policy);
            let contents: ListContents = parsed
                .policy
                .lists
                .iter()
                .map(|list| (list.name.clone(), list.prefixes.clone()))
                .collect();
            let mut registry = Registry::default();
            registry.reindex();
            if let Err(error) = compile(&parsed.policy, &contents, &[], &mut registry, 1) {
                assert!(!error.to_string().is_empty());
            }
            let _ = policy::diff::diff(&parsed.policy, &again.policy);
        }
    }
});
