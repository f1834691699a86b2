//! What the fuzz targets need and nobody else: the control API over a kernel half in memory. Built only with the feature
//! `fuzzing`.

use std::{fs, path::PathBuf};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, Uri},
};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::{Builder, Runtime};

use crate::{
    api::{self, peer::Peer},
    controller::{Handle, fake_engine},
};

/// The policy that it starts with.
const POLICY: &str = include_str!("../../fuzz/policies/everything.toml");

/// A controller without sockets, kernel or root.
#[derive(Debug)]
pub struct Api {
    runtime: Runtime,
    router: Router,
    folder: PathBuf,
}

impl Default for Api {
    fn default() -> Self {
        Self::new()
    }
}

impl Api {
    /// Starts one with a state directory of its own, among the temporary files: `cargo xtask fuzz` has these in memory,
    /// because every change is written down before it is answered, and takes them away.
    ///
    /// # Panics
    /// Where a controller cannot be started at all: then there is nothing to try.
    #[allow(clippy::expect_used, reason = "a fuzz target ends where it cannot begin")]
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("weir-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the state");
        let file = folder.join("policy.toml");
        fs::write(&file, POLICY).expect("a policy file");
        let engine = fake_engine(&folder.join("state"), &file).expect("a controller");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("an event loop");
        Self {
            runtime,
            router: api::router(Handle::new(engine)),
            folder,
        }
    }

    /// Asks as root; the status and the body of the answer. Nothing where no request can be made of it, or one that would
    /// wait for events.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        if path.starts_with("/v1/events") {
            return None;
        }
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let uri: Uri = path.parse().ok()?;
        let mut request = Request::builder()
            .method(&method)
            .uri(uri)
            .header("content-type", "application/json")
            .body(Body::from(body.to_vec()))
            .ok()?;
        request.extensions_mut().insert(Peer {
            uid: 0,
            pid: None,
            session: None,
        });
        let paths = TowerToHyperService::new(self.router.clone());
        self.runtime.block_on(async move {
            let answer = paths.call(request).await.ok()?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            // An answer to HEAD has no body, and nothing is to be read from it.
            (method != Method::HEAD).then(|| (status, body.to_vec()))
        })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
