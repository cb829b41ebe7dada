//! Lets in who presents the token, where one is set.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret as _, SecretString};

/// Answers 401 unless the request carries `Authorization: Bearer <token>`.
pub(super) async fn check(
    State(token): State<Option<Arc<SecretString>>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if may_enter(token.as_deref(), given) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, "a token is needed\n").into_response()
}

fn may_enter(token: Option<&SecretString>, given: Option<&[u8]>) -> bool {
    match (token, given) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(token), Some(given)) => same(token.expose_secret().as_bytes(), given),
    }
}

/// Takes as long for a nearly right token as for a wrong one, so that its bytes cannot be found one by one.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b));
    a.len() == b.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_lets_in_where_one_is_set() {
        let token = SecretString::from("long enough");

        assert!(may_enter(None, None));
        assert!(may_enter(Some(&token), Some(b"long enough")));
        for wrong in [
            None,
            Some(&b""[..]),
            Some(b"long"),
            Some(b"long enougx"),
            Some(b"long enough!"),
        ] {
            assert!(!may_enter(Some(&token), wrong), "{wrong:?}");
        }
    }
}
