//! The page for people, and the headers that keep it from being stored or abused.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderName,
    header::{CACHE_CONTROL, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};
use sha2::{Digest, Sha256};

pub(crate) const PAGE: &str = include_str!("page.html");

/// Headers of everything that is shown: it is not stored, its type is not guessed, and links from it carry no referrer.
pub(crate) const SAFE: [(HeaderName, &str); 3] =
    [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "no-referrer")];

/// Returns the page's content security policy: it runs its own script and no other, whatever the name of a model has in
/// it.
pub(crate) fn policy() -> String {
    let mut policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        .to_owned();
    for element in ["script", "style"] {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let inside = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map(|(inside, _)| inside);
        let digest = STANDARD.encode(Sha256::digest(inside.unwrap_or_default()));
        // Writing to a String cannot fail.
        let _ = write!(policy, "; {element}-src 'sha256-{digest}'");
    }
    policy
}
