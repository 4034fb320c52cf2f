//! The decisions about a request: Google's checks in Google's order, the trouble that strikes, and the planned
//! response.

mod authenticate;
mod exchange;
mod files;
pub(super) mod judge;
mod respond;
mod strike;
