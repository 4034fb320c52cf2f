//! The decisions about a request: Google's checks in Google's order, the trouble that strikes, and the planned
//! response.

mod authenticate;
mod exchange;
mod interactions;
pub(super) mod judge;
mod resources;
mod respond;
mod strike;
