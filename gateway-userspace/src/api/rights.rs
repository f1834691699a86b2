//! Reading and changing are separate rights: who may connect to the control socket may read; changing takes root or the
//! controller's own user.

use axum::{
    Extension,
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{error::Failure, peer::Peer, types::code};

/// What a path takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Right {
    /// To connect.
    Read,
    /// To change: see [`Peer::may_change`].
    Change,
}

impl Right {
    /// What a method (lower case) takes. Whatever is not known to read only changes.
    pub(super) fn of(method: &str) -> Self {
        match method {
            "get" => Self::Read,
            _ => Self::Change,
        }
    }
}

/// Refuses callers who may not change anything, before their request's body is looked at.
pub(super) async fn only_who_may_change(
    peer: Option<Extension<Peer>>,
    request: Request,
    next: Next,
) -> Response {
    // Without credentials nobody is known to be entitled.
    if let Some(Extension(peer)) = peer
        && peer.may_change()
    {
        return next.run(request).await;
    }
    let who = peer.map(|Extension(peer)| peer);
    tracing::warn!(
        by = who.map_or_else(|| "nobody known".to_owned(), |peer| peer.to_string()),
        method = %request.method(), path = request.uri().path(), "a change was refused: it takes root or weir's own user"
    );
    let who = who.map_or_else(|| "the caller".to_owned(), |peer| format!("uid {}", peer.uid));
    Failure::new(
        code::FORBIDDEN,
        format!("{who} may read here, and not change anything"),
    )
    .hint("run the command as root (sudo), or as the user that the controller runs as")
    .into_response()
}
