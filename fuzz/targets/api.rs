//! Any request to the control socket's paths, over a kernel half in memory: every answer is JSON of the documented form.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weir::fuzzing::Api;

thread_local! {
    static API: RefCell<Api> = RefCell::new(Api::new());
}

// The first line is the method and the path; the rest is the body.
fuzz_target!(|input: &[u8]| {
    let (head, body) = match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[][..]),
    };
    let Some((method, path)) = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.split_once(' '))
    else {
        return;
    };
    API.with_borrow_mut(|api| {
        let Some((status, answer)) = api.ask(method, path, body) else {
            // No request can be made of it.
            return;
        };
        let value: Value = serde_json::from_slice(&answer).expect("every answer is JSON");
        if status >= 400 {
            let error = &value["error"];
            assert!(
                error["code"].is_string() && error["message"].is_string(),
                "{status}: {value}"
            );
            assert!(status < 500, "{status}: {value}");
        } else {
            assert_eq!(status, 200, "{value}");
        }
    });
});
